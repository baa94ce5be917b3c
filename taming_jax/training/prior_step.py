"""One step of the second stage: codes in, a better transformer out.

    codes [B, h, w] -> tokens [B, T] ----+
    conditions -> their tokens [B, n] ---+-> all but the last -> logits -> loss on codes

A batch brings codes, or pictures that are encoded here by the frozen tokenizer; and so
with a condition that is a map. The tokenizers' weights are an argument, by the names of
their stages: nothing of them is compiled in.

Legend: T = h * w image tokens, n condition tokens, V the vocabulary.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from taming_jax.conditions import Vocabulary, image_tokens
from taming_jax.models.schedules import ramp
from taming_jax.models.transformer import Transformer
from taming_jax.training.accumulation import accumulate
from taming_jax.training.optimizer import apply_gradients, make_optimizer
from taming_jax.training.recipe import PriorRecipe
from taming_jax.training.state import TrainState, advance, ema_update
from taming_jax.units import Codes, Images, Tokens, as_images

# What a key is for: keys are fold_in(fold_in(key(seed), step), PURPOSE).
DROPOUT, LABELS, KEEP, REPLACE, ORDER, CONDITION = range(6)

TERMS = ("loss", "grad_norm")  # watched for NaN and infinity

Encode = Callable[[Any, Images], Codes]


class Means(NamedTuple):
    """What is averaged over the micro-batches of a step."""

    grads: Any
    metrics: dict[str, jax.Array]


def make_train_step(
    recipe: PriorRecipe,
    model: Transformer,
    vocabulary: Vocabulary,
    encode: Encode,
    seed: int,
) -> Callable[[TrainState, Mapping, Any], tuple[TrainState, dict]]:
    """Builds `step(state, batch, variables) -> (state, metrics)`.

    `batch` has `codes` int32 [B,h,w] or `image` uint8 [B,H,W,C], and what the
    vocabulary's conditions read; `variables` are the tokenizers' by stage. A step that
    is not finite leaves the state as it was, but for `step` and `nonfinite`;
    `nonfinite_term` is an index into `TERMS`.
    """
    run = recipe.run
    optimizer = make_prior_optimizer(recipe)

    def step(state: TrainState, batch: Mapping, variables: Mapping[str, Any]):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        condition, tokens = read_batch(
            batch, vocabulary, encode, variables, model.order, _for(key, CONDITION)
        )
        condition = drop_labels(
            condition, vocabulary.nothing, recipe.label_dropout, _for(key, LABELS)
        )
        shuffle, share = None, random_share(recipe, state.step)
        if recipe.random_order:
            shuffle = random_orders(_for(key, ORDER), tokens.shape, share)
            tokens = jnp.take_along_axis(tokens, shuffle, axis=1)
        seen = disturb(tokens, model.vocab_size, recipe.pkeep, key)

        def differentiate(carry, sequences, part):
            rngs = {"dropout": jax.random.fold_in(_for(key, DROPOUT), part)}
            (_, metrics), grads = jax.value_and_grad(
                lambda params: _loss(model, params, *sequences, rngs=rngs),
                has_aux=True,
            )(state.params)
            return carry, Means(grads, metrics), ()

        _, means, _ = accumulate(
            differentiate, (), (condition, seen, tokens, shuffle), run.accumulate
        )
        metrics = dict(means.metrics)
        if recipe.random_order:
            metrics["random_order"] = share
        params, opt_state, metrics["grad_norm"] = apply_gradients(
            optimizer, means.grads, state.opt_state, state.params
        )
        renewed = state.replace(
            params=params,
            opt_state=opt_state,
            ema=ema_update(state.ema, params, run.ema_decay, state.step),
        )
        terms = [metrics[name] for name in TERMS]
        state, metrics["nonfinite_term"] = advance(state, renewed, terms)
        return state, metrics

    return step


def read_batch(
    batch: Mapping,
    vocabulary: Vocabulary,
    encode: Encode,
    variables: Mapping[str, Any],
    order=None,
    key: jax.Array | None = None,
) -> tuple[Tokens, Tokens]:
    """A batch -> (condition tokens [B, n], image tokens [B, T] in the given order).

    key: for what training leaves to chance in a condition; None: nothing.
    """
    if "codes" in batch:
        codes = batch["codes"]
    else:
        codes = encode(variables["vqgan"], as_images(batch["image"]))
    coder = variables.get("condition_vqgan") if variables else None
    condition = vocabulary.batch_tokens(batch, len(codes), coder, key)
    return condition, image_tokens(codes, order)


def make_prior_optimizer(recipe: PriorRecipe) -> optax.GradientTransformation:
    """AdamW that decays the kernels of linear layers and nothing else (the paper's).

    With Muon that is for the kernels of blocks; embeddings and logits have AdamW.
    """
    return make_optimizer(
        recipe.optimizer, recipe.run.steps, decays=is_kernel, matrices=is_in_block
    )


def is_kernel(params: Any) -> Any:
    """True for each kernel of a linear layer; False for embeddings, norms, biases."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key == "kernel", params)


def is_in_block(params: Any) -> Any:
    """True for each kernel of the blocks, [layers, in, out]; False for all else."""
    return jax.tree.map_with_path(
        lambda path, _: path[0].key == "blocks" and path[-1].key == "kernel", params
    )


def nll(
    model: Transformer,
    params: Any,
    condition: Tokens,
    seen: Tokens,
    tokens: Tokens,
    shuffle: jax.Array | None = None,
    *,
    train: bool = False,
    rngs: Mapping | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Negative log-likelihood of image tokens, in nats; and where the guess is right.

    Args:
      model: the transformer.
      params: its parameters.
      condition: int32 [B, n].
      seen: int32 [B, T], the image tokens as the model is shown them.
      tokens: int32 [B, T], those that it should predict.
      shuffle: int32 [B, T], which of the model's own order these are; None: they are
        in that order.
      train: whether dropout is on.
      rngs: of it, under "dropout".

    Returns:
      (nll, hits), float32 [B, T] both.
    """
    sequence = jnp.concatenate([condition, seen], axis=1)[:, :-1]
    logits = model.apply(
        {"params": params}, sequence, shuffle=shuffle, train=train, rngs=rngs
    )
    logits = logits[:, condition.shape[1] - 1 :]  # [B, T, V]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
    return losses, (logits.argmax(-1) == tokens).astype(jnp.float32)


def drop_labels(condition: Tokens, nothing: int, share: float, key) -> Tokens:
    """Replaces a share of the conditions [B, n] by `nothing`, for guidance."""
    if share == 0:
        return condition
    dropped = jax.random.bernoulli(key, share, (len(condition), 1))
    return jnp.where(dropped, nothing, condition)


def random_share(recipe: PriorRecipe, step) -> jax.Array:
    """Of the pictures of a step, how many are read in random orders: in [0, 1]."""
    start, end = recipe.random_order_steps
    return recipe.random_order * (1.0 - ramp(step, start=start, length=end - start))


def random_orders(key, shape: tuple[int, int], share) -> jax.Array:
    """Permutations int32 [B, T]: of this share of the rows random, of the others none.

    As RAR has it (Yu et al. 2024).
    """
    batch, count = shape
    drawn, chosen = jax.random.split(key)
    orders = jnp.argsort(jax.random.uniform(drawn, shape), axis=1)
    shuffled = jax.random.bernoulli(chosen, share, (batch, 1))
    return jnp.where(shuffled, orders, jnp.arange(count)).astype(jnp.int32)


def disturb(tokens: Tokens, size: int, pkeep: float, key) -> Tokens:
    """All but this share of the tokens become random ones, any of `size`."""
    if pkeep == 1:
        return tokens
    keep = jax.random.bernoulli(_for(key, KEEP), pkeep, tokens.shape)
    other = jax.random.randint(_for(key, REPLACE), tokens.shape, 0, size)
    return disturbed(tokens, keep, other)


def disturbed(tokens: Tokens, keep: jax.Array, other: Tokens) -> Tokens:
    """Tokens where `keep` is true, elsewhere others (Esser et al. 2021, `pkeep`)."""
    return jnp.where(keep, tokens, other)


def _loss(model, params, *sequences, rngs):
    losses, hits = nll(model, params, *sequences, train=True, rngs=rngs)
    loss = losses.mean()
    metrics = {
        "loss": loss,
        "bits_per_token": loss / jnp.log(2.0),
        "accuracy": hits.mean(),
    }
    return loss, metrics


def _for(key, purpose: int):
    return jax.random.fold_in(key, purpose)
