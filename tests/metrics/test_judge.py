"""The judge: learned from labels, kept as long as nothing changes, judged itself."""

import dataclasses

import jax
import numpy as np
import pytest
from bucket import stand_in

from taming_jax import data
from taming_jax.data import BadRecords, Field
from taming_jax.metrics.judge import Recipe, judge_of

QUICK = Recipe(size=8, widths=(8,), features=4, steps=40, batch_size=16)


class Shades:
    """Noise that is dark, or light: an object that anyone can tell from the other."""

    class_names = ("dark", "light")
    chunk, one_of = 4, ()

    def __init__(self, count: int, size: int = 8, name: str = "shades"):
        self._count = count
        self.identity = {"name": name, "pictures": count}
        self.example_spec = {
            "image": Field("uint8", (size, size, 3)),
            "label": Field("int32", ()),
        }
        self.bad = BadRecords(count)

    def __len__(self):
        return self._count

    def read(self, indices, draws, keep):
        label = (indices % 2).astype(np.int32)
        shape = self.example_spec["image"].shape
        noise = [np.random.default_rng(i).integers(0, 100, shape) for i in indices]
        image = np.stack(noise).astype(np.uint8) + 155 * label[:, None, None, None]
        return {"image": image.astype(np.uint8), "label": label}


@pytest.fixture
def kept(tmp_path):
    """A judge of 50 pictures and the directory that it was written to."""
    return judge_of(Shades(50), Shades(11), directory=tmp_path, recipe=QUICK), tmp_path


def test_it_learns_to_tell_classes_apart(kept):
    assert kept[0].card["held_out_accuracy"] == 1.0


def test_its_own_accuracy_is_over_each_held_out_picture_once(kept):
    assert kept[0].card["held_out_examples"] == 11


def test_it_gives_a_feature_vector_and_a_label_per_picture(kept):
    pictures = Shades(6).read(np.arange(6), None, ())["image"]
    features, labels = kept[0](pictures)
    assert (features.shape, features.dtype) == ((6, 4), np.float32)
    np.testing.assert_array_equal(labels, [0, 1, 0, 1, 0, 1])


def test_it_scales_pictures_to_the_size_that_it_knows(kept):
    larger = Shades(2, size=20).read(np.arange(2), None, ())["image"]
    np.testing.assert_array_equal(kept[0](larger)[1], [0, 1])


def test_it_is_trained_once(kept, monkeypatch):
    judge, directory = kept
    monkeypatch.setattr(data, "train_batches", None)  # training again would fail
    again = judge_of(Shades(50), Shades(11), directory=directory, recipe=QUICK)
    assert again.card == judge.card
    jax.tree.map(np.testing.assert_array_equal, again.params, judge.params)


def test_it_may_be_kept_in_a_bucket(tmp_path, monkeypatch):
    few = Shades(5), Shades(4)
    with stand_in(tmp_path):
        judge = judge_of(*few, directory="gs://bucket/judge", recipe=QUICK)
        monkeypatch.setattr(data, "train_batches", None)  # training again would fail
        again = judge_of(*few, directory="gs://bucket/judge", recipe=QUICK)
    assert again.card == judge.card


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"train": Shades(52)},
        {"held_out": Shades(12)},
        {"train": Shades(50, size=12)},
        {"recipe": dataclasses.replace(QUICK, steps=39)},
    ],
    ids=["seed", "data", "held out", "size", "recipe"],
)
def test_a_change_makes_another_one(kept, change):
    judge, directory = kept
    arguments = {"train": Shades(50), "held_out": Shades(11), "recipe": QUICK, **change}
    other = judge_of(directory=directory, **arguments)
    assert other.card["identity"] != judge.card["identity"]


def test_one_that_was_not_saved_whole_is_made_again(kept):
    judge, directory = kept
    weights = directory / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:-100])
    again = judge_of(Shades(50), Shades(11), directory=directory, recipe=QUICK)
    jax.tree.map(np.testing.assert_array_equal, again.params, judge.params)


def test_few_pictures_are_enough(tmp_path):
    judge = judge_of(Shades(5), Shades(4), directory=tmp_path, recipe=QUICK)
    assert judge.card["held_out_examples"] == 4


def test_one_class_is_nothing_to_judge(tmp_path):
    alike = Shades(50)
    alike.class_names = ("dark",)
    with pytest.raises(ValueError, match=r"have 1;.*one directory per class"):
        judge_of(alike, Shades(11), directory=tmp_path, recipe=QUICK)


@pytest.mark.slow
def test_it_knows_the_shapes(tmp_path):
    config = {"name": "shapes", "train": 24_000, "val": 1_000, "image_size": 64}
    train, held_out = (data.open_source(config, split) for split in ("train", "val"))
    judge = judge_of(train, held_out, directory=tmp_path)
    assert judge.card["held_out_accuracy"] >= 0.99  # a seed of three gave .999
