"""What does not fit is named, with a remedy, and leaves nothing behind."""

import json

import numpy as np
import pytest
import yaml
from golden import FOLDER, golden

from taming_jax.interop import configurations, convert, convert_checkpoint
from taming_jax.interop.formats.tensors import Tensor
from taming_jax.interop.formats.torch_files import write_torch

CHECKPOINT, CONFIG = FOLDER / "13_vqmodel.ckpt", FOLDER / "13_vqmodel.yaml"
WEIGHTS = golden("13_vqmodel_ckpt").weights  # by the original's names
ONE, NAN = np.float32(1), np.full(6, np.nan, np.float32)


def changed(**changes):
    """Golden 13's configuration with other params, and ddconfig's under that name."""
    config = yaml.safe_load(CONFIG.read_text())
    params = config["model"]["params"]
    params["ddconfig"] |= changes.pop("ddconfig", {})
    params |= changes
    return config


def without(name):
    return {k: v for k, v in WEIGHTS.items() if k != name}


KNOWN_HINT = "is this the configuration of another model?"


@pytest.mark.parametrize(
    ("weights", "config", "message"),
    [
        (
            without("conv_in.bias") | {"encoder.extra": np.zeros((3, 4), np.float32)},
            changed(),
            r"model\.ckpt: the file has encoder\.extra \[3, 4\]; " + KNOWN_HINT,
        ),
        (
            without("encoder.conv_in.bias"),
            changed(),
            r"the configuration wants encoder\.conv_in\.bias \[32\]; " + KNOWN_HINT,
        ),
        (
            without("loss.discriminator.main.3.running_var"),
            changed(),
            r"wants loss\.discriminator\.main\.3\.running_var \[16\];",
        ),
        (
            without("loss.perceptual_loss.net.slice4.19.bias"),
            changed(),
            r"no weights of LPIPS: vgg/conv4_2/bias is None, not \(32,\)",
        ),
        (
            WEIGHTS,
            changed(n_embed=64),
            r"the file has quantize\.embedding\.weight \[32, 6\]; the configuration "
            r"wants quantize\.embedding\.weight \[64, 6\];",
        ),
        (WEIGHTS, changed(ddconfig={"ch_mult": [1, 1, 2]}), r"and \d+ more; the conf"),
        (
            WEIGHTS | {"quant_conv.bias": NAN},
            changed(),
            "bias has numbers that are not",
        ),
        ({"weight": ONE, "transformer": {}}, changed(), r"file has weight \[\]"),
        ({"epoch": 3}, changed(), r"holds no tensors by name, but \['epoch'\]"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, weights, config, message):
    write_torch(tmp_path / "model.ckpt", weights)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / "model.ckpt", config, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]


def test_a_known_configuration_that_fits_is_proposed(tmp_path):
    """The names and shapes of a published model, but not its numbers."""
    shapes = json.loads((FOLDER / "shapes" / "ldm_vq_f4.json").read_text())
    tensors = {
        name: Tensor(np.dtype(np.float32), tuple(shape), read=None)
        for name, shape in shapes["parameters"].items()
    }
    tokenizer = configurations.read("ldm_vq_f8")["vqgan"]
    with pytest.raises(ValueError, match=r"the names and shapes of ldm_vq_f4$"):
        convert.parts_of(tokenizer, tensors)


def test_an_output_that_exists_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match="exists and is not an empty directory"):
        convert_checkpoint("nowhere.ckpt", "nothing.yaml", tmp_path)


def test_a_tokenizer_has_no_tokenizer(tmp_path):
    with pytest.raises(ValueError, match="tokenizer='W' belongs to a prior"):
        convert_checkpoint(CHECKPOINT, CONFIG, tmp_path, tokenizer="W")
