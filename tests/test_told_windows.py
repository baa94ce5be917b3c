"""Larger pictures of priors that are told something: against full passes of windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_windows
from numpy.testing import assert_array_equal

from taming_jax.cli.devices import own_mesh
from taming_jax.conditions.kinds import Label
from taming_jax.windows import Windows

KEY = jax.random.key(0)
DRAWS = np.random.default_rng(0)
MAPS = DRAWS.integers(0, 9, (2, 20, 24)).astype(np.int32)  # of 5 x 6 codes
COARSE = DRAWS.integers(0, 9, (8, 24, 32)).astype(np.int32)  # of 6 x 8
LABEL = Label(tuple("abc"))
CASES = {  # of (condition tokens, kinds by name, what is asked for, guidance)
    "nothing": (1, {}, None, 1.0),
    "label and map": (
        17,
        {"label": LABEL, "segmentation": tiny_windows.corners(4)},
        {"label": np.array([2, 0]), "segmentation": MAPS},
        1.0,
    ),
    "map of fewer tokens, guided": (
        4,
        {"segmentation": tiny_windows.corners(8)},
        {"segmentation": COARSE[:2]},
        3.0,
    ),
}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_each_code_is_the_likeliest_of_its_window(case, stride):
    """As `logits` has it of the window's crop, told the map's crop."""
    prefix, told, asked, strength = CASES[case]
    prior = tiny_windows.by_hand(
        prefix, told=told, condition="segmentation" if told else "none"
    )
    shape = (6, 8) if prefix == 4 else (5, 6)
    settings = {"shape": shape, "window_stride": stride, "guidance": strength}
    batch = None if told else 2
    codes = np.asarray(prior.sample(KEY, asked, batch, greedy=True, **settings))
    windows = Windows(shape, (4, 4), stride)
    tops, lefts = windows.origins
    expected = np.empty_like(codes)
    for i, j in np.ndindex(shape):
        top, left = tops[i // stride], lefts[j // stride]
        crop = codes[:, top : top + 4, left : left + 4]
        rows, columns = (slice(4 * at, 4 * at + 16) for at in (top, left))
        seen = dict(asked or {})
        if "segmentation" in seen:
            seen["segmentation"] = seen["segmentation"][:, rows, columns]
        logits = prior.logits(crop, seen or None)
        if strength != 1:
            nothing = prior.vocabulary.no_label(2)
            unasked = prior._logits(prior.params, nothing, jnp.asarray(crop))
            logits = unasked + strength * (logits - unasked)
        place = (i - top) * 4 + j - left
        expected[:, i, j] = logits[:, place, : tiny_windows.CODES].argmax(-1)
    assert_array_equal(codes, expected)


@pytest.mark.devices(8)
@pytest.mark.parametrize("stride", [1, 2])
def test_told_a_map_and_completed_a_sample_is_the_same_alone_and_on_eight_devices(
    stride,
):
    kind = {
        "told": {"segmentation": tiny_windows.corners(8)},
        "condition": "segmentation",
    }
    one, eight = (
        tiny_windows.by_hand(4, **kind),
        tiny_windows.by_hand(4, **kind, mesh=own_mesh()),
    )
    given = np.full((8, 6, 8), -1)
    given[:, :2] = DRAWS.integers(0, tiny_windows.CODES, (8, 2, 8))
    keys = jax.random.split(KEY, 8)

    def draw(prior, some):
        asked = {"shape": (6, 8), "window_stride": stride, "guidance": 2.0}
        return np.asarray(
            prior.sample(keys[some], COARSE[some], given=given[some], **asked)
        )

    together = draw(eight, slice(8))
    assert_array_equal(draw(one, slice(7)), together[:7])
    assert_array_equal(draw(one, slice(5, 6)), together[5:6])
