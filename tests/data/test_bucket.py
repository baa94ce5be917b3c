"""Data in a bucket: the same pictures, classes and identity as on a disk."""

import shutil

import numpy as np
import pytest
from bucket import stand_in
from PIL import Image

from taming_jax.data import open_codes, open_source
from taming_jax.data.codes import Views
from taming_jax.data.codes_writer import describe, write_codes
from taming_jax.data.decoding import read_image
from taming_jax.data.folder import list_images

SIZE = 16
SYNSETS = ("n01440764", "n01443537")


@pytest.fixture
def bucket(tmp_path):
    with stand_in(tmp_path / "cloud") as bucket:
        yield bucket


@pytest.fixture
def pictures(tmp_path, bucket):
    """The same eight pictures on the disk and in the bucket, which hides one more."""
    root = tmp_path / "pictures"
    for number in range(8):
        path = root / SYNSETS[number % 2] / "deeper" / f"{number} é.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    (root / "notes.txt").write_text("no picture")
    shutil.copytree(root, bucket.local / "data/pictures")
    return root


def opened(name, train, **settings):
    data = {"name": name, "train": str(train), "val": 0.25, "image_size": SIZE}
    return open_source(data | settings, "train")


@pytest.mark.parametrize("name", ["folder", "imagenet"])
def test_pictures_are_those_of_the_disk(name, pictures, bucket):
    sources = [opened(name, root) for root in (pictures, bucket.path / "data/pictures")]
    here, there = (
        source.read(np.arange(6), None, ("image", "label")) for source in sources
    )
    np.testing.assert_array_equal(here["image"], there["image"])
    np.testing.assert_array_equal(here["label"], there["label"])


@pytest.mark.parametrize("name", ["folder", "imagenet"])
def test_the_same_pictures_are_the_same_data(name, pictures, bucket):
    identities = [
        (source.identity, source.class_names)
        for source in (
            opened(name, pictures),
            opened(name, "gs://bucket/data/pictures"),
        )
    ]
    assert identities[0] == identities[1]


def test_human_names_of_the_classes_are_found(pictures, bucket):
    mapping = bucket.local / "data/LOC_synset_mapping.txt"
    mapping.write_text(f"{SYNSETS[0]} tench\n{SYNSETS[1]} goldfish\n")
    source = opened("imagenet", bucket.path / "data/pictures")
    assert source.class_names == ("tench", "goldfish")


def test_a_list_names_pictures_beside_it(pictures, bucket):
    lines = [str(p.relative_to(pictures)) for p in sorted(pictures.rglob("*.png"))]
    (bucket.local / "data/pictures/list.txt").write_text("\n".join(lines))
    found = list_images("gs://bucket/data/pictures/list.txt")
    assert [str(p) for p in found] == [f"gs://bucket/data/pictures/{x}" for x in lines]


def test_one_picture_is_read(pictures, bucket):
    name = f"{SYNSETS[0]}/deeper/0 é.png"
    there = read_image(f"gs://bucket/data/pictures/{name}")
    np.testing.assert_array_equal(there, read_image(pictures / name))


def test_nobody_is_asked_whether_a_picture_is_a_directory(
    pictures, bucket, monkeypatch
):
    """A request each: for ImageNet's pictures, hours."""
    asked = []
    is_dir = type(bucket.path).is_dir
    monkeypatch.setattr(
        type(bucket.path),
        "is_dir",
        lambda path: asked.append(path.name) or is_dir(path),
    )
    list_images("gs://bucket/data/pictures")
    assert not [name for name in asked if name.endswith(".png")]


def test_codes_are_written_and_read(pictures, bucket):
    sources = {split: opened("folder", pictures) for split in ("train", "val")}
    about = describe(
        sources,
        Views(),
        fingerprint="f00d",
        codebook_size=256,
        grid=(4, 4),
        image_size=SIZE,
    )
    write_codes(
        bucket.path / "run/codes",
        sources,
        about,
        lambda pictures: pictures[:, ::4, ::4, 0],
        batch_size=4,
        progress=lambda count: None,
    )
    codes = open_codes(
        "gs://bucket/run/codes",
        "train",
        fingerprint="f00d",
        identity=sources["train"].identity,
        image_size=SIZE,
    )
    images = sources["train"].read(np.arange(6), None, ("image",))["image"]
    read = codes.read(np.arange(6), None, ("codes",))["codes"]
    np.testing.assert_array_equal(read, images[:, ::4, ::4, 0])


@pytest.mark.parametrize("path", ["gs://bucket/data", "gs://bucket/list.txt"])
def test_a_bucket_without_permission_is_one_line(path, bucket):
    bucket.forbidden = True
    with pytest.raises(ValueError, match=r"cannot be reached: .*has no") as refused:
        opened("folder", path)
    assert "\n" not in str(refused.value)


def test_codes_in_a_bucket_without_permission_are_one_line(bucket):
    bucket.forbidden = True
    with pytest.raises(ValueError, match=r"codes\.json' *, which cannot be reached"):
        open_codes(
            "gs://bucket/codes", "train", fingerprint="", identity={}, image_size=SIZE
        )
