"""Pictures larger than a prior was trained on: drawn by windows that slide over them.

    canvas [B,h,w] --cut windows--> tokens [P*B,n+m] --last place--> logits -> pick
        ^                                                                      |
        +------------------ codes of P places at once -------------------------+

With stride 1 each code is drawn from its window anew, exactly as the paper's script
does; what follows the place and the logits of all others are not computed. With a
larger stride, an approximation, a block of places shares one window, and its keys and
values are kept for as long as the block is drawn.

Steps (`windows.schedule`) run in compiled loops, one program for each of a few lengths
that what comes before a place is filled up to. Sample i draws the code at place p,
counted by rows, with fold_in(keys[i], p): neither the batch nor what is drawn at once
matters.

Legend: B samples, or 2B with those that ask for nothing; P units drawn at once; n
condition tokens, m codes of a window; S places that a cache holds; V vocabulary.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.compilation import jit
from taming_jax.models.passes import feed, next_logits
from taming_jax.models.transformer import Transformer
from taming_jax.sampling import Filters, checked, pick
from taming_jax.units import Codes, Tokens
from taming_jax.windows import Steps, Windows, lengths, rounded_up, runs, schedule

# Programs of one picture: so many at most, and one for so many codes of its windows.
# With 16 x 16 codes a seventh would save a hundredth of what a 64 x 64 picture costs.
_PROGRAMS, _CODES = 6, 40

Told = Callable[[jax.Array, jax.Array], Tokens]


def sample_windows(
    model: Transformer,
    params,
    keys: jax.Array,
    told: Told,
    *,
    windows: Windows,
    codes: int,
    untold: Told | None = None,
    given: Codes | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance=1.0,
    greedy: bool = False,
    at_once: int = 16,
) -> Codes:
    """Draws pictures of any size, int32 [B,h,w].

    Args:
      model: the transformer; its grid, if it knows it, is the window.
      params: its parameters.
      keys: [B], one for each sample.
      told: the row and column where a window begins, int32 [] -> condition tokens
        int32 [B,n]; a pytree, as `conditions.windows` has them.
      windows: the picture and its windows.
      codes: K.
      untold: the same of what asks for nothing; needed by guidance.
      given: int32 [B,h,w], codes to be forced in place, -1 where one is drawn.
      temperature: as in `sample_tokens`.
      top_k: likewise.
      top_p: likewise.
      guidance: a number, or float32 [h * w] of the places by rows.
      greedy: as in `sample_tokens`.
      at_once: the most windows of each sample in one pass; memory grows with it.

    Raises:
      ValueError: for a temperature, filter or guidance that cannot be, and a model
        whose image tokens see later ones.
    """
    filters = checked(temperature, top_k, top_p)
    if untold is None and np.any(np.asarray(guidance) != 1):
        raise ValueError(f"guidance={guidance} needs untold: give it, or 1")
    condition = jax.eval_shape(told, *2 * [jax.ShapeDtypeStruct((), np.int32)])
    if model.unmasked > condition.shape[1]:
        raise ValueError(
            f"unmasked={model.unmasked} with {condition.shape[1]} condition tokens: "
            "this transformer sees codes that are to come, which a window does not have"
        )
    height, width = windows.shape
    canvas = jnp.zeros((len(keys), height * width), jnp.int32)
    if given is not None:
        given = jnp.asarray(given).reshape(len(keys), -1)
        canvas = jnp.maximum(given, 0).astype(jnp.int32)
    guidance = jnp.asarray(guidance, jnp.float32)
    asked = Asked(
        keys,
        told,
        untold,
        given,
        filters,
        jnp.broadcast_to(guidance, (height * width,)),
    )
    drawn = None if given is None else np.any(given < 0, axis=0).reshape(height, width)
    steps = schedule(windows, drawn, at_once)
    draw = draw_exactly if windows.stride == 1 else draw_by_blocks
    canvas = draw(model, params, canvas, asked, steps, windows, codes, greedy)
    return canvas.reshape(len(keys), height, width)


class Asked(NamedTuple):
    """What is asked for: see `sample_windows`; the picture is flat here, [B,h*w]."""

    keys: jax.Array
    told: Any
    untold: Any
    given: jax.Array | None
    filters: Filters
    guidance: jax.Array


def draw_exactly(model, params, canvas, asked, steps: Steps, windows, codes, greedy):
    """Draws each code from a window of its own: canvas int32 [B,h*w] -> the same."""
    longest = lengths(windows, steps).max(1, initial=0)
    table = jnp.asarray(steps.rows), jnp.asarray(steps.blocks)
    for length, start, stop in runs(rounded_up(longest, _programs(windows))):
        program = exact_program(model, windows, codes, greedy, length)
        canvas = program(canvas, params, asked, table, start, stop)
    return canvas


def draw_by_blocks(model, params, canvas, asked, steps: Steps, windows, codes, greedy):
    """Draws the codes of each block from one window: as `draw_exactly`."""
    n = jax.eval_shape(asked.told, *2 * [jax.ShapeDtypeStruct((), np.int32)]).shape[1]
    rows = canvas.shape[0] * (1 if asked.untold is None else 2)
    cache = jax.eval_shape(
        lambda: model.empty_cache(
            windows.blocks[1] * rows, n + windows.window[0] * windows.window[1] - 1
        )
    )
    shape = cache.keys.shape  # [L,blocks*B,G,S,E]
    shape = shape[0], windows.blocks[1], rows, *shape[2:]
    caches = [jnp.zeros(shape, cache.keys.dtype) for _ in range(2)]
    state = canvas, *caches
    begun = _begun(steps)
    before = lengths(windows, begun).max(1, initial=-1)
    begins = before >= 0
    longest = np.maximum(before - _extension(windows), 0)
    longest[begins] = rounded_up(longest[begins], _programs(windows))
    table, news = jax.tree.map(jnp.asarray, (steps[:2], begun[:2]))
    go_on = blocks_program(model, windows, codes, greedy)
    # A stretch of steps is drawn at once that ends before one in which blocks begin.
    for _, start, stop in runs(np.cumsum(begins)):
        if begins[start]:
            begin = begin_program(model, windows, codes, greedy, int(longest[start]))
            state = begin(state, params, asked, news, start)
        state = go_on(state, params, asked, table, start, stop)
    return state[0]


@lru_cache(maxsize=64)
def exact_program(model, windows: Windows, codes: int, greedy: bool, length: int):
    """The compiled loop over steps whose places have up to `length` codes before."""
    sampler = _Sampler(model, windows, codes, greedy)
    return jit(partial(sampler.exact_steps, length), donate_argnums=0)


@lru_cache(maxsize=64)
def begin_program(model, windows: Windows, codes: int, greedy: bool, length: int):
    """What is compiled for blocks that begin with up to `length` codes of a window."""
    sampler = _Sampler(model, windows, codes, greedy)
    return jit(partial(sampler.begin, length), donate_argnums=0)


@lru_cache(maxsize=64)
def blocks_program(model, windows: Windows, codes: int, greedy: bool):
    """The compiled loop over steps of units, whose blocks have begun."""
    sampler = _Sampler(model, windows, codes, greedy)
    return jit(sampler.block_steps, donate_argnums=0)


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
            tokens = self.sequence(canvas, asked, at, length)  # [P,B,n+m]
            n = tokens.shape[2] - length
            last = jnp.repeat(n - 1 + at.before, tokens.shape[1])
            tokens = tokens.reshape(-1, tokens.shape[2])
            logits = self.model.apply(params, tokens, last, method=next_logits)
            token = self.draw(logits, at.place, asked)
            return _put(canvas, at.place, token, row >= 0)

        return jax.lax.fori_loop(start, stop, step, canvas)

    def block_steps(self, state, params, asked, table, start, stop):
        """The same of units; state is the canvas and the blocks' keys and values.

        These are [L,blocks across,B,G,S,E], in the places of a window.
        """
        params = {"params": self.model.unstacked(params)}

        def step(number, state):
            units = (part[number] for part in table)
            return self.draw_units(state, params, asked, *units)

        return jax.lax.fori_loop(start, stop, step, state)

    def begin(self, length, state, params, asked, table, number):
        """Keys and values of the condition and the first codes of new blocks' windows.

        All but the last codes before the unit, which it extends its window by itself.
        """
        params = {"params": self.model.unstacked(params)}
        row, block = (part[number] for part in table)
        canvas, *caches = state
        tokens = self.sequence(canvas, asked, self.stand(row, block), length)
        shape = tokens.shape  # [P,B,n+m]
        empty = self.model.empty_cache(shape[0] * shape[1], shape[2])
        tokens = tokens.reshape(-1, shape[2])
        _, cache = self.model.apply(params, tokens, empty, method="extend")
        slot = jnp.where(row >= 0, block, self.windows.blocks[1])
        for i, new in enumerate((cache.keys, cache.values)):
            new = new.reshape(new.shape[0], *shape[:2], *new.shape[2:])
            caches[i] = caches[i].at[:, slot, :, :, : shape[2]].set(new, mode="drop")
        return canvas, *caches

    def draw_units(self, state, params, asked, row, block):
        """One unit each of P blocks: its codes one after the other."""
        canvas, *caches = state
        stride, width = self.windows.stride, self.windows.shape[1]
        at, extension = self.stand(row, block), _extension(self.windows)
        slot = jnp.where(row >= 0, block, self.windows.blocks[1])
        local = [cache[:, slot] for cache in caches]  # [L,P,B,G,S,E]
        shape, held = local[0].shape, local[0].shape[-2]
        local = [cache.reshape(shape[0], -1, *shape[3:]) for cache in local]
        n = held + 1 - self.windows.window[0] * self.windows.window[1]
        end = (n + at.before)[:, None]  # how many tokens come before the unit

        def one(canvas, local, places, k):
            """Feeds what stands at places [P,t], then draws code k of the units."""
            history = self.sequence(canvas, asked, at, held - n)  # [P,B,S]
            tokens = jnp.take_along_axis(
                history, jnp.minimum(places, held - 1)[:, None], axis=2
            )
            fed = (tokens, jnp.broadcast_to(places[:, None], tokens.shape))
            fed = [part.reshape(-1, part.shape[2]) for part in fed]
            history = history.reshape(-1, held)
            logits, *local = self.model.apply(
                params, *fed, *local, history, method=feed
            )
            token = self.draw(logits, at.place + k, asked)
            inside = (row >= 0) & (block * stride + k < width)
            return _put(canvas, at.place + k, token, inside), local

        places = end - extension + jnp.arange(extension)
        # The condition is kept already; where no code follows, its last token is asked.
        places = jnp.where(places < jnp.minimum(n, end - 1), held, places)
        canvas, local = one(canvas, local, places, 0)
        canvas, local = jax.lax.fori_loop(
            1, stride, lambda k, now: one(*now, end + k - 1, k), (canvas, local)
        )
        back = (new.reshape(shape) for new in local)
        back = (
            cache.at[:, slot].set(new, mode="drop")
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
        """The condition and the first `length` codes of windows: int32 [P,B,n+m]."""
        rows, columns = np.divmod(np.arange(length), self.windows.window[1])
        width = self.windows.shape[1]
        places = (at.top[:, None] + rows) * width + at.left[:, None] + columns
        seen = canvas[:, places].swapaxes(0, 1)  # [P,B,m]
        both = [asked.told] if asked.untold is None else [asked.told, asked.untold]
        parts = [
            jnp.concatenate([jax.vmap(told)(at.top, at.left), seen], axis=2)
            for told in both
        ]
        return jnp.concatenate(parts, axis=1)

    def draw(self, logits, place, asked: Asked) -> Tokens:
        """Logits [P*B,V] at places [P] of the picture -> codes int32 [P,B]."""
        logits = logits.reshape(len(place), -1, logits.shape[-1])
        guided = asked.untold is not None
        parts = jnp.split(logits, 2, axis=1) if guided else [logits]
        flat = [part.reshape(-1, part.shape[-1]) for part in parts]
        batch = len(asked.keys)
        fold = jax.vmap(jax.random.fold_in, (0, None))
        keys = jax.vmap(fold, (None, 0))(asked.keys, place)  # [P,B]
        forced = None if asked.given is None else asked.given[:, place].T.reshape(-1)
        token = pick(
            flat[0],
            keys.reshape(-1),
            forced,
            asked.filters,
            unasked=flat[1] if guided else None,
            guidance=jnp.repeat(asked.guidance[place], batch),
            codes=self.codes,
            greedy=self.greedy,
        )
        return token.reshape(len(place), batch)


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
    """Codes [P,B] into the canvas [B,h*w] at places [P], where there is one."""
    place = jnp.where(there, place, canvas.shape[1])
    return canvas.at[:, place].set(token.T, mode="drop")


def _programs(windows: Windows) -> int:
    """How many lengths of what comes before a place are compiled, at most."""
    return min(_PROGRAMS, -(-windows.window[0] * windows.window[1] // _CODES))


def _extension(windows: Windows) -> int:
    """How many tokens a block's cache lacks before a unit: those since its last one.

    The last code that was drawn, and the rest of the window's row. Where the last block
    across is narrower than the others, that of the narrow one, for all.
    """
    narrowest = windows.shape[1] % windows.stride or windows.stride
    return windows.window[1] - narrowest + 1


def _begun(steps: Steps) -> Steps:
    """Of each step the units alone that begin a block, side by side."""
    most = max(1, int(steps.begins.sum(1).max(initial=0)))
    order = np.argsort(~steps.begins, axis=1, kind="stable")[:, :most]
    begins = np.take_along_axis(steps.begins, order, axis=1)
    parts = (np.take_along_axis(part, order, axis=1) for part in steps[:2])
    return Steps(*(np.where(begins, part, -1) for part in parts), begins)
