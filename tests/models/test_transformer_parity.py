from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, gpt_fields
from numpy.testing import assert_allclose

from taming_jax.interop.names import GPT
from taming_jax.interop.tables import to_theirs
from taming_jax.models.transformer import Transformer


@pytest.fixture(scope="module")
def original():
    """Golden 09, our model with its weights, and its variables."""
    case = golden("09_gpt")
    params = case.config["params"]
    model = Transformer(**gpt_fields(params))
    return case, model, {"params": case.variables(GPT)}


def test_logits_equal_the_originals(original):
    case, model, variables = original
    logits = jax.jit(model.apply)(variables, case.inputs["idx"])
    assert_allclose(logits, case.outputs["logits"], **case.tolerance("logits"))


@pytest.mark.parametrize(
    "name",
    [
        "pos_emb",
        "tok_emb.weight",
        "ln_f.weight",
        "blocks.0.mlp.0.bias",
        "blocks.0.attn.query.weight",
    ],
)
def test_gradients_equal_the_originals(original, gradients, name):
    case, _, _ = original
    expected = case.outputs[f"grad/{name}"]
    assert_allclose(gradients[name], expected, **case.tolerance(f"grad/{name}"))


@pytest.fixture(scope="module")
def gradients(original):
    """Of the mean cross entropy, by the original's names."""
    case, model, variables = original

    def loss(params):
        logits = model.apply({"params": params}, case.inputs["idx"], train=True)
        chosen = jax.nn.one_hot(case.inputs["targets"], logits.shape[-1])
        return -jnp.mean(jnp.sum(chosen * jax.nn.log_softmax(logits), axis=-1))

    return to_theirs(GPT, jax.jit(jax.grad(loss))(variables["params"]))


def test_cached_logits_equal_the_originals(original):
    case, model, variables = original
    drawn = np.concatenate(
        [case.inputs["cond"], case.outputs["greedy_with_past"][:, :-1]], axis=1
    )
    extend = jax.jit(partial(model.apply, method="extend"))
    cache, logits = model.empty_cache(*drawn.shape), []
    for token in drawn.astype(np.int32).T:
        one, cache = extend(variables, token[:, None], cache)
        logits.append(one[:, 0])
    expected = case.outputs["cached_logits"].swapaxes(0, 1)
    assert_allclose(logits, expected, **case.tolerance("cached_logits"))
