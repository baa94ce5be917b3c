"""Published checkpoints, converted: what they computed there, they compute here."""

import json
from functools import partial

import jax
import ml_dtypes
import numpy as np
import pytest
from golden import FOLDER, golden, llamagens, nhwc
from jax.sharding import AxisType
from numpy.testing import assert_allclose, assert_array_equal

import taming_jax
from taming_jax import stored
from taming_jax.interop import convert_checkpoint
from taming_jax.interop.formats.safetensors import write_safetensors
from taming_jax.interop.formats.torch_files import write_torch
from taming_jax.interop.perceptual import load_perceptual
from taming_jax.models.discriminator import Discriminator
from taming_jax.models.perceptual import lpips

CHECKPOINT, CONFIG = FOLDER / "13_vqmodel.ckpt", FOLDER / "13_vqmodel.yaml"
WEIGHTS = golden("13_vqmodel_ckpt").weights  # by the original's names
ONE = np.float32(1)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Golden 13's tokenizer, with the networks of its loss, and what it should give."""
    output = tmp_path_factory.mktemp("convert") / "out"
    convert_checkpoint(CHECKPOINT, CONFIG, output)
    return golden("13_vqmodel_ckpt"), output


@pytest.fixture(scope="module")
def vqgan(converted):
    return taming_jax.load_vqgan(converted[1])


def test_codes_equal_the_originals(converted, vqgan):
    case, _ = converted
    codes = vqgan.encode(nhwc(case.inputs["x"]))
    assert_array_equal(np.ravel(codes), case.outputs["indices"])


def test_reconstructions_equal_the_originals(converted, vqgan):
    case, _ = converted
    variables = {"params": vqgan.params}
    apply = jax.jit(partial(vqgan.module.apply, train=False))
    images, quantized = apply(variables, nhwc(case.inputs["x"]))
    expected = nhwc(case.outputs["reconstruction"])
    assert_allclose(images, expected, **case.tolerance("reconstruction"))
    expected = case.outputs["emb_loss"]
    assert_allclose(quantized.loss, expected, **case.tolerance("emb_loss"))
    for ours, name in ((quantized.latents, "prequant"), (quantized.z, "quant")):
        expected = nhwc(case.outputs[name])
        assert_allclose(ours, expected, **case.tolerance(name), err_msg=name)


def test_the_discriminator_comes_along(converted):
    case, output = converted
    fields = stored.read(output, "vqgan").config["vqgan"]["discriminator"]
    variables = stored.read_discriminator(output, "vqgan")
    judge = jax.jit(partial(Discriminator(**fields).apply, train=False))
    logits = judge(variables, nhwc(case.outputs["reconstruction"]))
    expected = nhwc(case.outputs["disc_logits_fake"])
    assert_allclose(logits, expected, **case.tolerance("disc_logits_fake"))


def test_the_perceptual_weights_come_along(converted):
    case, output = converted
    pictures = (case.inputs["x"], case.outputs["reconstruction"])
    params = load_perceptual(output / "vqgan" / "perceptual.npz")
    distance = jax.jit(lpips)(params, *map(nhwc, pictures))
    expected = case.outputs["perceptual"].ravel()
    assert_allclose(distance, expected, **case.tolerance("perceptual"))


@pytest.mark.devices(4)
def test_a_mesh_holds_a_converted_model_in_parts(tmp_path):
    """Half of each kernel is where its weights are; what comes out is the same."""
    convert_checkpoint(CHECKPOINT, CONFIG, tmp_path)
    mesh = jax.make_mesh(
        (2, 2, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3
    )
    whole, split = (taming_jax.load_vqgan(tmp_path, mesh=m) for m in (None, mesh))
    kernel = split.params["decoder"]["conv_in"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 2
    images = np.concatenate(2 * [nhwc(golden("13_vqmodel_ckpt").inputs["x"])])
    codes = whole.encode(images)
    assert_array_equal(split.encode(images), codes)
    # Sums over shards are taken in another order.
    assert_allclose(split.decode(codes), whole.decode(codes), atol=1e-4)


def test_config_says_what_it_is_and_whence(converted):
    record = json.loads((converted[1] / "vqgan" / "config.json").read_text())
    assert (record["stage"], record["step"]) == ("vqgan", 123_457)
    assert record["card"] == {
        "source": "13_vqmodel.ckpt",
        "sha256": "3e371cd2173cb9cc39bde5f7c8c0b9464cf979ca19374dfe936fe760d4147d1c",
        "form": "original",
        "resolution": 16,
        "parameters": 220_153,
        "parts": ["discriminator", "perceptual"],
        "converted_by": f"taming_jax {taming_jax.__version__}",
    }
    assert record["config"]["vqgan"]["disc_start"] == 250_001


def test_both_tokenizers_of_a_transformer_are_converted(tmp_path):
    case = golden("13_net2net_ckpt")
    convert_checkpoint(FOLDER / "13_net2net.ckpt", FOLDER / "13_net2net.yaml", tmp_path)
    vqgan = taming_jax.load_vqgan(tmp_path)
    codes = vqgan.encode(nhwc(case.inputs["x"]))
    assert_array_equal(codes.reshape(2, -1), case.outputs["z_indices"])
    condition = taming_jax.load_vqgan(tmp_path / "condition_vqgan")
    small = nhwc(case.inputs["cond"])[:, ::3, ::4]  # "downsample_cond_size: 4", nearest
    codes = condition.encode(small)
    assert_array_equal(codes.reshape(2, -1), case.outputs["c_indices"])


def test_llamagens_tokenizer_equals_the_original(tmp_path):
    case = llamagens("vq")
    counts = {"quantize.codebook_used": np.zeros(65_536, np.float32)}
    write_torch(tmp_path / "vq.pt", {"model": case.weights | counts})
    arguments = {"vq": case.config["vq"]}
    convert_checkpoint(tmp_path / "vq.pt", arguments, tmp_path / "out")
    vqgan = taming_jax.load_vqgan(tmp_path / "out")
    variables = {"params": vqgan.params}
    apply = jax.jit(partial(vqgan.module.apply, train=False))
    images, quantized = apply(variables, nhwc(case.inputs["x"]))
    assert_array_equal(np.ravel(quantized.codes), case.outputs["indices"])
    encode = jax.jit(partial(vqgan.module.apply, method="latents"))
    latents = encode(variables, nhwc(case.inputs["x"]))  # not yet of length 1
    assert_allclose(latents, nhwc(case.outputs["prequant"]), atol=1e-4)
    assert_allclose(images, nhwc(case.outputs["reconstruction"]), atol=1e-4)
    decode = jax.jit(partial(vqgan.module.apply, method="decode"))
    decoded = decode(variables, quantized.codes)
    assert_allclose(decoded, nhwc(case.outputs["decode_code"]), atol=1e-4)
    loss = case.outputs["vq_loss"] + case.outputs["commit_loss"]
    assert_allclose(quantized.loss, loss, atol=1e-4)


def content(form):
    """The same weights as people find them."""
    weights = WEIGHTS
    own = {k: v for k, v in weights.items() if not k.startswith("loss.")}
    zeros = {k: np.zeros_like(v) for k, v in weights.items()}
    match form:
        case "bare":
            return weights
        case "averaged":
            return {"model": zeros, "ema": weights, "steps": 123_457}
        case "data parallel":
            return {"model": {f"module.{k}": v for k, v in weights.items()}}
        case "beneath":
            upon = {"model.diffusion_model.out.weight": np.ones(3, np.float32)}
            return {
                "state_dict": upon
                | {f"first_stage_model.{k}": v for k, v in weights.items()}
            }
        case "latent diffusion":
            beside = {f"model_ema.{k.replace('.', '')}": v for k, v in own.items()}
            counters = {"model_ema.num_updates": np.int32(7), "model_ema.decay": ONE}
            latest = {k: zeros[k] if k in own else v for k, v in weights.items()}
            return {"state_dict": latest | beside | counters}


FORMS = ("bare", "averaged", "data parallel", "beneath", "latent diffusion")


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_wherever_they_lie(converted, tmp_path, form):
    write_torch(tmp_path / "model.pt", content(form))
    convert_checkpoint(tmp_path / "model.pt", CONFIG, tmp_path / "out")
    assert_same_arrays(tmp_path / "out", converted[1])


def test_safetensors_give_the_same_model(converted, tmp_path):
    write_safetensors(tmp_path / "model.safetensors", WEIGHTS)
    convert_checkpoint(tmp_path / "model.safetensors", CONFIG, tmp_path / "out")
    assert_same_arrays(tmp_path / "out", converted[1])


def test_bfloat16_weights_become_float32(tmp_path):
    half = {
        name: array.astype(ml_dtypes.bfloat16) if array.dtype == np.float32 else array
        for name, array in WEIGHTS.items()
    }
    write_safetensors(tmp_path / "model.safetensors", half)
    convert_checkpoint(tmp_path / "model.safetensors", CONFIG, tmp_path / "out")
    kernel = stored.read(tmp_path / "out", "vqgan").variables["params"]["quant_conv"]
    expected = half["quant_conv.bias"].astype(np.float32)
    assert_array_equal(kernel["bias"], expected, strict=True)


def test_weights_are_kept_in_half_precision_if_asked(converted, tmp_path):
    convert_checkpoint(CHECKPOINT, CONFIG, tmp_path, dtype="float16")
    whole, slim = (stored.read(path, "vqgan") for path in (converted[1], tmp_path))
    assert slim.fingerprint == whole.fingerprint


def arrays(output):
    """{file/name: array} of all that was converted."""
    found = {}
    for path in sorted((output / "vqgan").glob("*.npz")):
        with np.load(path) as file:
            found |= {f"{path.name}/{name}": file[name] for name in file.files}
    return {k: v for k, v in found.items() if not k.endswith("metadata")}


def assert_same_arrays(output, other):
    ours, theirs = arrays(output), arrays(other)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert_array_equal(array, theirs[name], strict=True, err_msg=name)
