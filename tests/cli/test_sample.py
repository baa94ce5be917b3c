"""`sample`: what it leaves, and what it says of what cannot be drawn."""

import re
import shutil
import warnings

import jax
import numpy as np
import pytest
import tiny_run
from numpy.testing import assert_array_equal
from PIL import Image

from taming_jax import cli, load_prior
from taming_jax.data import read_square
from taming_jax.pictures import LINE
from taming_jax.pretrained import PretrainedPrior
from taming_jax.pretrained.requests import LateCodes
from taming_jax.units import from_uint8, to_uint8


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tiny_run.write_prior(tiny_run.write_run(tmp_path_factory.mktemp("sample")))


def sample(workdir, output, *flags):
    flags = ["--workdir", workdir, "--output", output, *flags]
    return cli.main(["sample", *map(str, flags)])


@pytest.fixture(scope="module")
def output(workdir, tmp_path_factory):
    """Three of each of two classes, four at a time."""
    output = tmp_path_factory.mktemp("drawn") / "out"
    flags = ["--classes", "7,2", "--count", 3, "--batch_size", 4, "--seed", 5]
    assert sample(workdir, output, *flags, "--guidance", 1.5) == 0
    return output


def samples(output):
    with np.load(output / "samples.npz") as arrays:
        return arrays["arr_0"], arrays["labels"]


def test_pictures_are_those_of_the_prior(workdir, output):
    """What is not said, temperature and top_p, is as the recipe has it."""
    drawn, labels = samples(output)
    assert labels.tolist() == [7, 7, 7, 2, 2, 2]
    images = load_prior(workdir).generate(
        jax.random.key(5), labels, temperature=0.9, top_p=0.95, guidance=1.5
    )
    np.testing.assert_array_equal(drawn, to_uint8(images))


def test_files_hold_the_same_pictures(output):
    drawn, _ = samples(output)
    assert [path.name for path in sorted(output.glob("0*.png"))] == [
        f"{i:05}.png" for i in range(6)
    ]
    with Image.open(output / "00004.png") as picture:
        np.testing.assert_array_equal(picture, drawn[4])


def test_the_grid_has_a_row_for_every_class(output):
    with Image.open(output / "grid.png") as picture:
        assert picture.size == (3 * 16 + 4, 2 * (16 + LINE) + 2)


def test_guidance_goes_by_the_schedule_that_is_named(workdir, tmp_path):
    flags = ["--classes", "7,2", "--count", 3, "--batch_size", 6, "--guidance", 20]
    flags += ["--guidance_schedule", "interval:4"]
    assert sample(workdir, tmp_path / "out", *flags) == 0
    prior, labels = load_prior(workdir), [7, 7, 7, 2, 2, 2]
    expected, constant = (
        prior.generate(
            jax.random.key(0), labels, temperature=0.9, top_p=0.95, guidance=20,
            guidance_schedule=schedule,
        )
        for schedule in ("interval:4", "constant")
    )  # fmt: skip
    assert_array_equal(samples(tmp_path / "out")[0], to_uint8(expected))
    assert not np.array_equal(expected, constant)


def test_larger_pictures_are_drawn_through_the_window_that_is_asked_for(
    workdir, tmp_path
):
    flags = ["--height", 32, "--width", 24, "--window", "4,3", "--window_stride", 2]
    flags += ["--window_center", 1, "--classes", "7", "--count", 2, "--batch_size", 2]
    assert sample(workdir, tmp_path / "out", *flags, "--guidance", 1) == 0
    expected = load_prior(workdir).generate(
        jax.random.key(0), [7, 7], temperature=0.9, top_p=0.95, shape=(8, 6),
        window=(4, 3), window_stride=2, window_center=1,
    )  # fmt: skip
    assert expected.shape == (2, 32, 24, 3)
    assert_array_equal(samples(tmp_path / "out")[0], to_uint8(expected))


REQUEST = ["--classes", "7,2", "--count", 3, "--seed", 5, "--guidance", 1.5]


def test_what_is_missing_is_drawn_again_and_is_the_same(workdir, output, tmp_path):
    """As after a kill; and it may be completed in batches of another size."""
    shutil.copytree(output, tmp_path / "out")
    for name in ("00001.png", "00004.png", "00005.png", "samples.npz", "grid.png"):
        (tmp_path / "out" / name).unlink()
    kept = (tmp_path / "out" / "00003.png").stat().st_mtime_ns
    assert sample(workdir, tmp_path / "out", *REQUEST, "--batch_size", 3) == 0
    assert (tmp_path / "out" / "00003.png").stat().st_mtime_ns > kept  # of its batch
    assert names(tmp_path / "out") == names(output)
    np.testing.assert_array_equal(samples(tmp_path / "out")[0], samples(output)[0])


def test_what_is_complete_is_not_drawn_again(workdir, output, tmp_path, monkeypatch):
    shutil.copytree(output, tmp_path / "out")
    monkeypatch.setattr(PretrainedPrior, "sample", None)
    assert sample(workdir, tmp_path / "out", *REQUEST, "--batch_size", 4) == 0


def test_one_picture_is_no_full_batch(workdir, tmp_path, monkeypatch):
    drawn, draw = [], PretrainedPrior.sample

    def counted(prior, keys, *args, **kwargs):
        drawn.append(len(keys))
        return draw(prior, keys, *args, **kwargs)

    monkeypatch.setattr(PretrainedPrior, "sample", counted)
    assert sample(workdir, tmp_path / "out", "--classes", "7", "--count", 1) == 0
    assert drawn == [1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--guidance", 3], r"another request \(guidance=1.5, now guidance=3.0\)"),
        (["--seed", 6], r"another request \(seed=5, now seed=6\)"),
        (["--classes", "7,3"], "another request .*labels"),
        (["--height", "32"], r"another request \(shape=\[4, 4\], now shape=\[8, 4\]\)"),
        (["--window", "3"], r"another request \(windows=None, now windows={"),
        (["--dtype", "bfloat16"], r"another request \(prior\)"),
    ],
)
def test_another_request_is_refused(workdir, output, capsys, flags, message):
    before = names(output)
    assert sample(workdir, output, *REQUEST, *flags) == 2
    assert re.search(message, capsys.readouterr().err)
    assert names(output) == before


def test_the_same_request_in_other_words_goes_on(
    workdir, output, tmp_path, monkeypatch
):
    """What is not said, said; and of a run that was moved."""
    shutil.copytree(output, tmp_path / "out")
    shutil.copytree(workdir, tmp_path / "moved")
    monkeypatch.setattr(PretrainedPrior, "sample", None)
    flags = ["--height", 16, "--window_stride", 1, "--window_center", 2]
    flags += ["--dtype", "float32", "--top_p", 0.95]
    assert sample(tmp_path / "moved", tmp_path / "out", *REQUEST, *flags) == 0


def test_windows_are_known_by_what_comes_of_them(workdir, tmp_path, monkeypatch):
    flags = ["--classes", "7", "--count", 1, "--height", 24]
    assert sample(workdir, tmp_path / "out", *flags) == 0
    monkeypatch.setattr(PretrainedPrior, "sample", None)
    said = ["--window", 4, "--window_stride", 1, "--window_center", "2,2"]
    assert sample(workdir, tmp_path / "out", *flags, *said) == 0
    assert sample(workdir, tmp_path / "out", *flags, "--window_center", 1) == 2


def test_a_prior_that_was_trained_again_does_not_go_on(workdir, tmp_path, capsys):
    """In the same place, to the same step."""
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(workdir, run)
    assert sample(run, out, "--classes", "7", "--count", 1) == 0
    shutil.rmtree(run / "prior")
    tiny_run.write_prior(run, seed=1)
    assert sample(run, out, "--classes", "7", "--count", 1) == 2
    assert "another request (prior" in capsys.readouterr().err


def test_pictures_are_drawn_with_the_dtype_that_is_said(workdir, tmp_path):
    flags = ["--classes", "7", "--count", 2, "--guidance", 1, "--batch_size", 2]
    flags += ["--dtype", "bfloat16"]
    assert sample(workdir, tmp_path / "out", *flags) == 0
    expected = load_prior(workdir, "bfloat16").generate(
        jax.random.key(0), [7, 7], temperature=0.9, top_p=0.95
    )
    assert_array_equal(samples(tmp_path / "out")[0], to_uint8(expected))


def test_what_is_no_part_of_it_is_not_overwritten(workdir, capsys, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    assert sample(workdir, tmp_path, *REQUEST) == 2
    assert "is not an empty directory" in capsys.readouterr().err
    assert names(tmp_path) == ["mine.txt"]


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_many_classes_stand_beside_each_other(workdir, tmp_path):
    assert sample(workdir, tmp_path / "out", "--count", 1) == 0
    with Image.open(tmp_path / "out" / "grid.png") as picture:
        assert picture.size == (10 * 16 + 9 * 2, 16 + LINE)


@pytest.mark.parametrize(
    ("keep", "rows", "columns"),
    [
        ("top", slice(0, 2), slice(0, 4)),
        ("left", slice(0, 4), slice(0, 2)),
        ("0.5,0.25,1,0.75", slice(1, 3), slice(2, 4)),
    ],
)
def test_a_picture_is_completed_around_what_is_kept(
    workdir, tmp_path, keep, rows, columns
):
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "given.png")
    flags = ["--given", tmp_path / "given.png", "--keep", keep, "--count", 1]
    assert sample(workdir, tmp_path / "out", *flags, "--classes", "0") == 0
    prior = load_prior(workdir)
    square = from_uint8(read_square(tmp_path / "given.png", 16)[None])
    given = np.full((1, 4, 4), -1)
    given[:, rows, columns] = prior.vqgan.encode(square)[:, rows, columns]
    settings = prior.default_settings | {"given": given}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LateCodes)
        expected = prior.generate(jax.random.key(0), [0], **settings)
    assert_array_equal(samples(tmp_path / "out")[0], to_uint8(expected))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--classes", "10"], "no class 10; this prior has 0 to 9"),
        (["--classes", "cat"], "--classes cat: numbers with commas"),
        (["--top_k", "0"], "top_k=0"),
        (["--top_p", "1.5"], "top_p=1.5"),
        (["--guidance_schedule", "steep"], "'steep': there are constant"),
        (["--temperature", "0"], "temperature=0.0"),
        (["--window", "5"], r"window=\(5, 5\): .* positions for \(4, 4\) codes"),
        (["--height", "32", "--window_stride", "5"], "stride"),
        (["--given", "none.png"], "none.png cannot be read"),
        (["--keep", "left"], "--keep left says what stays .*: name it by --given"),
    ],
)
def test_what_cannot_be_is_said_and_leaves_nothing(
    workdir, capsys, tmp_path, flags, message
):
    assert sample(workdir, tmp_path / "out", *flags) == 2
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_an_unconditional_prior_draws_as_many_as_are_asked_for(tmp_path, capsys):
    section = {
        **tiny_run.PRIOR,
        "condition": "none",
        "label_dropout": 0.0,
        "sampling": {},
    }
    run = tiny_run.write_run(tmp_path / "run")
    tiny_run.write_prior(run, section, class_names=())
    assert sample(run, tmp_path / "out", "--count", 5) == 0
    assert len(samples(tmp_path / "out")[0]) == 5
    assert sample(run, tmp_path / "more", "--classes", "1") == 2
    assert "unconditional" in capsys.readouterr().err
