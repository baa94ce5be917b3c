"""`tokenize`: W/codes, whole or not at all, as the tokenizer sees the pictures."""

import copy
import functools
import re
import shutil

import numpy as np
import pytest
import tiny_run
from bucket import stand_in
from PIL import Image

import taming_jax
from taming_jax import cli, data
from taming_jax.pretrained import PretrainedVQGAN
from taming_jax.units import from_uint8


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on `shapes`, and one on a folder of four pictures that are cropped."""
    root = tmp_path_factory.mktemp("tokenize")
    tiny_run.write_run(root / "shapes")
    (root / "pictures").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).save(root / "pictures" / f"{number}.png")
    config = copy.deepcopy(tiny_run.CONFIG)
    place = str(root / "pictures")
    config["data"] = {"name": "folder", "train": place, "val": place, "zoom": 1.5}
    config["data"]["image_size"] = tiny_run.IMAGE_SIZE
    tiny_run.write_run(root / "folder", config)
    return root


@pytest.fixture
def workdir(run, tmp_path):
    """A copy of the run on `shapes`, to be written to."""
    return shutil.copytree(run / "shapes", tmp_path / "run")


@pytest.fixture
def folder(run, tmp_path):
    return shutil.copytree(run / "folder", tmp_path / "folder")


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch):
    """All copies hold the same weights; `mesh` is left out to compile once."""
    monkeypatch.setattr(
        taming_jax,
        "load_vqgan",
        lambda path, mesh, stage: LOAD(str(path), stage=stage),
        raising=False,
    )


LOAD = functools.cache(taming_jax.load_vqgan)


def tokenize(workdir, *flags):
    return cli.main(["tokenize", "--workdir", str(workdir), *map(str, flags)])


def open_codes(workdir, split="train"):
    vqgan = LOAD(str(workdir))
    settings = vqgan.config["data"]
    return data.open_codes(
        workdir / "codes",
        split,
        fingerprint=vqgan.fingerprint,
        identity=data.open_source(settings, split).identity,
        image_size=settings["image_size"],
    )


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_batch_of_codes_is_the_pictures_encoded(workdir, split):
    assert tokenize(workdir) == 0
    vqgan, codes = LOAD(str(workdir)), open_codes(workdir, split)
    pictures = data.open_source(vqgan.config["data"], split)
    batches = functools.partial(data.train_batches, batch_size=8, seed=1)
    read = next(batches(codes, keep=("codes", "label", "index")))
    seen = next(batches(pictures, keep=("image", "label", "index")))
    np.testing.assert_array_equal(read["index"], seen["index"])
    np.testing.assert_array_equal(read["label"], seen["label"])
    expected = vqgan.encode(from_uint8(seen["image"]))
    np.testing.assert_array_equal(read["codes"], expected)


@pytest.mark.parametrize(
    ("flags", "views"), [((), 1), (("--flips",), 2), (("--crops", 10), 10)]
)
def test_flags_say_how_many_views_there_are(folder, flags, views):
    assert tokenize(folder, *flags) == 0
    stored = np.load(folder / "codes" / "train" / "codes-00000.npy")
    assert stored.shape == (4, views, 4, 4)
    assert len({view.tobytes() for view in stored[0]}) == views
    stored = np.load(folder / "codes" / "val" / "codes-00000.npy")
    assert stored.shape == (4, 1, 4, 4)


def test_batch_size_changes_no_code(workdir, tmp_path):
    other = shutil.copytree(workdir, tmp_path / "other")
    for place, size in ((workdir, 5), (other, 24)):
        assert tokenize(place, "--batch_size", size) == 0
    one, two = (open_codes(place).read(np.arange(24), None, ["codes"])
                for place in (workdir, other))  # fmt: skip
    np.testing.assert_array_equal(one["codes"], two["codes"])


def test_codes_in_a_bucket_are_those_on_a_disk(workdir, tmp_path):
    with stand_in(tmp_path / "cloud") as bucket:
        shutil.copytree(workdir, bucket.local / "run")
        for place in (workdir, bucket.path / "run"):
            assert tokenize(place) == 0
        for path in (workdir / "codes").rglob("*.*"):
            there = bucket.local / "run" / path.relative_to(workdir)
            assert there.read_bytes() == path.read_bytes()


def test_it_says_how_far_it_is(workdir, capsys):
    tokenize(workdir)
    first, last = capsys.readouterr().out.splitlines()
    assert first == f"35 pictures to {workdir / 'codes'}"
    assert re.fullmatch(r"35/35 pictures  [\d.]+/s  0:00 to go", last)


def test_what_is_there_is_not_made_again(workdir, capsys):
    tokenize(workdir)
    written = (workdir / "codes" / "codes.json").stat().st_mtime_ns
    assert tokenize(workdir) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (workdir / "codes" / "codes.json").stat().st_mtime_ns == written


def test_other_codes_are_not_overwritten(folder, capsys):
    tokenize(folder, "--flips")
    assert tokenize(folder) == 2
    said = capsys.readouterr().err
    assert "codes has codes with another mirrored: remove it to write them" in said


def test_what_was_interrupted_leaves_nothing_behind(workdir, monkeypatch):
    before = set(workdir.rglob("*"))
    encoded, encode = [], PretrainedVQGAN.encode

    def encode_once(vqgan, images):
        if encoded:
            raise KeyboardInterrupt
        encoded.append(images)
        return encode(vqgan, images)

    monkeypatch.setattr(PretrainedVQGAN, "encode", encode_once)
    with pytest.raises(KeyboardInterrupt):
        tokenize(workdir, "--batch_size", 8)
    assert set(workdir.rglob("*")) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--flips"], "--flips is for data that .* does not mirror these .shapes"),
        (["--crops", 10], "--crops 10 is for .* does not crop or mirror these"),
        (["--crops", 10, "--flips"], "each crop mirrored already: leave --flips out"),
    ],
)
def test_views_that_the_data_do_not_have_are_refused(workdir, capsys, flags, message):
    assert tokenize(workdir, *flags) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (workdir / "codes").exists()
