"""A recipe card's sections as typed, checked objects.

A card (`configs/NAME.py`) is an `ml_collections.ConfigDict`; its sections become
these dataclasses once, by constructor, before anything is built: a key that does
not exist, a number that makes no sense or two options that exclude one another
end the run here, in one line, and not an hour later.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Literal, get_args

NEVER = 2**31 - 1  # a step that no run reaches

Schedule = Literal["constant", "cosine"]
AdversarialLoss = Literal["hinge", "vanilla"]
OnNonfinite = Literal["stop", "skip"]
Condition = Literal["label", "none"]


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
        _require(self, "learning_rate", self.learning_rate > 0, "above 0")
        kinds = get_args(Schedule)
        _require(self, "schedule", self.schedule in kinds, kinds)


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
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        _require(self, "ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")
        limit = self.stall_seconds
        _require(self, "stall_seconds", limit is None or limit > 0, "above 0, or None")
        kinds = get_args(OnNonfinite)
        _require(self, "on_nonfinite", self.on_nonfinite in kinds, kinds)
        _require(
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
    codebook_weight: float = 1.0
    adversarial_loss: AdversarialLoss = "hinge"
    adversarial_weight: float = 0.8  # 0: no discriminator at all
    adaptive_weight: bool = True
    disc_start: int | float = 0  # from here the discriminator learns
    adversarial_start: int | float | None = None  # from here it counts; None: at once
    disc_warmup: int = 2_000  # or, after init_from, so many steps after disc_start
    adversarial_ramp: int = 0  # steps to full weight
    decoder_only_start: int | float | None = None  # from here the codes are frozen
    alternating: bool = False  # the original's order: a second forward pass

    def __post_init__(self):
        kinds = get_args(AdversarialLoss)
        _require(self, "adversarial_loss", self.adversarial_loss in kinds, kinds)
        for name in ("l1_weight", "l2_weight", "difference_weight",
                     "sharpness_weight", "perceptual_weight", "codebook_weight",
                     "adversarial_weight", "disc_warmup"):  # fmt: skip
            _require(self, name, getattr(self, name) >= 0, "at least 0")

    def resolved(self, steps: int, begun: bool) -> "VQGANLoss":
        """The same with every start as a step of a run of `steps`.

        begun: whether the model begins with weights. Then a discriminator that knows
        nothing yet, or not yet these pictures, would spoil it: it learns first.
        """
        disc_start = _as_step(self.disc_start, steps)
        counts = self.adversarial_start
        if counts is None and begun:
            counts = disc_start + self.disc_warmup
        frozen = self.decoder_only_start
        return dataclasses.replace(
            self,
            disc_start=disc_start,
            adversarial_start=disc_start if counts is None else _as_step(counts, steps),
            decoder_only_start=NEVER if frozen is None else _as_step(frozen, steps),
        )


@dataclasses.dataclass(frozen=True)
class VQGANRecipe:
    """`config.vqgan`, sorted into what each part of the program needs."""

    model: Mapping[str, Any]
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
        parts = {"model": section.pop("model")}
        parts["discriminator"] = section.pop("discriminator", {})
        parts["init_from"] = section.pop("init_from", None)
        losses, run = _sorted_by_field(section, VQGANLoss, Run)
        recipe = cls(
            **parts,
            loss=VQGANLoss(**losses),
            optimizer=_construct(Optimizer, learning_rate=learning_rate, **optimizer),
            disc_optimizer=_construct(
                Optimizer, learning_rate=disc_learning_rate, **disc_optimizer
            ),
            run=_construct(Run, **run),
        )
        loss = recipe.loss.resolved(recipe.run.steps, begun=bool(recipe.init_from))
        return dataclasses.replace(recipe, loss=loss)

    def __post_init__(self):
        if self.loss.alternating and self.run.accumulate > 1:
            raise ValueError(
                "alternating=True updates the discriminator after the generator and "
                f"cannot accumulate; accumulate={self.run.accumulate}, set it to 1"
            )


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a prior's samples are drawn where nobody says otherwise."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance: float = 1.0  # 1: none


@dataclasses.dataclass(frozen=True)
class PriorRecipe:
    """`config.prior`, sorted into what each part of the program needs."""

    model: Mapping[str, Any]
    optimizer: Optimizer
    run: Run
    sampling: Sampling
    condition: Condition = "label"
    shared_vocabulary: bool = False  # the paper's: labels are said with codes' tokens
    label_dropout: float = 0.0  # share of pictures without their label, for guidance
    pkeep: float = 1.0  # share of image tokens that the model is shown as they are
    tokenizer: str | None = None  # a run or a model; None: this run's own
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
        own, run = _sorted_by_field(section, PriorRecipe, Run)
        return cls(
            **own,
            optimizer=_construct(Optimizer, **optimizer),
            run=_construct(Run, **run),
            sampling=_construct(Sampling, **sampling),
        )

    def __post_init__(self):
        kinds = get_args(Condition)
        _require(self, "condition", self.condition in kinds, kinds)
        _require(self, "label_dropout", 0 <= self.label_dropout < 1, "in [0, 1)")
        _require(self, "pkeep", 0 < self.pkeep <= 1, "in (0, 1]")
        nameless = self.condition == "none" or self.shared_vocabulary
        _require(
            self, "label_dropout", not (nameless and self.label_dropout),
            "0 without labels, and in the paper's shared vocabulary, which has no "
            "token for `no label`",
        )  # fmt: skip
        if self.sampling.guidance != 1 and not self.label_dropout:
            raise ValueError(
                f"sampling.guidance={self.sampling.guidance} needs a prior that also "
                "learns without labels: set label_dropout (0.1 is usual), or guidance=1"
            )


def mesh_from_config(section: Mapping[str, Any]) -> Mesh:
    """`config.mesh`; raises ValueError for a key that is no axis."""
    return _construct(Mesh, **plain(section))


def plain(config: Any) -> Any:
    """A ConfigDict (or what lies in one) as plain dicts, lists and numbers."""
    if isinstance(config, Mapping) or hasattr(config, "items"):
        return {key: plain(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [plain(value) for value in config]
    return config


def _sorted_by_field(section: dict, *classes: type) -> list[dict]:
    """Each key of the section to the class that has such a field."""
    names = [{field.name for field in dataclasses.fields(cls)} for cls in classes]
    for key in section:
        if not any(key in fields for fields in names):
            raise ValueError(_unknown(key, set().union(*names)))
    return [{k: v for k, v in section.items() if k in fields} for fields in names]


def _construct(cls: type, **fields):
    known = {field.name: field for field in dataclasses.fields(cls)}
    for key in fields:
        if key not in known:
            raise ValueError(_unknown(key, known))
    for key, field in known.items():
        if field.default is dataclasses.MISSING and key not in fields:
            raise ValueError(f"{cls.__name__.lower()}: {key} is missing, set it")
    return cls(**fields)


def _unknown(key: str, known) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {sorted(known)}"
    return f"unknown key {key!r} in the recipe: {hint}"


def _as_step(start: int | float, steps: int) -> int:
    if isinstance(start, float) and not start.is_integer():
        return round(start * steps)
    return int(start)


def _require(section, name: str, holds: bool, allowed) -> None:
    if not holds:
        if isinstance(allowed, tuple):
            allowed = f"one of {', '.join(allowed)}"
        given = getattr(section, name)
        raise ValueError(f"{name}={given!r} is not allowed: it must be {allowed}")
