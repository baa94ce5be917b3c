"""Tiles, joined: what the whole would give, in bands, with one shape of tile."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.tiling import Margins, Scale, bands, spans

SIDE = 2  # entries of what is given per place


def blurred(given, before=2, after=4):
    """Means of pairs of columns and rows, each over some entries before and after.

    [B,H,W,C] -> [B,H//2,W//2,C]: an encoder with zeros around, of stride 2.
    """
    for axis in (1, 2):
        length = given.shape[axis]
        margin = [(0, 0)] * given.ndim
        margin[axis] = (before, after)
        padded = np.pad(given, margin)
        window = SIDE + before + after
        places = np.arange(length // SIDE)[:, None] * SIDE + np.arange(window)
        given = np.take(padded, places, axis).mean(axis + 1, dtype=np.float32)
    return given


def doubled(given):
    """[B,H,W,C] -> [B,2H,2W,C], each place spread over a neighbour on either side."""
    for axis in (1, 2):
        given = sum(np.roll(_ringed(given, axis), n, axis) for n in (-1, 0, 1))
        given = np.take(given, np.arange(1, given.shape[axis] - 1), axis)
        given = given.repeat(2, axis)
    return given


def _ringed(given, axis):
    margin = [(0, 0)] * given.ndim
    margin[axis] = (1, 1)
    return np.pad(given, margin)


def joined(run, given, **options):
    return np.concatenate(list(bands(run, given, **options)), axis=1)


def pictures(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


SIZES = [(40, 40), (41, 55), (8, 70), (16, 17), (100, 21)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ramp", [0, 2])
def test_what_a_network_sees_little_of_is_the_same_by_tiles(size, ramp):
    """Of any size; what is left over of whole places is seen at the last ones."""
    given = pictures(2, *size, 3)
    options = {"margins": Margins(1, 2, ramp), "scale": Scale(SIDE, 1), "tile": 8}
    expected = blurred(given)
    # Sums of a few numbers are taken alike, and fading adds two products.
    assert_allclose(joined(blurred, given, **options), expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_tiles_may_become_larger(size):
    given = pictures(1, *size, 2)
    options = {"margins": Margins(1, 1), "scale": Scale(1, 2), "tile": 7}
    assert_allclose(joined(doubled, given, **options), doubled(given), atol=1e-5)


def test_without_margins_it_is_another_result():
    """Else the tests above would show nothing."""
    given = pictures(1, 40, 40, 1)
    options = {"margins": Margins(0, 0), "scale": Scale(SIDE, 1), "tile": 8}
    assert np.abs(joined(blurred, given, **options) - blurred(given)).max() > 0.1


def test_what_differs_between_tiles_fades_in_a_line():
    """Tiles that are constant, each at its own level; a ramp of three places."""
    levels = itertools.count()
    run = lambda batch: np.full(batch.shape, next(levels), np.float32)  # noqa: E731
    options = {"margins": Margins(0, 0, 3), "scale": Scale(1, 1), "tile": 8}
    row = joined(run, pictures(1, 4, 13, 1), **options)[0, 0, :, 0]
    assert_allclose(row, [0] * 5 + [1 / 6, 3 / 6, 5 / 6] + [1] * 5, atol=1e-6)


@pytest.mark.parametrize("together", [1, 3, 4])
def test_all_runs_have_one_shape(together):
    """The last of a band is filled up."""
    shapes = set()

    def run(batch):
        shapes.add(batch.shape)
        return blurred(batch)

    given = pictures(2, 33, 57, 1)
    options = {"margins": Margins(1, 2), "scale": Scale(SIDE, 1), "tile": 8}
    result = joined(run, given, **options, together=together)
    assert shapes == {(together, 17, 17, 1)}
    assert_array_equal(result, joined(blurred, given, **options))


def test_bands_come_before_the_rest_is_read():
    """So that a picture of any height can be read and written on the way."""
    read = []

    class Watched(np.ndarray):
        def __getitem__(self, key):
            read.append(key)
            return np.asarray(self)[key]

    given = pictures(1, 80, 20, 1).view(Watched)
    options = {"margins": Margins(1, 2), "scale": Scale(SIDE, 1), "tile": 8}
    first = next(bands(blurred, given, **options))
    assert first.shape == (1, 5, 10, 1)  # 8 but for two after, and one before the next
    assert read == [(slice(None), slice(0, 16))]


@pytest.mark.parametrize("places", [1, 7, 8, 9, 12, 13, 14, 50])
@pytest.mark.parametrize("margins", [Margins(0, 0), Margins(1, 2), Margins(2, 1, 3)])
def test_kept_parts_cover_everything_with_the_ramp_to_spare(places, margins):
    tile = 8
    parts = spans(places, tile, margins)
    assert (parts[0][1], parts[-1][2]) == (0, places)
    for (_, low, high), (_, following, _) in itertools.pairwise(parts):
        assert low < following <= high - margins.ramp
    fewest = -(-max(places - tile, 0) // (tile - sum(margins))) + 1
    assert len(parts) == fewest
    assert all(0 <= start <= max(places - tile, 0) for start, _, _ in parts)
