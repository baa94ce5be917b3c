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

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from taming_jax import stored
from taming_jax.compilation import jit
from taming_jax.maps import input_of
from taming_jax.models.fields import dtype_named
from taming_jax.models.vqgan import VQGAN, decode_codes, encode_images
from taming_jax.pretrained import tiled
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
      ValueError: if there is no trained tokenizer, and for a dtype that cannot be.
    """
    dtype = None if dtype is None else dtype_named("load_vqgan", dtype)
    if stage not in (None, *stored.TOKENIZERS):
        raise ValueError(
            f"stage is {stage!r}; tokenizers are {' and '.join(stored.TOKENIZERS)}: "
            "choose one"
        )
    model = stored.read(path, stage or stored.stage_at(path), best=best)
    settings, variables = dict(model.config[model.stage]["model"]), model.variables
    if dtype is not None:
        settings["dtype"] = dtype
    module = VQGAN(**settings)
    if dtype is not None:
        variables = _cast(variables, settings["dtype"])
    if mesh is not None:
        mesh = meshes.left_to_the_compiler(mesh)
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

        compiled = partial(jit, convolutions=True)
        self._encode = compiled(partial(encode_images, module))
        self._decode = compiled(partial(decode_codes, module))
        # The same in parts, for tiles.
        self._latents = compiled(partial(module.apply, method="latents"))
        self._codes = compiled(partial(tiled.quantize, module))
        self._decoded = compiled(partial(module.apply, method="decode"))

    @property
    def params(self) -> Mapping[str, Any]:
        return self._variables["params"]

    def encode(
        self,
        images: Images | ClassMaps,
        tile: int | None = None,
        together: int | None = None,
    ) -> Codes:
        """Images [B, H, W, C] in [-1, 1] -> codes [B, H // stride, W // stride].

        Args:
          images: float32; int32 class maps [B, H, W] of a tokenizer for these.
          tile: for pictures that do not fit into memory: they go through the encoder
            in tiles of so many pixels a side, from the host to the host. See
            docs/tiling.md for what that changes.
          together: how many tiles at once; None: one per part of the mesh's batch.

        Raises:
          ValueError: for another dtype, range, rank, number of channels, or a size
            below the stride; for a tile that is no multiple of the stride, or smaller
            than what a code depends on.
        """
        if self.module.classes:
            _check_classes(self.module, images)
        else:
            _check_images(images)
        if tile is None:
            return self._encode(self._variables, self._place(images))
        self.module.check(images)
        return tiled.encode(
            self.module,
            self._run(self._latents),
            self._run(self._codes),
            images,
            tile=tile,
            together=self._together(together),
        )

    def decode(
        self, codes: Codes, tile: int | None = None, together: int | None = None
    ) -> Images | ClassMaps:
        """Codes [B, h, w] -> images [B, h * stride, w * stride, C] in [-1, 1].

        Of class maps, the likeliest class of each pixel: int32 [B, H, W]. `tile`, in
        pixels, and `together` are as in `encode`.

        Raises:
          ValueError: for what is no grid of this tokenizer's codes, and for a tile as
            in `encode`.
        """
        if tile is None:
            _check_codes(codes, self.codebook_size)
            return self._decode(self._variables, self._place(codes))
        batch, *grid = np.shape(codes)
        images, done = None, 0
        for band in self.decode_bands(codes, tile, together):
            if images is None:
                sides = (n * self.stride for n in grid)
                images = np.empty((batch, *sides, *band.shape[3:]), band.dtype)
            images[:, done : done + band.shape[1]] = band
            done += band.shape[1]
        return images

    def decode_bands(
        self, codes: Codes, tile: int, together: int | None = None
    ) -> Iterator[Images | ClassMaps]:
        """As `decode` by tiles, but the images come in bands of rows, from the top."""
        _check_codes(codes, self.codebook_size)
        return tiled.decode(
            self.module,
            self._run(self._decoded),
            codes,
            tile=tile,
            together=self._together(together),
        )

    def reconstruct(
        self,
        images: Images | ClassMaps,
        tile: int | None = None,
        together: int | None = None,
    ) -> Images | ClassMaps:
        """`decode(encode(images))`: as many whole codes as fit, from the top left."""
        if tile is not None:
            tiled.decoding_margins(self.module, tile)  # or it is refused at once
        return self.decode(self.encode(images, tile, together), tile, together)

    def _run(self, function):
        """A compiled function of variables and a batch, from the host to the host."""
        return lambda batch: np.asarray(function(self._variables, self._place(batch)))

    def _together(self, asked: int | None) -> int:
        """How many tiles are run at once."""
        if asked is not None and asked < 1:
            raise ValueError(f"together={asked}: tiles are run 1 at a time, or more")
        return asked or self._shards

    @property
    def _shards(self) -> int:
        """Into how many parts the mesh splits a batch."""
        if self._mesh is None:
            return 1
        return self._mesh.shape["data"] * self._mesh.shape["fsdp"]

    def _place(self, batch):
        if self._mesh is None:
            return jnp.asarray(batch)
        return meshes.placed(batch, self._mesh)


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
    # Where they are: what is to go in tiles may not fit on the device.
    values = images if isinstance(images, np.ndarray) else jnp.asarray(images)
    largest = float(max(-values.min(initial=0.0), values.max(initial=0.0)))
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
