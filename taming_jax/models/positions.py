"""Where tokens stand on the grid of codes, in whatever order they are read.

    place p of a sequence    prefix + i for image token i; condition tokens before it
    order [N]                image token i is the code at place order[i], by rows
    home of a token          the place where it stands in the model's own order; only
                             in a sequence that is shuffled another one than its own

Also how positions that were learned on one grid become those of another.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.models.attention import Rotation, rotary_angles, rotation_by

Grid = tuple[int, int]


def homes(places, prefix: int, shuffle=None) -> jax.Array:
    """Homes of places [t]: int32 [t], or [B,t] if they are shuffled.

    shuffle: int32 [B,N]; image token i of the sequence is number shuffle[i] of the
        model's own order.
    """
    if shuffle is None:
        return places
    image = jnp.clip(places - prefix, 0, shuffle.shape[1] - 1)
    return jnp.where(places < prefix, places, prefix + shuffle[:, image])


def targets(places, prefix: int, shuffle=None) -> jax.Array:
    """Which image token, in the model's own order, is to come after places: [t], [B,t].

    Below 0 where that is another condition token; N or more where there is none.
    """
    return homes(places + 1, prefix, shuffle) - prefix


def told(model, target) -> list[jax.Array]:
    """Which condition token lies where the image token `target` [t] or [B,t] stands.

    Numbers of condition tokens, int32 as `target`, for each of `condition_grids`. A
    coarser grid stretches over that of the codes. Where there is no such image token
    they mean nothing.
    """
    height, width = model.grid or (model.length, 1)  # any, for a grid of one token
    place = jnp.clip(target, 0, height * width - 1)
    if model.order is not None:
        place = jnp.asarray(model.order)[place]
    row, column = jnp.divmod(place, width)
    return [
        first + row * rows // height * columns + column * columns // width
        for first, rows, columns in model.condition_grids
    ]


def above(grid: Grid, prefix: int, order: Sequence[int] | None) -> np.ndarray:
    """For each place, that of the code above the one to come, int32 [prefix + N].

    -1 where there is none: no row above, not read yet, or no code to come.
    """
    count, width = grid[0] * grid[1], grid[1]
    order = np.arange(count) if order is None else np.asarray(order)
    number = np.argsort(order)  # of the code at each place of the grid
    over = np.where(order >= width, number[np.maximum(order - width, 0)], count)
    over = np.where(over < np.arange(count), prefix + over, -1)
    found = np.full(prefix + count, -1, np.int32)
    found[prefix - 1 : -1] = over
    return found


def rotation(model, places, shuffle=None) -> Rotation | None:
    """Of queries and keys at places [t] of a transformer; conditions do not turn."""
    if not model.rotary:
        return None
    image = homes(places, model.prefix, shuffle) - model.prefix
    place = image
    if model.order is not None:
        place = jnp.asarray(model.order)[jnp.maximum(image, 0)]
    place = jnp.where(image < 0, 0, place)  # angles of 0, wherever the order begins
    at = jnp.divmod(place, model.grid[1])  # rows and columns, [t] or [B,t]
    if model.rotary_grid is not None:
        sides = zip(at, model.rotary_grid, model.grid, strict=True)
        at = [x * (known / here) for x, known, here in sides]
    width = model.width // model.heads
    angles = rotary_angles(*at, head_width=width, base=model.rotary_base)
    return rotation_by(angles, image >= 0 if model.vanishing_condition else True)


def at_grid(model, params: Mapping[str, Any], grid: Grid, order=None) -> tuple:
    """A transformer and its parameters for another grid: (model, params).

    Positions between those that were learned are interpolated between them: vectors
    bilinearly (Dosovitskiy et al. 2020), rotary angles by turning less from row to row
    (Chen et al. 2023).

    Args:
      model: the `Transformer`, which knows the grid that it was trained on.
      params: its parameters.
      grid: of the codes to come.
      order: of their tokens, int32 [N], where the model's is another than by rows.

    Raises:
      ValueError: for a model that does not know its grid.
    """
    if model.grid is None:
        raise ValueError(
            "this transformer does not know the grid that it was trained on: give "
            "grid=(height, width) of that"
        )
    old, new = tuple(model.grid), tuple(grid)
    larger = model.clone(
        grid=new,
        length=_length(model, new),
        order=None if order is None else tuple(int(i) for i in order),
        rotary_grid=tuple(model.rotary_grid or old) if model.rotary else None,
    )
    params = dict(params)
    if model.learned_positions:
        condition, image = np.split(np.asarray(params["positions"]), [model.prefix])
        image = image[: old[0] * old[1]]
        image = resized(image, old, new, model.order, larger.order)
        params["positions"] = jnp.concatenate([condition, image])[: larger.length]
    if model.target_positions:
        table = np.asarray(params["target_positions"])
        params["target_positions"] = resized(table, old, new, model.order, larger.order)
    return larger, params


def part_of_grid(model, params: Mapping[str, Any], part: Grid) -> tuple:
    """A transformer and its parameters for the top left part of its grid, by rows.

    What it knows of the places that are left is as it was. Its order is by rows.
    """
    old = tuple(model.grid)
    rows, columns = np.divmod(np.arange(part[0] * part[1]), part[1])
    places = rows * old[1] + columns
    smaller = model.clone(grid=part, length=_length(model, part))
    if model.rotary_grid is not None:  # angles go on as they did
        sides = zip(model.rotary_grid, part, old, strict=True)
        smaller = smaller.clone(rotary_grid=tuple(k * p / o for k, p, o in sides))
    params = dict(params)
    if model.learned_positions:
        kept = np.concatenate([np.arange(model.prefix), model.prefix + places])
        params["positions"] = params["positions"][kept[: smaller.length]]
    if model.target_positions:
        params["target_positions"] = params["target_positions"][places]
    return smaller, params


def _length(model, grid: Grid) -> int:
    """How many places there are with another grid; none beyond it.

    As many condition tokens; the last token, which may be no input, if it was there.
    """
    height, width = model.grid
    known = min(model.length, model.prefix + height * width)
    return known - height * width + grid[0] * grid[1]


def resized(table, old: Grid, new: Grid, old_order=None, new_order=None) -> jax.Array:
    """Vectors of the tokens of one grid -> of another's, [N,D] -> [M,D].

    Of the last token, which is asked for but never shown, there may be none; it gets
    that of the one before.
    """
    table, count = np.asarray(table), old[0] * old[1]
    table = np.concatenate([table, np.repeat(table[-1:], count - len(table), axis=0)])
    if old_order is not None:
        table = table[np.argsort(np.asarray(old_order))]
    image = table.reshape(*old, -1)  # [h,w,D]
    image = jax.image.resize(image, (*new, image.shape[-1]), "bilinear")
    table = image.reshape(new[0] * new[1], -1)
    return table if new_order is None else table[np.asarray(new_order)]
