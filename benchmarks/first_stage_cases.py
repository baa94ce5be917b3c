"""What `benchmarks.first_stage` times: the demo in each phase, and the paper's models.

    CASES["paper-small"]() -> Case

The demo's have the quantizer vq in the place of the card's ema: the twin in PyTorch
learns all of it by one optimizer. The paper's need none of configs/: they run where
ml_collections is not installed.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from taming_jax.training.phases import Phase
from taming_jax.training.sections import plain


class Case(NamedTuple):
    """What is timed: a card's section, its pictures, and where the run stands."""

    section: Mapping[str, Any]
    size: int
    batch: int
    step: int
    phase: Phase


def paper(channels: int, size: int, batch: int, **more) -> Case:
    """The paper's model and losses, all of them counting from the first step."""
    backbone = {
        "channels": channels,
        "multipliers": (1, 1, 2, 2, 4),
        "attention_resolutions": (16,),
        "resolution": size,
        "latent_channels": 256,
    }
    quantizer = {"name": "vq", "codebook_size": 16_384, "dim": 256, "legacy": True}
    model = {"encoder": {"blocks": 2, **backbone}, "decoder": {"blocks": 3, **backbone}}
    section = {
        "model": model | {"quantizer": quantizer},
        "discriminator": {"channels": channels // 2, "layers": 3, "norm": "batch"},
        "learning_rate": 5.4e-5,
        "optimizer": {"b1": 0.5, "b2": 0.9},
        "steps": 1_000,
        "batch_size": batch,
        **more,
    }
    return Case(section, size, batch, 0, Phase(judged=True, frozen=False))


def shapes(phase: Phase) -> Case:
    """configs/shapes.py with vq, when quantization has begun, at one learning rate."""
    from configs import shapes

    card = plain(shapes.get_config())
    section = card["vqgan"] | {"disc_start": 0, "adversarial_start": 0}
    section["optimizer"] |= {"schedule": "constant", "warmup_steps": 0}
    section["model"]["quantizer"] |= {"name": "vq"}
    size, batch = card["data"]["image_size"], section["batch_size"]
    return Case(section, size, batch, 1_000, phase)


def check_twin(model: Mapping[str, Any]) -> None:
    """Raises ValueError for a model whose quantizer the twin in PyTorch has not."""
    if (name := model["quantizer"].get("name", "vq")) != "vq":
        raise ValueError(f"the PyTorch twin has the quantizer vq, not {name}")


CASES = {
    "shapes": partial(shapes, Phase(judged=False, frozen=False)),
    "shapes-judged": partial(shapes, Phase(judged=True, frozen=False)),
    "shapes-frozen": partial(shapes, Phase(judged=True, frozen=True)),
    "paper-small": partial(paper, 32, 64, 4, perceptual_weight=0.0),
    "paper-small-perceptual": partial(paper, 32, 64, 4),
    "paper-medium": partial(paper, 64, 128, 2),
    "imagenet": partial(paper, 128, 256, 1, discriminator={"channels": 64}),
}
