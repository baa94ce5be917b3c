import numpy as np
import pytest
from golden import golden
from numpy.testing import assert_array_equal

from taming_jax.interop.names import (
    DECODER,
    DISCRIMINATOR,
    DISCRIMINATOR_ACTNORM,
    ENCODER,
    PERCEPTUAL,
    VQ_MODEL,
)
from taming_jax.interop.tables import Row, Transform, to_ours, to_theirs

OF_NO_USE = ("num_batches_tracked", "scaling_layer.shift", "scaling_layer.scale")


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("01_encoder", ENCODER),
        ("01_decoder_variant", DECODER),
        ("06_discriminator_batchnorm", DISCRIMINATOR),
        ("06_discriminator_actnorm", DISCRIMINATOR_ACTNORM),
        ("07_lpips", PERCEPTUAL),
        ("08_vqlpips_training", VQ_MODEL),
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
