"""What learns from which step on: eleven steps of one run, through all its phases."""

import functools

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_stage import (
    COUNTS,
    DISC_START,
    FROZEN,
    FULL,
    build,
    pictures,
    random_state,
    stepping,
)


@functools.cache
def history():
    """States of steps 0 to 10 of one run, and the metrics between them."""
    states, metrics = [random_state(build(), step=0)], []
    for step in range(FROZEN + 1):
        batch = {"image": pictures(4, seed=step)}
        state, measured = stepping()(states[-1], batch)
        states.append(state)
        metrics.append(jax.device_get(measured))
    return states, metrics


def test_discriminator_is_untouched_before_its_start():
    states, _ = history()
    first, last = states[0].adversary, states[DISC_START].adversary
    jax.tree.map(assert_array_equal, last, first)


def test_every_parameter_of_the_discriminator_learns_from_its_start():
    states, _ = history()
    before, after = (states[n].adversary.params for n in (DISC_START, DISC_START + 1))
    assert all(
        jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), before, after))
    )


def test_adversary_counts_from_its_start_over_its_ramp():
    _, metrics = history()
    counted = [m["adversarial_weight"] / (0.8 * m["adaptive_weight"]) for m in metrics]
    ramp = [0] * COUNTS + [0.25, 0.5, 0.75, 1] + [1] * (FROZEN - FULL)
    assert_allclose(counted, ramp, rtol=1e-6)


@pytest.mark.parametrize("part", ["encoder", "quant_conv", "quantizer"])
def test_codes_are_frozen_from_decoder_only_start(part):
    states, _ = history()
    jax.tree.map(
        assert_array_equal, states[FROZEN + 1].params[part], states[FROZEN].params[part]
    )


@pytest.mark.parametrize("part", ["decoder", "post_quant_conv"])
def test_decoder_goes_on_when_the_codes_are_frozen(part):
    states, _ = history()
    before, after = (states[n].params[part] for n in (FROZEN, FROZEN + 1))
    assert all(
        jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), before, after))
    )


def test_everything_learns_before_decoder_only_start():
    states, _ = history()
    before, after = (states[n].params for n in (FROZEN - 1, FROZEN))
    assert all(
        jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), before, after))
    )


def test_metrics_are_finite_at_every_step():
    _, metrics = history()
    assert all(np.isfinite(value) for m in metrics for value in m.values())


def test_average_has_a_shorter_memory_at_first():
    """Decay at step t: min(ema_decay, (1 + t) / (10 + t)), of parameters and codes."""
    states, _ = history()
    average = jax.tree.map(np.float64, states[0].params)
    for step, state in enumerate(states[1:]):
        decay = min(0.999, (1 + step) / (10 + step))
        average = jax.tree.map(
            lambda e, p, d=decay: d * e + (1 - d) * np.float64(p), average, state.params
        )

    def compare(ours, exact):  # float32 against float64
        assert_allclose(ours, exact, rtol=0, atol=1e-6 * np.abs(exact).max())

    jax.tree.map(compare, states[-1].ema, average)
