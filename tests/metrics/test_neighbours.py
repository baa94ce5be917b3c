"""Nearest training pictures, against a search that holds all of them at once."""

import numpy as np
import pytest
import tiny_run

from taming_jax import data, load_prior
from taming_jax.data import BadRecords, Field
from taming_jax.data.source import UnreadableError
from taming_jax.metrics import neighbours
from taming_jax.metrics.neighbours import (
    Looked,
    Nearest,
    Space,
    evaluate_neighbours,
    nearest,
    spaces,
)
from taming_jax.metrics.neighbours_page import neighbours_page
from taming_jax.pictures import GAP, LINE
from taming_jax.pretrained.drawing import draw

SIDE, COUNT = neighbours.SMALL, 23  # of this size nothing is made small


class Noise:
    """Pictures of noise, of which one may be given twice and one not be readable."""

    class_names = ()
    chances = one_of = ()
    chunk = 4
    identity = {"name": "noise"}  # noqa: RUF012

    def __init__(self, pictures, unreadable=None):
        self.pictures, self._unreadable = pictures, unreadable
        self.example_spec = {"image": Field("uint8", pictures.shape[1:])}
        self.bad = BadRecords(len(pictures), share=0.5)

    def __len__(self):
        return len(self.pictures)

    def read(self, indices, draws, keep):
        if self._unreadable in indices:
            raise UnreadableError(self._unreadable, "a picture", "is no picture")
        return {"image": self.pictures[indices]}


def noise(seed, count):
    """Some of it dark, some light."""
    rng = np.random.default_rng(seed)
    pictures = rng.uniform(
        0, rng.uniform(50, 256, (count, 1, 1, 3)), (count, SIDE, SIDE, 3)
    )
    return pictures.astype(np.uint8)


@pytest.fixture(scope="module")
def train():
    pictures = noise(0, COUNT)
    pictures[17] = pictures[3]
    return Noise(pictures)


@pytest.fixture(scope="module")
def asked(train):
    """Six pictures, the last a copy of training picture 5."""
    return np.concatenate([noise(1, 5), train.pictures[5:6]])


def colours(params, images):
    return images.mean((1, 2)) * params


SPACES = spaces(None) | {"colours": Space(colours, np.float32([1, 2, 3]))}


def all_distances(asked, pictures):
    """[Q, N] of both spaces, in float64."""
    a, b = (np.float64(p)[:, None] / 255 for p in (asked, pictures))
    b = b.swapaxes(0, 1)
    return {
        "pixels": np.sqrt(((a - b) ** 2).mean((2, 3, 4))),
        "colours": np.linalg.norm(
            2 * (a.mean((2, 3)) - b.mean((2, 3))) * [1, 2, 3], axis=-1
        ),
    }


@pytest.mark.parametrize("batch_size", [3, 8, 64])
def test_they_are_those_of_a_search_through_all(train, asked, batch_size):
    """In batches that do, and do not, divide the number of pictures."""
    found = nearest(asked, train, 4, SPACES, batch_size)
    for space, distances in all_distances(asked, train.pictures).items():
        order = np.argsort(distances, axis=1, kind="stable")[:, :4]
        expected = np.take_along_axis(distances, order, axis=1)
        np.testing.assert_allclose(found[space].distances, expected, atol=1e-3)
        # Whatever is equal but for rounding may change places.
        there = np.take_along_axis(distances, found[space].indices, axis=1)
        np.testing.assert_allclose(there, expected, atol=1e-3)
        assert all(len(set(row)) == 4 for row in found[space].indices)


def test_a_copy_is_found_at_no_distance(train, asked):
    found = nearest(asked, train, 1, SPACES, 8)["pixels"]
    assert found.indices[5] == 5
    assert found.distances[5] < 1e-3 < 0.1 < found.distances[:5].min()


def test_of_equal_pictures_the_first_is_named_first(train):
    found = nearest(train.pictures[3:4], train, 2, SPACES, 5)["pixels"]
    assert found.indices.tolist() == [[3, 17]]


def test_all_training_pictures_may_be_asked_for(train, asked):
    found = nearest(asked, train, COUNT, SPACES, 8)["pixels"]
    assert (np.sort(found.indices) == np.arange(COUNT)).all()
    assert (np.diff(found.distances) >= 0).all()


def test_what_cannot_be_read_is_no_neighbour(asked):
    broken = Noise(noise(0, COUNT), unreadable=5)
    found = nearest(asked, broken, COUNT - 1, SPACES, 8)["pixels"]
    assert 5 not in found.indices
    broken = Noise(noise(0, COUNT), unreadable=5)
    with pytest.raises(ValueError, match="23 neighbours, and fewer of the 23 training"):
        nearest(asked, broken, COUNT, SPACES, 8)


def test_larger_pictures_are_compared_by_what_is_left_of_them():
    """A checkerboard of two greys is their mean once it is made small."""
    board = np.indices((64, 64)).sum(0) % 2 * 100
    board = np.broadcast_to(board[None, ..., None], (1, 64, 64, 3)).astype(np.uint8)
    grey = Noise(np.full((2, 64, 64, 3), 50, np.uint8))
    found = nearest(board, grey, 1, spaces(None), 2)["pixels"]
    assert found.distances[0, 0] < 0.06  # its border has less to be mixed with
    assert np.sqrt(np.mean((board / 255.0 - 50 / 255) ** 2)) > 0.19


def test_more_than_there_are_is_refused(train):
    with pytest.raises(ValueError, match="24 neighbours, and there are 23 training"):
        evaluate_neighbours(None, train, None, 24)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    run = tiny_run.write_run(tmp_path_factory.mktemp("neighbours") / "run")
    return load_prior(tiny_run.write_prior(run))


@pytest.fixture(scope="module")
def sources():
    config = tiny_run.CONFIG["data"]
    return [data.open_source(config, split) for split in ("train", "val")]


def test_figures_are_medians_and_minima_of_samples_and_of_held_out(prior, sources):
    train, held_out = sources
    figures, looked = evaluate_neighbours(
        prior, train, held_out, 2, seed=5, batch_size=4, samples=7
    )
    drawn = [part for _, part in draw(prior, np.arange(7), seed=5, batch_size=7)]
    np.testing.assert_allclose(looked["samples"].pictures, drawn[0], atol=1)
    assert figures["neighbours_samples"] == 7
    everything = train.read(np.arange(24), None, ("image",))["image"]
    for name, of in (("samples", ""), ("held out", "_of_held_out")):
        assert len(looked[name].pictures) == 7
        first = nearest(looked[name].pictures, Noise(everything), 1, spaces(None), 24)
        first = first["pixels"].distances
        found = [figures[f"{what}_pixels{of}"] for what in ("nearest", "closest")]
        assert found == pytest.approx([np.median(first), first.min()], abs=1e-3)


def test_a_prior_that_copies_is_nearer_than_what_it_never_saw(
    prior, sources, monkeypatch
):
    train, held_out = sources
    copies = train.read(np.arange(7), None, ("image",))["image"]
    monkeypatch.setattr(neighbours, "_samples", lambda *arguments: copies)
    figures, _ = evaluate_neighbours(prior, train, held_out, 1, samples=7)
    assert figures["nearest_pixels"] < 1e-3
    assert figures["closest_pixels_of_held_out"] > 0.02


def test_the_page_has_a_row_for_each_with_its_neighbours(train, asked):
    found = nearest(asked, train, 2, SPACES, 8)
    looked = {"samples": Looked(asked, found), "held out": Looked(asked[:2], found)}
    page = neighbours_page(looked, train)
    cell, tall = SIDE + GAP, SIDE + LINE + GAP
    assert page.shape == (
        (LINE + 6 * tall - GAP) + LINE + (LINE + 2 * tall - GAP), 5 * cell - GAP, 3
    )  # fmt: skip
    for column, space in ((1, "pixels"), (3, "colours")):
        for k in range(2):
            top, left = LINE + 4 * tall, (column + k) * cell
            np.testing.assert_array_equal(
                page[top : top + SIDE, left : left + SIDE],
                train.pictures[found[space].indices[4, k]],
            )


def test_a_long_list_is_not_all_on_the_page(train):
    pictures = noise(2, 20)
    few = Nearest(np.zeros((20, 1), np.float32), np.zeros((20, 1), np.int32))
    looked = {
        name: Looked(pictures, {"pixels": few}) for name in ("samples", "held out")
    }
    page = neighbours_page(looked, train)
    assert page.shape[0] == 2 * (8 * (SIDE + LINE + GAP) - GAP) + 3 * LINE
