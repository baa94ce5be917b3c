"""What a transformer cannot be, in words: its fields against each other.

check_fields(model)            of a `Transformer`, when it is constructed
check_shuffle(model, shuffle)  of what it is called with
"""

import math

from taming_jax.models.attention import MLPS, NORMS
from taming_jax.models.fields import DTYPES, choose


def check_fields(model) -> None:
    """Raises ValueError for fields that are not known or exclude each other."""
    choose("Transformer", "norm", model.norm, NORMS)
    choose("Transformer", "mlp", model.mlp, MLPS)
    choose("Transformer", "dtype", model.dtype, DTYPES)
    if model.width % model.heads:
        raise ValueError(
            f"width={model.width} is not divided by heads={model.heads}; change one"
        )
    if model.heads % (model.kv_heads or model.heads):
        raise ValueError(
            f"heads={model.heads} do not share kv_heads={model.kv_heads} evenly: one "
            "has to divide the other"
        )
    if model.rotary and model.width // model.heads % 4:
        raise ValueError(
            f"rotary positions need heads whose width is a multiple of 4, not "
            f"{model.width} / {model.heads}: change width or heads"
        )
    if model.vanishing_condition and not model.rotary:
        raise ValueError(
            "vanishing_condition=True is of rotary positions: set rotary=True"
        )
    if (model.rotary or model.above or model.target_positions) and model.grid is None:
        raise ValueError(
            "rotary, above and target_positions need grid=(height, width) of the codes"
        )
    if model.condition_everywhere:
        _check_condition_grids(model)
    if model.order is not None:
        count = len(model.order) if model.grid is None else math.prod(model.grid)
        if sorted(model.order) != list(range(count)):
            raise ValueError(
                f"order is no permutation of the {count} places of a grid "
                f"{model.grid}: name each place from 0 on once"
            )
    if not 0 < (model.head_size or 1) <= model.vocab_size:
        raise ValueError(
            f"head_size={model.head_size}: there are vocab_size={model.vocab_size} "
            "tokens; give as many or fewer, or None"
        )


def _check_condition_grids(model) -> None:
    """Raises ValueError for a condition of which nothing lies on the picture."""
    grids = model.condition_grids
    if not grids:
        raise ValueError(
            "condition_everywhere is for labels and maps; nothing of this one lies "
            "on the picture: set it to False"
        )
    if model.grid is None and any(tuple(sides) != (1, 1) for _, *sides in grids):
        raise ValueError(
            "condition_everywhere of a map needs grid=(height, width) of the codes"
        )
    for first, rows, columns in grids:
        if first < 0 or min(rows, columns) < 1 or first + rows * columns > model.prefix:
            raise ValueError(
                f"condition_everywhere: a grid of {rows} x {columns} condition tokens "
                f"from {first} on, and there are prefix={model.prefix}"
            )


def check_shuffle(model, shuffle) -> None:
    """Raises ValueError for a shuffled sequence that the model cannot follow."""
    if shuffle is None:
        return
    places = model.prefix + shuffle.shape[1]
    if not model.target_positions or model.above:
        raise ValueError(
            "a shuffled sequence needs target_positions=True, to say what comes, and "
            "above=False"
        )
    if model.learned_positions and model.length < places:
        raise ValueError(
            f"shuffled, the last token is shown, too: {places} places; this "
            f"transformer has length={model.length}"
        )
