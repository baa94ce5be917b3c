"""What the first stage's losses weigh, and from which step on the adversary counts.

    keys of a section --construct--> VQGANLoss, checked --resolved--> starts as steps

A recipe says when things begin by a step or by a share of the run; `phases` and the
step know steps alone, and a start that never comes is NEVER.
"""

import dataclasses

from taming_jax.losses import ADVERSARIAL_LOSSES
from taming_jax.training.sections import as_step, require

NEVER = 2**31 - 1  # a step that no run reaches

# What is wrong with an image, in parts; of class maps it is their cross-entropy.
IMAGE_WEIGHTS = ("l1_weight", "l2_weight", "difference_weight", "sharpness_weight",
                 "perceptual_weight")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class VQGANLoss:
    """Weights of the first stage's losses and when the adversary comes in.

    A start is a step (int) or a share of the run (float below 1).
    """

    l1_weight: float = 1.0
    l2_weight: float = 0.0
    difference_weight: float = 0.0  # L1 of the differences between neighbours
    sharpness_weight: float = 0.0  # of how much they differ in a window
    perceptual_weight: float = 1.0
    perceptual_weights: str | None = None  # a file; None: the user's cache
    perceptual_dropout: float = 0.0  # of its features; the original leaves 0.5 on
    codebook_weight: float = 1.0
    adversarial_loss: str = "hinge"  # of both players, see losses.ADVERSARIAL_LOSSES
    adversarial_weight: float = 0.8  # 0: no discriminator at all
    adaptive_weight: bool = True
    disc_start: int | float = 0  # from here the discriminator learns
    adversarial_start: int | float | None = None  # from here it counts; None: at once
    disc_warmup: int = 2_000  # or, after init_from, so many steps after disc_start
    adversarial_ramp: int = 0  # steps to full weight
    decoder_only_start: int | float | None = None  # from here the codes are frozen
    alternating: bool = False  # the original's order: a second forward pass
    lecam_weight: float = 0.0  # keeps the discriminator near what it used to say
    lecam_decay: float = 0.999  # of what it used to say, per step
    r1_weight: float = 0.0  # gamma of R1: keeps it flat at the real pictures
    r1_every: int = 1  # steps; so many times as heavy when it is its turn

    def __post_init__(self):
        kinds = tuple(ADVERSARIAL_LOSSES)
        require(self, "adversarial_loss", self.adversarial_loss in kinds, kinds)
        for name in ("l1_weight", "l2_weight", "difference_weight",
                     "sharpness_weight", "perceptual_weight", "codebook_weight",
                     "adversarial_weight", "disc_warmup", "lecam_weight",
                     "r1_weight"):  # fmt: skip
            require(self, name, getattr(self, name) >= 0, "at least 0")
        require(self, "lecam_decay", 0 <= self.lecam_decay < 1, "in [0, 1)")
        whole = isinstance(self.r1_every, int) and self.r1_every >= 1
        require(self, "r1_every", whole, "a whole number of steps, at least 1")
        self._check_regularisation()
        dropout = self.perceptual_dropout
        require(self, "perceptual_dropout", 0 <= dropout < 1, "in [0, 1)")

    def _check_regularisation(self):
        """Raises ValueError for a discriminator's where it has nothing to act on."""
        for name in ("lecam_weight", "r1_weight"):
            if not getattr(self, name):
                continue
            if not self.adversarial_weight:
                raise ValueError(
                    f"{name}={getattr(self, name)} is about a discriminator, and "
                    "adversarial_weight=0 leaves it out: set one of them"
                )
            if self.alternating:
                raise ValueError(
                    f"{name}={getattr(self, name)} with alternating=True: the "
                    "original's order has no regularisation; set one of them to 0, "
                    "or False"
                )

    def resolved(self, steps: int, begun: bool = False) -> "VQGANLoss":
        """The same with every start as a step of a run of `steps`.

        begun: whether the model begins with weights. Then a discriminator that knows
        nothing yet, or not yet these pictures, would spoil it: it learns first.
        """
        disc_start = as_step(self.disc_start, steps)
        counts = self.adversarial_start
        if counts is None and begun:
            counts = disc_start + self.disc_warmup
        frozen = self.decoder_only_start
        return dataclasses.replace(
            self,
            disc_start=disc_start,
            adversarial_start=disc_start if counts is None else as_step(counts, steps),
            decoder_only_start=NEVER if frozen is None else as_step(frozen, steps),
        )
