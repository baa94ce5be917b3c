"""The compiled steps of a picture that is drawn by windows.

    canvas [B,h*w] --cut windows--> tokens [B*P,n+m] --a pass--> logits -> pick
        ^                                                                    |
        +---------------- codes of P places at once -------------------------+

Each program is a loop over steps (`places.schedule`), from one number to another, both
arguments: it is compiled once for all stretches of them. What the units of a step see
is cut out of the canvas when it is their turn. Samples come first in arrays, so that
devices that share them have nothing to tell one another.

Legend: B samples, or 2B: each, then itself asking for nothing; P units drawn at once; n
condition tokens, m codes of a window; S places that a cache holds; V vocabulary.
"""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.compilation import jit
from taming_jax.models.passes import feed, next_logits
from taming_jax.models.transformer import Transformer
from taming_jax.sampling import Filters, pick
from taming_jax.units import Tokens
from taming_jax.windows.places import Windows


class Asked(NamedTuple):
    """What is asked for: see `sample_windows`; the picture is flat here, [B,h*w]."""

    keys: jax.Array
    told: Any
    untold: Any
    given: jax.Array | None
    filters: Filters
    guidance: jax.Array


@lru_cache(maxsize=64)
def exact_program(model, windows: Windows, codes: int, greedy: bool, length: int):
    """The compiled loop over steps whose places have up to `length` codes before."""
    sampler = _Sampler(model, windows, codes, greedy)
    return jit(partial(sampler.exact_steps, length), donate_argnums=0)


@lru_cache(maxsize=64)
def blocks_program(
    model, windows: Windows, codes: int, greedy: bool, begin: tuple[int, ...]
):
    """The compiled loop over steps of units.

    begin: with how many codes of their windows blocks may begin; -1: there are none.
    """
    sampler = _Sampler(model, windows, codes, greedy)
    return jit(partial(sampler.block_steps, begin), donate_argnums=0)


def extension(windows: Windows) -> int:
    """How many tokens a block's cache lacks before a unit: those since its last one.

    The last code that was drawn, and the rest of the window's row. Where the last block
    across is narrower than the others, that of the narrow one, for all.
    """
    narrowest = windows.shape[1] % windows.stride or windows.stride
    return windows.window[1] - narrowest + 1


class _Sampler(NamedTuple):
    """What is known before compilation, and the loops that are compiled."""

    model: Transformer
    windows: Windows
    codes: int
    greedy: bool

    def exact_steps(self, length, canvas, params, asked, table, start, stop):
        """Steps from `start` on, before `stop`: canvas [B,h*w] -> the same."""
        params = {"params": self.model.unstacked(params)}

        def step(number, canvas):
            row, column = (part[number] for part in table)  # [P]
            at = self.stand(row, column)
            tokens = self.sequence(canvas, asked, at, length)  # [B,P,n+m]
            n = tokens.shape[2] - length
            last = jnp.tile(n - 1 + at.before, len(tokens))
            tokens = tokens.reshape(-1, tokens.shape[2])
            logits = self.model.apply(params, tokens, last, method=next_logits)
            token = self.draw(logits, at.place, asked)
            return _put(canvas, at.place, token, row >= 0)

        return jax.lax.fori_loop(start, stop, step, canvas)

    def block_steps(self, begin, state, params, asked, table, start, stop):
        """The same of units; state is the canvas and the blocks' keys and values.

        These are [L,B,blocks across,G,S,E], in the places of a window. The table has
        the units of each step, its new blocks, and which of the lengths in `begin`
        these have.
        """
        params = {"params": self.model.unstacked(params)}
        units, news, which = table

        def step(number, state):
            canvas, *caches = state
            row, block = (part[number] for part in news)
            ways = [partial(self.begin, length, max(begin), params) for length in begin]
            found = jax.lax.switch(which[number], ways, canvas, asked, row, block)
            slot = jnp.where(row >= 0, block, self.windows.blocks[1])
            caches = (
                cache.at[:, :, slot, :, : new.shape[-2]].set(new, mode="drop")
                for cache, new in zip(caches, found, strict=True)
            )
            now = (part[number] for part in units)
            return self.draw_units((canvas, *caches), params, asked, *now)

        return jax.lax.fori_loop(start, stop, step, state)

    def begin(self, length, longest, params, canvas, asked, row, block):
        """Keys and values of the condition and the first codes of new blocks' windows.

        All but the last codes before the unit, which it extends its window by itself:
        [L,B,P,G,n+m,E], with room for the longest.
        """
        tokens = self.sequence(canvas, asked, self.stand(row, block), max(longest, 0))
        shape = tokens.shape  # [B,P,n+m]
        cache = self.model.empty_cache(shape[0] * shape[1], shape[2])
        if length >= 0:
            tokens = tokens[:, :, : shape[2] - longest + length]
            tokens = tokens.reshape(-1, tokens.shape[2])
            _, cache = self.model.apply(params, tokens, cache, method="extend")
        return tuple(
            kept.reshape(kept.shape[0], *shape[:2], *kept.shape[2:])
            for kept in (cache.keys, cache.values)
        )

    def draw_units(self, state, params, asked, row, block):
        """One unit each of P blocks: its codes one after the other."""
        canvas, *caches = state
        stride, width = self.windows.stride, self.windows.shape[1]
        at, fed = self.stand(row, block), extension(self.windows)
        slot = jnp.where(row >= 0, block, self.windows.blocks[1])
        local = [cache[:, :, slot] for cache in caches]  # [L,B,P,G,S,E]
        shape, held = local[0].shape, local[0].shape[-2]
        local = [cache.reshape(shape[0], -1, *shape[3:]) for cache in local]
        n = held + 1 - self.windows.window[0] * self.windows.window[1]
        end = (n + at.before)[:, None]  # how many tokens come before the unit

        def one(canvas, local, places, k):
            """Feeds what stands at places [P,t], then draws code k of the units."""
            history = self.sequence(canvas, asked, at, held - n)  # [B,P,S]
            tokens = jnp.take_along_axis(
                history, jnp.minimum(places, held - 1)[None], axis=2
            )
            now = (tokens, jnp.broadcast_to(places, tokens.shape))
            now = [part.reshape(-1, part.shape[2]) for part in now]
            history = history.reshape(-1, held)
            logits, *local = self.model.apply(
                params, *now, *local, history, method=feed
            )
            token = self.draw(logits, at.place + k, asked)
            inside = (row >= 0) & (block * stride + k < width)
            return _put(canvas, at.place + k, token, inside), local

        places = end - fed + jnp.arange(fed)
        # The condition is kept already; where no code follows, its last token is asked.
        places = jnp.where(places < jnp.minimum(n, end - 1), held, places)
        canvas, local = one(canvas, local, places, 0)
        canvas, local = jax.lax.fori_loop(
            1, stride, lambda k, now: one(*now, end + k - 1, k), (canvas, local)
        )
        back = (new.reshape(shape) for new in local)
        back = (
            cache.at[:, :, slot].set(new, mode="drop")
            for cache, new in zip(caches, back, strict=True)
        )
        return canvas, *back

    def stand(self, row, block) -> "_Stand":
        """Where units are, by their rows and blocks [P]; of none, anywhere."""
        stride, (_, width) = self.windows.stride, self.windows.shape
        row, block = jnp.maximum(row, 0), jnp.maximum(block, 0)
        tops, lefts = (jnp.asarray(side) for side in self.windows.origins)
        top, left = tops[row // stride], lefts[block]
        before = (row - top) * self.windows.window[1] + block * stride - left
        return _Stand(top, left, row * width + block * stride, before)

    def sequence(self, canvas, asked: Asked, at: "_Stand", length: int) -> Tokens:
        """The condition and the first `length` codes of windows: int32 [B,P,n+m]."""
        rows, columns = np.divmod(np.arange(length), self.windows.window[1])
        width = self.windows.shape[1]
        places = (at.top[:, None] + rows) * width + at.left[:, None] + columns
        seen = canvas[:, places]  # [B,P,m]
        both = [asked.told] if asked.untold is None else [asked.told, asked.untold]
        parts = [
            jnp.concatenate([jax.vmap(told, out_axes=1)(at.top, at.left), seen], axis=2)
            for told in both
        ]
        # Side by side, as in `sampling`.
        return jnp.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:])

    def draw(self, logits, place, asked: Asked) -> Tokens:
        """Logits [B*P,V] at places [P] of the picture -> codes int32 [B,P]."""
        batch, unasked = len(asked.keys), None
        if asked.untold is not None:
            both = logits.reshape(batch, 2, len(place), -1)
            logits, unasked = (
                both[:, which].reshape(-1, both.shape[-1]) for which in (0, 1)
            )
        fold = jax.vmap(jax.random.fold_in, (None, 0))
        keys = jax.vmap(fold, (0, None))(asked.keys, place)  # [B,P]
        forced = None if asked.given is None else asked.given[:, place].reshape(-1)
        token = pick(
            logits,
            keys.reshape(-1),
            forced,
            asked.filters,
            unasked=unasked,
            guidance=jnp.tile(asked.guidance[place], batch),
            codes=self.codes,
            greedy=self.greedy,
        )
        return token.reshape(batch, len(place))


class _Stand(NamedTuple):
    """Where P units are: int32 [P] each.

    top, left: where their windows begin.
    place: of their first codes, counted by the rows of the picture.
    before: how many codes of the window come before it.
    """

    top: jax.Array
    left: jax.Array
    place: jax.Array
    before: jax.Array


def _put(canvas, place, token, there):
    """Codes [B,P] into the canvas [B,h*w] at places [P], where there is one."""
    place = jnp.where(there, place, canvas.shape[1])
    return canvas.at[:, place].set(token, mode="drop")
