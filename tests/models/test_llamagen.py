"""LlamaGen's transformer by fields of ours, against the numbers that it computed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden import llamagens
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.conditions import Vocabulary
from taming_jax.guidance import guidance_of
from taming_jax.interop.formats.tensors import Tensor
from taming_jax.interop.llamagen_prior import from_llamagen_gpt, names, separated
from taming_jax.interop.tables import to_ours, to_theirs
from taming_jax.sampling import sample_tokens
from taming_jax.training.prior import make_transformer

CASE = llamagens("gpt")
ARGUMENTS = CASE.config["gpt"]
PRIOR = from_llamagen_gpt(ARGUMENTS)
VOCABULARY = Vocabulary(ARGUMENTS["vocab_size"], ARGUMENTS["num_classes"])
MODEL = make_transformer(PRIOR.model, VOCABULARY, PRIOR.grid)
NAMES = names(ARGUMENTS["n_head"], None)


def weights():
    """By LlamaGen's names, fused tensors apart."""
    named = {
        name: Tensor(array.dtype, array.shape, array.copy)
        for name, array in CASE.weights.items()
    }
    apart = separated(named, ARGUMENTS["n_head"], None)
    return {name: tensor.read() for name, tensor in apart.items()}


PARAMS = to_ours(NAMES, weights())


def test_logits_and_loss_equal_the_originals():
    labels, tokens = (np.int32(CASE.inputs[name]) for name in ("labels", "tokens"))
    sequence = jnp.concatenate([VOCABULARY.label_tokens(labels), tokens[:, :-1]], 1)
    logits = jax.jit(MODEL.apply)({"params": PARAMS}, sequence)
    assert_allclose(logits, CASE.outputs["logits"], atol=1e-4)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, tokens).mean()
    assert_allclose(loss, CASE.outputs["loss"], atol=1e-4)


@pytest.mark.parametrize("name", CASE.config["greedy"])
def test_greedy_tokens_equal_the_originals(name):
    """With its interval n the first n + 2 tokens are guided."""
    settings, labels = (
        CASE.config["greedy"][name],
        np.int32(CASE.inputs["greedy_labels"]),
    )
    interval = f"interval:{settings['cfg_interval']}"
    tokens = sample_tokens(
        MODEL,
        PARAMS,
        jax.random.split(jax.random.key(0), 2),
        VOCABULARY.label_tokens(labels),
        count=16,
        codes=VOCABULARY.codes,
        unguided_prefix=VOCABULARY.no_label(2),
        guidance=guidance_of(settings["cfg_scale"], interval, 16),
        greedy=True,
    )
    assert_array_equal(tokens, CASE.outputs[f"greedy_{name}"])


def test_every_tensor_comes_back_under_its_name():
    ours = to_theirs(NAMES, PARAMS)
    expected = {k: v for k, v in weights().items() if "kv_cache" not in k}
    assert ours.keys() == expected.keys()
    for name, array in expected.items():
        assert_array_equal(ours[name], array, err_msg=name)


def test_the_head_begins_as_zeros_and_the_rest_as_the_originals():
    params = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 2), int))["params"]
    assert not params["head"]["kernel"].any()
    # A relative error of 3 / sqrt(2 * 1700) of a deviation from so many draws.
    assert_allclose(params["embedding"].std(), 0.02, rtol=0.06)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": 3}, r"gpt has no key 'dims'; did you mean 'dim'\?"),
        ({"n_layer": None}, r"gpt: n_layer is None; it takes a whole number above 0"),
        ({"model_type": "t2i"}, r"model_type='t2i'; known are class-conditional"),
        ({"cls_token_num": 120}, r"cls_token_num=120; known are class-conditional"),
        ({"block_size": 15}, r"block_size=15 is no square"),
    ],
)
def test_arguments_that_are_not_known_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        from_llamagen_gpt(ARGUMENTS | change)
