"""The first stage as the loop sees it: what it refuses, judges and shows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from numpy.testing import assert_allclose, assert_array_equal
from tiny_stage import CONFIG, SECTION, build, random_state, stage

from taming_jax.models.vqgan import VQGAN
from taming_jax.training.mesh import batch_sharding, create_mesh
from taming_jax.training.recipe import Mesh
from taming_jax.training.vqgan import make_vqgan_stage


def make(data=None, **changes):
    config = CONFIG | {"data": CONFIG["data"] | (data or {})}
    config["vqgan"] = SECTION | changes
    return make_vqgan_stage(config, one_device())


def one_device():
    return create_mesh(Mesh(), jax.devices()[:1])


@pytest.mark.parametrize(
    ("size", "remedy"), [(9, "use 8 or 10"), (1, "use 2"), (255, "use 254 or 256")]
)
def test_an_image_size_that_the_stride_does_not_divide_is_refused(size, remedy):
    with pytest.raises(ValueError, match=f"image_size={size} .*stride 2: {remedy}"):
        make(data={"image_size": size})


def test_perceptual_weight_without_weights_is_refused(tmp_path):
    """It says where they come from, how to give a path, and how to do without."""
    missing = str(tmp_path / "perceptual.npz")
    remedies = r"VGG16.*config\.vqgan\.perceptual_weights.*perceptual_weight=0"
    with pytest.raises(ValueError, match=f"no perceptual weights at .*{remedies}"):
        make(perceptual_weight=1.0, perceptual_weights=missing)


@pytest.mark.parametrize(
    ("part", "key"), [("model", "encodr"), ("discriminator", "layer")]
)
def test_a_field_that_a_module_does_not_have_is_refused(part, key):
    with pytest.raises(ValueError, match=key):
        make(**{part: SECTION[part] | {key: 1}})


def test_a_card_is_taken_as_it_is():
    """`ConfigDict`, as the command hands it on once it has been made plain."""
    section = ConfigDict(SECTION).to_dict()
    assert make(**section).run == stage().run


PICTURES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


@functools.cache
def reconstructed():
    """(a state whose averages differ from its parameters, their reconstructions)."""
    state = random_state(build())
    state = state.replace(ema=jax.tree.map(lambda p: p * 0.9, state.params))
    x = jnp.asarray(PICTURES / np.float32(127.5) - 1)
    x_hat, _ = VQGAN(**SECTION["model"]).apply({"params": state.ema}, x, train=False)
    return state, np.clip(x_hat, -1, 1)


def judged(mask):
    batch = {"image": PICTURES, "mask": np.array(mask)}
    return jax.device_get(stage().evaluate(reconstructed()[0], batch))


def test_psnr_is_that_of_the_averaged_weights_in_eight_bits():
    rounded = np.round((reconstructed()[1] + 1) * 127.5)
    error = ((PICTURES - rounded) ** 2).mean((1, 2, 3))
    expected = 10 * np.log10(255**2 / error)
    # A value on the edge between two of 256 levels may fall to either side.
    assert_allclose(judged([True] * 4)["psnr"], expected.sum(), rtol=1e-4)


def test_padding_is_not_judged():
    some, none = judged([True, False, True, False]), judged([False] * 4)
    x = PICTURES / 127.5 - 1
    error = np.abs(x - reconstructed()[1])[[0, 2]].mean((1, 2, 3))
    assert_allclose(some["l1"], error.sum(), rtol=1e-5)
    assert (some["count"], none["count"], none["psnr"]) == (2, 0, 0)


def test_a_grid_shows_each_picture_above_its_reconstruction():
    shown = stage().show(reconstructed()[0], {"image": PICTURES})["reconstructions"]
    assert_array_equal(shown[:8, :8], PICTURES[0])
    below = np.round((reconstructed()[1][0] + 1) * 127.5)
    assert_allclose(shown[10:18, :8], below, atol=1)  # the same edge as above


@functools.cache
def first_state():
    return stage().init()


def test_the_state_that_is_given_is_used_up(monkeypatch):
    """Its memory becomes the next state's, but for CPUs."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    state = jax.tree.map(jnp.copy, first_state())
    images = jax.device_put(PICTURES, batch_sharding(one_device()))
    with jax.set_mesh(one_device()):
        make().step(state, {"image": images})
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_averages_begin_at_the_parameters():
    jax.tree.map(assert_array_equal, first_state().ema, first_state().params)
