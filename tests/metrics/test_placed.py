"""Whether a prior knows what belongs where, of priors that know it or do not."""

import types

import numpy as np
import pytest

from taming_jax.conditions.direct import Coordinates
from taming_jax.data import open_source
from taming_jax.metrics import placed

CROPS = {"name": "scenes", "train": 4, "val": 7, "image_size": 16, "zoom": 2}
KIND = Coordinates(16, 4, cut=True)


def source(**changes):
    return open_source(CROPS | changes, "val")


def prior_of(logits):
    """One whose codes are 0 in the crop of an upper corner, 1 in that of a lower one.

    logits: of what the crop is told, the mean of its coordinates [B] -> [B,2].
    """

    def encode(images):
        return np.broadcast_to(
            np.arange(len(images))[:, None, None] % 2, (len(images), 4, 4)
        )

    def of_all(codes, heard):
        each = logits(heard["coordinates"].mean((1, 2)))
        return np.broadcast_to(each[:, None], (len(codes), 16, 2))

    told = {"coordinates": KIND}
    return types.SimpleNamespace(
        vocabulary=types.SimpleNamespace(told=told, entries=KIND.entries),
        tokenizer=lambda: types.SimpleNamespace(encode=encode),
        logits=of_all,
    )


def below(where):
    return np.stack([0.5 - where, where - 0.5], axis=-1)


@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_a_prior_that_knows_finds_each_crop_likelier_where_it_belongs(batch_size):
    found = placed.told_apart(prior_of(below), source(), count=5, batch_size=batch_size)
    assert found == 1


def test_one_that_mistakes_them_finds_none_and_one_that_does_not_listen_half():
    count = {"count": 7, "batch_size": 4}
    mistaken = prior_of(lambda where: -below(where))
    deaf = prior_of(lambda where: np.zeros((len(where), 2)))
    assert placed.told_apart(mistaken, source(), **count) == 0
    assert placed.told_apart(deaf, source(), **count) == 0.5


def test_only_crops_of_larger_pictures_can_be_told_apart():
    whole = Coordinates(16, 4)
    assert placed.can_be_told_apart({"coordinates": KIND}, source())
    assert not placed.can_be_told_apart({"coordinates": whole}, source())
    assert not placed.can_be_told_apart({"label": None}, source())
    assert not placed.can_be_told_apart({"coordinates": KIND}, source(zoom=1))
