"""Completion: what --given and --keep mean, down to the code and the pixel."""

import re
import warnings

import jax
import numpy as np
import pytest
import tiny_run
from numpy.testing import assert_array_equal
from PIL import Image

from taming_jax import cli, load_prior
from taming_jax.cli import completion
from taming_jax.data import read_square
from taming_jax.pictures import GAP, LINE, read_png
from taming_jax.pretrained.requests import LateCodes
from taming_jax.units import from_uint8

STRIDE, SIDE = tiny_run.STRIDE, tiny_run.IMAGE_SIZE


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tiny_run.write_prior(tiny_run.write_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def prior(workdir):
    return load_prior(workdir)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A directory with two pictures of noise, of another form each."""
    place, draw = tmp_path_factory.mktemp("given"), np.random.default_rng(0)
    for name, shape in (("a", (16, 16)), ("b", (20, 32))):
        noise = draw.integers(0, 256, (*shape, 3)).astype(np.uint8)
        Image.fromarray(noise).save(place / f"{name}.png")
    return place


def mask(path, shape, white):
    """A mask's file that is white in the slices (down, across)."""
    values = np.zeros(shape, np.uint8)
    values[white] = 255
    Image.fromarray(values).save(path)
    return str(path)


def kept(prior, picture, keep, shape=(4, 4)):
    return completion.given(str(picture), keep, prior, shape).codes[0] >= 0


def places(rows, columns):
    expected = np.zeros((4, 4), bool)
    expected[rows, columns] = True
    return expected


@pytest.mark.parametrize(
    ("keep", "rows", "columns"),
    [
        ("top", slice(0, 2), slice(0, 4)),
        ("left", slice(0, 4), slice(0, 2)),
        ("0.5,0.25,1,0.75", slice(1, 3), slice(2, 4)),
        ("0,0,1,1", slice(0, 4), slice(0, 4)),
        ("0,0,0.6,0.4", slice(0, 2), slice(0, 2)),  # to the nearest code
    ],
)
def test_a_box_keeps_its_codes(prior, pictures, keep, rows, columns):
    assert_array_equal(kept(prior, pictures / "a.png", keep), places(rows, columns))


def test_what_is_kept_are_the_picture_s_codes(prior, pictures):
    square = from_uint8(read_square(pictures / "b.png", SIDE)[None])
    codes = completion.given(str(pictures / "b.png"), "left", prior, (4, 4)).codes
    assert_array_equal(codes[..., :2], prior.vqgan.encode(square)[..., :2])
    assert_array_equal(codes[..., 2:], np.full((1, 4, 2), -1))


def test_a_mask_keeps_the_codes_whose_whole_patch_is_white(prior, pictures, tmp_path):
    """White are rows 4 to 11 and columns 0 to 6: of code 1 a column of pixels lacks."""
    keep = mask(tmp_path / "m.png", (16, 16), np.s_[4:12, :7])
    found = kept(prior, pictures / "a.png", keep)
    assert_array_equal(found, places(slice(1, 3), slice(0, 1)))


def test_a_mask_may_have_another_size_than_its_picture(prior, pictures, tmp_path):
    keep = mask(tmp_path / "m.png", (64, 64), np.s_[:33, 16:])
    found = kept(prior, pictures / "a.png", keep)
    assert_array_equal(found, places(slice(0, 2), slice(1, 4)))


def test_a_mask_is_cut_with_its_picture(prior, pictures, tmp_path):
    """Of 32 x 20 pixels the middle 20 are read, from 6 on; 11 of them end code 0."""
    keep = mask(tmp_path / "m.png", (20, 32), np.s_[:, 11:])
    found = kept(prior, pictures / "b.png", keep)
    assert_array_equal(found, places(slice(0, 4), slice(1, 4)))


def test_black_and_white_may_be_grey(prior, pictures, tmp_path):
    values = np.where(np.arange(16) < 8, 127, 128).astype(np.uint8)
    Image.fromarray(np.tile(values, (16, 1))).save(tmp_path / "m.png")
    found = kept(prior, pictures / "a.png", str(tmp_path / "m.png"))
    assert_array_equal(found, places(slice(0, 4), slice(2, 4)))


def test_what_is_shown_is_the_picture_and_what_is_kept_of_it_on_grey(prior, pictures):
    found = completion.given(str(pictures / "a.png"), "left", prior, (4, 4))
    whole, part = found.shown[0]
    assert_array_equal(whole, read_png(pictures / "a.png"))
    assert_array_equal(part[:, :8], whole[:, :8])
    assert (part[:, 8:] == 127).all()


def test_a_request_is_told_from_others_by_pictures_and_region(prior, pictures):
    """Codes do not count, for devices round differently."""
    found = completion.given(str(pictures / "a.png"), "left", prior, (4, 4))
    others = [("a.png", "top"), ("b.png", "left")]
    digests = {
        completion.given(str(pictures / name), keep, prior, (4, 4)).digest
        for name, keep in others
    }
    assert len(digests | {found.digest}) == 3
    rounded = np.where(found.codes < 0, -1, (found.codes + 1) % 16)
    assert found._replace(codes=rounded).digest == found.digest


def test_larger_pictures_are_read_as_large_as_they_are_asked_for(prior, pictures):
    found = completion.given(str(pictures), "0,0,0.5,1", prior, (5, 8))
    assert found.shown.shape == (2, 2, 20, 32, 3)
    assert_array_equal(found.shown[1, 0], read_png(pictures / "b.png"))
    assert_array_equal((found.codes >= 0).sum((1, 2)), [20, 20])


def sample(workdir, output, *flags):
    flags = ["--workdir", workdir, "--output", output, *flags]
    return cli.main(["sample", *map(str, flags)])


def test_each_picture_has_its_row_and_each_count_another_completion(
    workdir, pictures, tmp_path
):
    """In batches of three: the second begins in the middle of a row."""
    flags = ["--given", pictures, "--classes", "3", "--count", 4, "--batch_size", 3]
    assert sample(workdir, tmp_path / "out", *flags, "--temperature", 5) == 0
    with np.load(tmp_path / "out" / "samples.npz") as arrays:
        drawn, labels = arrays["arr_0"], arrays["labels"]
    assert labels.tolist() == [3] * 8
    assert len(np.unique(drawn, axis=0)) == 8
    grid = read_png(tmp_path / "out" / "grid.png")
    down = SIDE + LINE + GAP
    assert grid.shape == (2 * down - GAP, 6 * (SIDE + GAP) - GAP, 3)
    for row, name in enumerate("ab"):
        line = grid[row * down :][:SIDE]
        whole = read_square(pictures / f"{name}.png", SIDE)
        assert_array_equal(line[:, :SIDE], whole)
        assert_array_equal(line[:8, SIDE + GAP :][:, :SIDE], whole[:8])
        first = 2 * (SIDE + GAP)
        assert_array_equal(line[:, first : first + SIDE], drawn[4 * row])


def test_pictures_are_completed_for_each_class(workdir, prior, pictures, tmp_path):
    """Picture after picture, class after class, as one draws them in Python."""
    flags = ["--given", pictures, "--classes", "3,1", "--count", 2, "--batch_size", 8]
    assert sample(workdir, tmp_path / "out", *flags) == 0
    with np.load(tmp_path / "out" / "samples.npz") as arrays:
        drawn, labels = arrays["arr_0"], arrays["labels"]
    assert labels.tolist() == [3, 3, 1, 1] * 2
    codes = completion.given(str(pictures), "top", prior, (4, 4)).codes
    settings = prior.default_settings | {"given": codes.repeat(4, axis=0)}
    expected = prior.generate(jax.random.key(0), labels, **settings)
    assert_array_equal(drawn, (np.asarray(expected) * 127.5 + 127.5).round())


def test_codes_that_come_too_late_are_kept_and_it_is_said(
    workdir, prior, pictures, capsys, tmp_path
):
    """Left halves by rows: all but the first two codes come after drawn ones."""
    flags = ["--given", pictures / "a.png", "--classes", "3", "--count", 1]
    assert sample(workdir, tmp_path / "out", *flags, "--keep", "left") == 0
    assert capsys.readouterr().out.count("6 of 8 given codes come after drawn") == 1
    given = completion.given(str(pictures / "a.png"), "left", prior, (4, 4)).codes
    with pytest.warns(LateCodes, match="6 of 8 given codes come after drawn ones"):
        codes = prior.sample(jax.random.key(0), [3], given=given)
    assert_array_equal(codes[..., :2], given[..., :2])


def test_codes_that_come_first_need_no_word(prior, pictures):
    given = completion.given(str(pictures / "a.png"), "top", prior, (4, 4)).codes
    with warnings.catch_warnings():
        warnings.simplefilter("error", LateCodes)
        prior.sample(jax.random.key(0), [3], given=given)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("bottom", "--keep bottom: numbers with commas"),
        ("0,0,1", "--keep 0,0,1: say top, left, x0,y0,x1,y1"),
        ("0,0,1.5,1", "--keep 0,0,1.5,1: say .* <= 1"),
        ("0.5,0,0.5,1", "--keep 0.5,0,0.5,1: say .* x0 < x1"),
        ("nan,0,1,1", "--keep nan,0,1,1: say"),
        ("0,0,0.1,1", r"keeps no code of .*a.png: one covers 4 x 4 of 16 x 16"),
        ("none.png", "none.png cannot be read"),
        ("MASK:(8, 16)", r"m.png has 8 x 16 pixels and .*a.png 16 x 16"),
        ("MASK:(16, 16)", "keeps no code"),
    ],
)
def test_a_region_that_cannot_be_is_refused(prior, pictures, tmp_path, keep, message):
    if keep.startswith("MASK:"):  # with one code's patch white but for a pixel
        shape = tuple(int(n) for n in re.findall(r"\d+", keep))
        keep = mask(tmp_path / "m.png", shape, np.s_[:4, :3])
    with pytest.raises(ValueError, match=message):
        kept(prior, pictures / "a.png", keep)


def test_a_picture_that_cannot_be_read_is_named(prior, tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        completion.given(str(tmp_path), "top", prior, (4, 4))
