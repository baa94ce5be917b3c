"""The sampler of large pictures: against the original's, and against full passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, gpt_fields
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.conditions import windows as told_in
from taming_jax.interop.names import GPT
from taming_jax.models.passes import next_logits
from taming_jax.models.transformer import UNROLLED, Transformer
from taming_jax.sampling import sample_tokens
from taming_jax.windows import Windows, drawing, sample_windows
from taming_jax.windows.places import lengths, schedule

CASE = golden("12_sliding_window_gpt")
SIDE, SHAPE = CASE.config["W"], tuple(CASE.config["grid"])
CODES = CASE.config["params"]["vocab_size"]
MODEL = Transformer(**gpt_fields(CASE.config["params"]), prefix=SIDE**2)
PARAMS = CASE.variables(GPT)
CONDITION = CASE.inputs["cond"][None].astype(np.int32)
WINDOWS = Windows(SHAPE, (SIDE, SIDE))

MODERN = Transformer(
    vocab_size=19,
    length=16,
    grid=(4, 4),
    width=24,
    layers=2,
    heads=3,
    norm="rms",
    rotary=True,
    qk_norm=True,
    target_positions=True,
    tied_head=True,
    condition_everywhere=True,
    above=True,
)


def part_of(condition):
    tokens = jnp.asarray(condition)[:, None, None]
    return told_in.Part(tokens, (SIDE, SIDE), (SIDE, SIDE))


def draw(condition=CONDITION, windows=WINDOWS, *, seed=0, **settings):
    keys = settings.pop("keys", jax.random.split(jax.random.key(seed), len(condition)))
    return np.asarray(
        sample_windows(
            MODEL,
            PARAMS,
            keys,
            part_of(condition),
            windows=windows,
            codes=CODES,
            **settings,
        )
    )


def by_full_passes(model, params, told, codes, windows):
    """Logits of every place [h,w,B,V], each by a full pass over its window."""
    (height, width), stride = windows.shape, windows.stride
    rows, columns = windows.window
    tops, lefts = windows.origins
    apply = jax.jit(model.apply)
    found = []
    for i, j in np.ndindex(height, width):
        top, left = tops[i // stride], lefts[j // stride]
        before = np.asarray(told(top, left))
        seen = codes[:, top : top + rows, left : left + columns]
        tokens = np.concatenate([before, seen.reshape(len(seen), -1)], axis=1)[:, :-1]
        place = before.shape[1] - 1 + (i - top) * columns + j - left
        found.append(apply({"params": params}, tokens)[:, place])
    return np.reshape(found, (height, width, *np.shape(found[0])))


@pytest.mark.parametrize("at_once", [1, 16])
def test_greedy_codes_are_the_original_s(at_once):
    found = draw(greedy=True, at_once=at_once)
    assert_array_equal(found[0], CASE.outputs["final"])
    trace = CASE.outputs["trace"].T
    assert_array_equal(found[0, trace[0], trace[1]], trace[8])


def test_logits_of_each_place_are_the_original_s():
    """Computed as the sampler does, from the original's codes up to each place."""
    steps = schedule(WINDOWS, at_once=1)
    tops, lefts = WINDOWS.origins
    row, column, *local, top, bottom, left, right = CASE.outputs["trace"][:, :8].T
    assert_array_equal([tops[row], lefts[column]], [top, left])
    assert_array_equal([row - top, column - left], local)
    assert_array_equal([bottom - top, right - left], np.full((2, row.size), SIDE))
    final, part = CASE.outputs["final"][None], part_of(CONDITION)
    order = np.lexsort((steps.blocks[:, 0], steps.rows[:, 0]))  # by rows
    before = lengths(WINDOWS, steps)[order, 0]
    sequences = []
    for i, j in np.ndindex(SHAPE):
        seen = final[:, tops[i] : tops[i] + SIDE, lefts[j] : lefts[j] + SIDE]
        told = part(tops[i], lefts[j])
        sequences.append(np.concatenate([told, seen.reshape(1, -1)], axis=1)[0])
    found = MODEL.apply(
        {"params": PARAMS},
        jnp.asarray(sequences)[:, :-1],
        SIDE**2 - 1 + before,
        method=next_logits,
    )
    assert_allclose(found, CASE.exact["logits"], atol=1e-5)


@pytest.fixture(scope="module")
def two():
    """Two conditions, and what is drawn for them place by place."""
    conditions = np.concatenate([CONDITION, CONDITION[:, ::-1]])
    return conditions, draw(conditions, at_once=1)


def test_together_places_are_drawn_as_one_by_one(two):
    conditions, expected = two
    assert_array_equal(draw(conditions), expected)


def test_a_sample_does_not_depend_on_the_others(two):
    conditions, expected = two
    keys = jax.random.split(jax.random.key(0), 2)
    assert_array_equal(draw(conditions[1:], keys=keys[1:]), expected[1:])


def test_blocks_of_one_place_are_drawn_as_without_a_cache(two, monkeypatch):
    conditions, expected = two
    monkeypatch.setattr(drawing, "draw_exactly", drawing.draw_by_blocks)
    assert_array_equal(draw(conditions), expected)


def test_blocks_begin_with_as_many_codes_as_they_have(monkeypatch):
    """Windows of 10 x 10, which begin filled up to one of two lengths."""
    model = Transformer(
        vocab_size=17, length=100, grid=(10, 10), width=8, layers=1, heads=1
    )
    tokens = jnp.zeros((1, 2), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
    params = jax.tree.map(lambda a: 10 * a, params)
    told, windows = told_in.Same(jnp.array([[16]])), Windows((11, 13), (10, 10))
    assert len(drawing.known_beginnings(windows, schedule(windows), partly=False)) == 2
    settings = {"windows": windows, "codes": 16}
    expected = sample_windows(model, params, split(1), told, **settings)
    monkeypatch.setattr(drawing, "draw_exactly", drawing.draw_by_blocks)
    found = sample_windows(model, params, split(1), told, **settings)
    assert_array_equal(found, expected)


def test_codes_that_are_given_stay_and_inform_what_follows(two):
    conditions, expected = two
    given = np.full_like(expected, -1)
    given[:, :3] = expected[:, :3]
    given[0, 4, 2] = expected[0, 4, 2]  # in one of the two only
    assert_array_equal(draw(conditions, given=given), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_nothing_is_compiled_for_other_codes_that_are_given(two, stride, monkeypatch):
    """Whatever is drawn of the picture; nor for other settings."""
    conditions, drawn = two
    windows, programs = Windows(SHAPE, (SIDE, SIDE), stride), {}
    for name in ("exact_program", "blocks_program"):
        found = getattr(drawing, name)
        monkeypatch.setattr(
            drawing, name, lambda *key, _f=found: programs.setdefault(key, _f(*key))
        )

    def compiled():
        return [program._cache_size() for program in programs.values()]

    upper, corner = np.full_like(drawn, -1), np.full_like(drawn, -1)
    upper[:, :3] = drawn[:, :3]
    corner[:, -3:, 2:] = drawn[:, -3:, 2:]
    draw(conditions, windows, given=upper, top_k=5)
    before = compiled()
    draw(conditions[::-1], windows, given=corner, top_k=3, temperature=0.5, seed=1)
    assert compiled() == before
    assert sum(before) > 0


@pytest.mark.parametrize("stride", [1, 2])
def test_all_codes_may_be_given(two, stride):
    conditions, expected = two
    windows = Windows(SHAPE, (SIDE, SIDE), stride)
    assert_array_equal(draw(conditions, windows, given=expected), expected)


@pytest.fixture(scope="module")
def modern():
    tokens = jnp.zeros((1, 2), jnp.int32)
    params = jax.jit(MODERN.init)(jax.random.key(0), tokens)["params"]
    return jax.tree.map(lambda a: 10 * a, params)  # far from undecided


@pytest.mark.parametrize("stride", [1, 3])
def test_all_that_a_model_knows_of_places_is_of_its_window(modern, stride):
    """Greedy codes are the likeliest of full passes; 7 columns are no multiple of 3."""
    windows, told = (
        Windows((6, 7), (4, 4), stride),
        told_in.Same(jnp.array([[17], [16]])),
    )
    codes = sample_windows(
        MODERN, modern, split(2), told, windows=windows, codes=16, greedy=True
    )
    logits = by_full_passes(MODERN, modern, told, np.asarray(codes), windows)
    assert_array_equal(logits[..., :16].argmax(-1).transpose(2, 0, 1), codes)


@pytest.mark.parametrize("stride", [2, 3])
def test_around_codes_that_are_given_blocks_are_drawn_by_full_passes(modern, stride):
    """Blocks begin in their second rows, too, and some not at all."""
    windows, told = (
        Windows((6, 7), (4, 4), stride),
        told_in.Same(jnp.array([[17], [3]])),
    )
    given = np.full((2, 6, 7), -1)
    given[:, :3] = np.random.default_rng(0).integers(0, 16, (2, 3, 7))
    given[:, 4, 2:6], given[0, 5] = 7, 9
    settings = {"windows": windows, "codes": 16, "greedy": True, "given": given}
    codes = sample_windows(MODERN, modern, split(2), told, **settings)
    logits = by_full_passes(MODERN, modern, told, np.asarray(codes), windows)
    likeliest = logits[..., :16].argmax(-1).transpose(2, 0, 1)
    assert_array_equal(codes, np.where(given < 0, likeliest, given))


@pytest.mark.parametrize("stride", [1, 2])
def test_guidance_moves_each_place_away_from_its_unguided_logits(modern, stride):
    """Of two samples, each from its own, which differ."""
    windows, strength = Windows((5, 6), (4, 4), stride), np.linspace(1, 4, 30)
    asked, unasked = (
        told_in.Same(jnp.array(tokens)) for tokens in ([[17], [16]], [[18], [15]])
    )
    codes = sample_windows(
        MODERN,
        modern,
        split(2),
        asked,
        windows=windows,
        codes=16,
        untold=unasked,
        guidance=strength,
        greedy=True,
    )
    yes, no = (
        by_full_passes(MODERN, modern, told, np.asarray(codes), windows)[..., :16]
        for told in (asked, unasked)
    )
    moved = no + strength.reshape(5, 6, 1, 1) * (yes - no)
    assert_array_equal(moved.argmax(-1).transpose(2, 0, 1), codes)


def test_a_picture_of_one_window_is_what_the_cache_draws(modern):
    """One block, which is the whole window, and the plain sampler: the same draws."""
    prefix = jnp.array([[17], [16]])
    expected = sample_tokens(MODERN, modern, split(2), prefix, count=16, codes=16)
    found = sample_windows(
        MODERN,
        modern,
        split(2),
        told_in.Same(prefix),
        windows=Windows((4, 4), (4, 4), stride=4),
        codes=16,
    )
    assert_array_equal(found.reshape(2, -1), expected)


@pytest.mark.parametrize("layers", [2, UNROLLED + 1])
def test_one_place_s_logits_are_those_of_all(layers):
    """The last block at one place; what comes after it does not matter."""
    model = MODERN.clone(layers=layers)
    tokens = jnp.arange(3 * 16).reshape(3, 16) % 19
    params = jax.jit(model.init)(jax.random.key(1), tokens)["params"]
    variables, last = {"params": params}, jnp.array([0, 7, 15])
    expected = jax.jit(model.apply)(variables, tokens)[jnp.arange(3), last]
    found = model.apply(variables, tokens, last, method=next_logits)
    # float32 sums of 24 terms, in another order.
    assert_allclose(found, expected, atol=1e-5)


def test_a_model_that_sees_what_is_to_come_is_refused():
    model = MODEL.clone(unmasked=20)
    with pytest.raises(ValueError, match=r"unmasked=20 with 16 condition tokens"):
        sample_windows(
            model, PARAMS, split(1), part_of(CONDITION), windows=WINDOWS, codes=CODES
        )


def test_guidance_needs_to_know_what_asks_for_nothing():
    with pytest.raises(ValueError, match=r"guidance=2.0 needs untold"):
        draw(guidance=2.0)


def split(count):
    return jax.random.split(jax.random.key(0), count)
