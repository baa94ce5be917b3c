"""What a prior's tokens mean: codes, and what pictures are asked for by.

    label -> condition token [B, 1]
    codes [B, h, w] -> image tokens [B, h * w], row by row or in another order
    sequence = condition tokens, then image tokens

Codes are the tokens 0..K-1 in every vocabulary; whatever else there is follows them, so
that "can be drawn" means "is below K".
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from taming_jax.units import Codes, Labels, Tokens


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The tokens of one prior.

        0 .. K-1      codes
        K .. K+C-1    class labels
        K+C           no label: unconditional, or dropped for guidance

    Attributes:
      codes: K, the size of the tokenizer's codebook.
      classes: C, 0 for an unconditional prior.
      shared: the paper's: label c is said with token c and there are no others.
      start: what an unconditional sequence begins with in a shared vocabulary (Esser
        et al. 2021, `sos_token`).

    Raises:
      ValueError: for a shared vocabulary with more classes than codes.
    """

    codes: int
    classes: int = 0
    shared: bool = False
    start: int = 0

    def __post_init__(self):
        if self.shared and self.classes > self.codes:
            raise ValueError(
                f"shared_vocabulary=True says {self.classes} classes with "
                f"{self.codes} codes: set it to False, or take a larger codebook"
            )

    @property
    def size(self) -> int:
        """How many tokens there are: V."""
        return self.codes if self.shared else self.codes + self.classes + 1

    @property
    def nothing(self) -> int:
        """The token that asks for nothing in particular."""
        return self.start if self.shared else self.codes + self.classes

    def label_tokens(self, labels: Labels) -> Tokens:
        """Labels [B] in [0, C) -> condition tokens [B, 1]."""
        first = 0 if self.shared else self.codes
        return (first + jnp.asarray(labels, jnp.int32))[:, None]

    def no_label(self, batch: int) -> Tokens:
        """Condition tokens [B, 1] that leave the picture to the prior."""
        return jnp.full((batch, 1), self.nothing, jnp.int32)

    def condition_tokens(self, labels: Labels | None, batch: int) -> Tokens:
        """Labels [B], or None in an unconditional prior -> [B, 1]."""
        return self.no_label(batch) if labels is None else self.label_tokens(labels)


def image_tokens(codes: Codes, order=None) -> Tokens:
    """[B, h, w] -> [B, h * w]; in the order of `orders.make_order`, or by rows."""
    tokens = codes.reshape(len(codes), -1)
    return tokens if order is None else tokens[:, np.asarray(order)]


def codes_of(tokens: Tokens, grid: tuple[int, int], order=None) -> Codes:
    """[B, h * w] -> [B, h, w]: the inverse of `image_tokens`."""
    if order is not None:
        tokens = tokens[:, np.argsort(order)]
    return tokens.reshape(len(tokens), *grid)
