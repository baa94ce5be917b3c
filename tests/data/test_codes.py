"""Codes on disk: the same examples, in the same order, as encoding on the way."""

import numpy as np
import pytest
from PIL import Image
from tiny_codes import SIZE, encode, open_pictures, reopen, write, write_pictures

from taming_jax.data import codes_writer, eval_batches, train_batches
from taming_jax.data.codes import Views, read_description

KEEP = ("label", "index")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("codes") / "pictures")


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
