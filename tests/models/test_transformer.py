from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from golden import golden
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.interop.names import GPT
from taming_jax.interop.tables import to_theirs
from taming_jax.models.transformer import UNROLLED, Transformer, logical_axes

# Two rows of three codes behind one condition token.
TINY = {"vocab_size": 19, "length": 6, "width": 24, "layers": 2, "heads": 3}
TINY |= {"grid": (2, 3), "prefix": 1}
MODERN = {"norm": "rms", "mlp": "relu2", "bias": False, "rotary": True}
MODERN |= {"rotary_base": 20.0, "qk_norm": True, "tied_head": True, "above": True}
MODERN |= {"condition_everywhere": True}
OPTIONS = {
    "paper": {},
    "modern": MODERN,
    "gated": {"mlp": "swiglu", "norm": "rms"},
    "rotary": {"rotary": True, "learned_positions": False, "prefix": 3, "length": 8},
    "above": {"above": True, "prefix": 2, "length": 7},
    "everywhere": {"condition_everywhere": True},
    "deep": MODERN | {"layers": UNROLLED + 1, "width": 12},
}


def tokens(*shape, seed=3):
    return jax.random.randint(jax.random.key(seed), shape, 0, TINY["vocab_size"])


def randomized(model, seed=0):
    """Variables in which nothing is zero or one, so that everything counts."""
    variables = jax.jit(model.init)(jax.random.key(seed), tokens(1, 2))
    flat, unravel = ravel_pytree(variables)
    return unravel(flat + 0.2 * jax.random.normal(jax.random.key(seed + 1), flat.shape))


@pytest.fixture(scope="module", params=OPTIONS)
def variant(request):
    """Each kind of transformer in turn: the module and its variables."""
    model = Transformer(**TINY | OPTIONS[request.param])
    return model, randomized(model)


# Against the original.


@pytest.fixture(scope="module")
def original():
    """Golden 09, our model with its weights, and its variables."""
    case = golden("09_gpt")
    params = case.config["params"]
    model = Transformer(
        vocab_size=params["vocab_size"],
        length=params["block_size"],
        width=params["n_embd"],
        layers=params["n_layer"],
        heads=params["n_head"],
    )
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
    logits = extended(model, variables, drawn.astype(np.int32), first=1)
    tolerance = case.tolerance("cached_logits")
    assert_allclose(logits, case.outputs["cached_logits"], **tolerance)


# Whatever the options.


@pytest.mark.parametrize("first", [1, 4])
def test_logits_with_a_cache_equal_those_without_at_every_place(variant, first):
    model, variables = variant
    sequence = tokens(2, model.length)
    whole = jax.jit(model.apply)(variables, sequence)
    # Sums of other lengths are rounded differently, a few units in the last place.
    parts = extended(model, variables, sequence, first=first)
    assert_allclose(parts, whole, rtol=0, atol=1e-5 * abs(whole).max())


def test_no_logit_depends_on_later_tokens(variant):
    """By gradients, which no coincidence of values can hide."""
    model, _ = variant
    # One token for each place, so that an embedding's gradient is its place's.
    model = model.clone(vocab_size=model.length, tied_head=False)
    params = randomized(model)["params"]

    def logits_at(embedding, place):
        variables = {"params": params | {"embedding": embedding}}
        return model.apply(variables, places[None])[0, place].sum()

    places = jnp.arange(model.length)
    gradient = jax.vmap(jax.grad(logits_at), in_axes=(None, 0))
    depends = jax.jit(gradient)(params["embedding"], places) != 0  # [T,T,D]
    assert_array_equal(depends.any(-1), np.tri(model.length, dtype=bool))


def test_parameters_have_as_many_named_axes_as_dimensions(variant):
    _, variables = variant
    for path, array in flatten_dict(variables["params"], sep="/").items():
        assert len(logical_axes(path)) == array.ndim


def extended(model, variables, sequence, first):
    """Logits from `extend`: by `first` tokens, then by one at a time."""
    extend = jax.jit(partial(model.apply, method="extend"))
    cache = model.empty_cache(len(sequence), sequence.shape[1])
    logits, cache = extend(variables, sequence[:, :first], cache)
    found = [logits]
    for t in range(first, sequence.shape[1]):
        logits, cache = extend(variables, sequence[:, t : t + 1], cache)
        found.append(logits)
    return jnp.concatenate(found, axis=1)
