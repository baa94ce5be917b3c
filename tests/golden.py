"""Reference data: what the original implementation computed, file by file.

    case = golden("01_encoder")
    case.config                      the original's class and arguments
    case.inputs["square"]            torch's layout; nhwc(...) makes it ours
    case.outputs["square"]           likewise
    case.exact["square"]             the same in float64, where there is one
    case.variables(ENCODER)          its weights in our tree, by a table of names
    case.tolerance("square")         {"rtol": 0, "atol": ...}

The original is the PyTorch code of https://github.com/CompVis/taming-transformers, run
in float32 on a CPU with random weights on a coarse grid; index.json says of each file
what it holds and how far float32 and float64 were apart. Tolerances are eight times
that, at least 2e-6 of the largest magnitude.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taming_jax.interop.tables import Table, to_ours

FOLDER = Path(__file__).with_name("golden")

# How names end whose tensors our models do not have: counters, constants, masks.
OF_NO_USE = ("num_batches_tracked", "scaling_layer.shift", "scaling_layer.scale")
OF_NO_USE += ("attn.mask",)


@dataclass(frozen=True)
class Golden:
    """One file of reference data."""

    config: dict
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    exact: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    deviations: dict[str, dict]

    def variables(self, table: Table, prefix: str = "") -> dict:
        """Return the weights whose names begin with `prefix`, in our tree."""
        named = self.weights.items()
        return to_ours(
            table, {k.removeprefix(prefix): v for k, v in named if k.startswith(prefix)}
        )

    def tolerance(self, *outputs: str) -> dict:
        """Return the keywords for `assert_allclose`: the largest of these outputs'."""
        suggested = [self.deviations[name]["suggested_atol"] for name in outputs]
        return {"rtol": 0, "atol": max(suggested)}


def golden(name: str) -> Golden:
    """Read the reference data `name`, such as "01_encoder"."""
    entry = json.loads((FOLDER / "index.json").read_text())["files"][f"{name}.npz"]
    return _read(name, deviations=entry["float32_vs_float64"])


def llamagens(part: str) -> Golden:
    """Read what LlamaGen computed, by its "vq" or its "gpt": golden 15, likewise.

    Its config has the arguments of both. The reference data ask for a tolerance of
    1e-4; differences were below 1e-5.
    """
    return _read("15_llamagen", f"{part}/", deviations={})


def _read(name: str, prefix: str = "", **deviations) -> Golden:
    with np.load(FOLDER / f"{name}.npz") as arrays:

        def under(kind):
            begin = prefix + kind
            named = (key for key in arrays if key.startswith(begin))
            return {key.removeprefix(begin): arrays[key] for key in named}

        config = json.loads(str(arrays["config"]))
        parts = under("in/"), under("out/"), under("out64/"), under("sd/")
    return Golden(config, *parts, **deviations)


def nhwc(images: np.ndarray) -> np.ndarray:
    """Torch's [B,C,H,W] -> our [B,H,W,C]."""
    return np.moveaxis(images, 1, -1)


def autoencoder_fields(ddconfig: dict, half: str) -> dict:
    """Translate the original's `ddconfig` into fields of our encoder or decoder."""
    doubled = half == "encoder" and ddconfig["double_z"]
    return {
        "channels": ddconfig["ch"],
        "multipliers": ddconfig["ch_mult"],
        "blocks": ddconfig["num_res_blocks"] + (half == "decoder"),
        "attention_resolutions": ddconfig["attn_resolutions"],
        "resolution": ddconfig["resolution"],
        "dropout": ddconfig["dropout"],
        "resample": "conv" if ddconfig.get("resamp_with_conv", True) else "plain",
        "latent_channels": ddconfig["z_channels"] * (2 if doubled else 1),
        "image_channels": ddconfig["in_channels" if half == "encoder" else "out_ch"],
    }


def gpt_fields(params: dict) -> dict:
    """Translate the original GPT's arguments into fields of our Transformer."""
    return {
        "vocab_size": params["vocab_size"],
        "length": params["block_size"],
        "width": params["n_embd"],
        "layers": params["n_layer"],
        "heads": params["n_head"],
    }


def vqgan_fields(params: dict, **quantizer) -> dict:
    """Translate the original VQModel's or GumbelVQ's arguments into ours."""
    size = {"codebook_size": params["n_embed"], "dim": params["embed_dim"]}
    kind = gumbel_fields(params) if "kl_weight" in params else {"legacy": True}
    return {
        "encoder": autoencoder_fields(params["ddconfig"], "encoder"),
        "decoder": autoencoder_fields(params["ddconfig"], "decoder"),
        "quantizer": {"name": "vq", **size, **kind, **quantizer},
    }


def gumbel_fields(params: dict) -> dict:
    """Translate the arguments of the original GumbelVQ that others do not have."""
    schedule = params["temperature_scheduler_config"]["params"]
    steps = ("warm_up_steps", "max_decay_steps")
    return {
        "name": "gumbel",
        "kl_weight": params["kl_weight"],
        "temperature": [schedule[f"lr_{name}"] for name in ("start", "max", "min")],
        "temperature_steps": [schedule[name] for name in steps],
    }
