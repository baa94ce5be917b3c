"""A table of codes: what all quantizers that have one share, and what keeps it in use.

    Codebook                 a table, embedding float32 [K,D], in "params"
      ReseededCodebook       which is filled and revived with latents
        NearestCodebook      and whose nearest entry is taken

    K codebook_size    D dim    N latents of a batch

Two remedies against the table's collapse onto a few codes, both off by default:

Soft start. Up to `start_step` nothing is quantized, so that the encoder settles; then
the table is filled with latents and quantization is blended in over `blend_steps`.

Revival. Every `revive_every` steps after that, while the step is below `revive_until`,
codes that were not drawn since the last time are moved onto latents of the batch.

Both are plain functions of arrays over the global batch: every device agrees.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from taming_jax.models.arithmetic import entropy_loss
from taming_jax.models.fields import choose
from taming_jax.models.gradients import GRADIENTS
from taming_jax.models.lookup import by_distance
from taming_jax.models.quantization import Quantized, Quantizer
from taming_jax.models.quantizer_fields import check_revival
from taming_jax.models.schedules import ramp
from taming_jax.units import Codes


class Codebook(Quantizer):
    """Codes that stand for the rows of a table; `setup` calls `make_table`."""

    # Of the table in training: itself, gradient, two moments, the average of weights.
    COPIES = 5

    def vectors(self, codes: Codes) -> jax.Array:
        """Rows of the table, by their own numbers in [0, K): [...] -> [...,D]."""
        return jnp.take(self.embedding, codes, axis=0)

    @nn.nowrap
    def make_table(self, init: Callable) -> None:
        """Declare the table, and the counts where they may move."""
        self.embedding = self.param("embedding", init, (self.codebook_size, self.dim))
        self.make_counts()

    @nn.nowrap
    def numbers(self) -> int:
        return super().numbers() + self.COPIES * self.dim


# How far codes are put apart that would lie on one latent, in latents' deviations: with
# 16,384 codes and 512 latents 93 % of the codes were in use, 64 % without.
APART = 0.1


class ReseededCodebook(Codebook):
    """A table with the two remedies; `quantize` ends with `blended`.

    entropy_weight, entropy_temperature: of E[H(p)] - H(E[p]) in the loss, where
        p = softmax(scores / temperature): sure of each, and all in use (Yu et al. 2023;
        Chang et al. 2022).
    """

    start_step: int = 0
    blend_steps: int = 0
    revive_every: int = 0
    revive_until: int = 0
    entropy_weight: float = 0.0
    entropy_temperature: float = 0.01

    # Why idle codes cannot be revived, where they cannot.
    NO_REVIVAL = ""

    def __post_init__(self):
        super().__post_init__()
        check_revival(self)

    @nn.nowrap
    def share(self, train: bool, step) -> jax.Array:
        """How much of the quantization counts at this step, in [0, 1]: the blending."""
        if not train or step is None:
            return jnp.ones(())
        return ramp(step, start=self.start_step, length=self.blend_steps)

    @nn.nowrap
    def blended(self, z, q, codes, loss, scores, past, *, train, step) -> Quantized:
        """The last two steps: the loss in full, and q for the decoder in z's place.

        scores: over the temperature, as rows and biases; past: see `gradients`.
        """
        share = self.share(train, step)
        stats = {"distance": jnp.mean(jnp.square(q - z)), "share": share}
        if self.entropy_weight:
            loss += self.entropy_weight * entropy_loss(z, *scores, stats)
        loss = jnp.where(share > 0, loss, 0.0)
        return Quantized(past(z, q, share), codes, loss, stats, z)

    @nn.nowrap
    def after_update(self, params, codebook, latents, *, step, key):
        """Fill the table when quantization begins; revive idle codes after that."""
        chosen, usage = self.chosen(codebook["usage"], step)
        embedding = reseed(params["embedding"], chosen, latents, key)
        return {**params, "embedding": embedding}, {**codebook, "usage": usage}

    @nn.nowrap
    def chosen(self, usage, step) -> tuple[jax.Array, jax.Array]:
        """-> (which rows are to be moved: bool [K], the counts from here on: [K])."""
        fill = self.is_filled(step)
        since = step + 1 - self.start_step
        revive = (since > 0) & (since % max(self.revive_every, 1) == 0)
        revive &= (self.revive_every > 0) & (step < self.revive_until)
        chosen = fill | (revive & (usage == 0))
        return chosen, jnp.where(fill | revive, 0.0, usage)

    @nn.nowrap
    def is_filled(self, step):
        """Whether the table is filled after this step: the last without it."""
        return (step + 1 == self.start_step) & (self.start_step > 0)


class NearestCodebook(ReseededCodebook):
    """A table whose nearest entry is taken; `quantize` ends with `finished`.

    beta: of the commitment.
    gradient: what passes z over, a key of GRADIENTS.
    Scores are -|z - e|^2.
    """

    beta: float = 0.25
    gradient: str = "straight_through"

    def __post_init__(self):
        super().__post_init__()
        choose(type(self).__name__, "gradient", self.gradient, GRADIENTS)

    @nn.nowrap
    def finished(self, z, q, codes, loss, table, *, train, step) -> Quantized:
        """`blended`, by distances to the rows of `table`."""
        scores = by_distance(table, self.entropy_temperature)
        past = GRADIENTS[self.gradient]
        return self.blended(z, q, codes, loss, scores, past, train=train, step=step)


def reseed(embedding, chosen, latents, key) -> jax.Array:
    """Move the chosen rows (bool [K]) of `embedding` [K,D] onto random latents [...,D].

    Onto different ones, as long as there are enough of them; else a little beside them,
    since of equal codes only the first would ever be drawn.
    """
    places = drawn(latents, len(embedding), key)
    if latents.size < embedding.size:
        spread = latents.reshape(-1, latents.shape[-1]).std(axis=0)
        noise = jax.random.normal(jax.random.fold_in(key, 2), places.shape)
        places += APART * spread * noise
    return jnp.where(chosen[:, None], places, embedding)


def drawn(latents, size: int, key) -> jax.Array:
    """Latents [...,D] of a batch at random: [size,D], as different as they can be."""
    latents = latents.reshape(-1, latents.shape[-1])  # [N, D]
    supply = len(latents)
    return latents[jax.random.choice(key, supply, (size,), replace=supply < size)]
