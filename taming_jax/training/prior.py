"""The second stage: from `config.prior` to something that the loop can train.

config -> recipe; tokenizer -> vocabulary, grid -> transformer -> state, step, metrics
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax import pictures, stored, units
from taming_jax.compilation import jit
from taming_jax.conditions import Vocabulary, codes_of
from taming_jax.models.transformer import Transformer
from taming_jax.orders import Order, is_raster, make_order
from taming_jax.sampling import sample_keys, sample_tokens
from taming_jax.training import mesh as meshes
from taming_jax.training.initial import start_from
from taming_jax.training.prior_step import (
    TERMS,
    make_prior_optimizer,
    make_train_step,
    nll,
    read_batch,
)
from taming_jax.training.recipe import PriorRecipe, Sampling
from taming_jax.training.sharding import at_use
from taming_jax.training.stage import Stage
from taming_jax.training.state import TrainState
from taming_jax.training.tokenizer import Tokenizer

SHOWN = ("loss", "bits_per_token", "accuracy")
PICTURES = 16  # shown in a grid


def make_prior_stage(
    config: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    tokenizer: Tokenizer,
    class_names: Sequence[str],
    *,
    from_codes: bool,
) -> Stage:
    """Builds the prior's stage; nothing is computed yet.

    Args:
      config: the recipe card; `config["prior"]` is read, and the pictures' size.
      mesh: of the devices.
      tokenizer: whose codes it learns.
      class_names: of the data, label by label; empty where there are none.
      from_codes: whether batches bring `codes`; else `image`, encoded on the way.

    Raises:
      ValueError: for a recipe, a tokenizer, data or a batch that cannot work together.
    """
    recipe = PriorRecipe.from_config(config["prior"])
    meshes.check_batch(recipe.run.batch_size, recipe.run.accumulate, mesh)
    grid = code_grid(config["data"]["image_size"], tokenizer.module.stride)
    vocabulary = make_vocabulary(recipe, tokenizer.module.codebook_size, class_names)
    model = make_transformer(recipe.model, vocabulary, grid, recipe.order)
    meshes.check_heads(model.kv_heads or model.heads, mesh)
    gathering = at_use(model, mesh)

    key = jax.random.key(config["seed"])
    init = make_init(recipe, model)
    shapes = jax.eval_shape(init, key)
    shardings = meshes.state_shardings(shapes, mesh)
    shared = meshes.replicated(mesh)
    step = jit(
        make_train_step(
            recipe, gathering, vocabulary, tokenizer.encode, config["seed"]
        ),
        donate_argnums=0,
        out_shardings=(shardings, shared),
    )
    evaluate = jit(
        _make_evaluate(gathering, vocabulary, tokenizer), out_shardings=shared
    )
    draw = _make_draw(tokenizer, class_names, shared)
    reads = ("codes",) if from_codes else ("image",)
    return Stage(
        name="prior",
        run=recipe.run,
        keep=(*reads, *(("label",) if vocabulary.classes else ()), "index"),
        terms=TERMS,
        shown=SHOWN,
        best=stored.BEST_BY["prior"],
        abstract=meshes.abstract_with_shardings(shapes, shardings),
        init=lambda: start_from(
            recipe.init_from, jit(init, out_shardings=shardings)(key), "prior"
        ),
        step=lambda state, batch: step(state, batch, tokenizer.variables),
        evaluate=lambda state, batch: evaluate(state, batch, tokenizer.variables),
        show=_make_show(recipe, model, vocabulary, grid, key, draw),
        preview=_make_preview(tokenizer, draw),
        facts={
            "tokenizer": {"fingerprint": tokenizer.fingerprint},
            "grid": list(grid),
            "codes": vocabulary.codes,
            "class_names": list(class_names) if vocabulary.classes else [],
        },
    )


def code_grid(image_size: int, stride: int) -> tuple[int, int]:
    """(h, w) of the codes of a square picture."""
    if image_size < stride:
        raise ValueError(
            f"data.image_size={image_size} is less than one code of the tokenizer, "
            f"{stride} pixels: set a multiple of {stride}"
        )
    return (image_size // stride,) * 2


def make_vocabulary(
    recipe: PriorRecipe, codes: int, class_names: Sequence[str]
) -> Vocabulary:
    """The recipe's vocabulary for a tokenizer of so many codes.

    Raises:
      ValueError: for a prior of labels on data that have none, and for one of what
        no data have.
    """
    if recipe.condition == "tokens":
        raise ValueError(
            "prior.condition='tokens' is told by whoever draws, and training reads "
            "nothing of the kind: set prior.condition='label' or 'none'"
        )
    if recipe.condition == "none":
        return Vocabulary(codes, 0, recipe.shared_vocabulary)
    if not class_names:
        raise ValueError(
            "prior.condition='label', and these data have no classes: put the pictures "
            "into one folder per class, or set prior.condition='none' (and "
            "label_dropout=0, sampling.guidance=1)"
        )
    return Vocabulary(codes, len(class_names), recipe.shared_vocabulary)


def make_transformer(
    settings: Mapping[str, Any],
    vocabulary: Vocabulary,
    grid: tuple[int, int],
    order: Order = "raster",
) -> Transformer:
    """`config.prior.model` as a transformer: one condition token, then the grid.

    What settings say of these themselves, such as a larger vocabulary, holds.

    Raises:
      ValueError: for an order that does not fit the grid, a vocabulary that lacks
        tokens, and what a `Transformer` refuses.
    """
    places = make_order(order, grid)
    prefix = settings.get("prefix", 1)
    shuffled = settings.get("target_positions", False)  # also the last token is shown
    defaults = {
        "vocab_size": vocabulary.size,
        "prefix": prefix,
        "length": prefix + len(places) - (not shuffled),
        "order": None if is_raster(places) else tuple(places.tolist()),
    }
    model = Transformer(grid=tuple(grid), **defaults | dict(settings))
    largest = model.head_size or model.vocab_size
    if model.vocab_size < vocabulary.size or largest < vocabulary.codes:
        raise ValueError(
            f"the prior's model has vocab_size={model.vocab_size} and logits of "
            f"{largest} tokens; the tokenizer has {vocabulary.codes} codes, with what "
            f"else is said {vocabulary.size} tokens: set vocab_size and head_size "
            "accordingly, or leave them out"
        )
    return model


def make_init(
    recipe: PriorRecipe, model: Transformer
) -> Callable[[jax.Array], TrainState]:
    """Builds `init(key) -> TrainState` at step 0; pure, to be jitted."""
    optimizer = make_prior_optimizer(recipe)

    def init(key: jax.Array) -> TrainState:
        params = model.init(key, jnp.zeros((1, 2), jnp.int32))["params"]
        return TrainState(
            step=jnp.int32(0),
            params=params,
            codebook={},
            opt_state=optimizer.init(params),
            ema=params,
            adversary=None,
            usage=None,
            nonfinite=jnp.int32(0),
        )

    return init


def sampling_arguments(sampling: Sampling, vocabulary: Vocabulary, batch: int) -> dict:
    """The recipe's way to draw, as keywords of `sample_tokens`."""
    unguided = None if sampling.guidance == 1 else vocabulary.no_label(batch)
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "guidance": sampling.guidance,
        "unguided_prefix": unguided,
    }


def _make_evaluate(model: Transformer, vocabulary: Vocabulary, tokenizer: Tokenizer):
    """`evaluate(state, batch, variables)` with the averaged weights."""

    def evaluate(state: TrainState, batch: Mapping, variables: Any) -> dict:
        condition, tokens = read_batch(
            batch, vocabulary, tokenizer.encode, variables, model.order
        )
        losses, hits = nll(model, state.ema, condition, tokens, tokens)
        counted = batch["mask"].astype(jnp.float32)
        loss = (losses.mean(1) * counted).sum()
        return {
            "loss": loss,
            "bits_per_token": loss / jnp.log(2.0),
            "accuracy": (hits.mean(1) * counted).sum(),
            "count": counted.sum(),
        }

    return evaluate


def _make_show(recipe, model, vocabulary, grid, key, draw):
    """`show(state, batch)`: samples from the same keys each time, named as asked."""
    labels = None
    if vocabulary.classes:
        labels = np.arange(PICTURES) * max(1, vocabulary.classes // PICTURES)
        labels = (labels % vocabulary.classes).astype(np.int32)
    keys = sample_keys(key, PICTURES)

    def show(state: TrainState, batch: Mapping) -> dict:
        del batch
        tokens = sample_tokens(
            model,
            state.ema,
            keys,
            vocabulary.condition_tokens(labels, PICTURES),
            count=grid[0] * grid[1],
            codes=vocabulary.codes,
            **sampling_arguments(recipe.sampling, vocabulary, PICTURES),
        )
        return {"samples": draw(codes_of(tokens, grid, model.order), labels)}

    return show


def _make_preview(tokenizer: Tokenizer, draw):
    """`preview(state, batch)`: the very codes that will be learned, decoded."""
    encode = jit(tokenizer.encode)

    def preview(state: TrainState, batch: Mapping) -> dict:
        del state
        first = {name: array[:PICTURES] for name, array in batch.items()}
        codes = first.get("codes")
        if codes is None:
            codes = encode(tokenizer.variables, units.as_images(first["image"]))
        return {"codes": draw(codes, first.get("label"))}

    return preview


def _make_draw(tokenizer: Tokenizer, class_names: Sequence[str], shared):
    """`draw(codes, labels)`: one picture of them all, decoded and named."""
    decode = jit(tokenizer.decode, out_shardings=shared)

    def draw(codes, labels) -> np.ndarray:
        decoded = units.to_uint8(decode(tokenizer.variables, codes))
        if labels is not None:
            names = [class_names[label] for label in np.asarray(labels)]
            decoded = pictures.captioned(decoded, names)
        return pictures.grid([decoded[:8], decoded[8:]], columns=8)

    return draw
