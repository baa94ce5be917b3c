"""The one sampler: from condition tokens to image tokens, one place at a time.

    prefix [B,n] -> prefill -> logits -> guide -> filter -> draw -> token -+
                                 ^                                         |
                                 +--------------- extend <----------------+

Compiled loops over places with the cache in their carry; it grows from loop to loop.
Keys, temperature, filters and guidance are arguments of the compiled program: it is
compiled once per model, shape and kind of filter.

Legend: B samples, n condition tokens, T image tokens, V vocabulary, K codes, which are
the tokens 0..K-1 and the only ones that can be drawn.
"""

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.compilation import jit
from taming_jax.models.transformer import Cache, Transformer
from taming_jax.units import Tokens

HIGHEST_BIT = np.uint32(1 << 31)
_LOOPS, _PLACES = 4, 64  # loops over the places at most; places of each at least


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
    how = checked(temperature, top_k, top_p)
    if unguided_prefix is None and np.any(np.asarray(guidance) != 1):
        raise ValueError(f"guidance={guidance} needs unguided_prefix: give it, or 1")
    return _compiled(model, count, codes, greedy)(
        params,
        keys,
        jnp.asarray(prefix),
        unguided_prefix,
        given,
        how,
        jnp.broadcast_to(jnp.asarray(guidance, jnp.float32), (count,)),
    )


class Filters(NamedTuple):
    """What logits go through before a token is drawn; numbers that may be traced.

    None where there is none of the kind.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


def checked(temperature, top_k, top_p) -> Filters:
    """Filters; ValueError for a temperature or filter that cannot be."""
    if not _is_number(temperature) or not temperature > 0:
        raise ValueError(
            f"temperature={temperature!r}: it must be a number above 0; greedy=True "
            "takes the likeliest code"
        )
    if top_k is not None and not (_is_number(top_k, np.integer) and top_k >= 1):
        raise ValueError(
            f"top_k={top_k!r}: a whole number, for at least one code must stay; None: "
            "all of them"
        )
    if top_p is not None and not (_is_number(top_p) and 0 < top_p <= 1):
        raise ValueError(f"top_p={top_p!r}: a probability in (0, 1]; None: no filter")
    return Filters(temperature, top_k, top_p)


def _is_number(given, kind: type = np.number) -> bool:
    """Whether that is one number of such a kind."""
    return np.ndim(given) == 0 and np.issubdtype(np.asarray(given).dtype, kind)


def pick(
    logits: jax.Array,
    keys: jax.Array,
    forced: jax.Array | None,
    filters: Filters,
    *,
    unasked: jax.Array | None = None,
    guidance: jax.Array | None = None,
    codes: int,
    greedy: bool,
) -> jax.Array:
    """Logits float32 [B,V] of one place each -> its tokens int32 [B].

    keys: [B], each for this place alone.
    forced: int32 [B], what stands there already; -1 where it is drawn.
    unasked: float32 [B,V], logits of what asks for nothing; `guidance` [] or [B] is by
        how much one moves away from them.
    """
    logits = logits[:, :codes]
    if unasked is not None:
        unasked = unasked[:, :codes]
        guidance = jnp.reshape(guidance, (-1, 1))
        logits = unasked + guidance * (logits - unasked)
    if greedy:
        token = jnp.argmax(logits, axis=-1)
    else:
        logits = filter_logits(
            logits / filters.temperature, top_k=filters.top_k, top_p=filters.top_p
        )
        token = jax.vmap(jax.random.categorical)(keys, logits)
    token = token.astype(jnp.int32)
    return token if forced is None else jnp.where(forced < 0, token, forced)


def sample_keys(key: jax.Array, count: int) -> jax.Array:
    """Keys [count] of as many samples: fold_in(key, i), whatever the count is."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))


def filter_logits(logits: jax.Array, *, top_k=None, top_p=None) -> jax.Array:
    """Sets what may not be drawn to -inf; logits [..., V].

    top_k first: the k largest stay, and all that equal the last of them. Of what is
    left top_p keeps the largest, up to and with the first that brings their probability
    over the threshold (Holtzman et al. 2020).
    """
    if top_k is not None:
        most = jnp.minimum(top_k, logits.shape[-1])
        order = _order(logits)
        stay = order >= _cut(order, jnp.ones_like(logits), most - 0.5)
        logits = jnp.where(stay, logits, -jnp.inf)
    if top_p is not None:
        order, likely = _order(logits), jax.nn.softmax(logits, axis=-1)
        cut = _cut(order, likely, top_p)
        # Of those equal at the cut only as many stay as it takes, the first ones.
        above = jnp.sum(likely, axis=-1, keepdims=True, where=order > cut)
        equal = order == cut
        before = above + likely * (jnp.cumsum(equal, axis=-1) - 1)
        stay = (order > cut) | (equal & (before <= top_p)) | (top_p >= 1)
        logits = jnp.where(stay, logits, -jnp.inf)
    return logits


def _order(x: jax.Array) -> jax.Array:
    """float32 -> uint32 that compare as they do."""
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | HIGHEST_BIT)


def _cut(order: jax.Array, weights: jax.Array, amount) -> jax.Array:
    """The largest of `order` [..., V] from which on the weights are above `amount`.

    [..., 1]; 0 where all of them are not. Found bit by bit, by 32 sums: sorting takes
    CPUs thirty times longer, and more than the transformer takes for the logits.
    """

    def decide(i, cut):
        higher = cut | (HIGHEST_BIT >> i.astype(jnp.uint32))
        weight = jnp.sum(weights, axis=-1, keepdims=True, where=order >= higher)
        return jnp.where(weight > amount, higher, cut)

    nothing = jnp.zeros_like(order[..., :1])
    return jax.lax.fori_loop(0, 32, decide, nothing)


def _sample(
    model, count, codes, greedy,
    params, keys, prefix, unguided_prefix, given, filters, guidance,
):  # fmt: skip
    params = {"params": model.unstacked(params)}
    guided = unguided_prefix is not None

    def draw(logits, place):
        """Logits [B or 2B,V] of a place -> its tokens [B]."""
        asked, unasked = logits, None
        if guided:
            asked, unasked = logits[::2], logits[1::2]
        return pick(
            asked,
            jax.vmap(jax.random.fold_in, (0, None))(keys, place),
            None if given is None else given[:, place],
            filters,
            unasked=unasked,
            guidance=guidance[place],
            codes=codes,
            greedy=greedy,
        )

    def extend(tokens, cache):
        logits, cache = model.apply(params, tokens, cache, method="extend")
        return logits[:, -1], cache

    def go_on(carry, place):
        token, cache = carry
        tokens = jnp.repeat(token, 2) if guided else token
        logits, cache = extend(tokens[:, None], cache)
        token = draw(logits, place)
        return (token, cache), token

    if guided:
        # Side by side, so that both of a sample lie on one device.
        pairs = jnp.stack([prefix, jnp.asarray(unguided_prefix)], axis=1)
        prefix = pairs.reshape(-1, prefix.shape[1])
    begin, *ends = spans(count)
    before = prefix.shape[1] - 1  # the last token is never shown
    cache = model.empty_cache(len(prefix), before + ends[0])
    logits, cache = extend(prefix, cache)
    token = draw(logits, 0)
    drawn = [token[None]]
    for end in ends:
        carry = token, _enlarged(cache, before + end)
        (token, cache), some = jax.lax.scan(go_on, carry, jnp.arange(begin, end))
        drawn.append(some)
        begin = end
    return jnp.concatenate(drawn).T


def spans(count: int) -> list[int]:
    """Where the loops over the places 1..count-1 begin and end, [1, ..., count].

    Each attends to a cache of its own length, which it reads to the end at every place:
    four loops read five eighths of what one does. Each is compiled, too, so that short
    sequences have one.
    """
    loops = min(_LOOPS, max(1, count // _PLACES))
    return [1, *(count * i // loops for i in range(1, loops + 1))]


def _enlarged(cache: Cache, places: int) -> Cache:
    """The same with room for so many places."""
    more = places - cache.tokens.shape[1]
    wider = [(0, 0)] * 3 + [(0, more), (0, 0)]
    return cache.replace(
        keys=jnp.pad(cache.keys, wider),
        values=jnp.pad(cache.values, wider),
        tokens=jnp.pad(cache.tokens, [(0, 0), (0, more)]),
    )


@lru_cache(maxsize=32)
def _compiled(model, count, codes, greedy):
    return jit(partial(_sample, model, count, codes, greedy))
