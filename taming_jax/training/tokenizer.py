"""The tokenizer that a prior is trained on: frozen, and never in the train state.

directory -> Tokenizer(module, variables on the mesh, fingerprint)
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from taming_jax import stored
from taming_jax.models.vqgan import VQGAN, decode_codes, encode_images
from taming_jax.training import mesh as meshes
from taming_jax.training.sharding import at_use
from taming_jax.units import Codes, Images


class Tokenizer(NamedTuple):
    """A trained VQGAN as the second stage sees it.

    Attributes:
      module: the Flax module.
      variables: its averaged weights, placed on the mesh; passed to compiled functions.
      fingerprint: of all that turns a picture into codes.
    """

    module: VQGAN
    variables: Any
    fingerprint: str

    def encode(self, variables: Any, images: Images) -> Codes:
        """As `encode_images`."""
        return encode_images(self.module, variables, images)

    def decode(self, variables: Any, codes: Codes) -> Images:
        """As `decode_codes`."""
        return decode_codes(self.module, variables, codes)


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
    return Tokenizer(
        module=at_use(VQGAN(**model.config["vqgan"]["model"]), mesh),
        variables=jax.device_put(
            model.variables, meshes.state_shardings(model.variables, mesh)
        ),
        fingerprint=model.fingerprint,
    )
