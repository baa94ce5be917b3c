"""The table of `sharding`, against the trees that it is about; no device is needed."""

import functools
import math
import re

import jax
import pytest
import tiny_stage
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from taming_jax.models.transformer import Transformer
from taming_jax.training import prior, vqgan
from taming_jax.training.mesh import AXES, state_shardings
from taming_jax.training.recipe import PriorRecipe
from taming_jax.training.sharding import RULES, partition, path_of

# The paper's prior, of 1.4B parameters; and all that a block may have besides.
PAPER = {"vocab_size": 16_384, "length": 256, "width": 1_536, "layers": 48, "heads": 24}
OPTIONS = {"mlp": "swiglu", "qk_norm": True, "above": True, "grid": (16, 16)}

each_mesh = pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2), (4, 1, 2)], ids=str)
each_stage = pytest.mark.parametrize("stage", ["vqgan", "prior"])


@functools.cache
def first_state(stage, options=True):
    """The shapes of a stage's first state."""
    if stage == "vqgan":
        parts = tiny_stage.build(discriminator={"channels": 8, "norm": "batch"})
        init = vqgan.make_init(*parts)
    else:
        section = {"model": {}, "learning_rate": 1.0, "steps": 1, "batch_size": 1}
        model = Transformer(**PAPER | (OPTIONS if options else {}))
        init = prior.make_init(PriorRecipe.from_config(section), model)
    return jax.eval_shape(init, jax.random.key(0))


def shardings(state, sizes=(2, 2, 2)):
    """{path: sharding} on a mesh of these sizes, which need not be there."""
    placed = state_shardings(state, AbstractMesh(sizes, AXES))
    return {path_of(keys): leaf for keys, leaf in jax.tree.leaves_with_path(placed)}


def test_every_rule_is_the_first_for_some_array():
    paths = shardings([first_state("vqgan"), first_state("prior")])
    fitting = ([bool(re.search(f"(^|/){end}$", p)) for end, _ in RULES] for p in paths)
    assert {fits.index(True) for fits in fitting if any(fits)} == set(range(len(RULES)))


@each_mesh
def test_no_array_of_a_block_is_split_along_its_layers(sizes):
    """Of which there are 48: any of these meshes would divide them."""
    placed = shardings(first_state("prior"), sizes).items()
    along_layers = [s.spec[0] for path, s in placed if "blocks/" in path]
    assert set(along_layers) == {None}


@each_stage
@pytest.mark.parametrize("mirror", ["ema", "opt_state/1/mu", "opt_state/1/nu"])
def test_averages_and_optimizer_states_lie_as_the_parameters(stage, mirror):
    placed = shardings(first_state(stage))
    params = {path: s for path, s in placed.items() if path.startswith("params/")}
    assert params == {path: placed[mirror + path[len("params") :]] for path in params}


def test_the_first_stage_is_whole_along_tensor():
    placed = shardings(first_state("vqgan")).values()
    assert [sharding for sharding in placed if "tensor" in str(sharding.spec)] == []


def test_what_tensor_does_not_divide_is_whole_along_it():
    """Codes, labels and one token for none are an odd number more often than not."""
    sizes = {"fsdp": 2, "tensor": 2}
    assert partition("params/embedding", (31, 16), sizes) == P(None, "fsdp")


@each_mesh
def test_a_device_holds_its_share_of_the_paper_s_prior(sizes):
    """Whole along `tensor` are only norms, places and half of the biases."""
    state = first_state("prior", options=False)
    leaves, placed = jax.tree.leaves(state), shardings(state, sizes).values()
    held = [
        math.prod(sharding.shard_shape(leaf.shape))
        for leaf, sharding in zip(leaves, placed, strict=True)
    ]
    share = sum(held) / sum(leaf.size for leaf in leaves)
    assert 1 <= share * sizes[1] * sizes[2] < 1.001
