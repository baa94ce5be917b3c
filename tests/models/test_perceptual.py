import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, nhwc
from numpy.testing import assert_allclose

from taming_jax.interop.names import PERCEPTUAL
from taming_jax.models.perceptual import (
    SCALE,
    SHIFT,
    differences,
    drop_out,
    features,
    lpips,
    weigh,
)


@pytest.fixture(scope="module")
def original():
    """Golden 07 (a VGG16 of an eighth of the width) and its weights in our tree."""
    case = golden("07_lpips")
    return case, case.variables(PERCEPTUAL)


def images(case, *names):
    """The recorded images, recoloured so that ours sees what the original saw.

    Its colour constants are random like all of golden 07's weights; ours are fixed
    (and equal to those of golden 08).
    """
    shift, scale = (
        case.weights[f"scaling_layer.{name}"].ravel() for name in ("shift", "scale")
    )
    inputs = [nhwc(case.inputs[name]) for name in names]
    return [(x - shift) / scale * np.float32(SCALE) + np.float32(SHIFT) for x in inputs]


def test_distances_equal_the_originals(original):
    case, params = original
    distances = jax.jit(lpips)(params, *images(case, "x", "y"))
    expected = case.outputs["value"].ravel()
    assert_allclose(distances, expected, **case.tolerance("value"))


def test_grey_pictures_have_the_originals_distances(original):
    case, params = original
    distances = jax.jit(lpips)(params, *images(case, "gray1", "gray2"))
    expected = case.outputs["value_gray"].ravel()
    assert_allclose(distances, expected, **case.tolerance("value_gray"))


@pytest.mark.parametrize("stage", range(5))
def test_every_stages_share_equals_the_originals(original, stage):
    case, params = original
    stages = jax.jit(differences)(params, *images(case, "x", "y"))
    alone = [s if i == stage else 0 * s for i, s in enumerate(stages)]
    name = f"layer_value/{stage}"
    expected = case.outputs[name].ravel()
    assert_allclose(weigh(params, alone), expected, **case.tolerance(name))


def test_colours_are_scaled_as_the_originals(original):
    case, _ = original
    (x,) = images(case, "x")
    scaled = (x - np.float32(SHIFT)) / np.float32(SCALE)
    expected = nhwc(case.outputs["scaled_x"])
    assert_allclose(scaled, expected, **case.tolerance("scaled_x"))


@pytest.mark.parametrize("stage", range(5))
def test_features_equal_the_originals(original, stage):
    case, params = original
    (x,) = images(case, "x")
    ours = jax.jit(features)(params, x)[stage][:1]
    if stage < 2:  # recorded at every other place
        ours = ours[:, ::2, ::2]
    name = f"feat_x/{stage}"
    assert_allclose(ours, nhwc(case.outputs[name]), **case.tolerance(name))


@pytest.mark.parametrize("stage", range(5))
def test_differences_of_directions_equal_the_originals(original, stage):
    case, params = original
    ours = jax.jit(differences)(params, *images(case, "x", "y"))[stage][:1]
    name = f"diff/{stage}"
    assert_allclose(ours, nhwc(case.outputs[name]), **case.tolerance(name))


def test_the_gradient_equals_the_originals(original):
    case, params = original
    x, y = images(case, "x", "y")
    gradient = jax.jit(jax.grad(lambda y: lpips(params, x, y).mean()))(y)
    scale = case.weights["scaling_layer.scale"].ravel()
    ours = gradient * np.float32(SCALE) / scale  # by the recorded colours
    # Its float32 fell on another side of a kink than its float64; so may ours.
    difference = case.deviations["grad_y"]["max_abs_diff_f32_f64"]
    assert_allclose(ours, nhwc(case.exact["grad_y"]), rtol=0, atol=difference)


def test_a_picture_is_at_no_distance_from_itself(original):
    case, params = original
    (x,) = images(case, "x")
    expected = case.outputs["value_identical"].ravel()
    assert_allclose(jax.jit(lpips)(params, x, x), expected, atol=1e-9)


def test_dropping_out_leaves_the_mean_as_it_is():
    (stage,) = drop_out([jnp.ones((4, 16, 16, 8))], 0.2, jax.random.key(0))
    # 8192 draws of 0 or 1.25: four standard errors.
    assert_allclose(stage.mean(), 1, rtol=0, atol=4 * 0.5 / np.sqrt(stage.size))
    assert_allclose(np.unique(stage), [0, 1.25], rtol=1e-6)


def test_features_that_are_all_zero_have_finite_gradients(original):
    _, params = original
    dark = {"vgg": jax.tree.map(lambda leaf: -abs(leaf), params["vgg"])}
    x = jnp.ones((1, 16, 16, 3))
    gradient = jax.jit(jax.grad(lambda y: lpips(params | dark, x, y).sum()))(x)
    assert np.isfinite(gradient).all()
