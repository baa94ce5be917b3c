"""Fresh parameters are distributed as the original's: golden 14's statistics."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, gpt_fields, vqgan_fields
from numpy.testing import assert_array_equal
from published import EMA_QUANTIZER

from taming_jax.interop.names import (
    DISCRIMINATOR,
    DISCRIMINATOR_ACTNORM,
    GENERATOR,
    GPT,
    GUMBEL_QUANTIZER,
)
from taming_jax.interop.tables import to_theirs
from taming_jax.models.discriminator import Discriminator
from taming_jax.models.quantizers import EMA, Gumbel
from taming_jax.models.transformer import Transformer
from taming_jax.models.vqgan import VQGAN

CONFIG = golden("14_init_statistics").config["modules"]


@cache
def vqgan():
    module = VQGAN(**vqgan_fields(CONFIG["VQModel"]["params"]))
    return to_theirs(GENERATOR, fresh(module, (1, 16, 16, 3))["params"])


def discriminator(name, norm, table):
    params = CONFIG[name]["params"]
    net = Discriminator(channels=params["ndf"], layers=params["n_layers"], norm=norm)
    return to_theirs(table, {"params": fresh(net, (1, 64, 64, 3))["params"]})


def gumbel():
    params = CONFIG["GumbelQuantize"]["params"]
    module = Gumbel(params["n_embed"], params["embedding_dim"])
    made = fresh(module, (1, 1, 1, params["num_hiddens"]))["params"]
    return to_theirs(GUMBEL_QUANTIZER, made)


def ema():
    params = CONFIG["EmbeddingEMA"]["params"]
    module = EMA(params["num_tokens"], params["codebook_dim"])
    made = fresh(module, (1, 1, 1, module.dim))
    del made["codebook"]["usage"]  # which they do not have
    named = to_theirs(EMA_QUANTIZER, made)
    return {name.removeprefix("embedding."): array for name, array in named.items()}


def gpt():
    module = Transformer(**gpt_fields(CONFIG["GPT"]["params"]))
    return to_theirs(GPT, fresh(module, (1, 1), jnp.int32)["params"])


def fresh(module, shape, dtype=jnp.float32):
    init = partial(module.init, train=False)
    return jax.jit(init)(jax.random.key(0), jnp.zeros(shape, dtype))


MAKERS = {
    "VQModel": vqgan,
    "GumbelQuantize": gumbel,
    "EmbeddingEMA": ema,
    "GPT": gpt,
    "NLayerDiscriminator_batchnorm": partial(
        discriminator, "NLayerDiscriminator_batchnorm", "batch", DISCRIMINATOR
    ),
    "NLayerDiscriminator_actnorm": partial(
        discriminator, "NLayerDiscriminator_actnorm", "act", DISCRIMINATOR_ACTNORM
    ),
}


OURS = {"cluster_size"}  # from 1 on; theirs, from 0 on, blows up codes without latents


@pytest.fixture(scope="module", params=MAKERS)
def parameters(request):
    """(name, ours, the original's mean, std, min, max) of every parameter."""
    case = golden("14_init_statistics")
    ours, names = MAKERS[request.param](), CONFIG[request.param]["names"]
    assert ours.keys() == set(names)
    rows = zip(names, case.outputs[request.param], strict=True)
    return [
        (name, ours[name], statistics) for name, statistics in rows if name not in OURS
    ]


def test_means_are_the_originals(parameters):
    for name, ours, (mean, std, *_) in parameters:
        # Each is the mean of a sample; a single number has none to speak of.
        error = 4 * std * np.sqrt(2 / ours.size)
        assert ours.size == 1 or abs(ours.mean() - mean) <= error + 1e-7, name


def test_deviations_are_the_originals(parameters):
    for name, ours, (_, std, *_) in parameters:
        # Within 5 %, or four standard errors of two samples where these are small.
        error = max(0.05, 4 / np.sqrt(ours.size))
        assert ours.size == 1 or abs(np.std(ours, ddof=1) - std) <= error * std, name


def test_sums_of_latents_begin_at_their_codes():
    ours = ema()
    assert_array_equal(ours["embed_avg"], ours["weight"])
    assert_array_equal(ours["cluster_size"], 1)


def test_all_parameters_of_the_autoencoder_are_bounded_as_the_originals():
    case = golden("14_init_statistics")
    names, ours = CONFIG["VQModel"]["names"], vqgan()
    for name, (_, _, low, high) in zip(names, case.outputs["VQModel"], strict=True):
        # Uniform: the extremes of a few hundred draws are near the bounds.
        few = ours[name].size < 500
        assert few or abs(ours[name]).max() <= 1.05 * max(-low, high), name
