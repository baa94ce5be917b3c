"""A decoder-only transformer over tokens: the paper's GPT, LlamaGen's, or a modern one.

    tokens [B,T] -> embeddings [B,T,D] -> blocks -> norm -> head -> logits [B,T,V]

    B batch    T places, condition tokens first    D width    V vocab_size or head_size
    L layers   S places a cache holds              G heads of keys    E D // heads

All of these are one module by its fields. The logits at place t are of token t + 1 and
depend on tokens 0..t only. Blocks lie in stacked parameters, axis 0 the layer, so that
a deep model compiles to no more than a shallow one. `extend` goes on where a cache has
got to, by any number of tokens, and gives the logits that the whole would have at once.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import lax

from taming_jax.models import positions
from taming_jax.models.attention import INITIAL, NORMS, Block
from taming_jax.models.embedding import embed
from taming_jax.models.fields import DTYPES, strict
from taming_jax.models.transformer_fields import check_fields, check_shuffle
from taming_jax.units import Tokens

F32 = jnp.float32

# Up to so many layers each gets code of its own: on CPUs a training step of four took
# a quarter longer as a loop, which copies weights and activations in and out.
UNROLLED = 8


@struct.dataclass
class Cache:
    """What `extend` keeps of the places that it has seen.

    keys, values: [L,B,G,S,E] in the model's dtype.
    tokens: int32 [B,S].
    index: int32 [], how many places are filled.
    """

    keys: jax.Array
    values: jax.Array
    tokens: Tokens
    index: jax.Array


@strict
class Transformer(nn.Module):
    """Next-token logits; the defaults are the paper's GPT (Esser et al. 2021).

    vocab_size: V, condition tokens included.
    length: the most places of an input, the paper's block_size.
    grid: height and width of the codes. Only `rotary`, `above` and `target_positions`
        need it.
    order: image token i is the code at place order[i], counted by rows; None: i.
    prefix: condition tokens before the image tokens.
    unmasked: the first so many places see each other, if they are given at once (the
        original's n_unmasked); more than `prefix` would show codes what they should
        guess.
    kv_heads, norm, mlp, mlp_width, bias, qk_norm, dropout, fused: of the blocks, see
        `Block`; dropout also of the embeddings.
    learned_positions: a vector per place, added to the embeddings.
    target_positions: a vector for where the token to come stands, added, too; by that
        tokens can be asked for in any order (RAR, Yu et al. 2024).
    rotary: queries and keys turn with row and column; condition tokens do not.
    rotary_base: ratio of the longest to the shortest wave length.
    rotary_grid: the grid whose angles stretch over this one; None: its own.
    vanishing_condition: queries and keys of condition tokens are zeros (LlamaGen, whose
        table of rotations has zeros there); needs `rotary`.
    tied_head: the head's weights are the embeddings.
    head_size: logits are of the first so many tokens only; None: of all.
    zero_head: the head begins as zeros (LlamaGen).
    condition_everywhere: at every place add the embeddings of the condition tokens
        that lie where the token to come stands: what a map says there, or one label.
    condition_grids: what lies on the picture of the condition: (first token, rows,
        columns), by rows. The default is one token for all of it.
    above: add an embedding of the code above the one to come, which is that of the
        place whose successor is asked for, one row up; small models learn sooner.
    remat: recompute blocks in the backward pass instead of keeping activations.
    dtype: of activations, products and caches, "float32" or "bfloat16"; parameters,
        softmax and logits are float32.
    gather: no recipe's; makes a block's parameters whole just before they are used,
        where they lie split over devices.
    """

    vocab_size: int
    length: int
    width: int
    layers: int
    heads: int
    kv_heads: int | None = None
    grid: Sequence[int] | None = None
    order: Sequence[int] | None = None
    prefix: int = 1
    unmasked: int = 0
    norm: str = "layer"
    mlp: str = "gelu"
    mlp_width: int | None = None
    bias: bool = True
    learned_positions: bool = True
    target_positions: bool = False
    rotary: bool = False
    rotary_base: float = 10_000.0
    rotary_grid: Sequence[int] | None = None
    vanishing_condition: bool = False
    qk_norm: bool = False
    tied_head: bool = False
    head_size: int | None = None
    zero_head: bool = False
    condition_everywhere: bool = False
    condition_grids: Sequence[Sequence[int]] = ((0, 1, 1),)
    above: bool = False
    dropout: float = 0.0
    fused: bool = True
    remat: bool = False
    dtype: str = "float32"
    gather: Callable | None = None

    def __post_init__(self):
        super().__post_init__()
        check_fields(self)

    def setup(self):
        table = (self.vocab_size, self.width)
        self.embedding = self.param("embedding", INITIAL, table)
        if self.above:
            self.embedding_above = self.param("embedding_above", INITIAL, table)
        if self.learned_positions:
            shape = (self.length, self.width)
            self.positions = self.param("positions", nn.initializers.zeros, shape)
        if self.target_positions:
            shape = (math.prod(self.grid), self.width)
            self.targets = self.param("target_positions", INITIAL, shape)
        if self.has_variable("params", "blocks"):  # stacked, or as `unstacked` has them
            self.blocks = self.get_variable("params", "blocks")
        else:
            self.blocks = self.param("blocks", self._init_blocks)
        self.norm_out = NORMS[self.norm](self.bias, DTYPES[self.dtype])
        self.drop = nn.Dropout(self.dropout)
        if not self.tied_head:
            self.head = nn.Dense(
                self.head_size or self.vocab_size,
                use_bias=False,
                kernel_init=nn.initializers.zeros if self.zero_head else INITIAL,
                dtype=DTYPES[self.dtype],
                dot_general=partial(lax.dot_general, preferred_element_type=F32),
            )

    def __call__(
        self, tokens: Tokens, *, embeddings=None, shuffle=None, train: bool = False
    ) -> jax.Array:
        """Tokens [B,T], T up to `length` -> logits float32 [B,T,V].

        Takes the rng "dropout" where there is dropout and `train` is set.

        embeddings: float [B,P,D], what stands before the tokens in place of condition
            tokens; the logits are then [B,P+T,V].
        shuffle: int32 [B,N] for all N image tokens, the last included: in which other
            order than its own the model gets them, see `positions.homes`.
        """
        history = tokens
        if embeddings is not None:
            before = jnp.zeros(embeddings.shape[:2], tokens.dtype)
            history = jnp.concatenate([before, tokens], axis=1)
        self._check_length(history.shape[1], "an input")
        check_shuffle(self, shuffle)
        places = jnp.arange(history.shape[1])
        x = self._embed(tokens, history, places, embeddings, shuffle, train=train)
        rotation, mask = positions.rotation(self, places, shuffle), None
        if self.unmasked:
            mask = self._mask(places, places)
        drops = train and self.dropout > 0
        key = self.make_rng("dropout") if drops else None
        block = self._block()

        def layer(x, params, i):
            params = self.gather(params) if self.gather else params
            rngs = {"dropout": jax.random.fold_in(key, i)} if drops else {}
            return block.apply(
                {"params": params}, x, rotation, mask, train=train, rngs=rngs
            )

        if self.remat:
            layer = jax.checkpoint(layer, prevent_cse=self.layers <= UNROLLED)
        return self._logits(self._over_layers(layer, x))

    def extend(
        self, tokens: Tokens, cache: Cache, *, embeddings=None
    ) -> tuple[jax.Array, Cache]:
        """Tokens [B,t] that follow those in the cache -> (logits [B,t,V], cache).

        There must be room for them: the index, not known yet, is not looked at here.
        `embeddings` [B,P,D] come before the tokens, as in a call.
        """
        following = tokens
        if embeddings is not None:
            before = jnp.zeros(embeddings.shape[:2], tokens.dtype)
            following = jnp.concatenate([before, tokens], axis=1)
        places = cache.index + jnp.arange(following.shape[1])
        history = lax.dynamic_update_slice(cache.tokens, following, (0, cache.index))
        x = self._embed(tokens, history, places, embeddings, train=False)
        rotation = positions.rotation(self, places)
        mask = self._mask(places, jnp.arange(history.shape[1]))
        block = self._block()

        def layer(carry, params, i):
            x, keys, values = carry
            apply = partial(block.apply, {"params": params}, x)
            q, k, v = apply(rotation, method="project")
            at = (i, 0, 0, cache.index, 0)
            keys = lax.dynamic_update_slice(keys, k[None], at)
            values = lax.dynamic_update_slice(values, v[None], at)
            k = lax.dynamic_index_in_dim(keys, i, keepdims=False)
            v = lax.dynamic_index_in_dim(values, i, keepdims=False)
            return apply(q, k, v, mask, train=False, method="combine"), keys, values

        x, keys, values = self._over_layers(layer, (x, cache.keys, cache.values))
        return self._logits(x), Cache(keys, values, history, places[-1] + 1)

    @nn.nowrap
    def empty_cache(self, batch: int, length: int) -> Cache:
        """A cache for `batch` sequences of up to `length` places."""
        self._check_length(length, "a cache")
        heads = self.kv_heads or self.heads
        shape = (self.layers, batch, heads, length, self.width // self.heads)
        keys, values = (jnp.zeros(shape, DTYPES[self.dtype]) for _ in range(2))
        tokens = jnp.zeros((batch, length), jnp.int32)
        return Cache(keys, values, tokens, jnp.zeros((), jnp.int32))

    @nn.nowrap
    def unstacked(self, params) -> dict:
        """Params with the blocks of a shallow model apart, for use inside a loop.

        A slice of stacked weights would be copied there for every token: three times
        slower for one picture at a time.
        """
        if self.layers > UNROLLED or isinstance(params["blocks"], tuple):
            return params
        stacked = params["blocks"]
        apart = [jax.tree.map(lambda a, i=i: a[i], stacked) for i in range(self.layers)]
        return {**params, "blocks": tuple(apart)}

    def _over_layers(self, layer, carry):
        """Apply `layer(carry, params, number) -> carry` for each block in turn."""
        if self.layers > UNROLLED:
            numbered = self.blocks, jnp.arange(self.layers)
            return lax.scan(lambda x, p: (layer(x, *p), None), carry, numbered)[0]
        for i, params in enumerate(self.unstacked({"blocks": self.blocks})["blocks"]):
            carry = layer(carry, params, i)
        return carry

    def _embed(
        self, tokens, history, places, embeddings=None, shuffle=None, *, train: bool
    ):
        """Tokens [B,t] at places [t] or [B,t] of the history [B,S] -> float [B,t,D]."""
        x = embed(self, tokens, history, places, embeddings, shuffle)
        return self.drop(x.astype(DTYPES[self.dtype]), deterministic=not train)

    def _logits(self, x):
        x = self.norm_out(x)
        if not self.tied_head:
            return self.head(x)
        table = self.embedding[: self.head_size].astype(x.dtype)
        return jnp.einsum("btd,vd->btv", x, table, preferred_element_type=F32)

    def _mask(self, places, seen):
        """Which of the places `seen` [S] each of `places` [t] may see: bool [t,S]."""
        mask = places[:, None] >= seen
        if self.unmasked:
            together = (places[:, None] < self.unmasked) & (seen < self.unmasked)
            mask |= together & (seen <= places[-1])
        return mask

    @nn.nowrap
    def _block(self) -> Block:
        names = {f.name for f in dataclasses.fields(Block)} - {"parent", "name"}
        fields = {name: getattr(self, name) for name in names}
        return Block(**fields | {"dtype": DTYPES[self.dtype]}, parent=None)

    @nn.nowrap
    def _check_length(self, places: int, what: str) -> None:
        if not 0 < places <= self.length:
            raise ValueError(
                f"{what} of {places} places; this transformer has from 1 to "
                f"length={self.length}"
            )

    @nn.nowrap
    def _init_blocks(self, key):
        x, mask = jnp.zeros((1, 1, self.width)), jnp.ones((1, 1), bool)
        init = partial(self._block().init, train=False)
        keys = jax.random.split(key, self.layers)
        return jax.vmap(lambda key: init(key, x, None, mask)["params"])(keys)
