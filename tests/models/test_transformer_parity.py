from functools import partial

import jax
import numpy as np
import optax
import pytest
from golden import golden, gpt_fields
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.interop.names import GPT
from taming_jax.interop.tables import to_theirs
from taming_jax.models.transformer import Transformer
from taming_jax.sampling import sample_tokens


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


def test_the_loss_equals_the_originals(original):
    case, model, variables = original
    logits = jax.jit(model.apply)(variables, case.inputs["idx"])
    found = mean_loss(logits, case.inputs["targets"])
    assert_allclose(found, case.outputs["loss"], **case.tolerance("loss"))


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
        return mean_loss(logits, case.inputs["targets"])

    return to_theirs(GPT, jax.jit(jax.grad(loss))(variables["params"]))


def mean_loss(logits, targets):
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


@pytest.fixture(scope="module", params=["", "_n_unmasked"])
def cached(request, original):
    """(how outputs' names end, cache, logits) of the original's sequences, in turn."""
    case, model, variables = original
    model = model.clone(
        unmasked=case.config["n_unmasked_variant"] * bool(request.param)
    )
    drawn = case.outputs[f"greedy_with_past{request.param}"]
    drawn = np.concatenate([case.inputs["cond"], drawn[:, :-1]], axis=1)
    extend = jax.jit(partial(model.apply, method="extend"))
    cache, logits = model.empty_cache(*drawn.shape), []
    for token in drawn.astype(np.int32).T:
        one, cache = extend(variables, token[:, None], cache)
        logits.append(one[:, 0])
    return request.param, cache, np.stack(logits, axis=1)


def test_cached_logits_equal_the_originals(original, cached):
    case, (end, _, logits) = original[0], cached
    name = f"cached_logits{end}"
    assert_allclose(logits, case.outputs[name], **case.tolerance(name))


def test_keys_and_values_in_the_cache_equal_the_originals(original, cached):
    """Of the second token, which is what the original's second pass returns."""
    case, (end, cache, _) = original[0], cached
    found = np.stack([cache.keys, cache.values], axis=1)[:, :, :, :, 1:2]
    name = f"present_step1{end}"
    assert_allclose(found, case.outputs[name], **case.tolerance(name))


# The original's options: vectors before the tokens, places that see each other.


def test_logits_behind_given_vectors_equal_the_originals(original):
    case, model, variables = original
    apply = jax.jit(model.apply)
    tokens, vectors = case.inputs["idx_short"], case.inputs["embeddings"]
    logits = apply(variables, tokens.astype(np.int32), embeddings=vectors)
    name = "logits_with_embeddings"
    assert_allclose(logits, case.outputs[name], **case.tolerance(name))


@pytest.fixture(scope="module")
def unmasked(original):
    """Of golden 09 with n_unmasked, and full logits of its sequences."""
    case, model, variables = original
    model = model.clone(unmasked=case.config["n_unmasked_variant"])
    return model, partial(jax.jit(model.apply), variables)


def test_logits_with_unmasked_places_equal_the_originals(original, unmasked):
    case, (_, apply) = original[0], unmasked
    logits = apply(case.inputs["idx"].astype(np.int32))
    expected = case.outputs["logits_n_unmasked"]
    assert_allclose(logits, expected, **case.tolerance("logits_n_unmasked"))


def test_greedy_tokens_with_unmasked_places_equal_the_originals(original, unmasked):
    """Without a cache, each from all before it: what begins alone sees what follows."""
    case, (model, apply) = original[0], unmasked
    tokens = case.outputs["greedy_full_n_unmasked"].astype(np.int32)
    for count in range(1, model.unmasked):
        drawn = apply(tokens[:, :count])[:, -1].argmax(-1)
        assert_array_equal(drawn, tokens[:, count])
    whole = apply(tokens[:, :-1]).argmax(-1)
    assert_array_equal(whole[:, model.unmasked :], tokens[:, model.unmasked + 1 :])


def test_one_by_one_unmasked_places_do_not_see_what_follows(original, unmasked):
    """As in the original, whose cache makes another sequence of it."""
    case, _, variables = original
    model, _ = unmasked
    keys = jax.random.split(jax.random.key(0), 2)
    prefix = case.inputs["cond"].astype(np.int32)
    settings = {"count": 36, "codes": model.vocab_size, "greedy": True}
    tokens = sample_tokens(model, variables["params"], keys, prefix, **settings)
    assert_array_equal(tokens, case.outputs["greedy_with_past_n_unmasked"])
    assert_array_equal(tokens, case.outputs["greedy_with_past_topk_n_unmasked"])
