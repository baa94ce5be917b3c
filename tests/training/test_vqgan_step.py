"""The step against plain statements of what it computes; tests/training/test_parity.py
holds it against the original.

Gradients are compared where Adam keeps them: after its first step the first moment is
(1 - b1) times what it was given. Parameters after Adam would say less: they move by the
gradient's sign, and where the true gradient is zero by the sign of rounding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose, assert_array_equal
from tiny_stage import (
    DISC_START,
    FULL,
    build,
    gradients,
    pictures,
    random_state,
    stepping,
)

from taming_jax.losses import sharpness_loss
from taming_jax.models.vqgan import LAST_KERNEL
from taming_jax.training.vqgan_step import terms_of


def losses_by_hand(parts, state, x):
    """nll, adversarial and codebook loss as functions of the generator's parameters."""
    loss = parts.recipe.loss

    def forward(params):
        variables = {"params": params, "codebook": state.codebook}
        (x_hat, quantized), _ = parts.model.apply(
            variables, x, train=True, step=state.step, mutable=["codebook"]
        )
        return x_hat, quantized

    def nll(params):
        error = x - forward(params)[0]
        down, across = error[:, 1:] - error[:, :-1], error[:, :, 1:] - error[:, :, :-1]
        neighbours = jnp.abs(down).mean() + jnp.abs(across).mean()
        return (
            loss.l1_weight * jnp.abs(error).mean()
            + loss.l2_weight * (error**2).mean()
            + loss.difference_weight * neighbours
            + loss.sharpness_weight * sharpness_loss(x=x, x_hat=x - error)
        )

    def adversarial(params):
        disc = {"params": state.adversary.params}
        return -parts.discriminator.apply(disc, forward(params)[0], train=True).mean()

    return nll, adversarial, lambda params: forward(params)[1].loss


@functools.cache
def one_step():
    """A step with everything in it: (parts, state before, state after, metrics, x)."""
    parts, x = build(), pictures(4)
    state = random_state(parts, FULL)
    return parts, state, *stepping()(state, {"image": x}), x


def gradient(loss, params):
    return jax.jit(jax.grad(loss))(params)


def assert_trees_close(actual, expected):
    """Within 1e-5 of each array's largest magnitude: rounding in float32."""

    def compare(path, a, b):
        name, scale = jax.tree_util.keystr(path), np.abs(b).max()
        assert_allclose(a, b, rtol=0, atol=1e-5 * scale + 1e-9, err_msg=name)

    jax.tree_util.tree_map_with_path(compare, actual, expected)


def assert_trees_equal(actual, expected):
    jax.tree.map(assert_array_equal, actual, expected)


def test_adaptive_weight_is_that_of_two_whole_backward_passes():
    parts, state, _, metrics, x = one_step()
    nll, adversarial, _ = losses_by_hand(parts, state, x)
    by_nll, by_adversarial = (
        functools.reduce(dict.get, LAST_KERNEL, gradient(fn, state.params))
        for fn in (nll, adversarial)
    )
    norms = jnp.linalg.norm(by_nll), jnp.linalg.norm(by_adversarial)
    weight = norms[0] / (norms[1] + 1e-4)
    logged = "nll_grad_norm", "adversarial_grad_norm", "adaptive_weight"
    measured = [metrics[name] for name in logged]
    assert_allclose(measured, [*norms, weight], rtol=1e-5)  # float32


def test_generator_learns_by_the_gradient_of_the_whole_loss():
    parts, state, after, metrics, x = one_step()
    nll, adversarial, codebook = losses_by_hand(parts, state, x)
    weight = parts.recipe.loss.adversarial_weight * metrics["adaptive_weight"]

    def whole(params):
        loss = nll(params) + weight * adversarial(params)
        return loss + parts.recipe.loss.codebook_weight * codebook(params)

    expected = gradient(whole, state.params)
    assert_trees_close(gradients(after.opt_state), expected)


def test_discriminator_learns_by_the_gradient_of_the_hinge_loss():
    parts, state, after, _, x = one_step()
    x_hat, _ = parts.model.apply({"params": state.params}, x, train=False)

    def hinge(params):
        real, fake = (
            parts.discriminator.apply({"params": params}, images, train=True)
            for images in (x, x_hat)
        )
        return (jnp.maximum(0, 1 - real).mean() + jnp.maximum(0, 1 + fake).mean()) / 2

    expected = gradient(hinge, state.adversary.params)
    assert_trees_close(gradients(after.adversary.opt_state), expected)


def test_the_discriminators_answers_are_counted_patch_by_patch():
    parts, state, _, metrics, x = one_step()
    x_hat, _ = parts.model.apply({"params": state.params}, x, train=False)
    real, fake = (
        parts.discriminator.apply(
            {"params": state.adversary.params}, images, train=True
        )
        for images in (x, x_hat)
    )
    names = "logits_real", "logits_fake", "right_real", "right_fake"
    expected = real.mean(), fake.mean(), (real > 0).mean(), (fake < 0).mean()
    assert all(0 < share < 1 for share in expected[2:])
    measured = [metrics[name] for name in names]
    assert_allclose(measured, expected, rtol=1e-4, atol=1e-5)


def test_regularisation_has_its_turns_and_remembers_them():
    """R1 at every second step; LeCAM from the second on, by a mean that forgets."""
    changes = {"r1_weight": 1.0, "r1_every": 2, "lecam_weight": 1.0, "lecam_decay": 0.5}
    state, metrics = random_state(build(**changes), DISC_START), []
    for step in range(4):
        batch = {"image": pictures(4, seed=step)}
        state, measured = stepping(**changes)(state, batch)
        metrics.append(jax.device_get(measured))
    r1, lecam, real = ([m[k] for m in metrics] for k in ("r1", "lecam", "logits_real"))
    assert 0 < r1[0] == r1[1] != r1[2] == r1[3]
    assert lecam[0] == 0 < min(lecam[1:])
    memory = state.adversary.stats["memory"]
    past = memory["real"] / memory["weight"]
    assert_allclose(past, np.average(real, weights=[1, 2, 4, 8]), rtol=1e-5)


def spoiled(name):
    """(state, pictures) in which `name` is the first term that is not finite."""
    parts, x = build(), pictures(4)
    state = random_state(parts, FULL)
    if name == "l1":
        return state, x.at[2, 3, 3, 0].set(jnp.nan)
    if name == "l2":
        return state, x * 1e30  # whose square is infinite
    bias = state.adversary.params["conv_0"]["bias"].at[0].set(jnp.nan)
    params = state.adversary.params | {"conv_0": state.adversary.params["conv_0"]}
    params["conv_0"] = params["conv_0"] | {"bias": bias}
    return state.replace(adversary=state.adversary.replace(params=params)), x


@pytest.mark.parametrize("name", ["l1", "l2", "adversarial"])
def test_first_term_that_is_not_finite_is_named(name):
    state, x = spoiled(name)
    _, metrics = stepping()(state, {"image": x})
    assert terms_of(build().model)[metrics["nonfinite_term"]] == name


def test_a_good_step_names_no_term():
    assert one_step()[3]["nonfinite_term"] == -1


@pytest.mark.parametrize("name", ["l1", "l2", "adversarial"])
def test_a_step_that_is_not_finite_changes_nothing_but_two_counters(name):
    state, x = spoiled(name)
    after, _ = stepping()(state, {"image": x})
    expected = state.replace(step=state.step + 1, nonfinite=state.nonfinite + 1)
    assert_trees_equal(after, expected)


def test_accumulation_equals_the_whole_batch():
    """Without BatchNorm, and where no adaptive weight is taken of each part's own."""
    state, batch = random_state(build(), DISC_START), {"image": pictures(4)}
    whole, _ = stepping()(state, batch)
    parts, _ = stepping(accumulate=2)(state, batch)
    assert_trees_close(gradients(parts.opt_state), gradients(whole.opt_state))


@pytest.mark.slow
def test_accumulation_equals_the_whole_batch_with_an_adversary_of_fixed_weight():
    state, batch = random_state(build(), FULL), {"image": pictures(4)}
    whole, parts = (
        stepping(adaptive_weight=False, accumulate=count)(state, batch)[0]
        for count in (1, 2)
    )
    assert_trees_close(gradients(parts.opt_state), gradients(whole.opt_state))
    assert_trees_close(
        gradients(parts.adversary.opt_state), gradients(whole.adversary.opt_state)
    )


def test_recomputed_activations_give_the_same_gradients():
    _, state, after, _, x = one_step()
    again, _ = stepping(model={"remat": True})(state, {"image": x})
    assert_trees_close(gradients(again.opt_state), gradients(after.opt_state))


def test_bfloat16_follows_float32():
    """The gradients point the same way; 8 bits of mantissa cost a few degrees."""
    _, state, after, _, x = one_step()
    coarse, metrics = stepping(model={"dtype": "bfloat16"})(state, {"image": x})
    fine, rough = (ravel_pytree(gradients(s.opt_state))[0] for s in (after, coarse))
    cosine = fine @ rough / (jnp.linalg.norm(fine) * jnp.linalg.norm(rough))
    assert cosine > 0.98
    assert metrics["nonfinite_term"] == -1


def test_parameters_stay_float32_under_bfloat16():
    parts = build(model={"dtype": "bfloat16"})
    dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(random_state(parts).params)}
    assert dtypes == {"float32"}


def test_without_weight_there_is_no_adversary():
    """Neither in the state nor in the gradient, which is that of nll and codes."""
    parts, state, _, _, x = one_step()
    nll, _, codebook = losses_by_hand(parts, state, x)
    alone = random_state(build(adversarial_weight=0.0), FULL)
    after, _ = stepping(adversarial_weight=0.0)(alone, {"image": x})
    expected = gradient(lambda params: nll(params) + codebook(params), alone.params)
    assert after.adversary is None
    assert_trees_close(gradients(after.opt_state), expected)
