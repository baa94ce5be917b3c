"""The one sampler: from condition tokens to image tokens, one place at a time.

    prefix [B,n] -> prefill -> logits -> guide -> filter -> draw -> token -+
                                 ^                                         |
                                 +--------------- extend <----------------+

One compiled loop over places with the cache in its carry. Keys, temperature, filters
and guidance are arguments of the compiled program: it is compiled once per model, shape
and kind of filter.

Legend: B samples, n condition tokens, T image tokens, V vocabulary, K codes, which are
the tokens 0..K-1 and the only ones that can be drawn.
"""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.compilation import jit
from taming_jax.models.transformer import Transformer
from taming_jax.units import Tokens


def sample_tokens(
    model: Transformer,
    params,
    keys: jax.Array,
    prefix: Tokens,
    *,
    count: int,
    codes: int,
    unguided_prefix: Tokens | None = None,
    given: Tokens | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance=1.0,
    greedy: bool = False,
) -> Tokens:
    """Draws `count` tokens after each prefix, int32 [B,T].

    Args:
      model: the transformer.
      params: its parameters.
      keys: [B], one for each sample; place t draws with fold_in(key, t).
      prefix: int32 [B,n], condition tokens.
      count: T.
      codes: K.
      unguided_prefix: int32 [B,n], what asks for nothing; needed by guidance.
      given: int32 [B,T], tokens to be forced in place, -1 where one is drawn.
      temperature: logits are divided by it; above 0.
      top_k: only the k likeliest codes, and those equal to the last of them.
      top_p: only the likeliest codes that together reach this probability, in (0, 1].
      guidance: g in unguided + g (guided - unguided) of the logits (Ho and Salimans
        2022), a number or float32 [T]; without `unguided_prefix` it must be 1.
      greedy: take the likeliest code; keys, temperature and filters do not matter.

    Raises:
      ValueError: for a temperature, filter or guidance that cannot be.
    """
    _check(temperature, top_k, top_p)
    if unguided_prefix is None and np.any(np.asarray(guidance) != 1):
        raise ValueError(f"guidance={guidance} needs unguided_prefix: give it, or 1")
    return _compiled(model, count, codes, greedy)(
        params,
        keys,
        jnp.asarray(prefix),
        unguided_prefix,
        given,
        temperature,
        top_k,
        top_p,
        jnp.broadcast_to(jnp.asarray(guidance, jnp.float32), (count,)),
    )


def filter_logits(logits: jax.Array, *, top_k=None, top_p=None) -> jax.Array:
    """Sets what may not be drawn to -inf; logits [..., V].

    top_k first: the k largest stay, and all that equal the last of them. Of what is
    left top_p keeps the largest, up to and with the first that brings their probability
    over the threshold (Holtzman et al. 2020).
    """
    if top_k is None and top_p is None:
        return logits
    order = jnp.argsort(logits, axis=-1, descending=True)
    ordered = jnp.take_along_axis(logits, order, axis=-1)
    stay = jnp.ones_like(ordered, bool)
    if top_k is not None:
        last = jnp.minimum(top_k, logits.shape[-1]) - 1
        stay = ordered >= jnp.take(ordered, last, axis=-1)[..., None]
    if top_p is not None:
        likely = jax.nn.softmax(jnp.where(stay, ordered, -jnp.inf), axis=-1)
        before = jnp.cumsum(likely, axis=-1) - likely
        stay &= (before <= top_p) | (top_p >= 1)  # 1 removes nothing by rounding
    stay = jnp.put_along_axis(jnp.zeros_like(stay), order, stay, -1, inplace=False)
    return jnp.where(stay, logits, -jnp.inf)


def _check(temperature, top_k, top_p) -> None:
    if not temperature > 0:
        raise ValueError(
            f"temperature={temperature}: it must be above 0; greedy=True takes the "
            "likeliest code"
        )
    if top_k is not None and top_k < 1:
        raise ValueError(
            f"top_k={top_k}: at least one code must stay; None: all of them"
        )
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}: a probability in (0, 1]; None: no filter")


def _sample(
    model, count, codes, greedy,
    params, keys, prefix, unguided_prefix, given, temperature, top_k, top_p, guidance,
):  # fmt: skip
    params = {"params": model.unstacked(params)}
    guided = unguided_prefix is not None

    def pick(logits, place):
        """Logits [B or 2B,V] of a place -> its tokens [B]."""
        logits = logits[:, :codes]
        if guided:
            asked, unasked = jnp.split(logits, 2)
            logits = unasked + guidance[place] * (asked - unasked)
        if greedy:
            token = jnp.argmax(logits, axis=-1)
        else:
            logits = filter_logits(logits / temperature, top_k=top_k, top_p=top_p)
            place_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, place)
            token = jax.vmap(jax.random.categorical)(place_keys, logits)
        token = token.astype(jnp.int32)
        if given is None:
            return token
        return jnp.where(given[:, place] < 0, token, given[:, place])

    def extend(tokens, cache):
        if guided and len(tokens) < len(cache.tokens):
            tokens = jnp.concatenate([tokens, tokens])
        logits, cache = model.apply(params, tokens, cache, method="extend")
        return logits[:, -1], cache

    def go_on(carry, place):
        token, cache = carry
        logits, cache = extend(token[:, None], cache)
        token = pick(logits, place)
        return (token, cache), token

    if guided:
        prefix = jnp.concatenate([prefix, jnp.asarray(unguided_prefix)])
    cache = model.empty_cache(len(prefix), prefix.shape[1] + count - 1)
    logits, cache = extend(prefix, cache)
    first = pick(logits, 0)
    _, rest = jax.lax.scan(go_on, (first, cache), jnp.arange(1, count))
    return jnp.concatenate([first[:, None], rest.T], axis=1)


@lru_cache(maxsize=32)
def _compiled(model, count, codes, greedy):
    return jit(partial(_sample, model, count, codes, greedy))
