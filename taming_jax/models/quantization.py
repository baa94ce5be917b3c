"""What all quantizers share: their codes are counted, renumbered and perturbed.

    z [B,h,w,D] -> `quantize`, a subclass's own -> Quantized -> lookup(codes) [B,h,w,D]

    usage float32 [K], in "codebook"    B batch    h, w grid    D dim    K codebook_size

`quantize` and `vectors` deal in all K codes; where only some are used, these are
renumbered around them, in `__call__` and `lookup`.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from taming_jax.models.arithmetic import occurrences
from taming_jax.models.lookup import perturbed
from taming_jax.models.quantizer_fields import check_fields
from taming_jax.models.remap import Remap, make_remap
from taming_jax.units import Codes

# Bytes that a codebook may take in training: more is a slip, or for no machine.
STATE_LIMIT = 2**34


@struct.dataclass
class Quantized:
    """What a quantizer makes of a grid of latents.

    z: float32 [B,h,w,D], for the decoder; its gradient reaches the encoder.
    codes: int32 [B,h,w] in [0, K), or fewer where not all are used.
    loss: float32 [], what keeps codes and latents together.
    stats: float32 [] each, for the logs.
    latents: float32 [B,h,w,D], what was looked up: projected, not yet quantized.
    """

    z: jax.Array
    codes: Codes
    loss: jax.Array
    stats: dict[str, jax.Array]
    latents: jax.Array


class Quantizer(nn.Module):
    """Codes of any kind; a subclass has `quantize` and `vectors`, in all K of them.

    codebook_size: how many there are, K.
    used: the codes that may come out, in the order of their new numbers; None: all.
    unknown: what becomes of the others, see `models.remap`.
    perturb_probability: with which a code of the first `perturb_share` of a batch is
        replaced in training, for the decoder alone, by one of the `perturb_neighbours`
        nearest to it; it falls to 0 over `perturb_steps`, or stays where they are 0.
        Latent perturbation, Qiu et al. 2025.
    """

    codebook_size: int
    dim: int
    used: Sequence[int] | None = None
    unknown: str | int = "random"
    perturb_probability: float = 0.0
    perturb_share: float = 0.1
    perturb_neighbours: int = 100
    perturb_steps: int = 0

    def __post_init__(self):
        super().__post_init__()
        check_fields(self)
        self._check_size()
        self._remap()  # or say what does not fit
        self._check_perturbation()

    def __call__(self, z: jax.Array, *, train: bool, step=None) -> Quantized:
        """z [B,h,w,D] -> Quantized, its codes in [0, size)."""
        quantized = self.quantize(z.astype(jnp.float32), train=train, step=step)
        self._count(quantized.codes, train)
        if train and self.perturb_probability:
            quantized = quantized.replace(z=self._perturb(quantized, step))
        if self.used is None:
            return quantized
        outward = jnp.asarray(self._remap().outward)
        return quantized.replace(codes=outward[quantized.codes])

    def lookup(self, codes: Codes) -> jax.Array:
        """Codes [...] in [0, size) -> the vectors that they stand for, [...,D]."""
        if self.used is not None:
            codes = jnp.asarray(self._remap().inward)[codes]
        return self.vectors(codes)

    @nn.nowrap
    def after_update(self, params, codebook, latents, *, step, key):
        """Leave everything as the optimizer did."""
        del latents, step, key
        return params, codebook

    @property
    def size(self) -> int:
        """How many codes come out: they lie in [0, size)."""
        remap = self._remap()
        return self.codebook_size if remap is None else len(remap.inward)

    @nn.nowrap
    def share(self, train: bool, step) -> jax.Array:
        """How much of the quantization counts at this step, in [0, 1]."""
        del train, step
        return jnp.ones(())

    @nn.nowrap
    def make_counts(self) -> None:
        """Declare how often each code was drawn."""
        self.usage = self.remember("usage", lambda: jnp.zeros(self.codebook_size))

    @nn.nowrap
    def remember(self, name: str, init: Callable):
        """Declare what training carries along, None where it is not to change."""
        if not self.is_mutable_collection("codebook"):
            return None
        return self.variable("codebook", name, init)

    @nn.nowrap
    def is_used(self) -> np.ndarray:
        """Which of all codes may come out: bool [K]."""
        used = range(self.codebook_size) if self.used is None else self.used
        return np.isin(np.arange(self.codebook_size), used)

    @nn.nowrap
    def numbers(self) -> int:
        """How many are kept of a code: three counts, and what it is perturbed by."""
        return 3 + bool(self.perturb_probability) * self.dim

    @nn.nowrap
    def _count(self, codes, train):
        """Add the codes to the counts, in a training step."""
        counts = train and self.is_mutable_collection("codebook")
        if counts and not self.is_initializing():
            self.usage.value += occurrences(codes, self.codebook_size)

    @nn.nowrap
    def _perturb(self, quantized, step):
        """z of some pictures as if other codes had been drawn; gradients as before."""
        count = math.ceil(self.perturb_share * len(quantized.codes))
        codes = quantized.codes[:count]
        probability = self.perturb_probability
        if self.perturb_steps and step is not None:
            probability *= 1 - jnp.minimum(step / self.perturb_steps, 1.0)
        table = self.vectors(jnp.arange(self.codebook_size))
        others = perturbed(
            codes, table, self.make_rng("quantizer"),
            probability=probability, neighbours=self.perturb_neighbours,
        )  # fmt: skip
        latents, z = quantized.latents[:count], quantized.z[:count]
        wanted = latents + self.share(True, step) * (table[others] - latents)
        change = jnp.where((others == codes)[..., None], 0.0, wanted - z)
        return quantized.z.at[:count].add(jax.lax.stop_gradient(change))

    @nn.nowrap
    def _remap(self) -> Remap | None:
        if self.used is None:
            return None
        owner = type(self).__name__
        return make_remap(owner, self.codebook_size, self.used, self.unknown)

    @nn.nowrap
    def _check_size(self):
        size, owner = 4 * self.codebook_size * self.numbers(), type(self).__name__
        if size > STATE_LIMIT:
            raise ValueError(
                f"{owner}'s {self.codebook_size} codes of dim={self.dim} would take "
                f"{size / 2**30:.1f} GiB in training (codes, gradients, moments, "
                f"averages, counts); allowed are {STATE_LIMIT / 2**30:.0f}: take "
                "fewer, or a lower dim"
            )

    @nn.nowrap
    def _check_perturbation(self):
        owner = type(self).__name__
        if self.perturb_probability and self.used is not None:
            raise ValueError(
                f"{owner} has both used= and perturb_probability="
                f"{self.perturb_probability}: neighbours of a code may not be used; "
                "leave one of them out"
            )
        if self.perturb_probability and self.codebook_size == 1:
            raise ValueError(f"{owner}'s one code has no neighbour to perturb it with")
