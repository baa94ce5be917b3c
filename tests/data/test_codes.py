"""Codes on disk: the same examples, in the same order, as encoding on the way."""

import functools

import numpy as np
import pytest
from PIL import Image

from taming_jax.conditions.kinds import Data
from taming_jax.conditions.on_disk import beside, described
from taming_jax.conditions.on_disk import written as written_of
from taming_jax.data import (
    Field,
    codes_writer,
    eval_batches,
    open_codes,
    open_source,
    train_batches,
)
from taming_jax.data.codes import Views, read_description
from taming_jax.data.codes_writer import describe, write_codes

SIZE, STRIDE = 16, 4
TOKENIZER = {
    "fingerprint": "f00d",
    "codebook_size": 256,
    "grid": (SIZE // STRIDE,) * 2,
    "image_size": SIZE,
}
KEEP = ("label", "index")


def encode(pictures):
    """A tokenizer without weights: every fourth pixel's red."""
    return pictures[:, ::STRIDE, ::STRIDE, 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve pictures of noise in two classes, one of them torn, wider than high."""
    root = tmp_path_factory.mktemp("codes") / "pictures"
    for number in range(12):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    torn = root / "a" / "4.png"
    torn.write_bytes(torn.read_bytes()[:100])
    return root


def open_pictures(folder, **settings):
    settings = {"crop": "center", "val": folder, "max_bad_share": 0.5} | settings
    data = {"name": "folder", "train": folder, "image_size": SIZE, **settings}
    return {split: open_source(data, split) for split in ("train", "val")}


def write(directory, sources, views, encode=encode, batch_size=5, **tokenizer):
    about = describe(sources, views, **TOKENIZER | tokenizer)
    directory.mkdir()
    write_codes(
        directory, sources, about, encode, batch_size=batch_size, progress=unwatched
    )
    return directory


def unwatched(count):
    """Progress that nobody watches."""


def reopen(directory, sources, split="train", **changes):
    wanted = {
        "fingerprint": TOKENIZER["fingerprint"],
        "identity": sources[split].identity,
        "image_size": SIZE,
    }
    return open_codes(directory, split, **wanted | changes)


@pytest.fixture
def written(folder, tmp_path):
    """Sources, and the directory of their codes, mirrored too."""
    sources = open_pictures(folder)
    return sources, write(tmp_path / "codes", sources, Views(1, mirrored=True))


# The same as on the way


def test_a_batch_of_codes_is_the_batch_of_pictures_encoded(written):
    """The torn picture is replaced by the same successor, the mirrored are mirrored."""
    sources, directory = written
    settings = {"batch_size": 5, "seed": 3}
    pictures = train_batches(sources["train"], keep=("image", *KEEP), **settings)
    codes = train_batches(reopen(directory, sources), keep=("codes", *KEEP), **settings)
    for _ in range(6):  # two epochs and more
        seen, read = next(pictures), next(codes)
        np.testing.assert_array_equal(read.pop("codes"), encode(seen.pop("image")))
        assert str(read) == str(seen)


def test_held_out_codes_are_those_of_the_centre(written):
    sources, directory = written
    pictures = eval_batches(sources["val"], batch_size=5, keep=("image", *KEEP))
    codes = reopen(directory, sources, "val")
    for read in eval_batches(codes, batch_size=5, keep=("codes", *KEEP)):
        seen = next(pictures)
        np.testing.assert_array_equal(read.pop("codes"), encode(seen.pop("image")))
        assert str(read) == str(seen)


def test_codes_are_int32_grids(written):
    sources, directory = written
    batch = next(
        train_batches(reopen(directory, sources), batch_size=2, seed=0, keep=["codes"])
    )
    assert (batch["codes"].shape, batch["codes"].dtype) == ((2, 4, 4), np.int32)


def test_pictures_without_classes_have_codes_without_labels(folder, tmp_path):
    sources = open_pictures(folder / "b")
    directory = write(tmp_path / "codes", sources, Views())
    assert set(reopen(directory, sources).example_spec) == {"codes"}


# Pairs

MAPS = {"kind": "depth", "side": SIZE, "fingerprint": "beef"}


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


def test_codes_without_maps_are_refused_where_maps_are_told(written):
    sources, directory = written
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


# Views


def test_ten_views_are_the_centre_and_the_corners_and_their_mirrors(folder, tmp_path):
    """Of the 24 x 32 pixels, resized to 24: corners of 16 without more resizing."""
    sources = open_pictures(folder, crop="random", zoom=1.5)
    directory = write(tmp_path / "codes", sources, Views(5, mirrored=True))
    stored = np.load(directory / "train" / "codes-00000.npy")
    pixels = np.asarray(Image.open(folder / "a" / "0.png"))[..., 0]
    left, middle, right = 0, 8, 16
    places = [(4, middle), (0, left), (0, right), (8, left), (8, right)]
    for number, (top, left) in enumerate(places):
        crop = pixels[top : top + SIZE, left : left + SIZE]
        np.testing.assert_array_equal(stored[0, 2 * number], crop[::4, ::4])
        mirrored = crop[:, ::-1][::4, ::4]
        np.testing.assert_array_equal(stored[0, 2 * number + 1], mirrored)


@pytest.mark.parametrize("views", [Views(), Views(1, True), Views(5, True)])
def test_all_views_are_drawn_alike(views):
    chances = np.random.default_rng(0).random((10_000, 3), np.float32)
    counts = np.bincount(views.choose(chances), minlength=views.count)
    expected = 10_000 / views.count
    # Five standard deviations at most.
    assert abs(counts - expected).max() <= 5 * np.sqrt(expected)


def test_what_is_left_to_chance_is_said(folder, tmp_path):
    sources = open_pictures(folder, crop="random")
    for views, chances in (
        (Views(), ()),
        (Views(1, True), ("mirror",)),
        (Views(5, True), ("across", "mirror")),
    ):
        name = f"{views.count}"
        directory = write(tmp_path / name, sources, views)
        assert reopen(directory, sources).chances == chances


# Files


def test_shards_hold_together_what_one_file_would(written, tmp_path, monkeypatch):
    sources, whole = written
    monkeypatch.setattr(codes_writer, "SHARD", 5)
    directory = write(tmp_path / "small", sources, Views(1, mirrored=True))
    assert len(list((directory / "train").glob("codes-*.npy"))) == 3
    parts, one = (reopen(d, sources) for d in (directory, whole))
    indices = np.setdiff1d(
        np.arange(12), read_description(whole)["unreadable"]["train"]
    )
    for name, values in parts.read(indices, None, ("codes", "label")).items():
        np.testing.assert_array_equal(values, one.read(indices, None, [name])[name])


@pytest.mark.parametrize(
    ("codebook_size", "dtype"),
    [(256, "uint8"), (257, "uint16"), (65_536, "uint16"), (65_537, "uint32")],
)
def test_codes_take_no_more_bytes_than_they_need(
    folder, tmp_path, codebook_size, dtype
):
    sources = open_pictures(folder)
    directory = write(tmp_path / "codes", sources, Views(), codebook_size=codebook_size)
    assert np.load(directory / "val" / "codes-00000.npy").dtype == dtype


def test_codes_stay_on_the_disk(written):
    """What is opened is a map of the file, not its content."""
    sources, directory = written
    (shard,) = reopen(directory, sources)._arrays["codes"]
    assert isinstance(shard.base, np.memmap)


def test_what_could_not_be_read_is_written_down(written, folder):
    _, directory = written
    torn = sorted(p.relative_to(folder) for p in folder.rglob("*.png")).index(
        (folder / "a" / "4.png").relative_to(folder)
    )
    unreadable = read_description(directory)["unreadable"]
    assert unreadable == {"train": [torn], "val": [torn]}


def test_too_many_that_cannot_be_read_end_it(folder, tmp_path):
    sources = open_pictures(folder, max_bad_share=0.0)
    with pytest.raises(ValueError, match="1 of 12 pictures cannot be read"):
        write(tmp_path / "codes", sources, Views())


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"fingerprint": "beef"},
            "another tokenizer: f00d, and now it is beef; remove",
        ),
        ({"identity": {"name": "x"}}, r"another data set: .*, and now it is .*'x'"),
        ({"image_size": 32}, "another image_size: 16, and now it is 32"),
    ],
)
def test_codes_of_something_else_are_refused(written, change, message):
    sources, directory = written
    with pytest.raises(ValueError, match=message):
        reopen(directory, sources, **change)


def test_a_place_without_codes_is_refused(written, tmp_path):
    sources, _ = written
    with pytest.raises(
        ValueError, match=r"no codes in .*none: `python -m taming_jax to"
    ):
        reopen(tmp_path / "none", sources)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "0 of 12 codes are there"),
        (lambda path: path.write_bytes(path.read_bytes()[:150]), "are damaged: remove"),
    ],
    ids=["missing", "truncated"],
)
def test_damaged_codes_are_refused(written, harm, message):
    sources, directory = written
    harm(directory / "train" / "codes-00000.npy")
    with pytest.raises(ValueError, match=message):
        reopen(directory, sources)
