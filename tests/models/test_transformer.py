from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models import transformer
from taming_jax.models.positions import rotation
from taming_jax.models.transformer import UNROLLED, Transformer

# Two rows of three codes behind one condition token.
TINY = {"vocab_size": 19, "length": 6, "width": 24, "layers": 2, "heads": 3}
TINY |= {"grid": (2, 3), "prefix": 1}
SNAKE = (0, 1, 2, 5, 4, 3)
MODERN = {"norm": "rms", "mlp": "relu2", "bias": False, "rotary": True}
MODERN |= {"rotary_base": 20.0, "qk_norm": True, "tied_head": True, "above": True}
MODERN |= {"condition_everywhere": True}
TOLD = {"prefix": 4, "length": 9, "condition_everywhere": True}
TOLD |= {"condition_grids": ((1, 1, 1), (2, 2, 1))}
OPTIONS = {
    "paper": {},
    "modern": MODERN,
    "gated": {"mlp": "swiglu", "norm": "rms"},
    "rotary": {"rotary": True, "learned_positions": False, "prefix": 3, "length": 8},
    "above": {"above": True, "prefix": 2, "length": 7},
    "everywhere": {"condition_everywhere": True},
    "told": MODERN | {"prefix": 7, "length": 12, "condition_grids": ((1, 2, 3),)},
    "deep": MODERN | {"layers": UNROLLED + 1, "width": 12},
    "grouped": {"heads": 6, "kv_heads": 2, "rotary": True, "rotary_grid": (4, 4)},
    "ordered": {"order": SNAKE, "rotary": True, "above": True},
    "targets": {"target_positions": True, "vanishing_condition": True, "rotary": True},
}


def tokens(*shape, seed=3):
    return jax.random.randint(jax.random.key(seed), shape, 0, TINY["vocab_size"])


@partial(jax.jit, static_argnums=0)
def logits_of(model, variables, sequence):
    return model.apply(variables, sequence)


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


# Whatever the options.


@pytest.mark.parametrize("first", [1, 4])
def test_logits_with_a_cache_equal_those_without_at_every_place(variant, first):
    model, variables = variant
    sequence = tokens(2, model.length)
    whole = logits_of(model, variables, sequence)
    # Sums of other lengths are rounded differently, a few units in the last place.
    parts = extended(model, variables, sequence, first=first)
    assert_allclose(parts, whole, rtol=0, atol=1e-5 * abs(whole).max())


def test_no_logit_depends_on_later_tokens(variant):
    """By gradients, which no coincidence of values can hide."""
    model, _ = variant
    everything_before = np.tri(model.length, dtype=bool)
    assert_array_equal(dependencies(model), everything_before)


def test_parameters_apart_give_the_same_logits(variant):
    model, variables = variant
    apart = {"params": model.unstacked(variables["params"])}
    sequence = tokens(2, model.length)
    whole = logits_of(model, variables, sequence)
    assert_array_equal(logits_of(model, apart, sequence), whole)


def test_a_loop_over_layers_gives_the_same_logits(monkeypatch):
    model = Transformer(**TINY | MODERN)
    variables, sequence = randomized(model), tokens(2, 6)
    expected = jax.jit(model.apply)(variables, sequence)
    monkeypatch.setattr(transformer, "UNROLLED", 0)
    # Sums of a few terms may run in another order.
    looped = jax.jit(model.apply)(variables, sequence)
    assert_allclose(looped, expected, rtol=0, atol=1e-5 * abs(expected).max())


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


def dependencies(model, change=lambda params: params):
    """Which logits depend on which tokens, by gradients: bool [T,T]."""
    # One token for each place, so that an embedding's gradient is its place's.
    model = model.clone(vocab_size=model.length, tied_head=False)
    params = change(randomized(model)["params"])
    tables = {name: params[name] for name in params if name.startswith("embedding")}
    places = jnp.arange(model.length)

    def logits_at(tables, place):
        logits = model.apply({"params": params | tables}, places[None])
        return logits[0, place].sum()

    gradients = jax.jit(jax.vmap(jax.grad(logits_at), in_axes=(None, 0)))
    found = gradients(tables, places).values()
    return np.any([gradient != 0 for gradient in found], axis=(0, -1))


# What single options do.


def test_the_code_above_is_found_in_whatever_order_codes_are_read():
    """In the snake's second row they stand under tokens 2, 1 and 0 of the first."""
    found = dependencies(Transformer(**TINY, above=True, order=SNAKE), without_blocks)
    expected = np.eye(6, dtype=bool)
    expected[[3, 4, 5], [3, 2, 1]] = True
    assert_array_equal(found, expected)


@pytest.mark.parametrize("given", [3, 6])
def test_unmasked_places_see_each_other_if_they_are_given_at_once(given):
    model = Transformer(**TINY, unmasked=3)
    found = dependencies(model.clone(length=given))
    expected = np.tri(given, dtype=bool)
    expected[:3, :3] = True
    assert_array_equal(found, expected)


def test_a_shared_key_is_that_of_two_heads():
    """Four heads of queries and two of keys, against four of keys, equal in pairs."""
    fields = TINY | {"width": 32, "heads": 4, "layers": 1, "rotary": True}
    grouped, full = Transformer(**fields, kv_heads=2), Transformer(**fields)
    params, sequence = randomized(grouped)["params"], tokens(2, 6)
    blocks = dict(params["blocks"])
    for name in ("key", "value"):
        blocks[name] = jax.tree.map(doubled_heads, blocks[name])
    expected = logits_of(full, {"params": params | {"blocks": blocks}}, sequence)
    found = logits_of(grouped, {"params": params}, sequence)
    # Sums run in another order: a few units in the last place of the largest.
    assert_allclose(found, expected, rtol=0, atol=3e-6 * abs(expected).max())
    assert grouped.empty_cache(2, 6).keys.shape == (1, 2, 2, 6, 8)


def doubled_heads(array):
    """[...,2*8] -> [...,4*8], each of the two heads twice."""
    heads = array.reshape(*array.shape[:-1], 2, 8)
    return jnp.repeat(heads, 2, axis=-2).reshape(*array.shape[:-1], 32)


SHUFFLED = Transformer(**TINY | {"length": 7}, target_positions=True, rotary=True)


def test_a_shuffle_that_changes_nothing_is_none():
    variables, sequence = randomized(SHUFFLED), tokens(2, 6)
    apply = jax.jit(SHUFFLED.apply)
    same = jnp.tile(jnp.arange(6), (2, 1))
    expected = apply(variables, sequence)
    assert_allclose(apply(variables, sequence, shuffle=same), expected, atol=1e-6)


def test_shuffled_tokens_keep_their_places():
    """The last token, asked for with all others known, does not see their order.

    Where each is not told what comes after it, which would tell the order.
    """
    model = SHUFFLED.clone(layers=1)
    params = randomized(model)["params"]
    targets = jnp.zeros_like(params["target_positions"])
    variables = {"params": params | {"target_positions": targets}}
    apply = jax.jit(model.apply)
    sequence = np.array(tokens(1, 6))  # one condition token and five of six codes
    shuffle = np.array([[2, 4, 0, 5, 3, 1]])
    other = np.array([1, 0, 3, 2])  # of the first four of these, the fifth being last
    turned = sequence.copy()
    turned[:, 1:5] = sequence[:, 1:5][:, other]
    again = shuffle.copy()
    again[:, :4] = shuffle[:, :4][:, other]
    first = apply(variables, sequence, shuffle=shuffle)[:, -1]
    second = apply(variables, turned, shuffle=again)[:, -1]
    # One layer sees what is known as a set; sums run in another order.
    assert_allclose(first, second, rtol=0, atol=1e-5 * abs(first).max())


@pytest.mark.parametrize("order", [None, SNAKE])
def test_a_shuffled_sequence_is_one_of_a_model_of_that_order(order):
    """Whose table of targets has its rows as its own tokens come."""
    model, sequence = SHUFFLED.clone(learned_positions=False, order=order), tokens(2, 6)
    params, shuffle = randomized(model)["params"], np.array([4, 1, 5, 3, 2, 0])
    own = np.arange(6) if order is None else np.array(order)
    other = model.clone(order=tuple(own[shuffle].tolist()))
    rows = params["target_positions"][shuffle]
    expected = logits_of(
        other, {"params": params | {"target_positions": rows}}, sequence
    )
    asked = jnp.tile(shuffle, (2, 1))
    found = jax.jit(model.apply)({"params": params}, sequence, shuffle=asked)
    assert_allclose(found, expected, rtol=0, atol=1e-6 * abs(expected).max())


def test_the_place_asked_for_is_what_the_model_is_told():
    """The same codes, shown in the same places; another code is asked for."""
    variables, sequence = randomized(SHUFFLED), tokens(1, 3)
    ask = np.array([[[0, 1, 2, 3, 4, 5]], [[0, 1, 5, 3, 4, 2]]])
    apply = jax.jit(SHUFFLED.apply)
    first, second = (apply(variables, sequence, shuffle=order) for order in ask)
    assert_array_equal(first[:, :2], second[:, :2])
    assert abs(first[:, 2] - second[:, 2]).max() > 1e-2


def test_the_head_may_be_of_codes_only():
    for tied in (False, True):
        model = Transformer(**TINY, head_size=7, tied_head=tied)
        variables, sequence = randomized(model), tokens(2, 6)
        assert logits_of(model, variables, sequence).shape == (2, 6, 7)


def test_vectors_in_place_of_condition_tokens_go_through_the_cache_too():
    model = Transformer(**TINY | {"length": 8, "prefix": 3}, rotary=True)
    variables, sequence = randomized(model), tokens(2, 5)
    vectors = jax.random.normal(jax.random.key(5), (2, 3, 24))
    whole = jax.jit(model.apply)(variables, sequence, embeddings=vectors)
    extend = jax.jit(partial(model.apply, method="extend"))
    cache = model.empty_cache(2, 8)
    begun, cache = extend(variables, sequence[:, :2], cache, embeddings=vectors)
    rest, _ = extend(variables, sequence[:, 2:], cache)
    parts = jnp.concatenate([begun, rest], axis=1)
    # Sums of other lengths are rounded differently, a few units in the last place.
    assert_allclose(parts, whole, rtol=0, atol=1e-5 * abs(whole).max())


def without_blocks(params):
    """Nothing but embeddings, norm and head."""
    return params | {"blocks": jax.tree.map(jnp.zeros_like, params["blocks"])}


def test_the_embedding_above_is_that_of_the_place_one_row_up():
    """Token t asks for the code of place t + 1, below that of place t + 1 - 3."""
    found = dependencies(Transformer(**TINY, above=True), without_blocks)
    expected = np.eye(6, dtype=bool)
    expected[[3, 4, 5], [1, 2, 3]] = True
    assert_array_equal(found, expected)


def test_the_condition_reaches_every_place_at_once():
    model = Transformer(**TINY, condition_everywhere=True)
    expected = np.eye(6, dtype=bool)
    expected[:, 0] = True
    assert_array_equal(dependencies(model, without_blocks), expected)


def test_a_map_reaches_the_places_of_the_tokens_to_come():
    """Token 1 is told of all, 2 and 3 of the upper and the lower row; 0 of no place."""
    model = Transformer(**TINY | TOLD)
    expected = np.eye(9, dtype=bool)
    expected[3:, 1] = True
    expected[[3, 4, 5], 2] = True
    expected[[6, 7, 8], 3] = True
    assert_array_equal(dependencies(model, without_blocks), expected)


def test_a_finer_map_reaches_them_in_whatever_order_they_come():
    told = {"prefix": 6, "length": 11, "condition_grids": ((0, 2, 3),)}
    model = Transformer(**TINY | told, condition_everywhere=True, order=SNAKE)
    expected = np.eye(11, dtype=bool)
    expected[np.arange(5, 11), SNAKE] = True
    assert_array_equal(dependencies(model, without_blocks), expected)


@pytest.mark.parametrize("order", [None, SNAKE, SNAKE[::-1]])
def test_condition_tokens_do_not_turn(order):
    fields = {"rotary": True, "learned_positions": False, "prefix": 3, "length": 8}
    model = Transformer(**TINY | fields | {"layers": 1, "order": order})
    turned = rotation(model, jnp.arange(8))
    assert_array_equal(turned.cos[:3], 1.0)
    assert_array_equal(turned.sin[:3], 0.0)
    variables = randomized(model)
    swap = jnp.array([2, 0, 1, 3, 4, 5, 6, 7])
    sequence = tokens(1, 8)
    swapped = logits_of(model, variables, sequence[:, swap])
    # One layer sees its condition as a set; sums run in another order.
    whole = logits_of(model, variables, sequence)
    assert_allclose(swapped[:, 3:], whole[:, 3:], rtol=0, atol=1e-5 * abs(whole).max())


def test_dropout_acts_in_training_only_and_differs_between_layers():
    model = Transformer(**TINY, dropout=0.5)
    variables, sequence = randomized(model), tokens(1, 6)
    apply = jax.jit(partial(model.apply, variables, sequence), static_argnames="train")
    keys = [{"dropout": jax.random.key(i)} for i in range(2)]
    assert_array_equal(apply(train=False, rngs=keys[0]), apply(train=False))
    drawn = [apply(train=True, rngs=rngs) for rngs in keys]
    assert abs(drawn[0] - drawn[1]).max() > 1e-2


def test_rematerialisation_changes_no_gradient():
    variables = randomized(Transformer(**TINY | MODERN))

    def gradient(remat):
        model = Transformer(**TINY | MODERN, remat=remat)

        def loss(params):
            logits = model.apply({"params": params}, tokens(2, 6), train=True)
            return jnp.square(logits).mean()

        return ravel_pytree(jax.jit(jax.grad(loss))(variables["params"]))[0]

    plain = gradient(remat=False)
    # Sums run in another order: a few units in the last place of the largest.
    assert_allclose(gradient(remat=True), plain, rtol=0, atol=3e-6 * abs(plain).max())


def test_bfloat16_keeps_parameters_and_logits_in_float32():
    model = Transformer(**TINY | MODERN, dtype="bfloat16")
    variables = randomized(model)
    logits = logits_of(model, variables, tokens(2, 6))
    exact = logits_of(Transformer(**TINY | MODERN), variables, tokens(2, 6))
    assert {a.dtype for a in jax.tree.leaves(variables)} == {logits.dtype}
    # Eight bits for each of some ten roundings in a row.
    assert_allclose(logits, exact, rtol=0, atol=0.05 * abs(exact).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cache_has_the_models_dtype(dtype):
    cache = Transformer(**TINY, dtype=dtype).empty_cache(4, 5)
    assert (cache.keys.shape, cache.keys.dtype) == ((2, 4, 3, 5, 8), jnp.dtype(dtype))


# At the start.


def test_weights_begin_as_the_originals():
    """N(0, .02) for products and embeddings; zeros for biases and positions."""
    model = Transformer(**TINY | {"width": 96})
    params = flatten_dict(jax.jit(model.init)(jax.random.key(0), tokens(1, 2)))
    for path, array in params.items():
        drawn = path[-1] in ("kernel", "embedding")
        mean, deviation = (0, 0.02) if drawn else (float(path[-1] == "scale"), 0)
        assert_allclose(array.mean(), mean, atol=2e-3, err_msg=str(path))
        assert_allclose(array.std(), deviation, rtol=0.06, err_msg=str(path))


def test_layers_begin_differently():
    model = Transformer(**TINY)
    blocks = jax.jit(model.init)(jax.random.key(0), tokens(1, 2))["params"]["blocks"]
    assert (blocks["up"]["kernel"][0] != blocks["up"]["kernel"][1]).all()


def test_the_papers_class_conditional_model_has_its_size():
    model = Transformer(vocab_size=16384, length=256, width=1536, layers=48, heads=24)
    count = sum(array.size for array in jax.tree.leaves(shapes_of(model)))
    assert 1.40e9 < count < 1.42e9


def shapes_of(model):
    """Shapes of the parameters; nothing is computed."""
    return jax.eval_shape(model.init, jax.random.key(0), tokens(1, 2))["params"]


# What cannot be.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hed": 3}, "Transformer has no field 'hed'"),
        ({"norm": "batch"}, "Transformer has no norm 'batch'.*layer, rms"),
        ({"mlp": "relu"}, "Transformer has no mlp 'relu'; did you mean 'relu2'?"),
        ({"dtype": "float16"}, "no dtype 'float16'"),
        ({"heads": 5}, "width=24 is not divided by heads=5"),
        ({"heads": 4, "rotary": True}, "multiple of 4, not 24 / 4"),
        ({"grid": None, "above": True}, r"need grid=\(height, width\)"),
        (
            {"condition_everywhere": True, "condition_grids": ()},
            "nothing of this one lies",
        ),
        (TOLD | {"prefix": 3}, "2 x 1 condition tokens from 2 on, and there are pref"),
        (TOLD | {"grid": None, "order": None}, r"a map needs grid=\(height, width\)"),
        ({"kv_heads": 2}, "heads=3 do not share kv_heads=2 evenly"),
        ({"vanishing_condition": True}, "of rotary positions: set rotary=True"),
        ({"order": (0, 1, 2, 3, 4, 4)}, r"no permutation of the 6 places of a grid"),
        ({"head_size": 20}, "head_size=20: there are vocab_size=19"),
    ],
)
def test_fields_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Transformer(**TINY | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "needs target_positions=True"),
        ({"target_positions": True, "above": True}, "and above=False"),
        ({"target_positions": True}, "7 places; this transformer has length=6"),
    ],
)
def test_a_shuffle_that_cannot_be_followed_is_refused(change, message):
    model = Transformer(**TINY, **change)
    shuffle = jnp.tile(jnp.arange(6), (1, 1))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            partial(model.init, shuffle=shuffle), jax.random.key(0), tokens(1, 6)
        )


def test_more_tokens_than_places_are_refused():
    model = Transformer(**TINY)
    with pytest.raises(ValueError, match=r"an input of 7 places.* 1 to length=6"):
        jax.eval_shape(model.init, jax.random.key(0), tokens(1, 7))


@pytest.mark.parametrize("length", [0, 7])
def test_a_cache_of_other_places_than_there_are_is_refused(length):
    with pytest.raises(ValueError, match=f"a cache of {length} places"):
        Transformer(**TINY).empty_cache(1, length)
