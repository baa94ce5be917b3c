"""The original's published tokenizers, by the names and shapes of all their tensors.

golden/shapes/*.json hold the configuration and {name: shape}; there are no weights, and
nothing here is computed.
"""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from golden import FOLDER, OF_NO_USE, vqgan_fields

from taming_jax.interop.layout import layout
from taming_jax.interop.tables import to_ours, to_theirs
from taming_jax.models.discriminator import Discriminator
from taming_jax.models.perceptual import lpips
from taming_jax.models.vqgan import VQGAN

QUANTIZERS = {"VQModel": "vq", "GumbelVQ": "gumbel", "VQSegmentationModel": "vq"}
TABLES = {
    kind: layout({"quantizer": {"name": name}}, {}, "original")
    for kind, name in QUANTIZERS.items()
}
SHAPES = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("shapes/*")}


def kind_of(name):
    """The original's class, "VQModel" for example."""
    return SHAPES[name]["config"].get("target", "").removeprefix("taming.models.vqgan.")


TOKENIZERS = [name for name in sorted(SHAPES) if kind_of(name) in TABLES]


@pytest.fixture(scope="module", params=TOKENIZERS)
def published(request):
    """Configuration, table of names, {name: an array that takes no memory}."""
    about = SHAPES[request.param]
    tensors = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in about["parameters"].items()
    }
    return about["config"]["params"], TABLES[kind_of(request.param)], tensors


def test_every_tensor_has_one_place_in_our_model(published):
    config, table, tensors = published
    tree = to_ours(table, tensors)
    model = VQGAN(**vqgan_fields(config))
    x = jnp.zeros((1, 32, 32, model.image_channels))
    assert shapes(tree["generator"]["params"]) == shapes(made(model, x)["params"])
    if "discriminator" in tree:
        layers = config["lossconfig"]["params"].get("disc_num_layers", 3)
        net = Discriminator(layers=layers)
        assert shapes(tree["discriminator"]) == shapes(made(net, x))
    if "perceptual" in tree:
        assert jax.eval_shape(lpips, tree["perceptual"], x, x).shape == (1,)


def test_every_tensor_comes_back_under_its_name(published):
    _, table, tensors = published
    back = to_theirs(table, to_ours(table, tensors))
    wanted = {k: v for k, v in tensors.items() if not k.endswith(OF_NO_USE)}
    assert shapes(back) == shapes(wanted)


def made(module, x):
    return jax.eval_shape(partial(module.init, train=False), jax.random.key(0), x)


def shapes(tree):
    return {k: np.shape(v) for k, v in flatten_dict(tree, sep="/").items()}
