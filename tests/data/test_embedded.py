import numpy as np
import pytest

from taming_jax.conditions.coordinates import coordinates
from taming_jax.data import eval_batches, open_source, train_batches


def embedded(split="train", name="shapes", **settings):
    data = {"name": name, "train": 40, "val": 20, "image_size": 16}
    return open_source(data | settings, split)


@pytest.mark.parametrize(
    ("name", "settings"), [("shapes", {}), ("scenes", {}), ("scenes", {"zoom": 2})]
)
def test_every_field_has_the_shape_and_type_that_its_source_states(name, settings):
    source = embedded(name=name, **settings)
    (batch,) = eval_batches(source, batch_size=40, keep=tuple(source.example_spec))
    for key, (dtype, shape) in source.example_spec.items():
        assert (batch[key].dtype, batch[key].shape) == (dtype, (40, *shape))


def test_a_picture_belongs_to_its_index():
    source = embedded()
    batch = next(train_batches(source, batch_size=5, seed=0))
    alone = [source.read(np.array([i]), None, ("image",)) for i in batch["index"]]
    expected = np.concatenate([picture["image"] for picture in alone])
    np.testing.assert_array_equal(batch["image"], expected)


def test_training_and_validation_share_no_picture():
    pictures = {
        split: {
            image.tobytes()
            for batch in eval_batches(embedded(split, train=20), batch_size=20)
            for image in batch["image"]
        }
        for split in ("train", "val")
    }
    assert len(pictures["train"] | pictures["val"]) == 40


def test_identity_tells_splits_and_counts_apart_but_not_sizes():
    identity = embedded().identity
    assert embedded(image_size=32).identity == identity
    others = [embedded("val"), embedded(train=41), embedded(name="scenes")]
    assert all(other.identity != identity for other in others)


def test_a_zoom_cuts_squares_out_of_larger_scenes():
    keep = ("image", "segmentation", "depth", "edges")
    indices = np.arange(4)
    whole = embedded(name="scenes", image_size=48).read(indices, None, keep)
    source = embedded(name="scenes", image_size=16, zoom=3)
    middle = source.read(indices, None, keep)
    corner = source.read(indices, np.zeros((4, 3), np.float32), keep)
    end = source.read(indices, np.full((4, 3), 0.999, np.float32), keep)
    for name in keep:
        np.testing.assert_array_equal(middle[name], whole[name][:, 16:32, 16:32])
        np.testing.assert_array_equal(corner[name], whole[name][:, :16, :16])
        np.testing.assert_array_equal(end[name], whole[name][:, 32:, 32:])


def test_a_crop_says_where_in_its_scene_it_lies():
    """As a source that has the whole scene's coordinates for a picture would."""
    whole = coordinates(48, 48)
    source, indices = embedded(name="scenes", image_size=16, zoom=3), np.arange(2)
    middle = source.read(indices, None, ("coordinates",))["coordinates"]
    np.testing.assert_array_equal(middle, whole[None, 16:32, 16:32].repeat(2, 0))
    chances = np.float32([[0.999, 0, 0], [0, 0.999, 0]])
    corners = source.read(indices, chances, ("image", "coordinates"))["coordinates"]
    np.testing.assert_array_equal(corners, [whole[:16, 32:], whole[32:, :16]])


def test_a_crop_has_the_boxes_of_its_scene_and_says_what_of_it_is_seen():
    """The scene's boxes as they are; in its maps the crop is where it says it is."""
    keep, indices = ("boxes", "box_classes", "segmentation"), np.arange(4)
    whole = embedded(name="scenes", image_size=48).read(indices, None, keep)
    source = embedded(name="scenes", image_size=16, zoom=3)
    chances = np.float32([[0, 0, 0], [0.999, 0, 0], [0, 0.999, 0], [0.4, 0.7, 0]])
    cut = source.read(indices, chances, (*keep, "crop"))
    np.testing.assert_array_equal(cut["boxes"], whole["boxes"])
    np.testing.assert_array_equal(cut["box_classes"], whole["box_classes"])
    first, last = cut["crop"][0], cut["crop"][1]
    np.testing.assert_array_equal(first, np.float32([0, 0, 1 / 3, 1 / 3]))
    np.testing.assert_array_equal(last, np.float32([2 / 3, 0, 1, 1 / 3]))
    for seen, scene, crop in zip(
        cut["segmentation"], whole["segmentation"], cut["crop"], strict=True
    ):
        x0, y0, x1, y1 = np.round(48 * crop).astype(int)
        np.testing.assert_array_equal(seen, scene[y0:y1, x0:x1])
    (middle,) = source.read(np.arange(1), None, ("crop",))["crop"]
    np.testing.assert_array_equal(middle, np.float32([1 / 3, 1 / 3, 2 / 3, 2 / 3]))


def test_whole_scenes_say_no_places():
    assert not {"coordinates", "crop"} & set(embedded(name="scenes").example_spec)


def test_crops_of_training_lie_anywhere_and_again_at_the_same_place():
    source = embedded(name="scenes", image_size=16, zoom=4)
    first, again = (next(train_batches(source, batch_size=8, seed=0)) for _ in range(2))
    np.testing.assert_array_equal(first["image"], again["image"])
    middle = source.read(first["index"], None, ("image",))["image"]
    assert all((a != b).any() for a, b in zip(first["image"], middle, strict=True))


def test_crops_have_no_labels_and_no_keypoints():
    source = embedded(name="scenes", zoom=2)
    others = {"coordinates", "crop"}
    of_whole = set(embedded(name="scenes").example_spec)
    assert set(source.example_spec) == of_whole - {"label", "keypoints"} | others
    assert source.class_names == ()  # there is no label to be called anything
    assert source.region_names == embedded(name="scenes").region_names
    assert source.identity != embedded(name="scenes").identity


@pytest.mark.parametrize("zoom", [0, 1.5, "2"])
def test_a_zoom_that_is_no_whole_number_is_refused(zoom):
    with pytest.raises(ValueError, match=r"data\.zoom is .*whole number of times"):
        embedded(name="scenes", zoom=zoom)
