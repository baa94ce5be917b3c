"""The published models by name: their configurations, and where they came from.

    KNOWN["vqgan_imagenet_f16_16384"].configuration   as `configurations` takes it

A name gives the form of the weights, not the weights: those are their authors' to hand
out. Configurations are in the form that their authors use: the original's, which latent
diffusion has kept, and LlamaGen's.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

_ORIGINAL = "github.com/CompVis/taming-transformers"
_DIFFUSION = "github.com/CompVis/latent-diffusion"
_LLAMAGEN = "github.com/FoundationVision/LlamaGen"
# Those of "l" have the same names and shapes for both sizes of pictures.
_DERIVED = "derived from the other size"


class Known(NamedTuple):
    """A published model; `about` is a line for people, `source` the authors' page.

    doubt: "" where all names and shapes are known to fit, else why they are not.
    """

    configuration: Mapping[str, Any]
    about: str
    source: str
    doubt: str = ""


def _tokenizer(
    codes: int,
    dim: int,
    *,
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4),
    attention: tuple[int, ...] | None = (16,),
    channels: int = 3,
    name: str = "VQModel",
    loss: Mapping[str, Any],
    **others,
) -> dict[str, Any]:
    """One of the original's: all are for 256 x 256 pixels, and z_channels is dim.

    attention: the levels that attend, besides the middle; None: nothing does.
    """
    ddconfig = {
        "double_z": False,
        "z_channels": dim,
        "resolution": 256,
        "in_channels": channels,
        "out_ch": channels,
        "ch": 128,
        "ch_mult": multipliers,
        "num_res_blocks": 2,
        "attn_resolutions": attention or (),
        "dropout": 0.0,
    }
    if attention is None:
        ddconfig["attn_type"] = "none"
    params = {"embed_dim": dim, "n_embed": codes, "ddconfig": ddconfig}
    params |= {"lossconfig": loss, **others}
    return {"target": f"taming.models.vqgan.{name}", "params": params}


def _adversarial(channels: int = 3, **changes) -> dict[str, Any]:
    params = {
        "disc_conditional": False,
        "disc_in_channels": channels,
        "disc_start": 250_001,
        "disc_weight": 0.8,
        "codebook_weight": 1.0,
    }
    target = "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator"
    return {"target": target, "params": params | changes}


def _of_classes(count: int) -> dict[str, Any]:
    target = "taming.modules.losses.segmentation.BCELossWithQuant"
    loss = {"target": target, "params": {"codebook_weight": 1.0}}
    return _tokenizer(
        1_024,
        256,
        channels=count,
        name="VQSegmentationModel",
        loss=loss,
        n_labels=count,
        image_key="segmentation",
    )


def _pictures(codes: int) -> dict[str, Any]:
    return _tokenizer(codes, 256, loss=_adversarial())


def _llamagen(multipliers: tuple[int, ...]) -> dict[str, Any]:
    codebook = {"codebook_size": 16_384, "codebook_embed_dim": 8}
    return {"vq": {**codebook, "ch_mult": multipliers}}


def _prior(
    key: str,
    condition: Mapping[str, Any] | str,
    *,
    codes: int,
    length: int,
    layers: int,
    heads: int,
    width: int,
) -> dict[str, Any]:
    """One of the original's transformers, on its tokenizer of ImageNet's form."""
    sizes = {
        "vocab_size": codes,
        "block_size": length,
        "n_layer": layers,
        "n_head": heads,
        "n_embd": width,
    }
    gpt = {"target": "taming.modules.transformer.mingpt.GPT", "params": sizes}
    params = {
        "cond_stage_key": key,
        "transformer_config": gpt,
        "first_stage_config": _tokenizer(codes, 256, loss=_NO_LOSS),
        "cond_stage_config": condition,
    }
    target = "taming.models.cond_transformer.Net2NetTransformer"
    return {"target": target, "params": params}


def _llamagen_gpt(width: int, layers: int, heads: int, side: int) -> dict[str, Any]:
    """For pictures of 16 * side pixels."""
    return {
        "gpt": {
            "dim": width,
            "n_layer": layers,
            "n_head": heads,
            "n_kv_head": None,
            "multiple_of": 256,
            "ffn_dim_multiplier": None,
            "rope_base": 10_000,
            "norm_eps": 1e-5,
            "num_classes": 1_000,
            "class_dropout_prob": 0.1,
            "vocab_size": 16_384,
            "cls_token_num": 1,
            "block_size": side**2,
            "model_type": "c2i",
        }
    }


_NO_LOSS = {"target": "taming.modules.losses.DummyLoss"}
_GUMBEL = _tokenizer(
    8_192,
    256,
    multipliers=(1, 1, 2, 4),
    attention=(32,),
    name="GumbelVQ",
    loss=_NO_LOSS,
    kl_weight=1e-8,
    temperature_scheduler_config={
        "target": "taming.lr_scheduler.LambdaWarmUpCosineScheduler",
        "params": {
            "warm_up_steps": 0,
            "max_decay_steps": 1_000_001,
            "lr_start": 0.9,
            "lr_max": 0.9,
            "lr_min": 1e-6,
        },
    },
)
_LDM_F4 = _tokenizer(
    8_192,
    3,
    multipliers=(1, 2, 4),
    attention=(),
    loss=_adversarial(disc_weight=0.75, disc_start=0),
)
_LDM_F4_NOATTN = _tokenizer(
    8_192,
    3,
    multipliers=(1, 2, 4),
    attention=None,
    loss=_adversarial(disc_weight=0.75, disc_start=11),
)
_LDM_F8 = _tokenizer(
    16_384,
    4,
    multipliers=(1, 2, 2, 4),
    attention=(32,),
    loss=_adversarial(disc_weight=0.6, disc_start=1, disc_num_layers=2),
)
_LDM_F8_256 = _tokenizer(
    256,
    4,
    multipliers=(1, 2, 2, 4),
    attention=(32,),
    loss=_adversarial(disc_weight=0.75),
)
_LDM_F16 = _tokenizer(16_384, 8, loss=_adversarial(disc_weight=0.75, disc_num_layers=2))
_DEPTH = _tokenizer(
    1_024, 256, channels=1, loss=_adversarial(channels=1), image_key="depth"
)

_CIN = _prior(
    "class_label",
    {"target": "taming.modules.util.Labelator", "params": {"n_classes": 1_001}},
    codes=16_384,
    length=256,
    layers=48,
    heads=24,
    width=1_536,
)
_FACES = _prior(
    "coord",
    {
        "target": "taming.modules.misc.coord.CoordStage",
        "params": {"n_embed": 1_024, "down_factor": 16},
    },
    codes=1_024,
    length=512,
    layers=24,
    heads=16,
    width=1_024,
)
_DRIN = _prior(
    "depth",
    _tokenizer(1_024, 256, channels=1, loss=_NO_LOSS),
    codes=1_024,
    length=512,
    layers=24,
    heads=16,
    width=1_024,
)
_COCO = _prior(
    "objects_bbox",
    {
        "target": "taming.models.dummy_cond_stage.DummyCondStage",
        "params": {"conditional_key": "objects_bbox"},
    },
    codes=8_192,
    length=348,
    layers=40,
    heads=16,
    width=1_408,
)

KNOWN = {
    "vqgan_imagenet_f16_1024": Known(
        _pictures(1_024), "ImageNet, 1,024 codes", _ORIGINAL
    ),
    "vqgan_imagenet_f16_16384": Known(
        _pictures(16_384), "ImageNet, 16,384 codes", _ORIGINAL
    ),
    "vqgan_gumbel_f8": Known(
        _GUMBEL, "OpenImages, 8,192 codes, drawn by Gumbel noise", _ORIGINAL
    ),
    "faceshq_vqgan": Known(
        _pictures(1_024), "CelebA-HQ and FFHQ, 1,024 codes", _ORIGINAL
    ),
    "coco_scene_vqgan_8192": Known(
        _pictures(8_192), "COCO and OpenImages, 8,192 codes", _ORIGINAL
    ),
    "imagenetdepth_vqgan": Known(_DEPTH, "depth maps, 1,024 codes", _ORIGINAL),
    "sflckr_cond": Known(_of_classes(182), "maps of 182 classes, S-FLCKR", _ORIGINAL),
    "coco_cond": Known(_of_classes(183), "maps of 183 classes, COCO-Stuff", _ORIGINAL),
    "ade20k_cond": Known(_of_classes(151), "maps of 151 classes, ADE20K", _ORIGINAL),
    "ldm_vq_f4": Known(_LDM_F4, "OpenImages, 8,192 codes", _DIFFUSION),
    "ldm_vq_f4_noattn": Known(
        _LDM_F4_NOATTN, "OpenImages, 8,192 codes, no attention", _DIFFUSION, "unproved"
    ),
    "ldm_vq_f8": Known(_LDM_F8, "OpenImages, 16,384 codes", _DIFFUSION),
    "ldm_vq_f8_n256": Known(_LDM_F8_256, "OpenImages, 256 codes", _DIFFUSION),
    "ldm_vq_f16": Known(_LDM_F16, "OpenImages, 16,384 codes", _DIFFUSION),
    "llamagen_vq8": Known(_llamagen((1, 2, 2, 4)), "ImageNet, 16,384 codes", _LLAMAGEN),
    "llamagen_vq16": Known(
        _llamagen((1, 1, 2, 2, 4)), "ImageNet, 16,384 codes", _LLAMAGEN
    ),
    "cin_transformer": Known(_CIN, "ImageNet by class, 1.4B", _ORIGINAL),
    "faceshq_transformer": Known(_FACES, "CelebA-HQ and FFHQ, 0.3B", _ORIGINAL),
    "drin_transformer": Known(_DRIN, "ImageNet by depth, 0.3B", _ORIGINAL),
    "coco_scene_transformer": Known(_COCO, "COCO by boxes, 1.0B", _ORIGINAL),
    **{
        f"llamagen_gpt_{size}_{16 * side}": Known(
            _llamagen_gpt(width, layers, heads, side),
            f"ImageNet by class, {parameters}",
            _LLAMAGEN,
            "" if side in seen else _DERIVED,
        )
        for size, parameters, width, layers, heads, seen in (
            ("b", "111M", 768, 12, 12, (16,)),
            ("l", "343M", 1_024, 24, 16, (16, 24)),
            ("xl", "775M", 1_280, 36, 20, (24,)),
            ("xxl", "1.4B", 1_536, 48, 24, (24,)),
            ("3b", "3.1B", 3_200, 24, 32, (24,)),
        )
        for side in (16, 24)
    },
}
