"""What both embedded data sets promise, and the arithmetic that they share."""

import os
import subprocess
import sys

import numpy as np
import pytest

from taming_jax.data import kinds, rendering, scenes, shapes
from taming_jax.data.draws import Draws, _splitmix
from taming_jax.data.rendering import ONE, Pose
from taming_jax.data.textures import textures
from taming_jax.data.windows import window

both = pytest.mark.parametrize("dataset", [shapes, scenes], ids=["shapes", "scenes"])
every_kind = pytest.mark.parametrize("kind", range(10), ids=list(kinds.KINDS))


def drawn(dataset, count=20, size=64, keep=None, seed=0, first=0):
    keep = tuple(dataset.EXAMPLE) if keep is None else keep
    return dataset.render(seed, np.arange(first, first + count), size, keep)


# What both data sets promise.


@both
@pytest.mark.parametrize("size", [16, 45])
def test_example_says_what_comes(dataset, size):
    spec = {
        key: (entry.dtype, tuple({"H": size, "W": size}.get(a, a) for a in entry.shape))
        for key, entry in dataset.EXAMPLE.items()
    }
    batch = drawn(dataset, 3, size)
    assert spec == {key: (v.dtype.name, v.shape[1:]) for key, v in batch.items()}


@both
def test_a_picture_does_not_depend_on_its_batch(dataset):
    batch = drawn(dataset, 23)
    alone = [dataset.render(0, np.array([i]), 64, tuple(batch)) for i in range(23)]
    for key, values in batch.items():
        np.testing.assert_array_equal(
            values, np.concatenate([one[key] for one in alone])
        )


@both
@pytest.mark.parametrize("key", list(shapes.EXAMPLE))
def test_a_key_alone_equals_the_key_among_all(dataset, key):
    (values,) = drawn(dataset, 5, keep=(key,)).values()
    np.testing.assert_array_equal(values, drawn(dataset, 5)[key])


@both
def test_a_large_picture_made_small_is_the_small_picture(dataset):
    small = drawn(dataset, 40, 64, ("image",))["image"].astype(float)
    large = drawn(dataset, 40, 256, ("image",))["image"].astype(float)
    shrunk = large.reshape(40, 64, 4, 64, 4, 3).mean(axis=(2, 4))
    # 46.8 and 43.4 dB were measured; one sample a pixel, not antialiased, reaches 34.3.
    assert 10 * np.log10(255**2 / np.square(small - shrunk).mean()) > 42


@both
def test_odd_and_extreme_sizes_are_the_same_picture(dataset):
    label, few = drawn(dataset, 2, 16)["label"], ("image", "label")
    for size in (8, 37, 1024):
        np.testing.assert_array_equal(drawn(dataset, 2, size, few)["label"], label)


@both
def test_pictures_repeat_neither_within_nor_across_streams(dataset):
    train, val = (drawn(dataset, 500, 16, ("image",), seed)["image"] for seed in (0, 1))
    pictures = {picture.tobytes() for picture in np.concatenate([train, val])}
    assert len(pictures) == 1_000


@both
def test_ten_in_a_row_show_the_ten_classes(dataset):
    labels = drawn(dataset, 10, 8, ("label",), first=1_230)["label"]
    assert sorted(labels) == list(range(10))


@both
def test_truth_stays_in_its_range(dataset):
    batch = drawn(dataset, 100, 32)
    for key in ("depth", "edges", "boxes", "keypoints"):
        np.testing.assert_array_equal(batch[key], np.clip(batch[key], 0, 1))


@both
def test_the_bytes_do_not_depend_on_the_processor(dataset):
    """Without the wide instructions numpy takes other code paths, to the same end."""
    name = dataset.__name__.rpartition(".")[2]
    program = (
        f"import hashlib, numpy as np; from taming_jax.data.{name} import render;"
        "images = render(0, np.arange(20), 45, ('image',))['image'];"
        "print(hashlib.sha256(images.tobytes()).hexdigest())"
    )
    features = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"NPY_DISABLE_CPU_FEATURES": disabled},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for disabled in ("", " ".join(features))
    }
    assert len(digests) == 1


@both
def test_unknown_keys_are_refused_with_those_there_are(dataset):
    with pytest.raises(ValueError, match=r"'masks'.*image, label.*choose"):
        drawn(dataset, 1, keep=("image", "masks"))


@both
def test_pictures_too_small_to_draw_are_refused(dataset):
    with pytest.raises(ValueError, match=r"is 4;.*from 8 pixels"):
        drawn(dataset, 1, 4)


# The arithmetic.


def test_splitmix_gives_the_published_numbers():
    """Five for the seed 1234567, by Vigna's reference implementation in C."""
    state = np.arange(5, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    outputs = _splitmix(np.uint64(1234567) + state)
    assert outputs.tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_uniform_draws_fill_their_range_evenly():
    draws = Draws(0, np.arange(20_000)).uniform("x", -1, 3)
    counts, _ = np.histogram(draws, bins=10, range=(-1, 3))
    # 2,000 each, with a standard deviation of 42.
    assert abs(counts - 2_000).max() < 5 * 42


def test_purposes_lanes_and_streams_are_independent():
    draws, other = Draws(0, np.arange(20_000)), Draws(1, np.arange(20_000))
    lanes = draws.lanes(2).uniform("x", 0, 1).T
    rows = [draws.uniform("x", 0, 1), draws.uniform("y", 0, 1), *lanes]
    correlation = np.corrcoef([*rows, other.uniform("x", 0, 1)])
    # Five standard deviations of a chance correlation.
    assert abs(correlation - np.eye(5)).max() < 5 / np.sqrt(20_000)


def test_orders_are_permutations_and_differ():
    orders = Draws(0, np.arange(500)).order("slot", 4)
    assert len({tuple(order) for order in orders}) == 24


def test_direction_agrees_with_the_mathematical_library():
    tangent = np.linspace(-2, 2, 101, dtype=np.float32)
    angle = 2 * np.arctan(tangent.astype(float))
    # Single precision.
    np.testing.assert_allclose(
        rendering.direction(tangent), (np.cos(angle), np.sin(angle)), atol=3e-7
    )


def test_frame_undoes_placing():
    pose = Pose(*np.float32([[0.1, -0.3], [0.2, 0], [0.7, 0.2], [0.1, -0.05]]))
    points = kinds.POINTS[[3, 9]]  # [2,K,2]
    x, y = pose.place(points)
    u, v = pose.frame()(x[:, None], y[:, None])
    # Single precision.
    np.testing.assert_allclose(np.stack([u, v], -1)[:, 0], points, atol=1e-6)


def test_a_shadow_touches_its_object_at_the_foot():
    frame = Pose(*np.float32([[0.1], [0.2], [0.3], [0]])).frame()
    foot, x = np.float32([0.5]), np.linspace(-1, 1, 9, dtype=np.float32)
    cast = frame.cast(foot, np.float32([0.8]), 2.6)
    # Single precision.
    np.testing.assert_allclose(cast(x, foot), frame(x, foot), atol=2e-6)


@every_kind
def test_coverage_is_the_area_of_the_kind(kind):
    """Against counting 4,096 points a pixel."""
    pose = Pose(*np.float32([[0.05], [-0.1], [0.7], [0.1]]))

    def distance(size):
        return kinds.distance([kind], *pose.frame()(*rendering.grid(size)))

    covered = rendering.coverage(distance(32), pose.radius * 16) / ONE
    counted = (distance(2_048) < 0).reshape(32, 64, 32, 64).mean(axis=(1, 3))
    # A straight side aslant errs by up to a tenth of a pixel, corners by more.
    assert abs(covered[0] - counted).mean() < 0.005
    assert abs(covered.sum() / counted.sum() - 1) < 0.01


@every_kind
def test_distance_grows_by_one_for_each_step_away(kind):
    axis = np.linspace(-1, 1, 401, dtype=np.float32)
    field = kinds.distance(
        [kind], *np.broadcast_arrays(axis[None, None], axis[:, None])
    )[0]
    slope = np.hypot(*np.gradient(field, axis[1] - axis[0]))
    # Creases, where two sides are equally near, are few.
    assert np.quantile(abs(slope - 1), 0.9) < 0.01


@every_kind
def test_named_points_lie_on_the_outline_or_in_the_middle(kind):
    points = kinds.KINDS[list(kinds.KINDS)[kind]].points
    u, v = np.float32(list(points.values())).T
    away = abs(kinds.distance([kind], u[None], v[None])[0])
    rim = [name not in ("centre", "neck") for name in points]
    # The coordinates are written with six digits.
    np.testing.assert_allclose(away[rim], 0, atol=3e-6)


@every_kind
def test_no_kind_reaches_farther_than_said(kind):
    axis = np.linspace(-1.3, 1.3, 521, dtype=np.float32)
    x, y = np.broadcast_arrays(axis[None, None], axis[None, :, None])
    inside = kinds.distance([kind], x, y) < 0
    assert np.hypot(x, y)[inside].max() <= kinds.REACH


@pytest.mark.parametrize(("size", "tiles"), [(64, 4), (64, 8), (256, 4)])
def test_textures_tile(size, tiles):
    sheets = textures(size, tiles)
    tile = sheets[:, : size // tiles, : size // tiles]
    np.testing.assert_array_equal(sheets, np.tile(tile, (1, tiles, tiles)))


def test_extents_hold_what_is_true_and_nothing_else():
    mask = np.zeros((2, 8, 8), bool)
    mask[0, 2:5, 3] = True
    assert rendering.extents(mask).tolist() == [[0.375, 0.25, 0.5, 0.625], [0, 0, 0, 0]]


def test_windows_are_laid_where_their_pixels_are():
    low, high = np.float32([-2, 0.2]), np.float32([-0.6, 0.5])
    where = window(np.array([0, 1]), (low, high), (-high, -low), 32)
    x, y = where.grid(32)
    canvas = np.zeros((2, 32, 32), np.float32)
    where.lay(canvas, [np.array([0]), np.array([1])], np.add, x + 3 * y)
    whole = np.add(
        *(axis * by for axis, by in zip(rendering.grid(32), (1, 3), strict=True))
    )
    np.testing.assert_array_equal(canvas, np.where(canvas == 0, 0, whole))
