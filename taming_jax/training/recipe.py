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
from taming_jax.maps import Input, input_of
from taming_jax.orders import Order
from taming_jax.training.loss_weights import IMAGE_WEIGHTS, VQGANLoss
from taming_jax.training.sections import (
    as_step,
    construct,
    plain,
    require,
    sorted_by_field,
)

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
    """AdamW, or Muon for matrices, and a schedule. Nothing else multiplies rates."""

    learning_rate: float
    b1: float = 0.9
    b2: float = 0.999
    weight_decay: float = 0.0
    clip: float | None = None  # global norm
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    final_share: float = 0.0  # of the learning rate, at the end of a cosine
    muon: float = 0.0  # times the learning rate is that of matrices; 0: AdamW for all

    def __post_init__(self):
        require(self, "learning_rate", self.learning_rate > 0, "above 0")
        require(self, "muon", self.muon >= 0, "at least 0")
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
