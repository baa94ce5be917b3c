"""The tokenizer that a prior is trained on: frozen, and never in the train state.

directory -> Tokenizer(module, variables on the mesh, what is known of it)
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from taming_jax import stored
from taming_jax.models.vqgan import VQGAN
from taming_jax.training import mesh as meshes
from taming_jax.units import Codes, Images


class Tokenizer(NamedTuple):
    """A trained VQGAN as the second stage sees it.

    Attributes:
      module: the Flax module.
      variables: its averaged weights, placed on the mesh; passed to compiled functions.
      directory: where it was found.
      step: of its checkpoint.
      fingerprint: of all that turns a picture into codes.
      image_size: the side of the pictures it was trained on, in pixels.
    """

    module: VQGAN
    variables: Any
    directory: str
    step: int
    fingerprint: str
    image_size: int

    def encode(self, variables: Any, images: Images) -> Codes:
        """[B, H, W, C] in [-1, 1] -> int32 [B, h, w]; to be called inside a jit."""
        return self.module.apply(variables, images, train=False, method="encode").codes

    def decode(self, variables: Any, codes: Codes) -> Images:
        """[B, h, w] -> [B, H, W, C], clipped to [-1, 1]; to be called inside a jit."""
        return jnp.clip(self.module.apply(variables, codes, method="decode"), -1.0, 1.0)

    def facts(self) -> dict[str, Any]:
        """What a prior's codes rest on, in JSON's types."""
        return {"fingerprint": self.fingerprint}


def load_tokenizer(path: str | Path, mesh: jax.sharding.Mesh) -> Tokenizer:
    """Loads a tokenizer's newest checkpoint.

    Raises:
      ValueError: if there is none: it has to be trained first.
    """
    try:
        model = stored.read(path, "vqgan")
    except ValueError as reason:
        raise ValueError(
            f"a prior needs a trained tokenizer: {reason}; train it first "
            "(train_vqgan.py with the same --config and --workdir), or say where one "
            "is by --config.prior.tokenizer=DIR"
        ) from None
    settings = model.config["vqgan"]["model"]
    return Tokenizer(
        module=VQGAN(**settings),
        variables=jax.device_put(
            model.variables, meshes.state_shardings(model.variables, mesh)
        ),
        directory=str(model.directory),
        step=model.step,
        fingerprint=model.fingerprint,
        image_size=model.config["data"]["image_size"],
    )
