import numpy as np
import pytest
from golden import OF_NO_USE, golden
from numpy.testing import assert_array_equal
from published import VQ_MODEL

from taming_jax.interop.names import (
    DECODER,
    DISCRIMINATOR,
    DISCRIMINATOR_ACTNORM,
    ENCODER,
    GPT,
    GUMBEL_GENERATOR,
    PERCEPTUAL,
)
from taming_jax.interop.tables import Row, Transform, to_ours, to_theirs


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("01_encoder", ENCODER),
        ("01_decoder_variant", DECODER),
        ("03_gumbelvq", GUMBEL_GENERATOR),
        ("06_discriminator_batchnorm", DISCRIMINATOR),
        ("06_discriminator_actnorm", DISCRIMINATOR_ACTNORM),
        ("07_lpips", PERCEPTUAL),
        ("08_vqlpips_training", VQ_MODEL),
        ("09_gpt", GPT),
    ],
)
def test_every_tensor_comes_back_under_its_name(name, table):
    case = golden(name)
    back = to_theirs(table, case.variables(table))
    wanted = {k: v for k, v in case.weights.items() if not k.endswith(OF_NO_USE)}
    assert back.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert_array_equal(back[key], tensor, strict=True)


def test_a_name_of_no_row_is_refused():
    with pytest.raises(ValueError, match=r"0 rows for 'down\.0\.blok\.0\.bias'"):
        to_ours(ENCODER, {"down.0.blok.0.bias": np.zeros(3)})


def test_a_name_of_two_rows_is_refused():
    same = Transform(np.asarray, np.asarray)
    table = (Row("a/{i}", "x.{i}", same), Row("b", "x.0", same))
    with pytest.raises(ValueError, match=r"2 rows for 'x\.0'"):
        to_ours(table, {"x.0": np.zeros(3)})


def test_numbers_in_names_are_carried_over():
    tree = to_ours(ENCODER, {"down.12.block.3.norm1.weight": np.ones(2)})
    assert list(tree["down_12_block_3"]["norm1"]) == ["scale"]


def test_layers_are_stacked_by_their_numbers():
    names = [f"blocks.{layer}.ln1.bias" for layer in (10, 2, 0, 1, *range(3, 10))]
    tree = to_ours(GPT, {name: np.array([float(name.split(".")[1])]) for name in names})
    assert_array_equal(tree["blocks"]["norm1"]["bias"], np.arange(11.0)[:, None])


def test_a_missing_layer_is_refused():
    with pytest.raises(ValueError, match=r"norm1/bias is stacked from layers \[0, 2\]"):
        to_ours(GPT, {f"blocks.{layer}.ln1.bias": np.zeros(2) for layer in (0, 2)})
