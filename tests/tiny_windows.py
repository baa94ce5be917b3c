"""Priors of 4 x 4 codes without a tokenizer, which draw larger pictures by windows."""

import jax
import jax.numpy as jnp
import tiny_run

from taming_jax.conditions import Vocabulary
from taming_jax.conditions.kinds import CodedMap
from taming_jax.models.transformer import Transformer
from taming_jax.orders import make_order
from taming_jax.pretrained import PretrainedPrior
from taming_jax.training.recipe import PriorRecipe

CODES = 16


def by_hand(
    prefix, *, told=None, condition="tokens", any_grid=False, order=None, **more
):
    """A prior of 4 x 4 codes with so many condition tokens, without a tokenizer."""
    module = Transformer(
        vocab_size=CODES if told is None else Vocabulary(CODES, told=told).size,
        length=prefix + 15,
        grid=(4, 4),
        prefix=prefix,
        width=8,
        layers=1,
        heads=2,
        order=None if order is None else tuple(make_order(order, (4, 4)).tolist()),
    )
    tokens = jnp.zeros((1, 2), jnp.int32)
    params = jax.jit(module.init)(jax.random.key(1), tokens)["params"]
    return PretrainedPrior(
        module,
        jax.tree.map(lambda a: 10 * a, params),  # far from undecided
        Vocabulary(CODES, shared=told is None, told=told or {}),
        recipe=PriorRecipe.from_config(
            tiny_run.PRIOR
            | {
                "condition": condition,
                "label_dropout": 0.1 if told else 0.0,
                "sampling": {},
            }
        ),
        vqgan=None,
        class_names=(),
        told="depth",
        any_grid=any_grid,
        config={},
        directory="somewhere",
        step=0,
        **more,
    )


def maps_prior():
    """Told class maps of 16 x 16 pixels, whose codes are their corners'."""
    return by_hand(16, told={"segmentation": corners(4)}, condition="segmentation")


def corners(stride):
    """A kind of class maps, of 16 x 16 pixels; a code is what a patch begins with."""
    return CodedMap(
        ("segmentation", False), 16, 16, stride, 9, 9,
        lambda _, maps: maps[:, ::stride, ::stride],
    )  # fmt: skip
