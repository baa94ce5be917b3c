"""The sampler, against the original's filters and greedy sequences, and its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, gpt_fields
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax import sampling
from taming_jax.interop.names import GPT
from taming_jax.models.transformer import UNROLLED, Transformer
from taming_jax.sampling import filter_logits, sample_tokens

FILTERS = golden("09_logit_filters")
LOGITS = FILTERS.inputs["logits"]

CASE = golden("09_gpt")
SETTINGS = CASE.config["params"]
MODEL = Transformer(**gpt_fields(SETTINGS))
PARAMS = CASE.variables(GPT)
PREFIX = CASE.inputs["cond"].astype(np.int32)
COUNT, VOCABULARY = CASE.config["steps"], SETTINGS["vocab_size"]


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def draw(prefix=PREFIX, *, count=COUNT, codes=VOCABULARY, seed=0, **settings):
    keys_ = settings.pop("keys", keys(len(prefix), seed))
    return sample_tokens(
        MODEL, PARAMS, keys_, prefix, count=count, codes=codes, **settings
    )


def full_logits(prefix, tokens):
    """Without a cache: logits of every drawn token, [B,T,V]."""
    sequence = jnp.concatenate([prefix, tokens], axis=1)[:, :-1]
    return MODEL.apply({"params": PARAMS}, sequence)[:, prefix.shape[1] - 1 :]


@pytest.mark.parametrize("k", [1, 5, 24])
def test_top_k_keeps_ties_as_the_original_does(k):
    """Its transformer's own filter, and that of the prior around it."""
    filtered = filter_logits(LOGITS, top_k=k)
    assert_array_equal(filtered, FILTERS.outputs[f"net2net_top_k_{k}"])
    assert_array_equal(filtered, FILTERS.outputs[f"mingpt_top_k_{k}"])


@pytest.mark.parametrize("k", [0, 1, 5, 24])
@pytest.mark.parametrize("p", [0.0, 0.5, 0.9, 1.0])
def test_top_p_after_top_k_keeps_what_the_reference_keeps(k, p):
    """Which of several equal logits stays at the cut is open: the values must agree."""
    filtered = filter_logits(LOGITS, top_k=k or None, top_p=p)
    expected = FILTERS.outputs[f"filter_k{k}_p{p}"]
    assert_array_equal(np.sort(filtered), np.sort(expected))


@pytest.mark.parametrize("p", [0.3, 0.95])
def test_top_p_keeps_the_likeliest_up_to_the_first_over_the_threshold(p):
    logits = 3 * jax.random.normal(jax.random.key(1), (50, 300))
    found = jax.jit(filter_logits)(logits, top_p=p)
    for row, filtered in zip(logits, found, strict=True):
        likeliest = np.argsort(-row)
        reached = np.cumsum(np.asarray(jax.nn.softmax(row), np.float64)[likeliest])
        kept = np.sort(likeliest[: 1 + np.sum(reached <= p)])
        assert_array_equal(np.flatnonzero(np.isfinite(filtered)), kept)


def test_both_zeros_are_equal_to_top_k():
    assert np.isfinite(filter_logits(jnp.array([0.0, -0.0, -1.0]), top_k=1)).sum() == 2


def test_filters_work_on_what_is_removed_already():
    filtered = filter_logits(jnp.array([1.0, -jnp.inf, 2.0]), top_k=3, top_p=0.9999)
    assert_array_equal(filtered, [1.0, -np.inf, 2.0])


@pytest.mark.parametrize("top_k", [None, 5])
def test_greedy_is_the_original_s_with_its_cache_and_without(top_k):
    """A filter does not change which is the likeliest."""
    tokens = draw(greedy=True, top_k=top_k)
    past = "greedy_with_past" + ("_topk" if top_k else "")
    assert_array_equal(tokens, CASE.outputs[past])
    whole = CASE.outputs["greedy_full"]
    assert_array_equal(np.concatenate([PREFIX, tokens], axis=1), whole)


def test_tokens_are_drawn_by_the_logits_without_a_cache():
    tokens = draw(greedy=True)
    assert_array_equal(full_logits(PREFIX, tokens).argmax(-1), tokens)


@pytest.mark.parametrize("layers", [2, UNROLLED + 1])
def test_a_modern_model_draws_by_its_logits_without_a_cache(layers):
    model = Transformer(
        vocab_size=19,
        length=12,
        grid=(3, 4),
        width=24,
        layers=layers,
        heads=3,
        norm="rms",
        rotary=True,
        qk_norm=True,
        tied_head=True,
        condition_everywhere=True,
        above=True,
    )
    prefix = jnp.array([[17], [18]])
    params = jax.jit(model.init)(jax.random.key(0), prefix)["params"]
    params = jax.tree.map(lambda a: 10 * a, params)  # far from undecided
    tokens = sample_tokens(
        model, params, keys(2), prefix, count=12, codes=16, greedy=True
    )
    sequence = jnp.concatenate([prefix, tokens[:, :-1]], axis=1)
    logits = jax.jit(model.apply)({"params": params}, sequence)
    assert_array_equal(tokens, logits[..., :16].argmax(-1))


@pytest.mark.parametrize(
    ("count", "ends"),
    [(1, [1, 1]), (64, [1, 64]), (128, [1, 64, 128]), (257, [1, 64, 128, 192, 257])],
)
def test_long_sequences_are_drawn_in_up_to_four_loops(count, ends):
    assert sampling.spans(count) == ends


@pytest.mark.parametrize("guided", [False, True])
def test_a_cache_that_grows_draws_by_the_logits_without_one(monkeypatch, guided):
    """In four loops over nine places; guided by the same condition it is not moved."""
    monkeypatch.setattr(sampling, "_PLACES", 9)
    monkeypatch.setattr(sampling, "_compiled", sampling._compiled.__wrapped__)
    more = {"unguided_prefix": PREFIX, "guidance": 3.0} if guided else {}
    given = np.full((2, COUNT), -1)
    given[:, 12:14] = 3
    tokens = draw(greedy=True, given=given, **more)
    expected = np.array(full_logits(PREFIX, tokens).argmax(-1))
    expected[:, 12:14] = 3
    assert len(sampling.spans(COUNT)) == 5
    assert_array_equal(tokens, expected)


def test_draws_follow_the_distribution():
    """20,000 first tokens against the softmax of the temperature's logits."""
    many = np.repeat(PREFIX[:1], 20_000, axis=0)
    tokens = draw(many, count=1, temperature=0.7)[:, 0]
    shares = np.bincount(tokens, minlength=VOCABULARY) / len(tokens)
    expected = jax.nn.softmax(full_logits(PREFIX[:1], tokens[:1, None])[0, 0] / 0.7)
    # Five standard deviations of a share: 5 sqrt(.25 / 20000).
    assert_allclose(shares, expected, atol=0.018)


def test_only_codes_are_drawn():
    assert draw(codes=4, temperature=5.0).max() < 4


def test_greedy_is_among_codes():
    logits = full_logits(PREFIX, draw(codes=4, greedy=True))[..., :4]
    assert_array_equal(draw(codes=4, greedy=True), logits.argmax(-1))


def test_a_sample_does_not_depend_on_the_others():
    together = draw(np.repeat(PREFIX, 2, axis=0), keys=keys(4))
    assert_array_equal(together[2:3], draw(PREFIX[1:], keys=keys(4)[2:3]))


def test_guidance_moves_logits_away_from_the_unguided_ones():
    """The greedy first token, against the equation by hand."""
    other = PREFIX[::-1]
    asked, unasked = (
        MODEL.apply({"params": PARAMS}, prefix)[:, -1] for prefix in (PREFIX, other)
    )
    tokens = draw(count=1, greedy=True, unguided_prefix=other, guidance=3.0)
    assert_array_equal(tokens[:, 0], (unasked + 3 * (asked - unasked)).argmax(-1))


def test_guidance_of_1_is_none():
    guided = draw(unguided_prefix=PREFIX[::-1], guidance=1.0)
    assert_array_equal(guided, draw())


def test_guidance_may_differ_from_place_to_place():
    schedule = np.where(np.arange(COUNT) < COUNT // 2, 1.0, 5.0)
    tokens = draw(unguided_prefix=PREFIX[::-1], guidance=schedule)
    assert_array_equal(tokens[:, : COUNT // 2], draw()[:, : COUNT // 2])


def test_given_tokens_stay_and_the_rest_follows_them():
    given = np.full((2, COUNT), -1)
    given[:, 3:7] = [[1, 2, 3, 4], [5, 6, 7, 8]]
    tokens = draw(given=given, greedy=True)
    assert_array_equal(tokens[:, 3:7], given[:, 3:7])
    likeliest = full_logits(PREFIX, tokens).argmax(-1)
    assert_array_equal(tokens[:, 7:], likeliest[:, 7:])


def test_nothing_is_compiled_for_another_value():
    settings = {"top_k": 5, "top_p": 0.9, "unguided_prefix": PREFIX[::-1]}
    draw(**settings, temperature=1.0, guidance=2.0)
    compiled = sampling._compiled(MODEL, COUNT, VOCABULARY, False)
    before = compiled._cache_size()
    settings |= {"top_k": 7, "top_p": 0.5, "unguided_prefix": PREFIX}
    draw(PREFIX[::-1], **settings, temperature=0.5, guidance=3.0, seed=1)
    assert compiled._cache_size() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0.*above 0; greedy"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_p": 0.0}, r"top_p=0.0.*\(0, 1\]"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"guidance": 2.0}, "guidance=2.0 needs unguided_prefix"),
        ({"count": 41}, "a cache of 41 places.*length=40"),
    ],
)
def test_what_cannot_be_is_said(settings, message):
    with pytest.raises(ValueError, match=message):
        draw(**settings)


@pytest.mark.devices(8)
def test_guidance_lets_both_of_a_sample_lie_on_one_device():
    """No device waits for another: the program has no collective."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    prefix = np.tile(PREFIX[:1], (8, 1))
    keys_, asked, nothing = jax.device_put((keys(8), prefix, 0 * prefix), rows)
    params = jax.device_put(PARAMS, whole)
    program = sampling._compiled(MODEL, COUNT, VOCABULARY, False)
    guidance = jnp.full(COUNT, 2.0)
    filters = sampling.Filters()
    lowered = program.lower(params, keys_, asked, nothing, None, filters, guidance)
    text = lowered.compile().as_text()
    for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert name not in text
