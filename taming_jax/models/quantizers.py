"""Quantizers: a grid of latents becomes a grid of codes, and comes back.

    z [B,h,w,D] -> quantizer(z, train=, step=) -> Quantized -> lookup(codes) [B,h,w,D]

    B batch    h, w grid    D dim    K codebook_size    N = B h w latents

              a code stands for        and is drawn as             what moves it
    vq        a row of a table         the nearest                 the loss
    l2        a row of length 1        the nearest                 the loss
    ema       a row                    the nearest                 means of its latents
    online    a row                    the nearest                 the loss, or latents
    gumbel    a row                    the likeliest, with noise   the decoder
    fsq       a level in each dim      each dim's nearest          nothing
    lfq       a sign in each dim       each dim's sign             nothing
    ibq       a row                    the most alike              all of a softmax
    simvq     a row of E W + b         the nearest                 the loss, by W and b

Where the nearest or most alike of a table is taken, the steps are the same, in the same
order: project, scores, codes, vectors, loss, straight-through. gumbel has odds in the
place of scores, and nothing to pass over where its draws are soft; fsq and lfq round
each dimension alone. What they share is written once: in `quantization` what is the
same for all, in `codebook` what is for tables, in `lookup` what is to be done with all
K codes, in chunks of them, in `gradients` the ways past a quantization, in `arithmetic`
the rest, in `quantizer_fields` what they refuse. All of it is float32, whatever the
activations are.

What gradients move is in "params"; what they do not (counts, averages, constants) is in
the collection "codebook", mutable in training. Noise comes from the rng stream
"quantizer". `after_update(params, codebook, latents, step=, key=)` returns the first
two renewed: a pure function, called by the training step on the quantizer's own
sub-trees when the optimizer is done, for everything that sets codes by hand.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from taming_jax.models import arithmetic, quantizer_fields
from taming_jax.models.arithmetic import codebook_loss, digits, ema, from_digits
from taming_jax.models.codebook import (
    Codebook,
    NearestCodebook,
    ReseededCodebook,
    drawn,
    reseed,
)
from taming_jax.models.convolution import Conv, flat, normal, uniform
from taming_jax.models.fields import choose, strict
from taming_jax.models.gradients import mixed, straight_through, unit_length
from taming_jax.models.lookup import best, index_backpropagation, nearest
from taming_jax.models.quantization import Quantized, Quantizer
from taming_jax.models.schedules import warm_up_cosine
from taming_jax.units import Codes


@strict
class VQ(NearestCodebook):
    """The nearest entry of a learned table.

    k = argmin_k |z - e_k|^2,  loss = |sg z - e_k|^2 + beta |z - sg e_k|^2
    van den Oord et al. 2017; with `normalize`, z and e_k scaled to length 1 first:
    this is L2. `legacy` has beta on the other term, as published models do.
    """

    legacy: bool = False
    normalize: bool = False

    def setup(self):
        bound = 1 / self.codebook_size
        self.make_table(normal(1.0) if self.normalize else uniform(bound))

    def quantize(self, z: jax.Array, *, train: bool, step) -> Quantized:
        z, table = self.project(z), self.project(self.embedding)
        codes = nearest(z, table)
        q = self.vectors(codes)
        loss = codebook_loss(
            z=z, q=q, beta=self.beta, beta_on_commitment=not self.legacy
        )
        return self.finished(z, q, codes, loss, table, train=train, step=step)

    def vectors(self, codes: Codes) -> jax.Array:
        return self.project(super().vectors(codes))

    @nn.nowrap
    def project(self, vectors: jax.Array) -> jax.Array:
        return unit_length(vectors) if self.normalize else vectors


@strict
class L2(VQ):
    """The entry in the nearest direction: few dimensions, all of them in use.

    z <- z / |z|, e_k <- e_k / |e_k|, then as VQ: argmin_k |z - e_k|^2 is the highest
    cosine, and no code is out of reach for its length.
    Yu et al. 2022 (ViT-VQGAN), with 8 to 32 dimensions.
    """

    normalize: bool = True

    def __post_init__(self):
        super().__post_init__()
        if not self.normalize:
            raise ValueError(
                "L2 has normalize=False, and is VQ with normalize=True: leave it out, "
                "or take name='vq'"
            )


@strict
class EMA(NearestCodebook):
    """The nearest entry of a table whose rows are running means of their latents.

    k = argmin_k |z - e_k|^2,  loss = beta |z - sg e_k|^2,  e_k = m_k / n_k where
    n_k <- d n_k + (1 - d) #{z at k},  m_k <- d m_k + (1 - d) sum of these z
    van den Oord et al. 2017, appendix A.1; n_k is smoothed by `epsilon` (Laplace), and
    starts at 1, also when revived: from 0, as there, e_k is blown up without latents.
    """

    decay: float = 0.99
    epsilon: float = 1e-5
    COPIES = 6  # the sums, too

    def setup(self):
        self.make_table(normal(1.0))
        self.sizes = self.remember("sizes", lambda: jnp.ones(self.codebook_size))
        self.sums = self.remember("sums", lambda: self.embedding)

    def quantize(self, z: jax.Array, *, train: bool, step) -> Quantized:
        table = jax.lax.stop_gradient(self.embedding)
        codes = nearest(z, table)
        q = jnp.take(table, codes, axis=0)
        loss = self.beta * jnp.mean(jnp.square(z - q))
        return self.finished(z, q, codes, loss, table, train=train, step=step)

    @nn.nowrap
    def after_update(self, params, codebook, latents, *, step, key):
        """Move the averages, and every code onto its own; then the two remedies."""
        counts, totals = arithmetic.gathered(latents, params["embedding"])
        sizes = ema(codebook["sizes"], counts, self.decay)
        sums = ema(codebook["sums"], totals, self.decay)
        embedding = sums / arithmetic.smoothed(sizes, self.epsilon)[:, None]
        chosen, usage = self.chosen(codebook["usage"], step)
        embedding = reseed(embedding, chosen, latents, key)
        sizes = jnp.where(chosen, 1.0, sizes)
        sums = jnp.where(chosen[:, None], embedding, sums)
        codebook = {**codebook, "sizes": sizes, "sums": sums, "usage": usage}
        return {**params, "embedding": embedding}, codebook


@strict
class Online(VQ):
    """The nearest entry of a learned table whose idle rows follow the latents.

    As VQ; then with s_k the share of latents at k, and z_k a random one of them all,
    p_k <- d p_k + (1 - d) s_k,  a_k = exp(-10 K p_k / (1 - d) - 0.001)
    e_k <- (1 - a_k) e_k + a_k z_k
    Zheng and Vedaldi 2023 (CVQ-VAE); p starts at 0, so that the table begins as latents
    """

    decay: float = 0.99
    NO_REVIVAL = "moves idle codes in every step"

    def setup(self):
        super().setup()
        self.shares = self.remember("shares", lambda: jnp.zeros(self.codebook_size))

    @nn.nowrap
    def after_update(self, params, codebook, latents, *, step, key):
        """Fill the table when quantization begins; move idle codes in every step."""
        params, codebook = super().after_update(
            params, codebook, latents, step=step, key=key
        )
        codes = nearest(latents, self.project(params["embedding"]))
        shares = arithmetic.occurrences(codes, self.codebook_size) / codes.size
        p = ema(codebook["shares"], shares, self.decay)
        a = jnp.exp(-10 * self.codebook_size * p / (1 - self.decay) - 1e-3)[:, None]
        z = drawn(latents, self.codebook_size, jax.random.fold_in(key, 1))
        embedding = (1 - a) * params["embedding"] + a * z
        return {**params, "embedding": embedding}, {**codebook, "shares": p}


@strict
class Gumbel(Codebook):
    """A code drawn by odds that are learned, softened by a temperature T.

    l = W z + b,  y = softmax((l + g) / T),  k = argmax_k y_k,  q = sum_k y_k e_k
    loss = kl_weight sum_k p_k log(K p_k) with p = softmax(l)
    Jang et al. 2017; Gumbel noise g in training only. `straight_through`: y is one-hot
    forward, soft backward; in evaluation it is one-hot. T as `warm_up_cosine` goes
    through `temperature` by the steps `temperature_steps`, here as Ramesh et al. 2021.
    """

    kl_weight: float = 1e-8
    straight_through: bool = True
    temperature: Sequence[float] = (1.0, 1.0, 1 / 16)
    temperature_steps: Sequence[int] = (0, 150_000)

    def __post_init__(self):
        super().__post_init__()
        quantizer_fields.check_odds(self.codebook_size)

    def setup(self):
        self.proj = Conv(self.codebook_size, size=1)
        self.make_table(normal(1.0))

    def quantize(self, z: jax.Array, *, train: bool, step) -> Quantized:
        logits = self.logits(z)
        kl = arithmetic.divergence(jax.nn.softmax(logits))
        step = self.temperature_steps[1] if step is None else step
        temperature = warm_up_cosine(step, self.temperature, self.temperature_steps)
        if train:
            logits += flat(jax.random.gumbel, self.make_rng("quantizer"), logits.shape)
        codes = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        y = jax.nn.one_hot(codes, self.codebook_size)
        if train:
            soft = jax.nn.softmax(logits / temperature)
            y = straight_through(soft, y, float(self.straight_through))
        q = jnp.einsum("...k,kd->...d", y, self.embedding, precision="highest")
        stats = {"divergence": kl, "temperature": temperature}
        return Quantized(q, codes, self.kl_weight * kl, stats, z)

    def logits(self, z: jax.Array) -> jax.Array:
        """z [B,h,w,D] -> [B,h,w,K]; -inf for codes that are not used."""
        with jax.default_matmul_precision("highest"):
            return jnp.where(self.is_used(), self.proj(z), -jnp.inf)


@strict
class FSQ(Quantizer):
    """Every dimension rounded to one of a few levels; codes are their combinations.

    q_i = round(f_i(z_i)) / [L_i / 2],  f_i(x) = h_i tanh(x + s_i) - o_i,  loss = 0,
    h_i = (L_i - 1) / 2, o_i = 1/2 for even L_i, else 0, and s_i such that f_i(0) = 0
    k = sum_i (q_i [L_i / 2] + [L_i / 2]) L_1 ... L_{i-1}
    Mentzer et al. 2023: 8,6,5 for 2^8 codes, 8,5,5,5 for 2^10, 8,8,8,6,5 for 2^14
    """

    codebook_size: int | None = None  # what the levels multiply to
    dim: int | None = None  # how many they are
    levels: Sequence[int] = ()

    def __post_init__(self):
        self.codebook_size, self.dim = quantizer_fields.check_levels(
            self.levels, self.codebook_size, self.dim
        )
        super().__post_init__()

    def setup(self):
        self.make_counts()

    def quantize(self, z: jax.Array, *, train: bool, step) -> Quantized:
        z = arithmetic.within(z, self.levels)
        codes = from_digits(jnp.round(z) + np.array(self.levels) // 2, self.levels)
        z = z / (np.array(self.levels) // 2)
        q = self.vectors(codes)
        stats = {"distance": jnp.mean(jnp.square(q - z))}
        z_q = straight_through(z, q, 1.0)
        return Quantized(z_q, codes, jnp.zeros(()), stats, z)

    def vectors(self, codes: Codes) -> jax.Array:
        """[...] -> [...,D] in [-1,1]."""
        half = np.array(self.levels) // 2
        return (digits(codes, self.levels) - half) / half.astype(np.float32)


@strict
class LFQ(Quantizer):
    """The sign of every dimension: codes are numbers written in bits, K = 2^D.

    q_i = sign z_i,  k = sum_i [z_i > 0] 2^(i-1)
    loss = beta |z - sg q|^2 + entropy_weight (E[H(p)] - H(E[p])),
    p = softmax(-|z - q_k|^2 / entropy_temperature)
    Yu et al. 2023 (MAGVIT-2); above 2^12 codes entropies are of groups of bits, summed
    (Luo et al. 2024; two of 9 for 2^18): a bound of the second, the first is the same.
    """

    dim: int | None = None  # the number of bits
    beta: float = 0.25
    entropy_weight: float = 0.1
    entropy_temperature: float = 0.01

    def __post_init__(self):
        self.dim = quantizer_fields.check_bits(self.codebook_size, self.dim)
        super().__post_init__()

    def setup(self):
        self.make_counts()

    def quantize(self, z: jax.Array, *, train: bool, step) -> Quantized:
        codes = from_digits(z > 0, [2] * self.dim)
        q = self.vectors(codes)
        distance = jnp.mean(jnp.square(z - q))
        loss, stats = self.beta * distance, {"distance": distance}
        if self.entropy_weight:
            entropy = arithmetic.bits_entropy(z, self.entropy_temperature, stats)
            loss += self.entropy_weight * entropy
        return Quantized(straight_through(z, q, 1.0), codes, loss, stats, z)

    def vectors(self, codes: Codes) -> jax.Array:
        """[...] -> [...,D], -1 or 1 each."""
        return 2.0 * digits(codes, [2] * self.dim) - 1.0


@strict
class IBQ(ReseededCodebook):
    """The entry most alike, of a table that learns in all its rows at once.

    l_k = z . e_k,  k = argmax_k l_k,  o = one-hot(k) - sg p + p with p = softmax(l),
    q = sum_k o_k e_k: backward every e_k is drawn with its odds
    loss = |z - q|^2 + |z - sg e_k|^2 + beta |sg z - e_k|^2
           + entropy_weight (E[H(r)] - H(E[r])),  r = softmax(l / entropy_temperature)
    Shi et al. 2024, with its double quantization loss.
    """

    beta: float = 0.25
    entropy_weight: float = 0.05
    entropy_temperature: float = 0.01

    def setup(self):
        self.make_table(normal(self.dim**-0.5))

    @nn.nowrap
    def is_filled(self, step):
        return False  # with latents the longest of them would be most like all others

    def quantize(self, z: jax.Array, *, train: bool, step) -> Quantized:
        codes = best(z, self.embedding)
        q, hard = index_backpropagation(z, self.embedding, codes), self.vectors(codes)
        loss = codebook_loss(z=z, q=hard, beta=self.beta, beta_on_commitment=False)
        loss += jnp.mean(jnp.square(z - q))
        scores = self.embedding / self.entropy_temperature, None
        return self.blended(z, q, codes, loss, scores, mixed, train=train, step=step)


@strict
class SimVQ(NearestCodebook):
    """The nearest entry of a fixed table, seen through one learned projection.

    e_k = E_k W + b with E ~ N(0, 1/D), constant;  then as VQ: each latent moves W and
    b, and so every code
    Zhu et al. 2024. E is "basis" in the collection "codebook". A soft start gives W
    and b the latents' mean and covariance, where other tables are filled with latents.
    """

    COPIES = 3  # basis, codes and their gradient
    NO_REVIVAL = "has no rows that could be moved"

    def setup(self):
        bound, size = self.dim**-0.5, (self.codebook_size, self.dim)
        self.basis = self.variable(
            "codebook", "basis", lambda: normal(bound)(self.make_rng("params"), size)
        )
        self.kernel = self.param("kernel", uniform(bound), (self.dim, self.dim))
        self.bias = self.param("bias", uniform(bound), (self.dim,))
        self.make_counts()

    def quantize(self, z: jax.Array, *, train: bool, step) -> Quantized:
        table = self.project(self.basis.value)
        codes = nearest(z, table)
        q = self.vectors(codes)
        loss = codebook_loss(z=z, q=q, beta=self.beta, beta_on_commitment=True)
        return self.finished(z, q, codes, loss, table, train=train, step=step)

    def vectors(self, codes: Codes) -> jax.Array:
        return self.project(jnp.take(self.basis.value, codes, axis=0))

    @nn.nowrap
    def project(self, basis: jax.Array) -> jax.Array:
        return jnp.matmul(basis, self.kernel, precision="highest") + self.bias

    @nn.nowrap
    def after_update(self, params, codebook, latents, *, step, key):
        """Spread the codes as the latents are when quantization begins."""
        del key
        renewed = arithmetic.spread_as(latents)
        fill = self.is_filled(step)
        params = {k: jnp.where(fill, renewed[k], old) for k, old in params.items()}
        return params, codebook


QUANTIZERS = {
    "vq": VQ,
    "l2": L2,
    "ema": EMA,
    "online": Online,
    "gumbel": Gumbel,
    "fsq": FSQ,
    "lfq": LFQ,
    "ibq": IBQ,
    "simvq": SimVQ,
}


def kind_of(settings: Mapping[str, Any]) -> str:
    """What the codes are, in words, from the fields in a card; alike if they are."""
    fields = dict(settings)
    name = fields.pop("name", "vq")
    quantizer = choose("VQGAN", "quantizer", name, QUANTIZERS)(**fields, parent=None)
    if getattr(quantizer, "normalize", False):
        name = "online l2" if name == "online" else "l2"
    levels = ", ".join(map(str, fields.get("levels", ())))
    kind = f"{name} of {quantizer.codebook_size} codes, dim {quantizer.dim}"
    return f"{kind}, levels {levels}" if levels else kind
