"""The recipes that `benchmarks.priors` compares, each as a section `prior`.

    section("modern", steps=600, codes=512, classes=10) -> what PriorRecipe takes

Two ends, the modern prior of configs/shapes.py and the paper's, and what lies between:
the paper's transformer trained as the modern one is, and the modern one without each of
its parts. All share steps, batch, width, layers and heads; the hidden layers of their
MLPs are as wide as makes the parameters nearest to PARAMETERS.
"""

import functools
from collections.abc import Mapping

import jax

from benchmarks.tokenizer_variants import changed
from taming_jax.conditions import Vocabulary
from taming_jax.models.transformer import Transformer
from taming_jax.training.prior import make_transformer
from taming_jax.training.recipe import PriorRecipe

PARAMETERS = 1_200_000
GRID, BATCH_SIZE = (8, 8), 16


def section(variant: str, steps: int, codes: int, classes: int) -> dict:
    """A variant's section of a recipe card.

    Args:
      variant: a key of VARIANTS.
      steps: of the run.
      codes: the size of the tokenizer's codebook.
      classes: that the prior is asked for.

    Raises:
      ValueError: for a variant that does not exist.
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"there is no variant {variant!r}: choose among {', '.join(VARIANTS)}"
        )
    changes = {"model.mlp_width": _mlp_width(variant, codes, classes), "steps": steps}
    return changed(VARIANTS[variant], changes)


def parts(
    settings: Mapping, codes: int, classes: int
) -> tuple[PriorRecipe, Vocabulary, Transformer]:
    """What a section describes."""
    recipe = PriorRecipe.from_config(settings)
    vocabulary = Vocabulary(codes, classes, recipe.shared_vocabulary)
    return recipe, vocabulary, make_transformer(recipe.model, vocabulary, GRID)


def size(settings: Mapping, codes: int, classes: int) -> int:
    """How many parameters a section's transformer has."""
    _, _, model = parts(settings, codes, classes)
    tokens = jax.ShapeDtypeStruct((1, 2), "int32")
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@functools.cache
def _mlp_width(variant: str, codes: int, classes: int) -> int:
    """The number of parameters is linear in it."""
    one, two = (
        size(changed(VARIANTS[variant], {"model.mlp_width": n}), codes, classes)
        for n in (1, 2)
    )
    return 1 + round((PARAMETERS - one) / (two - one))


_OPTIMIZER = {
    "b1": 0.9,
    "b2": 0.95,
    "weight_decay": 0.05,
    "clip": 1.0,
    "schedule": "cosine",
    "warmup_steps": 50,
    "final_share": 0.02,
}
MODERN = {
    "shared_vocabulary": False,
    "label_dropout": 0.1,
    "model": {
        "width": 140,
        "layers": 4,
        "heads": 5,
        "mlp_width": 0,  # by the number of parameters
        "norm": "rms",
        "mlp": "relu2",
        "bias": False,
        "qk_norm": True,
        "learned_positions": True,
        "rotary": True,
        "rotary_base": 20.0,
        "condition_everywhere": True,
        "above": True,
        "dropout": 0.0,
    },
    "sampling": {"temperature": 0.8, "top_p": 0.95, "guidance": 3.0},
    "learning_rate": 1.5e-3,
    "optimizer": _OPTIMIZER | {"muon": 2.0},
    "ema_decay": 0.99,
    "steps": 1,
    "batch_size": BATCH_SIZE,
}
_GPT = {
    "model.norm": "layer",
    "model.mlp": "gelu",
    "model.bias": True,
    "model.qk_norm": False,
    "model.rotary": False,
    "model.condition_everywhere": False,
    "model.above": False,
}
# As configs/imagenet.py has it: its rule for the rate, no schedule, no average.
_PAPER_TRAINING = {
    "shared_vocabulary": True,
    "label_dropout": 0.0,
    "sampling": {"temperature": 1.0, "top_k": 100, "top_p": 0.92},
    "learning_rate": 4.5e-6 * BATCH_SIZE,
    "optimizer": {"b1": 0.9, "b2": 0.95, "weight_decay": 0.01},
    "ema_decay": 0.0,
}
WITHOUT = {
    "no-rms-norm": {"model.norm": "layer"},
    "no-squared-relu": {"model.mlp": "gelu"},
    "biases": {"model.bias": True},
    "no-qk-norm": {"model.qk_norm": False},
    "no-rotation": {"model.rotary": False},
    "no-learned-positions": {"model.learned_positions": False},
    "no-condition-everywhere": {"model.condition_everywhere": False},
    "no-above": {"model.above": False},
    "no-label-dropout": {"label_dropout": 0.0, "sampling.guidance": 1.0},
    "no-average": {"ema_decay": 0.0},
    "no-muon": {"optimizer": _OPTIMIZER},
    "constant-rate": {"optimizer.schedule": "constant"},
    "no-warmup": {"optimizer.warmup_steps": 0},
}
VARIANTS: dict[str, dict] = {
    "paper": changed(MODERN, _GPT | _PAPER_TRAINING),
    # The rule is for large models: this one learns at another rate, and is the fairer.
    "paper-faster": changed(MODERN, _GPT | _PAPER_TRAINING | {"learning_rate": 1.5e-3}),
    "paper-trained-as-modern": changed(MODERN, _GPT),
    "modern": MODERN,
    **{name: changed(MODERN, changes) for name, changes in WITHOUT.items()},
}
