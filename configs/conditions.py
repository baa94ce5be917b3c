"""Drawn scenes under every condition, each scored against the truth; two cores.

    python train_vqgan.py --config configs/conditions.py:segmentation --workdir W
    python train_vqgan.py --config configs/conditions.py:segmentation --workdir W \
      --stage=condition_vqgan
    python train_prior.py --config configs/conditions.py:segmentation --workdir W
    python -m taming_jax evaluate --stage prior --workdir W

and likewise, where only maps need the second command,

    --config configs/conditions.py:label           the class of the nearest object
    --config configs/conditions.py:none            nothing
    --config configs/conditions.py:depth           and :edges, maps of these
    --config configs/conditions.py:label_and_depth
    --config configs/conditions.py:low_resolution  8 x 8 pixels
    --config configs/conditions.py:degraded        8 x 8 pixels, worse at random
    --config configs/conditions.py:keypoints       five named points of each object
    --config configs/conditions.py:coordinates     where a part of a scene lies in it
    --config configs/conditions.py:direct_segmentation  without a tokenizer of maps:
    --config configs/conditions.py:direct_depth    and :direct_edges, no second command
    --config configs/conditions.py:boxes           and :points, classes and places
    --config configs/conditions.py:cropped_boxes   of a scene, and what is seen of it

`make demo-conditions` runs nine of them one after the other on one tokenizer of
pictures, `python -m taming_jax demo-conditions --only NAME` any of them.
docs/conditions.md says what each kind is, and what has been reached so far.
"""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

CONDITIONS = {
    "segmentation": "segmentation",
    "label": "label",
    "none": "none",
    "depth": "depth",
    "edges": "edges",
    "label_and_depth": ("label", "depth"),
    "low_resolution": dict(name="low_resolution", side=8, levels=6),
    "degraded": dict(name="low_resolution", side=8, levels=6, degraded=True),
    "keypoints": dict(name="keypoints", sections=16),
    "coordinates": dict(name="coordinates", steps=64),
    "direct_segmentation": dict(name="direct_segmentation", levels=11),
    "direct_depth": dict(name="direct_depth", levels=32),
    "direct_edges": dict(name="direct_edges", levels=16),
    "boxes": dict(name="boxes", vocabulary=256),
    "points": dict(name="points", vocabulary=256),
    "cropped_boxes": dict(name="boxes", vocabulary=256, crop=True),
}
MAPS = {"segmentation": "segmentation", "depth": "depth", "edges": "edges",
        "label_and_depth": "depth"}  # fmt: skip


def get_config(variant: str = "segmentation") -> ConfigDict:
    """The recipe card of one condition."""
    if variant not in CONDITIONS:
        raise ValueError(
            f"conditions has no variant {variant!r}: there are {', '.join(CONDITIONS)}"
        )
    shapes, scenes = _card("shapes").get_config(), _card("scenes")
    config = ConfigDict()
    config.seed = 0
    config.data = dict(name="scenes", train=60_000, val=500, image_size=64)
    if variant in ("coordinates", "cropped_boxes"):  # a whole lies always the same
        config.data.zoom = 2
    config.vqgan = _vqgan(shapes.vqgan)
    if variant in MAPS:
        config.condition_vqgan = scenes.get_config(MAPS[variant]).condition_vqgan
    config.prior = _prior(shapes.prior, variant)
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    return config


def _vqgan(vqgan: ConfigDict) -> ConfigDict:
    """That of `shapes` with twice the codes, twice as long: there is more to see."""
    vqgan.model.quantizer.update(codebook_size=1_024, revive_until=6_200)
    vqgan.update(steps=7_000, disc_start=6_200, adversarial_start=6_240)
    return vqgan


def _prior(prior: ConfigDict, variant: str) -> ConfigDict:
    """That of `shapes`, told something else."""
    with prior.ignore_type():  # there it is a name
        prior.condition = CONDITIONS[variant]
    prior.condition_tokenizer = placeholder(str)
    listed = variant.endswith(("boxes", "points"))  # these lie nowhere
    prior.model.condition_everywhere = not listed
    prior.steps = 2_000 if variant in ("label", "none") else 1_500
    if variant in MAPS or variant.startswith("direct_"):  # less is left to chance
        prior.sampling.update(temperature=0.6, top_p=0.9)
    if variant in ("none", "coordinates"):  # there is nothing to be guided by
        prior.label_dropout, prior.sampling.guidance = 0.0, 1.0
    return prior


def _card(name: str):
    """The module of another card beside this one."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    card = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(card)
    return card
