"""The demo's prior as people write it in PyTorch: eager, with a cache that grows."""

import jax
import numpy as np
import torch  # noqa: TID253 (this file is about it)
import torch.nn.functional as nnf  # noqa: TID253

from taming_jax.models.attention import EPSILON
from taming_jax.models.transformer import Transformer

FIELDS = {"norm": "rms", "mlp": "relu2", "bias": False, "qk_norm": True}
FIELDS |= {"rotary": True, "learned_positions": True, "above": True}
FIELDS |= {"condition_everywhere": True, "prefix": 1}


class TorchPrior:
    """A transformer with our weights.

    Raises:
      ValueError: for a model with other fields than FIELDS.
    """

    def __init__(self, model: Transformer, params, *, codes: int, top_p: float):
        for name, value in FIELDS.items():
            if getattr(model, name) != value:
                raise ValueError(f"the PyTorch twin is written for {name}={value!r}")
        self.heads, self.head_width = model.heads, model.width // model.heads
        self.columns, self.count = model.grid[1], model.grid[0] * model.grid[1]
        self.codes, self.top_p = codes, top_p
        params = jax.tree.map(lambda a: torch.from_numpy(np.array(a)), dict(params))
        self.weights = params
        self.layers = [
            jax.tree.map(lambda a, i=i: a[i], params["blocks"])
            for i in range(model.layers)
        ]
        tied = params["embedding"].T.contiguous()
        self.head = tied if model.tied_head else params["head"]["kernel"]
        quarter = self.head_width // 4
        self.frequencies = model.rotary_base ** (-torch.arange(quarter) / quarter)
        self.rotations = [self._rotation(place) for place in range(self.count)]

    @torch.inference_mode()
    def draw(
        self, prefix, *, unguided=None, guidance: float = 1.0, greedy: bool = False
    ) -> np.ndarray:
        """Condition tokens int32 [B,1], and those of none -> tokens [B,T]."""
        begins = prefix if unguided is None else np.concatenate([prefix, unguided])
        tokens = [torch.from_numpy(np.array(begins))[:, 0].long()]
        empty = torch.empty(len(begins), self.heads, 0, self.head_width)
        caches = [[empty, empty] for _ in self.layers]
        for place in range(self.count):
            x = self._embed(tokens, place)
            for layer, cache in zip(self.layers, caches, strict=True):
                x = self._block(x, layer, cache, self.rotations[place])
            logits = (norm(x, self.weights["norm_out"]) @ self.head)[:, : self.codes]
            if unguided is not None:
                asked, unasked = logits.chunk(2)
                logits = unasked + guidance * (asked - unasked)
            drawn = self._choose(logits, greedy)
            tokens.append(drawn if unguided is None else torch.cat([drawn, drawn]))
        return torch.stack(tokens[1:], 1)[: len(prefix)].numpy()

    def _embed(self, tokens, place):
        table = self.weights["embedding"]
        x = table[tokens[-1]] + self.weights["positions"][place] + table[tokens[0]]
        above = place - self.columns + 1
        if above >= 1:
            x = x + self.weights["embedding_above"][tokens[above]]
        return x

    def _block(self, x, layer, cache, rotation):
        h = norm(x, layer["norm1"])
        q, k, v = (
            (h @ layer[name]["kernel"]).view(-1, self.heads, 1, self.head_width)
            for name in ("query", "key", "value")
        )
        q = rotate(norm(q, layer["query_norm"]), *rotation)
        k = rotate(norm(k, layer["key_norm"]), *rotation)
        cache[:] = (torch.cat(pair, 2) for pair in zip(cache, (k, v), strict=True))
        seen = nnf.scaled_dot_product_attention(q, *cache).flatten(1)
        x = x + seen @ layer["out"]["kernel"]
        h = norm(x, layer["norm2"]) @ layer["up"]["kernel"]
        return x + nnf.relu(h).square() @ layer["down"]["kernel"]

    def _rotation(self, place):
        row, column = divmod(max(place - 1, 0), self.columns)
        angles = torch.cat([row * self.frequencies, column * self.frequencies])
        sin = angles.sin()
        return angles.cos().repeat(2), torch.cat([-sin, sin])

    def _choose(self, logits, greedy):
        if greedy:
            return logits.argmax(-1)
        ordered, order = logits.sort(-1, descending=True)
        likely = ordered.softmax(-1)
        removed = likely.cumsum(-1) - likely > self.top_p
        removed = removed.scatter(1, order, removed)
        likely = logits.masked_fill(removed, -torch.inf).softmax(-1)
        return torch.multinomial(likely, 1)[:, 0]


def norm(x, weights):
    """RMSNorm over the last axis."""
    return nnf.rms_norm(x, (x.shape[-1],), weights["scale"], EPSILON)


def rotate(x, cos, sin):
    """Rotary positions, as ours."""
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin
