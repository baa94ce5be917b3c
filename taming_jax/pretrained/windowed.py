"""Pictures of any size from a prior, by windows: what is asked for, checked and drawn.

    shape, window, window_stride, window_center --asked--> Windows, or None: no need
    condition of the whole picture --told--> what each window is told
    all of it --draw--> codes int32 [B,h,w] --decode, pictures--> by tiles, if large

The window is the prior's grid. Where the picture, or the window that is asked for, is
smaller, it is the top left part of that grid.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from taming_jax.conditions import windows as told_in
from taming_jax.models.positions import part_of_grid
from taming_jax.pretrained import requests, tiled, told_by
from taming_jax.training import mesh as meshes
from taming_jax.units import Codes, to_uint8
from taming_jax.windows import Windows, sample_windows

Sides = tuple[int, int]


def asked(prior, shape: Sides, window, stride: int, center) -> Windows | None:
    """The windows by which a prior draws such a picture; None where it needs none.

    Args:
      prior: a `PretrainedPrior`.
      shape: (h, w) of the picture.
      window: (H, W), or one number for both; None: the prior's grid.
      stride: by how many codes it moves.
      center: how many of its rows and columns come before its place, two numbers or
        one; None: half of it.

    Raises:
      ValueError: for windows that the prior does not have.
    """
    order = prior.module.order
    known = prior.grid if window is None else requests.sides("window", window)
    if not prior.any_grid and any(map(int.__gt__, known, prior.grid)):
        raise ValueError(
            f"window={known}: this prior has positions for {prior.grid} codes, and a "
            "window cannot be larger; leave it out"
        )
    seen = tuple(map(min, known, shape))
    _check_stride(stride, seen)
    center = _center(center, known)
    whole = shape == prior.grid or (prior.any_grid and _fits(prior, shape))
    if whole and (window is None or seen == shape):
        return None
    if order is not None:
        raise ValueError(
            f"shape={shape}: this prior reads {prior.grid} codes in another order than "
            "by rows, through which no window can slide; leave shape and window out"
        )
    if not _fits(prior, seen):
        requests.check_places(seen, prior.module.prefix, prior.module.length)
    if seen == shape:
        stride = max(shape)  # one window, one block: nothing is computed twice
    if center is not None:
        center = tuple(np.minimum(center, np.subtract(seen, 1)).tolist())
    return Windows(shape, seen, stride, center)


def told(prior, condition: Any, windows: Windows, *, as_tokens: bool):
    """What each window is told of a condition; None where nothing has to be said.

    Args:
      prior: a `PretrainedPrior`.
      condition: as `sample` takes it.
      windows: what `asked` has found.
      as_tokens: whether its condition is given as tokens.

    Raises:
      ValueError: for what the prior cannot be told, or not of this size.
    """
    if as_tokens:
        return _told_tokens(prior, condition, windows)
    known = prior.vocabulary.told.items()
    grids = [name for name, kind in known if kind.grid not in (None, (1, 1))]
    if windows.window != prior.grid and grids:
        raise ValueError(
            f"this prior is told {' and '.join(grids)} of {prior.grid} codes, and a "
            f"window of {windows.window} shows fewer: leave window out, and ask for "
            "no smaller picture"
        )
    return prior.vocabulary.over(condition, windows.shape, windows.window)


def draw(
    prior, keys, seen, windows: Windows, *, guided: bool, given, mesh, **settings
) -> Codes:
    """Codes int32 [B,h,w] by keys [B].

    Args:
      prior: a `PretrainedPrior`.
      keys: [B].
      seen: what `told` has found.
      windows: what `asked` has found.
      guided: whether logits are moved away from those of nothing.
      given: int32 [B,h,w], or None.
      mesh: over which samples are split; None: there is none.
      settings: keywords of `sample_windows`.
    """
    nothing = told_in.Same(prior.vocabulary.no_label(len(keys)))
    seen, untold = seen or nothing, nothing if guided else None
    keys, seen, untold, given = meshes.placed((keys, seen, untold, given), mesh)
    module, params = prior.module, prior.params
    if not prior.any_grid and windows.window != prior.grid:
        module, params = part_of_grid(module, params, windows.window)
    return sample_windows(
        module,
        params,
        keys,
        seen,
        windows=windows,
        codes=prior.vocabulary.codes,
        untold=untold,
        given=given,
        **settings,
    )


def decode(vqgan, codes: Codes):
    """Images of codes [B,h,w]; of large ones tile by tile."""
    tile = tiled.tile_for(vqgan.module, _size(vqgan, codes))
    return vqgan.decode(codes, tile=tile)


def pictures(vqgan, codes: Codes) -> np.ndarray:
    """The same as uint8 [B,H,W,C]; of large ones each band of rows as it comes."""
    size = _size(vqgan, codes)
    tile = tiled.tile_for(vqgan.module, size)
    if tile is None:
        return to_uint8(vqgan.decode(codes))
    found, done = None, 0
    for band in vqgan.decode_bands(codes, tile):
        if found is None:
            found = np.empty((*size, *band.shape[3:]), np.uint8)
        found[:, done : done + band.shape[1]] = to_uint8(band)
        done += band.shape[1]
    return found


def _size(vqgan, codes: Codes) -> tuple[int, int, int]:
    """B, H and W of their images."""
    batch, *grid = codes.shape
    return batch, *(side * vqgan.stride for side in grid)


def _told_tokens(prior, condition, windows: Windows):
    """Of a published prior whose condition is tokens: one, or a grid of codes."""
    many = prior.module.prefix
    side = math.isqrt(many)
    grid = told_in.larger(side, windows.shape, prior.grid)
    part = told_in.larger(side, windows.window, prior.grid)
    shape, allowed = windows.shape, told_by.codes_told(prior)

    def tokens_of(given):
        codes = told_by.codes_of_map(given, prior, grid, shape)
        return requests.tokens(codes, prior.told, allowed)

    if side**2 == many and told_by.is_map(condition, prior, grid, shape):
        return told_in.cut_from(
            np.asarray(condition),
            lambda maps: tokens_of(maps).reshape(-1, *grid),
            shape,
            windows.window,
            part,
        )
    tokens = tokens_of(condition)
    if np.shape(condition) == (len(tokens), *grid) and side**2 == many:
        tokens = jnp.asarray(tokens).reshape(-1, 1, 1, *grid)
        return told_in.Part(tokens, windows.window, part)
    if tokens.shape[1] == many == 1:
        return told_in.Same(jnp.asarray(tokens))
    raise ValueError(
        f"a picture of {shape} codes is told {prior.told} as codes int32 [B, "
        f"{grid[0]}, {grid[1]}] of all of it, out of which each window is cut; the "
        f"condition is {np.shape(condition)}"
    )


def _fits(prior, shape: Sides) -> bool:
    return prior.module.prefix + math.prod(shape) - 1 <= prior.module.length


def _check_stride(stride, seen: Sides) -> None:
    """Raises ValueError for a stride that such a window does not have."""
    whole = isinstance(stride, int | np.integer) and not isinstance(stride, bool)
    if not whole or not 1 <= stride <= min(seen):
        raise ValueError(
            f"window_stride={stride!r}: a window of {seen} codes moves by 1 to "
            f"{min(seen)}"
        )


def _center(given, window: Sides) -> Sides | None:
    """Rows and columns before the place; ValueError for what a window does not have."""
    if given is None:
        return None
    center = requests.sides("window_center", given, least=0)
    if any(map(int.__ge__, center, window)):
        raise ValueError(
            f"window_center={given}: so many rows and columns of a window come "
            f"before its place, from 0 to {window[0] - 1} and {window[1] - 1}"
        )
    return center
