"""A trained prior for people: `load_prior(path)` draws pictures of what is asked for.

    prior = load_prior("runs/shapes")
    images = prior.generate(key, condition)   # labels int32 [B] -> [B,H,W,C] in [-1,1]
    codes = prior.sample(key, condition)      # -> int32 [B,h,w]
    logits = prior.logits(codes, condition)   # -> float32 [B,h*w,V]

Compiled once per shape. Sample i of a key is drawn with `fold_in(key, i)`, whatever the
batch is; what goes in is checked here, before anything is compiled.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax import stored
from taming_jax.compilation import jit
from taming_jax.conditions import Vocabulary, image_tokens
from taming_jax.models.transformer import Transformer
from taming_jax.pretrained import requests
from taming_jax.pretrained.vqgan import PretrainedVQGAN, load_vqgan
from taming_jax.sampling import sample_tokens
from taming_jax.training import mesh as meshes
from taming_jax.training.prior import make_transformer
from taming_jax.training.recipe import PriorRecipe
from taming_jax.units import Codes, Images, Labels

# How guidance grows from 1 to its value, by the share of the sequence that is drawn.
SCHEDULES = {
    "constant": np.ones_like,
    "linear": lambda done: done,
    "cosine": lambda done: (1.0 - np.cos(np.pi * done)) / 2.0,
}


def load_prior(path, dtype=None, mesh=None, *, best: bool = False) -> "PretrainedPrior":
    """Loads a prior's averaged (EMA) weights, and its tokenizer with it.

    Args:
      path: a run's directory W, its W/prior, an exported model, or a bundled name.
      dtype: of activations and weights, e.g. "bfloat16"; None: as it was trained.
      mesh: a `jax.sharding.Mesh` with axes data, fsdp and tensor; None: one device.
      best: the checkpoint of the lowest validation loss instead of the newest.

    Raises:
      ValueError: if there is no trained prior, if its tokenizer is gone or was trained
        again since, or if the mesh's `tensor` does not divide its heads.
    """
    model = stored.read(path, "prior", best=best)
    recipe = PriorRecipe.from_config(model.config["prior"])
    facts = model.record["facts"]
    settings = dict(recipe.model)
    if dtype is not None:
        settings["dtype"] = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
    vocabulary = Vocabulary(
        facts["codes"], len(facts["class_names"]), recipe.shared_vocabulary
    )
    module = make_transformer(settings, vocabulary, tuple(facts["grid"]))
    if mesh is not None:
        meshes.check_heads(module.heads, mesh)
    vqgan = load_vqgan(
        recipe.tokenizer or model.directory.parent, dtype, mesh, stage="vqgan"
    )
    _check_tokenizer(model.directory, facts["tokenizer"]["fingerprint"], vqgan)
    params = model.variables["params"]
    if dtype is not None:
        params = jax.tree.map(lambda array: array.astype(settings["dtype"]), params)
    places = None if mesh is None else meshes.state_shardings(params, mesh)
    return PretrainedPrior(
        module,
        jax.device_put(params, places),
        vocabulary,
        vqgan=vqgan,
        recipe=recipe,
        class_names=facts["class_names"],
        config=model.config,
        directory=model.directory,
        step=model.step,
    )


class PretrainedPrior:
    """A prior with its weights and its tokenizer.

    Attributes:
      vqgan: the tokenizer, a `PretrainedVQGAN`.
      condition_vqgan: of a condition that is a picture; None: it has none.
      module, params: the Flax module and its parameters.
      vocabulary: which tokens are codes and which are labels.
      class_names: of labels 0, 1, ...; empty for an unconditional prior.
      grid: (h, w) of the codes that it was trained on.
      order: int32 [h * w]; token i is the code at place `order[i]`, counted by rows.
      config, directory, step: as in `PretrainedVQGAN`.
    """

    condition_vqgan = None

    def __init__(
        self,
        module: Transformer,
        params: Mapping[str, Any],
        vocabulary: Vocabulary,
        *,
        vqgan: PretrainedVQGAN,
        recipe: PriorRecipe,
        class_names: Sequence[str],
        config: Mapping[str, Any],
        directory,
        step: int,
    ):
        self.module, self.params, self.vocabulary = module, params, vocabulary
        self.vqgan, self.class_names = vqgan, tuple(class_names)
        self._recipe = recipe
        self.config, self.directory, self.step = config, directory, step
        self.grid = module.grid
        self.order = np.arange(module.grid[0] * module.grid[1], dtype=np.int32)

        def logits(params, prefix, codes):
            sequence = jnp.concatenate([prefix, image_tokens(codes)], axis=1)[:, :-1]
            return module.apply({"params": params}, sequence)[:, prefix.shape[1] - 1 :]

        self._logits = jit(logits)

    @property
    def default_settings(self) -> dict[str, Any]:
        """The recipe's way to draw, as keywords of `sample`."""
        return dataclasses.asdict(self._recipe.sampling)

    def logits(self, codes: Codes, condition: Labels | None = None) -> jax.Array:
        """Teacher-forced logits, float32 [B, h * w, V] in the order of tokens.

        Args:
          codes: int32 [B, h, w].
          condition: labels int32 [B], or None in an unconditional prior.

        Raises:
          ValueError: for codes or labels that this prior does not have.
        """
        codes = requests.grids(codes, self.grid, range(self.vocabulary.codes))
        condition = requests.labels(condition, self.class_names)
        prefix = self.vocabulary.condition_tokens(condition, len(codes))
        return self._logits(self.params, prefix, codes)

    def sample(
        self,
        key,
        condition: Labels | None = None,
        batch: int | None = None,
        shape: tuple[int, int] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
        guidance_schedule: str = "constant",
        given: Codes | None = None,
        greedy: bool = False,
    ) -> Codes:
        """Draws grids of codes, int32 [B, h, w].

        Args:
          key: one key, or keys [B]; of one key, sample i is drawn with fold_in(key, i).
          condition: labels int32 [B]; None in an unconditional prior.
          batch: B; needed only without a condition, keys or given codes.
          shape: (h, w); None: as trained.
          temperature: above 0.
          top_k: draw among the k likeliest codes (and those equal to the last of them).
          top_p: draw among the likeliest codes that together have this probability.
          guidance: g in uncond + g (cond - uncond) of the logits; 1: none.
          guidance_schedule: "constant"; "linear" or "cosine" grow from 1 to g over the
            sequence (cosine: slowly first).
          given: int32 [B, h, w], codes to be forced in place; -1 where one is drawn.
          greedy: always the likeliest code.

        Raises:
          ValueError: for what this prior cannot do; it says what it can.
        """
        condition = requests.labels(condition, self.class_names)
        requests.check_shape(shape, self.grid, self.vqgan.stride)
        guided = guidance != 1
        requests.check_guidance(
            guidance, guidance_schedule, SCHEDULES, self._recipe.label_dropout > 0
        )
        if given is not None:
            codes = range(-1, self.vocabulary.codes)
            given = image_tokens(requests.grids(given, self.grid, codes))
        keys, batch = requests.keys(key, batch, condition, given)
        count = len(self.order)
        tokens = sample_tokens(
            self.module,
            self.params,
            keys,
            self.vocabulary.condition_tokens(condition, batch),
            count=count,
            codes=self.vocabulary.codes,
            unguided_prefix=self.vocabulary.no_label(batch) if guided else None,
            given=given,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            guidance=_schedule(guidance, guidance_schedule, count) if guided else 1.0,
            greedy=greedy,
        )
        return tokens.reshape(batch, *self.grid)

    def generate(self, key, condition: Labels | None = None, **settings) -> Images:
        """`sample`, then decode: images [B, H, W, C] in [-1, 1]; keywords as there."""
        return self.vqgan.decode(self.sample(key, condition, **settings))


def _schedule(guidance: float, schedule: str, count: int) -> np.ndarray:
    """Guidance of each of `count` tokens, float32 [count]."""
    done = np.linspace(0.0, 1.0, count, dtype=np.float32)
    return 1.0 + (guidance - 1.0) * SCHEDULES[schedule](done)


def _check_tokenizer(directory, fingerprint: str, vqgan: PretrainedVQGAN) -> None:
    if vqgan.fingerprint != fingerprint:
        raise ValueError(
            f"{directory} was trained on codes of another tokenizer than the one in "
            f"{vqgan.directory} (fingerprint {fingerprint[:12]}, there "
            f"{vqgan.fingerprint[:12]}): was that trained again since? Bring the "
            "former back, or train the prior again in another --workdir"
        )
