"""The second stage's step, against the original's Net2NetTransformer and by its parts.

The original's vocabulary has 20 tokens, its tokenizer 16 codes, and labels share them.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, gpt_fields, nhwc, vqgan_fields
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.conditions import Vocabulary
from taming_jax.interop.names import GENERATOR, GPT
from taming_jax.interop.tables import to_theirs
from taming_jax.models.transformer import Transformer
from taming_jax.models.vqgan import VQGAN, decode_codes, encode_images
from taming_jax.orders import make_order
from taming_jax.sampling import sample_tokens
from taming_jax.training import prior_step
from taming_jax.training.recipe import PriorRecipe
from taming_jax.training.state import TrainState

CASE = golden("09_net2net_classcond")
SETTINGS = CASE.config["params"]["transformer_config"]["params"]
MODEL = Transformer(**gpt_fields(SETTINGS))
PARAMS = CASE.variables(GPT, "transformer.")
LABELS = CASE.inputs["class_label"].astype(np.int32)
CODES = CASE.outputs["z_indices"].astype(np.int32)
VOCABULARY = Vocabulary(codes=20, classes=10, shared=True)
ADAMW = CASE.config["adamw"]


def loss(condition, seen, params=PARAMS):
    return prior_step.nll(MODEL, params, condition, seen, CODES)[0].mean()


def recipe(**changes):
    return PriorRecipe.from_config(
        {
            "model": {},
            "shared_vocabulary": True,
            "learning_rate": CASE.config["learning_rate"],
            "optimizer": {"b1": 0.9, "b2": 0.95, "weight_decay": ADAMW["decay"]},
            "steps": 4,
            "batch_size": 2,
            **changes,
        }
    )


def first_state(settings, params=PARAMS):
    params = jax.tree.map(jnp.asarray, params)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        codebook={},
        opt_state=prior_step.make_prior_optimizer(settings).init(params),
        ema=params,
        adversary=None,
        usage=None,
        nonfinite=jnp.int32(0),
    )


def steps(settings, count, vocabulary=VOCABULARY, model=MODEL, params=PARAMS):
    """States and metrics after each of `count` steps on the same codes."""
    step = prior_step.make_train_step(settings, model, vocabulary, None, seed=0)
    step, state = jax.jit(step), first_state(settings, params)
    batch = {"codes": CODES.reshape(2, 8, 8), "label": LABELS}
    for _ in range(count):
        state, metrics = step(state, batch, {})
        yield state, metrics


def test_the_original_s_loss():
    condition = VOCABULARY.label_tokens(LABELS)
    assert_allclose(loss(condition, CODES), CASE.outputs["loss"], **tolerance("loss"))


def test_the_original_s_loss_without_a_label():
    start = CASE.outputs["uncond/c_indices"].astype(np.int32)
    expected = CASE.outputs["uncond/loss"]
    assert_allclose(loss(start, CODES), expected, **tolerance("uncond/loss"))


def seen_by_the_original():
    keep, other = CASE.inputs["keep"] > 0, CASE.inputs["random_tokens"]
    return prior_step.disturbed(CODES, keep, other.astype(np.int32))


def test_the_original_s_loss_on_disturbed_tokens():
    condition = VOCABULARY.label_tokens(LABELS)
    found = loss(condition, seen_by_the_original())
    assert_allclose(found, CASE.outputs["pkeep/loss"], **tolerance("pkeep/loss"))


def test_the_original_s_logits_on_disturbed_tokens():
    condition = VOCABULARY.label_tokens(LABELS)
    sequence = jnp.concatenate([condition, seen_by_the_original()], axis=1)[:, :-1]
    logits = jax.jit(MODEL.apply)({"params": PARAMS}, sequence)
    assert_allclose(logits, CASE.outputs["pkeep/logits"], **tolerance("pkeep/logits"))


@pytest.mark.parametrize("given", [0, 32])
def test_the_original_s_greedy_tokens(given):
    """Of all tokens, as the original draws; of none given, and of the first half."""
    kept = np.where(np.arange(64) < given, CODES, -1)
    tokens = sample_tokens(
        MODEL,
        PARAMS,
        jax.random.split(jax.random.key(0), 2),
        VOCABULARY.label_tokens(LABELS),
        count=64,
        codes=VOCABULARY.codes,
        given=kept,
        greedy=True,
    )
    name = "half" if given else "from_scratch"
    assert_array_equal(tokens, CASE.outputs[f"greedy/{name}"])


def test_the_original_s_tokens_without_any_of_the_picture():
    """All at once from the condition, which stands in for the picture (pkeep 0)."""
    condition = np.roll(CODES, 1, axis=1)[:, :32]
    sequence = np.concatenate([condition, condition[:, :-1]], axis=1)
    logits = jax.jit(MODEL.apply)({"params": PARAMS}, sequence)[:, 31:]
    assert_array_equal(logits.argmax(-1), CASE.outputs["pkeep0/sample"][..., 0])


@pytest.mark.parametrize(
    "name", ["pos_emb", "tok_emb.weight", "head.weight", "blocks.0.attn.value.weight"]
)
def test_the_original_s_gradients(name):
    condition = VOCABULARY.label_tokens(LABELS)
    grads = jax.grad(lambda params: loss(condition, CODES, params))(PARAMS)
    expected = CASE.outputs[f"grad/{name}"]
    assert_allclose(to_theirs(GPT, grads)[name], expected, **tolerance(f"grad/{name}"))


def test_the_original_s_groups_of_weight_decay():
    decays = jax.tree.map(np.full_like, PARAMS, prior_step.is_kernel(PARAMS))
    named = {name: bool(array.any()) for name, array in to_theirs(GPT, decays).items()}
    groups = ADAMW["groups"]
    expected = dict.fromkeys(groups["decay"], True)
    assert named == expected | dict.fromkeys(groups["no_decay"], False)


def test_the_original_s_losses_over_four_steps():
    losses = [metrics["loss"] for _, metrics in steps(recipe(), 4)]
    assert_allclose(losses, CASE.outputs["adamw/losses"], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def trained():
    """Parameters by the original's names after three steps, as many as it took."""
    *_, (state, _) = steps(recipe(), 3)
    return to_theirs(GPT, state.params)


def test_the_original_s_weights_after_its_steps(trained):
    """To 5e-5, as the index says: AdamW amplifies rounding."""
    prefix, noisy = "adamw/final/", CASE.config["noise_dominated_params"]
    expected = {
        name.removeprefix(prefix): array
        for name, array in CASE.outputs.items()
        if name.startswith(prefix) and name.removeprefix(prefix) not in noisy
    }
    for name, array in expected.items():
        assert_allclose(trained[name], array, rtol=0, atol=5e-5, err_msg=name)


def test_every_parameter_went_as_far_as_the_original_s(trained):
    """Also those whose values are not kept: by how far, 0.01 to 0.2, to 1e-5.

    But for those that follow rounding, of which the reference says nothing.
    """
    begun, noisy = to_theirs(GPT, PARAMS), CASE.config["noise_dominated_params"]
    assert set(trained) == set(CASE.config["param_names"])
    moved = {
        n: np.linalg.norm(trained[n] - a) * (n not in noisy) for n, a in begun.items()
    }
    found = [moved[name] for name in CASE.config["param_names"]]
    assert_allclose(found, CASE.outputs["adamw/final_delta_l2"], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def tokenizer():
    """The original's own, its encode and its decode, and what they take."""
    settings = CASE.config["params"]["first_stage_config"]["params"]
    vqgan = VQGAN(**vqgan_fields(settings))
    variables = {"params": CASE.variables(GENERATOR, "first_stage_model.")}
    return vqgan, variables


def test_pictures_are_read_as_the_codes_that_the_tokenizer_makes_of_them(tokenizer):
    """With the original's own tokenizer, whose codes the golden data hold."""
    vqgan, variables = tokenizer
    _, tokens = prior_step.read_batch(
        {"image": CASE.inputs["image"], "label": LABELS},
        VOCABULARY,
        lambda variables, x: encode_images(vqgan, variables, x),
        {"vqgan": variables},
    )
    assert_array_equal(tokens, CODES)


def test_codes_are_the_original_s_pictures(tokenizer):
    """Of what it read, and of what it drew; it clamps codes it has no vector for."""
    decode = jax.jit(partial(decode_codes, tokenizer[0]))
    images = decode(tokenizer[1], CODES.reshape(2, 8, 8))
    expected = np.clip(nhwc(CASE.outputs["decoded_z"]), -1, 1)
    assert_allclose(images, expected, **tolerance("decoded_z"))
    drawn = CASE.outputs["greedy/from_scratch"][:1].clip(0, 15).astype(np.int32)
    expected = np.clip(nhwc(CASE.outputs["greedy/decoded_clamped"]), -1, 1)
    images = decode(tokenizer[1], drawn.reshape(1, 8, 8))
    assert_allclose(images, expected, **tolerance("greedy/decoded_clamped"))


def test_dropped_labels_are_the_share_asked_for():
    condition = jnp.full((4_000, 1), 17)
    dropped = prior_step.drop_labels(condition, 29, 0.1, jax.random.key(0)) == 29
    # Three standard deviations of a binomial share: 3 sqrt(.1 .9 / 4000) = .014.
    assert_allclose(dropped.mean(), 0.1, atol=0.015)


def test_pkeep_disturbs_what_is_seen_and_not_what_is_asked_for():
    *_, (_, kept) = steps(recipe(), 1)
    *_, (_, disturbed) = steps(recipe(pkeep=0.01), 1)
    assert disturbed["loss"] != kept["loss"]


@pytest.mark.parametrize("pkeep", [0.5, 0.9, 1.0])
def test_pkeep_is_the_share_that_stays_and_the_others_are_of_all_tokens(pkeep):
    tokens = jnp.full((200, 100), -1)
    seen = np.asarray(prior_step.disturb(tokens, 20, pkeep, jax.random.key(0)))
    # Four standard deviations of a share: 4 sqrt(.25 / 20000) = .014.
    assert_allclose((seen == -1).mean(), pkeep, atol=0.014 * (pkeep < 1))
    found, counts = np.unique(seen[seen != -1], return_counts=True)
    assert_array_equal(found, np.arange(20) if pkeep < 1 else [])
    # Of at least 1,900: 5 standard deviations of a count are half of what is expected.
    assert np.all(np.abs(counts / counts.sum() * 20 - 1) < 0.5)


def test_random_orders_become_rarer_and_end():
    """RAR: all of them up to half of the run, none from three quarters on."""
    settings = recipe(
        model={"target_positions": True}, random_order=1.0, steps=200, batch_size=2
    )
    steps_ = jnp.array([0, 99, 124, 149, 199])
    shares = jax.vmap(lambda step: prior_step.random_share(settings, step))(steps_)
    # The first step of the ramp is the first below all.
    assert_allclose(shares, [1.0, 1.0, 0.5, 0.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_shuffled_rows_are_permutations_and_as_many_as_asked_for(share):
    orders = prior_step.random_orders(jax.random.key(0), (400, 16), share)
    assert_array_equal(np.sort(orders), np.tile(np.arange(16), (400, 1)))
    shuffled = np.any(orders != np.arange(16), axis=1).mean()
    # Four standard deviations of a share: 4 sqrt(.25 / 400) = .1.
    assert_allclose(shuffled, share, atol=0.1 * (share == 0.5))


def test_a_shuffled_step_learns_from_the_same_codes():
    """Without positions the loss is that of the codes in their new order."""
    model = MODEL.clone(grid=(8, 8), length=65, target_positions=True)
    params = dict(PARAMS, positions=np.zeros((65, 32), np.float32))
    params["target_positions"] = np.zeros((64, 32), np.float32)
    settings = recipe(model={"target_positions": True}, random_order=1.0, steps=200)
    *_, (_, metrics) = steps(settings, 1, model=model, params=params)
    key = jax.random.fold_in(jax.random.key(0), 0)
    key = jax.random.fold_in(key, prior_step.ORDER)
    shuffle = prior_step.random_orders(key, CODES.shape, 1.0)
    tokens = np.take_along_axis(CODES, np.asarray(shuffle), axis=1)
    condition = VOCABULARY.label_tokens(LABELS)
    expected = prior_step.nll(model, params, condition, tokens, tokens)[0].mean()
    # One is compiled as a whole: sums run in another order.
    assert_allclose(metrics["loss"], expected, rtol=1e-5)
    assert metrics["random_order"] == 1.0


def test_codes_are_learned_in_the_models_order():
    order = tuple(make_order("spiral_in", (8, 8)).tolist())
    model = MODEL.clone(grid=(8, 8), order=order)
    *_, (_, metrics) = steps(recipe(), 1, model=model)
    tokens = CODES[:, list(order)]
    expected = prior_step.nll(
        MODEL, PARAMS, VOCABULARY.label_tokens(LABELS), tokens, tokens
    )[0].mean()
    # One is compiled as a whole: sums run in another order.
    assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_micro_batches_give_the_mean_gradient():
    *_, (whole, _) = steps(recipe(), 1)
    *_, (parts, _) = steps(recipe(accumulate=2), 1)
    jax.tree.map(
        # Adam's first step is the gradient's sign: rounding moves near-zero ones.
        lambda a, b: assert_allclose(a, b, rtol=0, atol=2e-6),
        whole.opt_state[1].mu,
        parts.opt_state[1].mu,
    )


def test_a_step_that_is_not_finite_changes_nothing():
    params = jax.tree.map(np.array, PARAMS)
    params["embedding"][:] = np.nan
    *_, (state, metrics) = steps(recipe(), 1, params=params)
    assert prior_step.TERMS[metrics["nonfinite_term"]] == "loss"
    assert state.nonfinite == 1
    assert_array_equal(state.params["head"]["kernel"], PARAMS["head"]["kernel"])


def tolerance(*outputs):
    return CASE.tolerance(*outputs)
