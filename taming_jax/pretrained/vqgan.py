"""Trained tokenizers for people: `load_vqgan(path)` encodes and decodes pictures.

    vqgan = load_vqgan("runs/shapes")
    codes = vqgan.encode(images)     # float32 [B,H,W,C] in [-1,1] -> int32 [B,h,w]
    images = vqgan.decode(codes)     # -> float32 [B,h*stride,w*stride,C] in [-1,1]

h = H // stride and w = W // stride, for any H, W >= stride: what is left over at the
bottom and at the right is not coded. A tokenizer of class maps takes and gives int32
[B,H,W]; one of depth or edges, images of one channel. Compiled once per shape of its
input; the weights are arguments of the compiled program, never constants in it. What
goes in is checked here, once; inside a `jit` of one's own use `vqgan.module.apply`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from taming_jax import stored
from taming_jax.compilation import jit
from taming_jax.maps import input_of
from taming_jax.models.vqgan import VQGAN, decode_codes, encode_images
from taming_jax.training import mesh as meshes
from taming_jax.units import ClassMaps, Codes, Images

# Resizing filters overshoot [-1, 1] a little; 0..255 and other units do it by far.
_LARGEST_VALUE = 2.0


def load_vqgan(
    path, dtype=None, mesh=None, *, best: bool = False, stage: str | None = None
) -> "PretrainedVQGAN":
    """Loads a tokenizer's averaged (EMA) weights.

    Args:
      path: of a run or of an exported model, W or W/vqgan, gs:// too; or the name of a
        model that the package brings along. W/condition_vqgan is the tokenizer of
        the condition, and so is W where it is the only one.
      dtype: of activations and weights, e.g. "bfloat16"; None: as it was trained.
        The codebook and the distances to it are float32 in any case.
      mesh: a `jax.sharding.Mesh` with axes data, fsdp and tensor; None: one device.
      best: the best checkpoint by the recipe's metric instead of the newest.
      stage: "vqgan" or "condition_vqgan", where W has both; None: the first.

    Raises:
      ValueError: if there is no trained tokenizer.
    """
    if stage not in (None, *stored.TOKENIZERS):
        raise ValueError(
            f"stage is {stage!r}; tokenizers are {' and '.join(stored.TOKENIZERS)}: "
            "choose one"
        )
    model = stored.read(path, stage or stored.stage_at(path), best=best)
    settings, variables = dict(model.config[model.stage]["model"]), model.variables
    if dtype is not None:
        settings["dtype"] = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
    module = VQGAN(**settings)
    if dtype is not None:
        variables = _cast(variables, settings["dtype"])
    places = None if mesh is None else meshes.state_shardings(variables, mesh)
    variables = jax.device_put(variables, places)
    return PretrainedVQGAN(
        module,
        variables,
        stage=model.stage,
        region_names=model.record.get("facts", {}).get("class_names", ()),
        config=model.config,
        directory=model.directory,
        step=model.step,
        fingerprint=model.fingerprint,
        mesh=mesh,
    )


class PretrainedVQGAN:
    """A tokenizer with its weights.

    Attributes:
      module: the Flax module, which neither checks nor clips.
      params: its parameters.
      stage: "vqgan" or "condition_vqgan", its section of `config`.
      input: what it is for, and how that is read and drawn.
      region_names: what the classes of class maps are called, where that is known.
      config: the whole recipe that it was trained with.
      directory: where it was found, W/vqgan for example.
      step: of the checkpoint.
      fingerprint: codes of tokenizers with the same one mean the same.
      stride: pixels per code, in both directions.
      codebook_size: codes are in [0, codebook_size).
    """

    def __init__(
        self,
        module: VQGAN,
        variables: Mapping[str, Any],
        *,
        stage: str = "vqgan",
        region_names: Sequence[str] = (),
        config: Mapping[str, Any],
        directory: epath.Path,
        step: int,
        fingerprint: str,
        mesh: jax.sharding.Mesh | None = None,
    ):
        self.module, self.config, self.stage = module, config, stage
        self.input, self.region_names = input_of(config[stage]), tuple(region_names)
        self.directory, self.step = directory, step
        self.fingerprint = fingerprint
        self.stride, self.codebook_size = module.stride, module.codebook_size
        self._variables, self._mesh = variables, mesh

        self._encode = jit(partial(encode_images, module))
        self._decode = jit(partial(decode_codes, module))

    @property
    def params(self) -> Mapping[str, Any]:
        return self._variables["params"]

    def encode(self, images: Images | ClassMaps) -> Codes:
        """Images [B, H, W, C] in [-1, 1] -> codes [B, H // stride, W // stride].

        Raises:
          ValueError: for another dtype, range, rank, number of channels, or a size
            below the stride.
        """
        if self.module.classes:
            _check_classes(self.module, images)
        else:
            _check_images(images)
        return self._encode(self._variables, self._place(images))

    def decode(self, codes: Codes) -> Images | ClassMaps:
        """Codes [B, h, w] -> images [B, h * stride, w * stride, C] in [-1, 1].

        Of class maps, the likeliest class of each pixel: int32 [B, H, W].

        Raises:
          ValueError: for what is no grid of this tokenizer's codes.
        """
        _check_codes(codes, self.codebook_size)
        return self._decode(self._variables, self._place(codes))

    def reconstruct(self, images: Images | ClassMaps) -> Images | ClassMaps:
        """`decode(encode(images))`: as many whole codes as fit, from the top left."""
        return self.decode(self.encode(images))

    def _place(self, batch):
        if self._mesh is None:
            return jnp.asarray(batch)
        shards = self._mesh.shape["data"] * self._mesh.shape["fsdp"]
        whole = len(batch) % shards == 0
        place = meshes.batch_sharding if whole else meshes.replicated
        return jax.device_put(batch, place(self._mesh))


def _cast(variables, dtype):
    """All but the quantizer to `dtype`: half a bit in its distances flips codes."""
    params = {
        part: arrays
        if part == "quantizer"
        else jax.tree.map(lambda array: array.astype(dtype), arrays)
        for part, arrays in variables["params"].items()
    }
    return {**variables, "params": params}


def _check_images(images) -> None:
    """What the module cannot check: it runs compiled, on values not yet there."""
    dtype = jnp.result_type(images)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"images are {dtype}; a tokenizer reads float32 in [-1, 1]; uint8 pictures "
            "become that by taming_jax.units.from_uint8"
        )
    largest = float(jnp.max(jnp.abs(images), initial=0.0))
    if not largest <= _LARGEST_VALUE:  # NaN is caught too
        raise ValueError(
            f"images reach {largest:g}; a tokenizer reads values in [-1, 1]; from "
            "0..255 they come by images / 127.5 - 1"
        )


def _check_classes(module: VQGAN, maps) -> None:
    module.check(jax.eval_shape(jnp.asarray, maps))
    smallest, largest = int(jnp.min(maps)), int(jnp.max(maps))
    if smallest < 0 or largest >= module.image_channels:
        raise ValueError(
            f"class maps reach from {smallest} to {largest}; this tokenizer has 0 to "
            f"{module.image_channels - 1}; give every other value a class out of these"
        )


def _check_codes(codes, codebook_size: int) -> None:
    shape, dtype = jnp.shape(codes), jnp.result_type(codes)
    if not jnp.issubdtype(dtype, jnp.integer) or len(shape) != 3:
        raise ValueError(
            f"codes are {dtype} of shape {shape}; a tokenizer takes int32 [B, h, w], "
            "what its encode gives; a single grid needs the batch's axis: codes[None]"
        )
    smallest, largest = int(jnp.min(codes)), int(jnp.max(codes))
    if smallest < 0 or largest >= codebook_size:
        raise ValueError(
            f"codes reach from {smallest} to {largest}; this tokenizer has 0 to "
            f"{codebook_size - 1}; decode with the tokenizer that made them"
        )
