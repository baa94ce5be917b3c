"""Pictures of any size from a prior: what `sample` promises, and what it refuses."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
import tiny_windows
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax import load_prior
from taming_jax.models.positions import part_of_grid
from taming_jax.models.transformer import Transformer
from taming_jax.pretrained import tiled, windowed
from taming_jax.units import to_uint8
from taming_jax.windows import Windows

KEY = jax.random.key(0)
LABELS = np.array([3, 0])


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    run = tiny_run.write_run(tmp_path_factory.mktemp("run"))
    return load_prior(tiny_run.write_prior(run))


@pytest.fixture(scope="module")
def large(prior):
    return np.asarray(prior.sample(KEY, LABELS, shape=(5, 6)))


def test_pictures_are_as_large_as_is_asked(prior, large):
    assert large.shape == (2, 5, 6)
    assert prior.generate(KEY, LABELS, shape=(5, 6)).shape == (2, 20, 24, 3)


def test_a_large_sample_does_not_depend_on_the_others(prior, large):
    alone = prior.sample(jax.random.fold_in(KEY, 1)[None], LABELS[1:], shape=(5, 6))
    assert_array_equal(alone, large[1:])


def test_large_pictures_are_completed(prior, large):
    """Its upper rows given, the same draws make the rest."""
    given = np.full_like(large, -1)
    given[:, :2] = large[:, :2]
    found = prior.sample(KEY, LABELS, shape=(5, 6), given=given)
    assert_array_equal(found, large)


def test_one_number_is_a_square_whatever_else_is_said(prior):
    given = np.full((2, 5, 5), -1)
    expected = prior.sample(KEY, LABELS, shape=(5, 5))
    assert_array_equal(prior.sample(KEY, LABELS, shape=5), expected)
    assert_array_equal(prior.sample(KEY, LABELS, shape=5, given=given), expected)


def test_guidance_works_by_windows(prior):
    settings = {"shape": (5, 6), "greedy": True}
    moved = prior.sample(KEY, LABELS, guidance=50.0, **settings)
    assert (moved != prior.sample(KEY, LABELS, **settings)).any()


def test_a_window_as_large_as_the_picture_changes_nothing(prior):
    expected = prior.sample(KEY, LABELS)
    found = prior.sample(KEY, LABELS, window=4, window_stride=2, window_center=1)
    assert_array_equal(found, expected)


def test_a_smaller_picture_is_the_upper_part_of_a_whole_one(prior):
    whole = prior.sample(KEY, LABELS)
    upper = prior.sample(KEY, LABELS, shape=(2, 4))
    assert_array_equal(upper, whole[:, :2])


def test_part_of_a_grid_is_what_the_model_knows_of_it():
    """Positions of 2 x 3 of 4 x 5 places; the tokens of the first row see the same."""
    model = Transformer(
        vocab_size=9, length=20, grid=(4, 5), width=8, layers=1, heads=2, rotary=True
    )
    tokens = jnp.array([[8, 1, 2]])
    params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
    params["positions"] = jax.random.normal(KEY, params["positions"].shape)
    smaller, part = part_of_grid(model, params, (2, 3))
    assert (smaller.grid, smaller.length) == ((2, 3), 6)
    assert_array_equal(
        part["positions"], params["positions"][jnp.array([0, 1, 2, 3, 6, 7])]
    )
    assert_allclose(
        smaller.apply({"params": part}, tokens),
        model.apply({"params": params}, tokens),
        rtol=1e-6,
    )


def test_windows_of_a_map_are_told_what_lies_in_them():
    """A map whose right half differs changes nothing that no window of it has seen."""
    prior = tiny_windows.maps_prior()
    maps = np.zeros((1, 16, 48), np.int32)
    other = maps.copy()
    other[:, :, 24:] = 5
    found, changed = (
        prior.sample(KEY, {"segmentation": m}, shape=(4, 12), window_center=3)
        for m in (maps, other)
    )
    # With 3 columns before the place, windows of columns 0 to 5 end before column 6.
    assert_array_equal(found[:, :, :6], changed[:, :, :6])
    assert (found != changed).any()


def test_a_published_prior_is_told_codes_of_the_whole_picture():
    prior = tiny_windows.by_hand(16, any_grid=True)
    condition = np.arange(24).reshape(1, 4, 6) % tiny_windows.CODES
    assert prior.sample(KEY, condition, shape=(4, 6)).shape == (1, 4, 6)
    with pytest.raises(ValueError, match=r"int32 \[B, 4, 6\] of all of it.*\(1, 16\)"):
        prior.sample(KEY, np.zeros((1, 16), int), shape=(4, 6))


def test_a_published_prior_is_told_a_map_where_its_windows_are():
    """2 x 2 tokens of 4 x 4 codes: windows begin between two of them, too."""
    prior = tiny_windows.by_hand(4, any_grid=True)
    prior.condition_vqgan = SimpleNamespace(
        module=SimpleNamespace(classes=True),
        stride=8,
        codebook_size=tiny_windows.CODES,
        encode=lambda maps, tile: maps[:, 4::8, 4::8],
    )
    maps = np.random.default_rng(0).integers(0, tiny_windows.CODES, (1, 16, 24))
    windows = Windows((4, 6), (4, 4))
    told = windowed.told(prior, maps, windows, as_tokens=True)
    assert_array_equal(told(0, 1), maps[:, 4:16:8, 8:20:8].reshape(1, 4))
    codes = windowed.told(prior, maps[:, 4::8, 4::8], windows, as_tokens=True)
    assert_array_equal(codes(0, 1), maps[:, 4::8, 4:20:8].reshape(1, 4))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"window": 5}, r"window=\(5, 5\).*positions for \(4, 4\)"),
        ({"window": (4, 0)}, r"window=\(4, 0\).*at least 1"),
        ({"window_stride": 5}, r"window_stride=5.*1 to 4"),
        ({"window_stride": 0}, r"window_stride=0.*1 to 4"),
        ({"window_stride": 4, "window": 3}, r"window_stride=4.*1 to 3"),
        ({"window_stride": 1.5}, r"window_stride=1.5.*1 to 4"),
        ({"window_center": 4}, r"window_center=4.*0 to 3 and 3"),
        ({"window_center": (0, 4)}, r"window_center=\(0, 4\).*0 to 3 and 3"),
        ({"window_center": -1}, r"window_center=-1.*each at least 0"),
        ({"window_center": 1.5}, r"window_center=1.5.*\(height, width\) in codes"),
        ({"window_center": (1, 2, 3)}, r"window_center=\(1, 2, 3\).*one number for"),
        ({"window_center": "a"}, r"window_center='a'.*\(height, width\) in codes"),
        ({"given": np.zeros((1, 5, 5), int)}, r"\(1, 5, 5\).*\(8, 8\)"),
        ({"shape": (8, 8.5)}, r"shape=\(8, 8.5\).*\(height, width\) in codes"),
    ],
)
def test_windows_that_cannot_be_are_refused(prior, asked, message):
    with pytest.raises(ValueError, match=message):
        prior.sample(KEY, [0], **{"shape": (8, 8), **asked})


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\[B, 20, 24\].*\(1, 16, 16\)"):
        tiny_windows.maps_prior().sample(KEY, np.zeros((1, 16, 16), int), shape=(5, 6))


def test_a_window_of_a_map_is_whole():
    with pytest.raises(ValueError, match=r"told segmentation of \(4, 4\).*\(3, 4\)"):
        tiny_windows.maps_prior().sample(KEY, np.zeros((1, 12, 24), int), shape=(3, 6))


def test_no_window_slides_through_another_order():
    prior = tiny_windows.by_hand(1, condition="none", told={}, order="spiral_in")
    with pytest.raises(ValueError, match=r"shape=\(5, 5\).*another order than by rows"):
        prior.sample(KEY, batch=1, shape=(5, 5))


def test_large_pictures_are_never_decoded_as_a_whole(prior, monkeypatch):
    """Neither as images nor as bytes, of which memory holds a band in float32."""
    asked = {"shape": (9, 4), "window_stride": 2}
    small = prior.pictures(KEY, LABELS, **asked)
    assert_array_equal(small, to_uint8(prior.generate(KEY, LABELS, **asked)))
    monkeypatch.setattr(tiled, "_WHOLE", 300)
    monkeypatch.setattr(tiled, "_TILE", 16)
    monkeypatch.setattr(prior.vqgan, "_decode", None)
    images = prior.generate(KEY, LABELS, **asked)
    monkeypatch.setattr(prior.vqgan, "decode", None)
    found = prior.pictures(KEY, LABELS, **asked)
    assert found.dtype == np.uint8
    assert_array_equal(found, to_uint8(images))


def test_only_large_pictures_are_decoded_by_tiles(prior):
    module = prior.vqgan.module
    assert tiled.tile_for(module, (1, 1024, 1024, 3)) is None
    assert tiled.tile_for(module, (2, 1024, 1024, 3)) == 512
