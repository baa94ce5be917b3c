"""`scenes` against fixed bytes, and its truth against a painter without windows."""

import hashlib

import numpy as np
import pytest

from taming_jax.data import kinds, scenes, staging

COUNT = 60


@pytest.fixture(scope="module")
def batch():
    return scenes.render(0, np.arange(COUNT), 64, tuple(scenes.EXAMPLE))


@pytest.fixture(scope="module")
def plan():
    return staging.plan(0, np.arange(COUNT))


def nearest(plan, x, y):
    """The place of the nearest object at points [B,...], or N for none, in float64.

    Every object is asked everywhere, one picture at a time.
    """
    owners = np.full(np.broadcast_shapes(x.shape, y.shape), staging.OBJECTS)
    for picture, count in enumerate(plan.count):
        for place in reversed(range(count)):
            one = plan.objects.take((picture, place))
            angle = 2 * np.arctan(float(one.turn))
            turn = np.array(
                [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
            )
            away = np.stack([x[picture] - one.x, y[picture] - one.y]) / float(
                one.radius
            )
            u, v = np.tensordot(turn, away, 1)
            inside = kinds.distance([one.kind], u[None], v[None])[0] < 0
            owners[picture][inside] = place
    return owners


@pytest.fixture(scope="module")
def owners(plan):
    """Who is seen at each pixel's centre: [B,64,64]."""
    axis = (np.arange(64) + 0.5) / 32 - 1
    x, y = np.meshgrid(axis, axis)
    return nearest(plan, *(np.broadcast_to(grid, (COUNT, 64, 64)) for grid in (x, y)))


@pytest.mark.parametrize(
    ("size", "digest"),
    [
        (64, "64dbe439420ac6621604c621766474c8ba5aa3f770835d37384ad8da1de6b63f"),
        (45, "051e5187f70da2b740d3175219b0a173de8a30725958679a985e260ab972d267"),
        (256, "0726eb61813efb454e44a0c4aa9644f18daa5d1d70890716703e6b1d38c88368"),
    ],
)
def test_bytes_are_those_of_every_machine(size, digest):
    batch = scenes.render(7, np.arange(20), size, tuple(scenes.EXAMPLE))
    data = b"".join(batch[key].tobytes() for key in scenes.EXAMPLE)
    assert hashlib.sha256(data).hexdigest() == digest


def test_segmentation_shows_the_nearest_object(batch, plan, owners):
    classes = np.pad(plan.objects.kind + 1, ((0, 0), (0, 1)))
    expected = np.take_along_axis(classes, owners.reshape(COUNT, -1), 1)
    np.testing.assert_array_equal(batch["segmentation"].reshape(COUNT, -1), expected)


def test_depth_is_that_of_the_nearest_object(batch, plan, owners):
    seen = owners < staging.OBJECTS
    depths = 1 - np.pad(plan.objects.nearness, ((0, 0), (0, 1)))
    expected = np.take_along_axis(depths, owners.reshape(COUNT, -1), 1)
    np.testing.assert_array_equal(
        batch["depth"][seen], expected.reshape(seen.shape)[seen]
    )


def test_objects_are_nearer_than_the_setting_behind_them(batch, owners):
    """The setting, the same in a whole row, is where no object is."""
    empty = owners == staging.OBJECTS
    setting = np.where(empty, batch["depth"], -1).max(axis=2, keepdims=True)
    setting = np.where(setting < 0, 1, setting)
    # A corner of a turned cross or the end of a turned pill sinks in a little.
    assert (batch["depth"] - setting).max() < 0.02


def test_depth_falls_evenly_from_the_skyline_to_the_lower_edge(plan):
    plan_of_one = scenes.render(0, np.arange(COUNT), 512, ("depth",))["depth"][:, :, 0]
    ground = (np.arange(512) + 0.5) / 256 - 1 > plan.skyline[:, None]
    fall = -np.diff(plan_of_one, axis=1) * 256 * (1 - plan.horizon[:, None])
    # Left out: the skyline's own row, and rows where an object stands at the border.
    even = np.median(
        np.where(ground[:, :-1] & ground[:, 1:], fall, np.nan)[:, 400:], axis=1
    )
    # Differences of single-precision numbers near 1, times 256.
    np.testing.assert_allclose(even, 1, atol=1e-4)


def test_boxes_are_the_extents_of_what_is_in_sight(batch, owners):
    for picture in range(COUNT):
        for place in range(staging.OBJECTS):
            y, x = np.nonzero(owners[picture] == place)
            extent = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0] * 4
            assert (batch["boxes"][picture, place] * 64).tolist() == extent


def test_box_classes_are_those_of_the_objects_in_sight(batch, plan, owners):
    places = np.arange(staging.OBJECTS)[:, None, None]
    seen = (owners[:, None] == places).any(axis=(2, 3))
    np.testing.assert_array_equal(
        batch["box_classes"], np.where(seen, plan.objects.kind, -1)
    )


def test_label_is_the_class_at_the_smallest_depth_of_an_object(batch):
    inside = batch["segmentation"] > 0
    depth = np.where(inside, batch["depth"], 2).reshape(COUNT, -1)
    first = depth.argmin(axis=1)[:, None]
    label = (
        np.take_along_axis(batch["segmentation"].reshape(COUNT, -1), first, 1)[:, 0] - 1
    )
    np.testing.assert_array_equal(batch["label"], label)


def test_keypoints_are_in_sight_unless_a_nearer_object_hides_them(batch, plan):
    x, y, in_sight = np.moveaxis(batch["keypoints"].astype(float), -1, 0)
    owners = nearest(plan, 2 * x - 1, 2 * y - 1)
    place = np.arange(staging.OBJECTS)[:, None]
    expected = (owners >= place) & plan.present[..., None]
    np.testing.assert_array_equal(in_sight, expected)


def test_keypoints_of_the_nearest_object_are_all_in_sight(batch):
    assert batch["keypoints"][:, 0, :, 2].all()


def test_edges_are_where_the_owner_changes(batch, owners):
    change = owners[:, :, 1:] != owners[:, :, :-1]
    beside = np.maximum(batch["edges"][:, :, 1:], batch["edges"][:, :, :-1])
    assert beside[change].min() >= 0.5


def test_no_edge_shows_through_an_object(batch, owners):
    """Two pixels from any change of owner there is none."""
    same = np.ones((COUNT, 60, 60), bool)
    for dy in range(5):
        for dx in range(5):
            same &= owners[:, dy : dy + 60, dx : dx + 60] == owners[:, 2:62, 2:62]
    inside = same & (owners[:, 2:62, 2:62] < staging.OBJECTS)
    # Tips too thin to own a pixel's centre leave a trace.
    assert batch["edges"][:, 2:62, 2:62][inside].max() < 0.1


def test_nearer_objects_are_larger_and_stand_lower(plan):
    present = plan.present[:, 1:]
    assert (np.diff(plan.objects.foot, axis=1)[present] < 0).all()


def test_scenes_have_three_to_six_objects_of_different_hues(plan):
    hues = [
        set(row[:count])
        for row, count in zip(plan.objects.hue, plan.count, strict=True)
    ]
    assert [len(hue) for hue in hues] == plan.count.tolist()
    assert set(plan.count) == {3, 4, 5, 6}


def test_few_objects_are_wholly_hidden():
    batch = scenes.render(0, np.arange(500), 64, ("box_classes",))
    seen = (batch["box_classes"] >= 0).sum()
    assert seen / staging.plan(0, np.arange(500)).present.sum() > 0.98
