"""What a prior is told, on disk beside codes: of the same view of the same picture."""

import functools

import numpy as np
import pytest
from tiny_codes import (
    SIZE,
    STRIDE,
    TOKENIZER,
    encode,
    open_pictures,
    reopen,
    unwatched,
    write,
    write_pictures,
)

from taming_jax.conditions.kinds import Data
from taming_jax.conditions.on_disk import beside, described
from taming_jax.conditions.on_disk import written as written_of
from taming_jax.data import Field, open_source
from taming_jax.data.codes import Views
from taming_jax.data.codes_writer import describe, write_codes

MAPS = {"kind": "depth", "side": SIZE, "fingerprint": "beef"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("codes") / "pictures")


# Codes of maps


class Paired:
    """Pictures, with their green as depth: cropped and mirrored as they are."""

    def __init__(self, source):
        self._source, self.one_of = source, ()
        self.example_spec = {**source.example_spec, "depth": Field("float32", (16, 16))}

    def __getattr__(self, name):
        return getattr(self._source, name)

    def __len__(self):
        return len(self._source)

    def read(self, indices, chances, keep):
        wanted = dict.fromkeys(name if name != "depth" else "image" for name in keep)
        batch = self._source.read(indices, chances, tuple(wanted))
        if "depth" in keep:
            batch["depth"] = batch["image"][..., 1].astype(np.float32)
        return {name: batch[name] for name in keep}


def encode_map(maps):
    """A tokenizer without weights: every eighth pixel."""
    return maps[:, ::8, ::8].astype(np.int32)


@pytest.fixture
def pairs(folder, tmp_path):
    """Pictures that are cropped and mirrored, and codes of them and of their maps."""
    sources = open_pictures(folder, crop="random", zoom=1.2)
    sources = {split: Paired(source) for split, source in sources.items()}
    condition = {**MAPS, "codebook_size": 256, "grid": (2, 2)}
    views = Views(5, mirrored=True)
    about = describe(sources, views, **TOKENIZER, condition=condition)
    directory = tmp_path / "codes"
    directory.mkdir()
    write_codes(
        directory, sources, about, encode, encode_map, batch_size=7, progress=unwatched
    )
    return sources, directory


def test_a_map_s_codes_are_of_the_view_that_the_picture_s_are_of(pairs):
    """The map of a view is its green: one from another view would show."""
    sources, directory = pairs
    codes = reopen(directory, sources, condition=MAPS)
    indices, seen_of_first = np.arange(3), set()
    for view, chances in enumerate(Views(5, mirrored=True).chances()):
        rows = np.repeat(chances[None], 3, 0)
        seen = sources["train"].read(indices, rows, ("image", "depth"))
        drawn = np.array([[(view // 2 + 0.5) / 5, 0.5, 0.25 if view % 2 else 0.75]])
        keep = ("codes", "condition_codes")
        read = codes.read(indices, drawn.repeat(3, 0).astype(np.float32), keep)
        expected = encode_map(seen["depth"])
        np.testing.assert_array_equal(read["codes"], encode(seen["image"]))
        np.testing.assert_array_equal(read["condition_codes"], expected)
        seen_of_first.add(expected[0].tobytes())
    assert len(seen_of_first) == 10


@pytest.mark.parametrize("change", [{"fingerprint": "cafe"}, {"side": 8}])
def test_codes_of_other_maps_are_refused(pairs, change):
    sources, directory = pairs
    with pytest.raises(ValueError, match=r"another condition: .*remove the direc"):
        reopen(directory, sources, condition=MAPS | change)


def test_codes_without_maps_are_refused_where_maps_are_told(folder, tmp_path):
    sources = open_pictures(folder)
    directory = write(tmp_path / "codes", sources, Views())
    with pytest.raises(ValueError, match=r"of another condition: .*None"):
        reopen(directory, sources, condition=MAPS)


# Tokens of other conditions


def test_what_is_told_of_a_crop_is_written_for_each_view(folder, tmp_path):
    sources = open_pictures(folder, crop="random", zoom=1.2)
    spec = sources["train"].example_spec
    shapes = {name: field.shape for name, field in spec.items()}
    asked = [{"name": "coordinates", "steps": 300}, {"name": "low_resolution"}]
    kinds = beside(asked, Data(SIZE, STRIDE, shapes=shapes, crops=True))
    told, views = described(kinds, spec), Views(5, mirrored=True)
    directory = tmp_path / "codes"
    directory.mkdir()
    about = describe(sources, views, **TOKENIZER, told=told)
    write_codes(
        directory, sources, about, encode, batch_size=7, progress=unwatched,
        read=("coordinates", "image"), tell=functools.partial(written_of, kinds),
    )  # fmt: skip
    codes, indices = reopen(directory, sources, told=told), np.arange(3)
    seen_of_first = set()
    for view, chances in enumerate(views.chances()):
        rows = np.repeat(chances[None], 3, 0)
        seen = sources["train"].read(indices, rows, ("image", "coordinates"))
        drawn = np.array([[(view // 2 + 0.5) / 5, 0.5, 0.25 if view % 2 else 0.75]])
        read = codes.read(indices, drawn.repeat(3, 0).astype(np.float32), tuple(told))
        for field, expected in written_of(kinds, seen).items():
            np.testing.assert_array_equal(read[field], expected)
        seen_of_first.add(read["coordinates_tokens"][0].tobytes())
    assert len(seen_of_first) == 5  # a mirrored corner lies where the other one does


def test_objects_are_written_with_the_crop_that_each_view_shows_of_them(tmp_path):
    data = {"name": "scenes", "train": 3, "val": 2, "image_size": SIZE, "zoom": 2}
    sources = {split: open_source(data, split) for split in ("train", "val")}
    spec = sources["train"].example_spec
    shapes = {name: field.shape for name, field in spec.items()}
    kinds = beside(
        {"name": "boxes", "crop": True},
        Data(SIZE, STRIDE, object_names=tuple("abcdefghij"), shapes=shapes),
    )
    told, views = described(kinds, spec), Views(5)
    assert set(told) == {"boxes", "box_classes", "crop"}
    directory = tmp_path / "codes"
    directory.mkdir()
    write_codes(
        directory, sources, describe(sources, views, **TOKENIZER, told=told), encode,
        batch_size=7, read=tuple(told), tell=functools.partial(written_of, kinds),
        progress=unwatched,
    )  # fmt: skip
    codes, indices = reopen(directory, sources, told=told), np.arange(3)
    seen_of_first = set()
    for view, chances in enumerate(views.chances()):
        rows = np.repeat(chances[None], 3, 0)
        seen = sources["train"].read(indices, rows, ("image", *told))
        drawn = np.float32([[(view + 0.5) / 5, 0.5, 0.75]]).repeat(3, 0)
        read = codes.read(indices, drawn, ("codes", *told))
        np.testing.assert_array_equal(read["codes"], encode(seen["image"]))
        for field in told:
            np.testing.assert_array_equal(read[field], seen[field])
        seen_of_first.add(tuple(read["crop"][0].tolist()))
    assert len(seen_of_first) == 5
