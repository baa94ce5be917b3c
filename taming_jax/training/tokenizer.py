"""The tokenizers that a prior is trained on: frozen, and never in the train state.

directory -> Tokenizer(module, variables on the mesh, fingerprint)
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from taming_jax import stored
from taming_jax.conditions.kinds import MapTokenizer
from taming_jax.maps import Input, input_of
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
      input: which entry of an example it is for.
    """

    module: VQGAN
    variables: Any
    fingerprint: str
    input: Input = Input()

    def encode(self, variables: Any, images: Images) -> Codes:
        """As `encode_images`."""
        return encode_images(self.module, variables, images)

    def decode(self, variables: Any, codes: Codes) -> Images:
        """As `decode_codes`."""
        return decode_codes(self.module, variables, codes)

    def of_maps(self) -> MapTokenizer:
        """The same, as a condition takes it."""
        module = self.module
        return MapTokenizer(
            self.input,
            module.stride,
            module.codebook_size,
            module.image_channels,
            self.encode,
        )


def load_tokenizer(
    path: str | Path, mesh: jax.sharding.Mesh, stage: str = "vqgan"
) -> Tokenizer:
    """Loads a tokenizer's newest checkpoint.

    Args:
      path: of a run or a model.
      mesh: where its variables lie.
      stage: "vqgan", or "condition_vqgan" of a condition that is a map.

    Raises:
      ValueError: if there is none: it has to be trained first.
    """
    try:
        model = stored.read(path, stage)
    except ValueError as reason:
        flag, key = "", "tokenizer"
        if stage != "vqgan":
            flag, key = f" --stage={stage}", "condition_tokenizer"
        raise ValueError(
            f"a prior needs a trained tokenizer: {reason}; train it first "
            f"(train_vqgan.py{flag} with the same --config and --workdir), or say "
            f"where one is by --config.prior.{key}=DIR"
        ) from None
    section = model.config[stage]
    return Tokenizer(
        module=at_use(VQGAN(**section["model"]), mesh),
        variables=jax.device_put(
            model.variables, meshes.state_shardings(model.variables, mesh)
        ),
        fingerprint=model.fingerprint,
        input=input_of(section),
    )
