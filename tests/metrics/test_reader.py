"""The reader: learned from maps, and kept as long as nothing changes."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax import data
from taming_jax.metrics import reader as readers
from taming_jax.metrics import truth
from taming_jax.metrics.reader import Recipe, heat_of, reader_of

QUICK = Recipe(widths=(16, 16, 16), steps=60, batch_size=8)
DATA = {"name": "scenes", "train": 64, "val": 8, "image_size": 16}


@pytest.fixture(scope="module")
def source():
    return data.open_source(DATA, "train")


@pytest.fixture(scope="module")
def kept(source, tmp_path_factory):
    directory = tmp_path_factory.mktemp("reader") / "kept"
    return reader_of(source, directory=directory, recipe=QUICK), directory


@pytest.fixture(scope="module")
def batch(source):
    return source.read(np.arange(16), None, ("image", *readers.READS))


def test_it_reads_maps_of_what_it_is_shown(kept, batch):
    read = kept[0](batch["image"])
    assert read["segmentation"].shape == (16, 16, 16)
    assert read["keypoints"].shape == (16, 16, 16, 5)
    assert 0 <= read["depth"].min() <= read["depth"].max() <= 1


def test_it_learns_depth_better_than_the_mean_of_all(kept, batch):
    error = truth.depth_error(batch["depth"], kept[0](batch["image"])["depth"])
    mean = np.full_like(batch["depth"], batch["depth"].mean())
    assert error.mean() < 0.7 * truth.depth_error(batch["depth"], mean).mean()


def test_it_is_not_learned_again_while_nothing_changes(kept, source, monkeypatch):
    monkeypatch.setattr(readers, "trained", None)
    again = reader_of(source, directory=kept[1], recipe=QUICK)
    for name in again.params["Conv_0"]:
        assert_array_equal(again.params["Conv_0"][name], kept[0].params["Conv_0"][name])


def test_another_recipe_makes_another_one(kept, source, tmp_path):
    (tmp_path / "reader.json").write_bytes((kept[1] / "reader.json").read_bytes())
    (tmp_path / "weights.npz").write_bytes((kept[1] / "weights.npz").read_bytes())
    other = dataclasses.replace(QUICK, steps=1)
    assert reader_of(source, directory=tmp_path, recipe=other).card != kept[0].card


def test_data_without_maps_cannot_be_read(tmp_path):
    class Plain:
        example_spec = {"image": None}  # noqa: RUF012

    with pytest.raises(ValueError, match="no segmentation, depth, edges, keypoints"):
        reader_of(Plain(), directory=tmp_path)


def test_of_crops_it_reads_what_they_have(tmp_path):
    crops = data.open_source(DATA | {"zoom": 2}, "train")
    with pytest.raises(ValueError, match="have no keypoints"):
        reader_of(crops, directory=tmp_path / "all")
    recipe = dataclasses.replace(QUICK, steps=2)
    reader = reader_of(
        crops, directory=tmp_path, reads=["edges", "segmentation"], recipe=recipe
    )
    shown = crops.read(np.arange(3), None, ["image"])["image"]
    read = reader(shown)
    assert {name: values.shape for name, values in read.items()} == {
        "segmentation": (3, 16, 16),
        "edges": (3, 16, 16),
    }
    assert read["segmentation"].dtype == np.int32


def test_of_data_that_do_not_name_their_classes_somebody_says_how_many(
    source, tmp_path, monkeypatch
):
    monkeypatch.setattr(source, "region_names", ())
    maps = {"reads": ["segmentation"], "recipe": dataclasses.replace(QUICK, steps=2)}
    with pytest.raises(ValueError, match="do not say how many classes there are"):
        reader_of(source, directory=tmp_path, **maps)
    reader = reader_of(source, directory=tmp_path, regions=13, **maps)
    assert dict(reader.network.reads) == {"segmentation": 13}


def test_what_nobody_can_read_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match="a reader of smell: name"):
        reader_of(source, directory=tmp_path, reads=["smell"])
    with pytest.raises(ValueError, match="reader of nothing"):
        reader_of(source, directory=tmp_path, reads=[])


def test_heat_is_one_at_a_point_in_sight_and_zero_for_a_hidden_one():
    points = np.zeros((1, 2, 2, 3), np.float32)
    points[0, 0, 0] = [4.5 / 8, 2.5 / 8, 1]
    points[0, 1, 1] = [0.5, 0.5, 0]
    heat = np.asarray(heat_of(points, 8))
    assert_allclose(heat[0, 2, 4, 0], 1)
    assert heat[..., 0].argmax() == 2 * 8 + 4
    assert_array_equal(heat[..., 1], 0)
