"""A recipe card's sections as typed, checked objects.

A card (`configs/NAME.py`) is an `ml_collections.ConfigDict`; its sections become
these dataclasses once, by constructor, before anything is built: a key that does
not exist, a number that makes no sense or two options that exclude one another
end the run here, in one line, and not an hour later.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from taming_jax.conditions.table import requested
from taming_jax.guidance import check_schedule
from taming_jax.losses import ADVERSARIAL_LOSSES
from taming_jax.maps import Input, input_of
from taming_jax.orders import Order
from taming_jax.training.sections import (
    as_step,
    construct,
    plain,
    require,
    sorted_by_field,
)

NEVER = 2**31 - 1  # a step that no run reaches

Schedule = Literal["constant", "cosine"]
OnNonfinite = Literal["stop", "skip"]


@dataclasses.dataclass(frozen=True)
class Mesh:
    """How the devices are arranged; one axis may be -1: what is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW and its schedule. Rates are absolute: nothing multiplies them."""

    learning_rate: float
    b1: float = 0.9
    b2: float = 0.999
    weight_decay: float = 0.0
    clip: float | None = None  # global norm
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    final_share: float = 0.0  # of the learning rate, at the end of a cosine

    def __post_init__(self):
        require(self, "learning_rate", self.learning_rate > 0, "above 0")
        kinds = get_args(Schedule)
        require(self, "schedule", self.schedule in kinds, kinds)


@dataclasses.dataclass(frozen=True)
class Run:
    """What both stages have in common: how long, how much, how often."""

    steps: int
    batch_size: int  # global: over all devices and processes
    accumulate: int = 1  # micro-batches that one step's gradients are averaged over
    log_every: int = 50
    image_every: int = 1_000
    eval_every: int = 1_000
    eval_examples: int | None = None  # None: all of the held-out pictures
    checkpoint_every: int = 1_000
    keep_checkpoints: int = 3  # the newest; the best one is kept besides
    ema_decay: float = 0.999
    on_nonfinite: OnNonfinite = "stop"
    stall_seconds: float | None = 1_800  # a run that gets nowhere for so long ends

    def __post_init__(self):
        for name in ("steps", "batch_size", "accumulate", "log_every", "image_every",
                     "eval_every", "checkpoint_every", "keep_checkpoints"):  # fmt: skip
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")
        limit = self.stall_seconds
        require(self, "stall_seconds", limit is None or limit > 0, "above 0, or None")
        kinds = get_args(OnNonfinite)
        require(self, "on_nonfinite", self.on_nonfinite in kinds, kinds)
        require(
            self, "batch_size", self.batch_size % self.accumulate == 0,
            f"a multiple of accumulate={self.accumulate}",
        )  # fmt: skip


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


# What is wrong with an image, in parts; of class maps it is their cross-entropy.
IMAGE_WEIGHTS = ("l1_weight", "l2_weight", "difference_weight", "sharpness_weight",
                 "perceptual_weight")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class VQGANRecipe:
    """`config.vqgan` or `condition_vqgan`, sorted by what the program's parts need."""

    model: Mapping[str, Any]
    input: Input
    discriminator: Mapping[str, Any]
    loss: VQGANLoss
    optimizer: Optimizer
    disc_optimizer: Optimizer
    run: Run
    init_from: str | None = None  # a run whose weights are the first ones

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> "VQGANRecipe":
        """Builds the recipe of `config.vqgan`.

        Raises:
          ValueError: for a key that no part knows (the nearest is suggested), a
            missing one, or a value out of its range.
        """
        section = plain(section)
        for key in ("model", "learning_rate"):
            if key not in section:
                raise ValueError(f"vqgan: {key} is missing, set it")
        optimizer = section.pop("optimizer", {})
        disc_optimizer = section.pop("disc_optimizer", optimizer)
        learning_rate = section.pop("learning_rate")
        disc_learning_rate = section.pop("disc_learning_rate", None) or learning_rate
        parts = {"input": input_of(section), "model": section.pop("model")}
        section.pop("input", None), section.pop("stretch", None)
        parts["discriminator"] = section.pop("discriminator", {})
        parts["init_from"] = section.pop("init_from", None)
        if parts["init_from"]:
            parts["model"] = _with_codebook(parts["model"])
        losses, run = sorted_by_field(section, VQGANLoss, Run)
        if parts["model"].get("classes"):
            losses = dict.fromkeys(IMAGE_WEIGHTS, 0.0) | losses
        recipe = cls(
            **parts,
            loss=VQGANLoss(**losses),
            optimizer=construct(Optimizer, learning_rate=learning_rate, **optimizer),
            disc_optimizer=construct(
                Optimizer, learning_rate=disc_learning_rate, **disc_optimizer
            ),
            run=construct(Run, **run),
        )
        loss = recipe.loss.resolved(recipe.run.steps, begun=bool(recipe.init_from))
        return dataclasses.replace(recipe, loss=loss)

    def __post_init__(self):
        weights = [name for name in IMAGE_WEIGHTS if getattr(self.loss, name)]
        if weights and self.model.get("classes"):
            raise ValueError(
                f"{', '.join(weights)}: weights of images' losses, and class maps have "
                "only their cross-entropy, which counts 1: set them to 0"
            )
        if self.loss.alternating and self.run.accumulate > 1:
            raise ValueError(
                "alternating=True updates the discriminator after the generator and "
                f"cannot accumulate; accumulate={self.run.accumulate}, set it to 1"
            )
        if self.loss.r1_weight and self.discriminator.get("norm", "batch") == "batch":
            raise ValueError(
                f"r1_weight={self.loss.r1_weight} with discriminator.norm='batch', "
                "whose gradient at one picture is that of the whole batch: set norm="
                "'none' (with spectral_norm=True, for instance) or r1_weight=0"
            )


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a prior's samples are drawn where nobody says otherwise."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance: float = 1.0  # 1: none
    guidance_schedule: str = "constant"  # along the sequence, as `guidance` has them

    def __post_init__(self):
        check_schedule(self.guidance_schedule)


@dataclasses.dataclass(frozen=True)
class PriorRecipe:
    """`config.prior`, sorted into what each part of the program needs."""

    model: Mapping[str, Any]
    optimizer: Optimizer
    run: Run
    sampling: Sampling
    condition: Any = "label"  # a name out of `conditions.CONDITIONS`, with options as
    # {"name": ..., ...}, or a list of such; "none"; or "tokens", given as they are
    shared_vocabulary: bool = False  # the paper's: labels are said with codes' tokens
    label_dropout: float = 0.0  # share of pictures without their label, for guidance
    pkeep: float = 1.0  # share of image tokens that the model is shown as they are
    order: Order = "raster"  # of the codes: a name out of `orders.ORDERS`, or places
    random_order: float = 0.0  # share of pictures that are read in another (RAR)
    random_order_start: int | float = 0.5  # from here that share falls,
    random_order_end: int | float = 0.75  # and from here on there are none
    tokenizer: str | None = None  # a run or a model; None: this run's own
    condition_tokenizer: str | None = None  # likewise, of a condition that is a map
    init_from: str | None = None  # a run whose weights are the first ones

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> "PriorRecipe":
        """Builds the recipe of `config.prior`; raises ValueError as VQGANRecipe's."""
        section = plain(section)
        for key in ("model", "learning_rate"):
            if key not in section:
                raise ValueError(f"prior: {key} is missing, set it")
        optimizer = section.pop("optimizer", {})
        optimizer["learning_rate"] = section.pop("learning_rate")
        sampling = section.pop("sampling", {})
        own, run = sorted_by_field(section, PriorRecipe, Run)
        return cls(
            **own,
            optimizer=construct(Optimizer, **optimizer),
            run=construct(Run, **run),
            sampling=construct(Sampling, **sampling),
        )

    def __post_init__(self):
        requested(self.condition)  # or it says what is wrong with it
        require(self, "label_dropout", 0 <= self.label_dropout < 1, "in [0, 1)")
        require(self, "pkeep", 0 < self.pkeep <= 1, "in (0, 1]")
        nameless = self.condition == "none" or self.shared_vocabulary
        require(
            self, "label_dropout", not (nameless and self.label_dropout),
            "0 without labels, and in the paper's shared vocabulary, which has no "
            "token for `no label`",
        )  # fmt: skip
        require(self, "random_order", 0 <= self.random_order <= 1, "in [0, 1]")
        if self.random_order and not self.model.get("target_positions"):
            raise ValueError(
                f"random_order={self.random_order} needs a model that is told which "
                "place is asked for: set model.target_positions=True"
            )
        start, end = self.random_order_steps
        require(
            self, "random_order_end", start <= end,
            f"not before random_order_start={self.random_order_start}",
        )  # fmt: skip
        if self.sampling.guidance != 1 and not self.label_dropout:
            raise ValueError(
                f"sampling.guidance={self.sampling.guidance} needs a prior that also "
                "learns without labels: set label_dropout (0.1 is usual), or guidance=1"
            )

    @property
    def random_order_steps(self) -> tuple[int, int]:
        """From which step on fewer pictures are shuffled, and from which on none."""
        ends = self.random_order_start, self.random_order_end
        return tuple(as_step(end, self.run.steps) for end in ends)


def _with_codebook(model: Mapping[str, Any]) -> dict[str, Any]:
    """The same model, whose quantizer does not wait for a codebook: it has one."""
    quantizer = dict(model.get("quantizer", {}))
    soft_start = {"start_step", "blend_steps"} & quantizer.keys()
    return {**model, "quantizer": quantizer | dict.fromkeys(soft_start, 0)}


def mesh_from_config(section: Mapping[str, Any]) -> Mesh:
    """`config.mesh`; raises ValueError for a key that is no axis."""
    return construct(Mesh, **plain(section))
