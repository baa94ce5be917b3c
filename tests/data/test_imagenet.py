"""ImageNet without its pictures: the same layouts, a few grey squares in them."""

import numpy as np
import pytest
from PIL import Image

from taming_jax.data import eval_batches, open_source, train_batches

TENCH, SHARK, FOX = "n01440764", "n01491361", "n02119022"


def imagenet(split="train", **settings):
    return open_source({"name": "imagenet", "image_size": 8} | settings, split)


def examples(source):
    """(grey level, label) of every picture, sorted."""
    keep = ("image", "label")
    (batch,) = eval_batches(source, batch_size=len(source), keep=keep)
    pairs = zip(batch["image"][:, 0, 0, 0], batch["label"], batch["mask"], strict=True)
    return sorted((int(level), int(label)) for level, label, whole in pairs if whole)


@pytest.fixture
def tree(tmp_path):
    """Foxes of levels 20 and 21, tench of 0 and 1, sharks of 10 and 11."""
    root = tmp_path / "ILSVRC" / "Data" / "train"
    for tens, synset in enumerate([TENCH, SHARK, FOX]):
        (root / synset).mkdir(parents=True)
        for ones in range(2):
            picture = Image.new("RGB", (8, 8), (10 * tens + ones,) * 3)
            picture.save(root / synset / f"{synset}_{ones}.JPEG", "JPEG")
    return root


def test_labels_are_ranks_of_synsets(tree):
    source = imagenet(train=str(tree), val=str(tree))
    assert source.class_names == (TENCH, SHARK, FOX)
    assert examples(source) == [(0, 0), (1, 0), (10, 1), (11, 1), (20, 2), (21, 2)]


def test_a_val_of_fewer_classes_keeps_their_ranks(tree, tmp_path):
    (tmp_path / "val").mkdir()
    (tree / FOX).rename(tmp_path / "val" / FOX)
    (tree / FOX).mkdir()
    Image.new("L", (8, 8)).save(tree / FOX / "a.JPEG", "JPEG")
    source = imagenet("val", train=str(tree), val=str(tmp_path / "val"))
    assert examples(source) == [(20, 2), (21, 2)]


def test_human_names_come_from_the_mapping_above_the_tree(tree, tmp_path):
    lines = [f"{FOX} red fox, Vulpes vulpes", f"{TENCH} tench, Tinca tinca"]
    (tmp_path / "LOC_synset_mapping.txt").write_text("\n".join(lines))
    names = imagenet(train=str(tree)).class_names
    assert names == ("tench, Tinca tinca", SHARK, "red fox, Vulpes vulpes")


def test_the_file_that_the_original_drops_is_dropped(tree):
    before = len(imagenet(train=str(tree), val=str(tree)))
    (tree / "n06596364").mkdir()
    for name in ("n06596364_9591.JPEG", "n06596364_9592.JPEG"):
        Image.new("L", (8, 8)).save(tree / "n06596364" / name, "JPEG")
    assert len(imagenet(train=str(tree), val=str(tree))) == before + 1


def test_a_directory_above_the_synsets_is_refused_and_theirs_named(tree):
    with pytest.raises(ValueError, match=r"no pictures in dir.*Data/train\)"):
        imagenet(train=str(tree.parent))


def prepare(directory, file_format):
    """What TFDS would leave there: 20 pictures to train, 5 to validate, in 3 shards."""
    import tensorflow_datasets as tfds

    class Imagenet2012(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("5.1.0")
        code_path = None  # a test is not in a package

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=1000),
                "file_name": tfds.features.Text(),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            train = self._generate_examples([*range(19), 9591])
            return {
                "train": train,
                "validation": self._generate_examples(range(40, 45)),
            }

        def _generate_examples(self, numbers):
            for number in numbers:
                name = f"n06596364_{number}.JPEG"
                image = np.full((8, 8, 3), number % 256, np.uint8)
                yield name, {"image": image, "label": number % 3, "file_name": name}

    builder = Imagenet2012(data_dir=directory, file_format=file_format)
    options = tfds.download.DownloadConfig(num_shards=3)
    builder.download_and_prepare(download_config=options)
    return directory


@pytest.fixture(scope="module", params=["array_record", "tfrecord"])
def records(request, tmp_path_factory):
    return prepare(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def prepared(records, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(records))


@pytest.mark.usefixtures("prepared")
class TestRecords:
    def test_every_record_is_found_by_its_index(self):
        source = imagenet("val", train="train")
        assert examples(source) == [(n, n % 3) for n in range(40, 45)]

    def test_classes_are_the_thousand_synsets_in_order(self):
        names = imagenet(train="train").class_names
        assert (len(names), names[0]) == (1000, TENCH)
        assert list(names) == sorted(names)

    def test_parts_of_a_split_are_disjoint_and_complete(self):
        parts = [imagenet(train=s) for s in ("train[:35%]", "train[35%:]")]
        shown = [example for part in parts for example in examples(part)]
        assert sorted(shown) == [(n, n % 3) for n in range(19)]

    def test_the_dropped_file_is_replaced_in_training(self, caplog):
        source = imagenet(train="train")
        batches = train_batches(source, batch_size=20, seed=0, keep=["image"])
        levels = next(batches)["image"][:, 0, 0, 0]
        assert 9591 % 256 not in levels
        assert "n06596364_9591.JPEG takes no part" in caplog.text

    def test_a_split_that_is_not_there_is_refused(self):
        message = r"data\.train is 'trian'; TFDS imagenet2012 has train, validation"
        with pytest.raises(ValueError, match=message):
            imagenet(train="trian")


def test_records_after_a_tear_are_bad_and_those_before_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepare(tmp_path, "tfrecord")))
    whole = examples(imagenet(train="train[:7]"))  # they fill the first shard
    (shard,) = tmp_path.rglob("*train*-00000-*")
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    torn = examples(imagenet(train="train[:7]", max_bad_share=0.9))
    assert len(torn) == 3
    assert set(torn) < set(whole)


def test_data_that_are_not_prepared_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=rf"{tmp_path} does not have; .*`tfds build"):
        imagenet(train="train")
