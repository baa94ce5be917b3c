"""The second stage: from `config.prior` to something that the loop can train.

config -> recipe; tokenizers -> vocabulary, grid -> transformer -> state, step, metrics
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from taming_jax import ranking
from taming_jax.compilation import jit
from taming_jax.conditions import Vocabulary
from taming_jax.conditions.kinds import Data
from taming_jax.conditions.on_disk import fields
from taming_jax.conditions.table import (
    as_facts,
    check_classes,
    coded,
    conditions_for,
)
from taming_jax.models.transformer import Transformer
from taming_jax.orders import Order, is_raster, make_order
from taming_jax.training import mesh as meshes
from taming_jax.training.initial import start_from
from taming_jax.training.prior_pictures import make_draw, make_preview, make_show
from taming_jax.training.prior_step import (
    TERMS,
    make_prior_optimizer,
    make_train_step,
    nll,
    read_batch,
)
from taming_jax.training.recipe import PriorRecipe
from taming_jax.training.sharding import at_use
from taming_jax.training.stage import Stage
from taming_jax.training.state import TrainState
from taming_jax.training.tokenizer import Tokenizer

SHOWN = ("loss", "bits_per_token", "accuracy")


def make_prior_stage(
    config: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    tokenizer: Tokenizer,
    class_names: Sequence[str],
    *,
    from_codes: bool,
    condition: Tokenizer | None = None,
    object_names: Sequence[str] = (),
    shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    crops: bool = False,
) -> Stage:
    """Builds the prior's stage; nothing is computed yet.

    Args:
      config: the recipe card; `config["prior"]` is read, and the pictures' size.
      mesh: of the devices.
      tokenizer: whose codes it learns.
      class_names: of the data, label by label; empty where there are none.
      from_codes: whether batches bring `codes`; else `image`, encoded on the way.
      condition: the tokenizer of a condition that is a map.
      object_names: of the classes of boxes; (): these are those of the labels.
      shapes: of the entries of an example, by name.
      crops: whether training crops at random.

    Raises:
      ValueError: for a recipe, a tokenizer, data or a batch that cannot work together.
    """
    recipe = PriorRecipe.from_config(config["prior"])
    meshes.check_batch(recipe.run.batch_size, recipe.run.accumulate, mesh)
    grid = code_grid(config["data"]["image_size"], tokenizer.module.stride)
    vocabulary = make_vocabulary(
        recipe,
        tokenizer.module.codebook_size,
        class_names,
        image_size=config["data"]["image_size"],
        stride=tokenizer.module.stride,
        object_names=object_names,
        shapes=shapes,
        crops=crops,
        tokenizer=None if condition is None else condition.of_maps(),
    )
    reads = _reads(vocabulary, from_codes)
    model = make_transformer(recipe.model, vocabulary, grid, recipe.order)
    _check_unmasked(model)
    meshes.check_heads(model.kv_heads or model.heads, mesh)
    gathering = at_use(model, mesh)

    facts = {
        "tokenizer": {"fingerprint": tokenizer.fingerprint},
        "grid": list(grid),
        "codes": vocabulary.codes,
        "class_names": list(class_names) if vocabulary.classes else [],
        **_facts_of_conditions(vocabulary, condition),
    }
    key = jax.random.key(config["seed"])
    init = make_init(recipe, model)
    abstract = jax.eval_shape(init, key)
    shardings = meshes.state_shardings(abstract, mesh)
    shared = meshes.replicated(mesh)
    step = jit(
        make_train_step(
            recipe, gathering, vocabulary, tokenizer.encode, config["seed"]
        ),
        convolutions=not from_codes,
        donate_argnums=0,
        out_shardings=(shardings, shared),
    )
    evaluate = jit(
        _make_evaluate(gathering, vocabulary, tokenizer),
        convolutions=not from_codes,
        out_shardings=shared,
    )
    draw = make_draw(tokenizer, class_names, shared)
    variables = {"vqgan": tokenizer.variables}
    if condition is not None:
        variables["condition_vqgan"] = condition.variables
    return Stage(
        name="prior",
        run=recipe.run,
        keep=(*reads, "index"),
        terms=TERMS,
        shown=SHOWN,
        best=ranking.BEST_BY["prior"],
        abstract=meshes.abstract_with_shardings(abstract, shardings),
        init=lambda: start_from(
            recipe.init_from,
            jit(init, out_shardings=shardings)(key),
            "prior",
            {"recipe": recipe, "facts": facts},
        ),
        step=lambda state, batch: step(state, batch, variables),
        evaluate=lambda state, batch: evaluate(state, batch, variables),
        show=make_show(
            recipe, model, vocabulary, grid, key, draw, variables, reads, shared
        ),
        preview=make_preview(tokenizer, draw),
        check=functools.partial(check_classes, vocabulary.told),
        facts=facts,
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
    recipe: PriorRecipe, codes: int, class_names: Sequence[str], **about
) -> Vocabulary:
    """The recipe's vocabulary for a tokenizer of so many codes.

    about: more of the data, as `conditions.kinds.Data` has it.

    Raises:
      ValueError: for a prior of labels on data that have none, and for one of what
        these or no data have.
    """
    if recipe.condition == "tokens":
        raise ValueError(
            "prior.condition='tokens' is told by whoever draws, and training reads "
            "nothing of the kind: set prior.condition='label' or 'none', or, as the "
            "card beside a published prior has it, 'depth', 'segmentation' or "
            "coordinates; what else one is told, such as boxes, is not read here"
        )
    data = Data(class_names=class_names, **about)
    told = conditions_for(recipe.condition, data)
    return Vocabulary(codes, shared=recipe.shared_vocabulary, told=told)


def make_transformer(
    settings: Mapping[str, Any],
    vocabulary: Vocabulary,
    grid: tuple[int, int],
    order: Order = "raster",
) -> Transformer:
    """`config.prior.model` as a transformer: condition tokens, then the grid.

    What settings say of these themselves, such as a larger vocabulary, holds.

    Raises:
      ValueError: for an order that does not fit the grid, a vocabulary that lacks
        tokens, and what a `Transformer` refuses.
    """
    places = make_order(order, grid)
    prefix = settings.get("prefix", vocabulary.length)
    shuffled = settings.get("target_positions", False)  # also the last token is shown
    defaults = {
        "vocab_size": vocabulary.size,
        "prefix": prefix,
        "length": prefix + len(places) - (not shuffled),
        "order": None if is_raster(places) else tuple(places.tolist()),
        "condition_grids": vocabulary.grids,
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


def _check_unmasked(model: Transformer) -> None:
    """Raises ValueError where codes are shown that should be guessed."""
    if model.unmasked > model.prefix:
        raise ValueError(
            f"prior.model.unmasked={model.unmasked} with {model.prefix} condition "
            "tokens: the first codes would see those that they should guess; set it "
            f"to {model.prefix} at most"
        )


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


def _reads(vocabulary: Vocabulary, from_codes: bool) -> tuple[str, ...]:
    """The entries of an example that are read."""
    if not from_codes:
        return tuple(dict.fromkeys(("image", *vocabulary.entries)))
    reads = ["codes"]
    for name, kind in vocabulary.told.items():
        if coded([name]):
            reads.append("condition_codes")
        elif name == "label":
            reads.append("label")
        else:
            reads += fields(name, kind)
    return tuple(reads)


def _facts_of_conditions(vocabulary: Vocabulary, condition: Tokenizer | None) -> dict:
    """What a run says of conditions besides labels; nothing where there are none."""
    if not set(vocabulary.told) - {"label"}:
        return {}
    facts = {
        "kind": " and ".join(vocabulary.told),
        "length": vocabulary.length,
        "told": as_facts(vocabulary.told),
        "tokenizer": None if condition is None else "condition_vqgan",
    }
    if condition is not None:
        facts["fingerprint"] = condition.fingerprint
    return {"condition": facts}
