"""The original's configurations in our words, and back.

    {"target": "taming.models.vqgan.VQModel", "params": {...}} <-> Tokenizer

Latent diffusion has kept the form. A configuration also says where its pictures lie and
how its weights are to be loaded; that is not looked at.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from taming_jax.interop import values
from taming_jax.interop.lossconfig import from_lossconfig, to_lossconfig
from taming_jax.interop.values import check_all_there, check_keys, check_values
from taming_jax.models.autoencoder import Decoder, Encoder
from taming_jax.models.quantizers import QUANTIZERS
from taming_jax.models.vqgan import VQGAN

Form = Literal["original", "llamagen"]  # whose names and arguments
RATE = 4.5e-6  # per picture of a batch, in all of the original's configurations


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A published tokenizer's configuration.

    Attributes:
      model: the fields of `VQGAN`.
      trained: keys of `config.vqgan` that say on what and by what it was trained, the
        discriminator's fields among them.
      form: whose configuration it was.
      rate: its learning rate for each picture of a batch.
      remap: a file that says which codes are used, as the configuration names it.
    """

    model: Mapping[str, Any]
    trained: Mapping[str, Any]
    form: Form = "original"
    rate: float = RATE
    remap: str | None = None

    @property
    def resolution(self) -> int:
        """Side of the pictures that it was made for."""
        return self.model["encoder"]["resolution"]


def from_original(node: Mapping[str, Any]) -> Tokenizer:
    """`{"target": ..., "params": ...}` of a tokenizer -> the same in our words.

    Raises:
      ValueError: for a target or a key that is not known, and for a model that cannot
        be.
    """
    target = str(node.get("target")).rpartition(".")[2]
    if target not in TARGETS:
        raise ValueError(
            f"the configuration's target is {node.get('target')!r}; tokenizers are "
            f"{', '.join(TARGETS)} (of taming.models.vqgan, ldm.models.autoencoder)"
        )
    params = node.get("params") or {}
    owner = f"{target}'s params"
    check_keys(owner, params, (*_NEEDED, *_UNUSED, *TARGETS[target]))
    check_all_there(owner, params, _NEEDED)
    check_values(owner, params, _PARAMS)
    check_values("the configuration", node, {"base_learning_rate": values.POSITIVE})
    model = {
        "encoder": _half(params["ddconfig"], "encoder"),
        "decoder": _half(params["ddconfig"], "decoder"),
        "quantizer": _quantizer(target, params),
        "classes": target == "VQSegmentationModel"
        or params.get("image_key") == "segmentation",  # as S-FLCKR's was published
    }
    VQGAN(**model)  # or what does not fit is said here
    trained = from_lossconfig(params.get("lossconfig"), classes=model["classes"])
    if params.get("image_key") == "depth":
        trained |= {"input": "depth", "stretch": True}
    rate = float(node.get("base_learning_rate", RATE))
    return Tokenizer(model, trained, rate=rate, remap=params.get("remap"))


def to_original(section: Mapping[str, Any], *, discriminator: bool) -> dict[str, Any]:
    """`config.vqgan` -> the original's configuration of the same model.

    Args:
      section: of a recipe; what only our training knows is left out.
      discriminator: whether its weights are there.

    Raises:
      ValueError: for a model that the original cannot be told.
    """
    model = section["model"]
    halves = Encoder(**model["encoder"]), Decoder(**model["decoder"])
    encoder, decoder = halves
    ddconfig = {
        theirs: _plain(getattr(encoder, ours)) for theirs, ours in _BACKBONE.items()
    }
    ddconfig |= {
        "double_z": False,
        "num_res_blocks": _plain(encoder.blocks),
        "in_channels": encoder.image_channels,
        "out_ch": decoder.image_channels,
        "resamp_with_conv": encoder.resample == "conv",
        "give_pre_end": decoder.give_pre_end,
        **({} if encoder.middle_attention else {"attn_type": "none"}),
    }
    if not isinstance(encoder.blocks, int):
        raise ValueError(
            f"Encoder has blocks={encoder.blocks!r}; the original has as many on every "
            "level, so that it cannot take this model"
        )
    for half in halves:
        _check_same(half, _half(ddconfig, type(half).__name__.lower()))
    target, params = _quantizer_back(model)
    params |= {"ddconfig": ddconfig}
    params |= {"lossconfig": to_lossconfig(section, discriminator=discriminator)}
    module = "taming.models.vqgan"
    if not encoder.middle_attention:
        module = "ldm.models.autoencoder"  # which has but one kind
        if target != "VQModel":
            raise ValueError(
                f"it has middle_attention=False and would be a {target}; without "
                "attention there is VQModel only, latent diffusion's"
            )
    return {
        "base_learning_rate": section["learning_rate"] / section["batch_size"],
        "target": f"{module}.{target}",
        "params": params,
    }


# What both halves are told alike: theirs, ours.
_BACKBONE = {
    "ch": "channels",
    "ch_mult": "multipliers",
    "attn_resolutions": "attention_resolutions",
    "resolution": "resolution",
    "dropout": "dropout",
    "z_channels": "latent_channels",
}
_ENDS = ("num_res_blocks", "in_channels", "out_ch")
_OPTIONS = {"dropout": 0.0, "resamp_with_conv": True, "give_pre_end": False,
            "attn_type": "vanilla"}  # fmt: skip
# Its type, which latent diffusion chooses; the last is another program for the first.
_ATTENTION = ("vanilla", "none", "vanilla-xformers")
# What may be said as long as it changes nothing; all but the first latent diffusion's.
_FIXED = {"double_z": False, "tanh_out": False, "use_linear_attn": False}
# What latent diffusion's other networks know, and its tokenizers pass over. It would
# pass over anything, misspelt keys too; these are all that is let through here.
_PASSED_OVER = ("temb_ch", "use_checkpoint", "use_timestep")

_DDCONFIG = {
    **dict.fromkeys(("ch", "in_channels", "out_ch"), values.COUNT),
    **dict.fromkeys(("resolution", "z_channels"), values.COUNT),
    **dict.fromkeys(("resamp_with_conv", "give_pre_end"), values.FLAG),
    "ch_mult": values.COUNTS,
    "attn_resolutions": values.WHOLES,
    "num_res_blocks": values.WHOLE,
    "dropout": values.SHARE,
}

# Every target's params, and those that say nothing of the model.
_NEEDED = ("ddconfig", "embed_dim", "n_embed")
_PARAMS = {
    "embed_dim": values.COUNT,
    "n_embed": values.COUNT,
    "image_key": values.TEXT,
    "remap": values.TEXT,
    "kl_weight": values.NUMBER,
    "temperature_scheduler_config": values.MAPPING,
}
_UNUSED = ("ckpt_path", "colorize_nlabels", "ignore_keys", "image_key", "lossconfig",
           "monitor", "remap", "sane_index_shape")  # fmt: skip
_OF_DIFFUSION = ("batch_resize_range", "lr_g_factor", "scheduler_config", "use_ema")
# The last names of the targets, and the params that only these have.
TARGETS = {
    "VQModel": _OF_DIFFUSION,
    "VQModelInterface": _OF_DIFFUSION,
    "GumbelVQ": ("kl_weight", "temperature_scheduler_config"),
    "EMAVQ": (),
    "VQNoDiscModel": (),
    "VQSegmentationModel": ("n_labels",),
}
_TEMPERATURE = {
    **dict.fromkeys(("lr_start", "lr_max", "lr_min"), values.POSITIVE),
    **dict.fromkeys(("warm_up_steps", "max_decay_steps"), values.WHOLE),
}


def _half(ddconfig: Mapping[str, Any], half: str) -> dict[str, Any]:
    """Fields of our encoder or decoder; the original's decoder has a block more."""
    known = (*_BACKBONE, *_ENDS, *_OPTIONS, *_FIXED, *_PASSED_OVER)
    check_keys("ddconfig", ddconfig, known)
    for key, value in _FIXED.items():
        if ddconfig.get(key, value) != value:
            raise ValueError(
                f"ddconfig has {key}={ddconfig[key]!r}; tokenizers have {value!r}: is "
                "this the configuration of another kind of model?"
            )
    ddconfig = {**_OPTIONS, **ddconfig}
    attention = ddconfig["attn_type"]
    if attention not in _ATTENTION:
        raise ValueError(
            f"ddconfig has attn_type={attention!r}; known: {', '.join(_ATTENTION)}"
        )
    check_all_there("ddconfig", ddconfig, (*_BACKBONE, *_ENDS))
    check_values("ddconfig", ddconfig, _DDCONFIG)
    blocks = ddconfig["num_res_blocks"]
    if half == "encoder":
        own = {"blocks": blocks, "image_channels": ddconfig["in_channels"]}
    else:
        own = {"blocks": blocks + 1, "image_channels": ddconfig["out_ch"]}
        own["give_pre_end"] = ddconfig["give_pre_end"]
    fields = {ours: _plain(ddconfig[theirs]) for theirs, ours in _BACKBONE.items()}
    if attention == "none":
        fields |= {"attention_resolutions": [], "middle_attention": False}
    resample = "conv" if ddconfig["resamp_with_conv"] else "plain"
    return {**fields, "resample": resample, **own}


def _quantizer(target: str, params: Mapping[str, Any]) -> dict[str, Any]:
    table = {"codebook_size": params["n_embed"], "dim": params["embed_dim"]}
    if target == "EMAVQ":
        return {"name": "ema", **table, "beta": 0.25, "decay": 0.99, "epsilon": 1e-5}
    if target != "GumbelVQ":
        # `legacy`: published models have beta on the other term than they meant to.
        return {"name": "vq", **table, "beta": 0.25, "legacy": True}
    fields = {"name": "gumbel", **table, "kl_weight": params.get("kl_weight", 1e-8)}
    schedule = (params.get("temperature_scheduler_config") or {}).get("params")
    if schedule:
        owner = "temperature_scheduler_config's params"
        check_keys(owner, schedule, (*_TEMPERATURE, "verbosity_interval"))
        check_all_there(owner, schedule, _TEMPERATURE)
        check_values(owner, schedule, _TEMPERATURE)
        told = [schedule[key] for key in _TEMPERATURE]
        fields |= {"temperature": told[:3], "temperature_steps": told[3:]}
    return fields


def is_normalized(fields: Mapping[str, Any]) -> bool:
    """Whether a quantizer of these fields has codes of length 1."""
    fields = dict(fields)
    quantizer = QUANTIZERS[fields.pop("name", "vq")](**fields)
    return getattr(quantizer, "normalize", False)


def _quantizer_back(model: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The target's last name, and the params that say what the quantizer is."""
    fields = dict(model["quantizer"])
    name = fields.pop("name", "vq")
    quantizer = QUANTIZERS[name](**fields)
    params = {"n_embed": quantizer.codebook_size, "embed_dim": quantizer.dim}
    targets = {"vq": "VQModel", "l2": "VQModel", "ema": "EMAVQ", "gumbel": "GumbelVQ"}
    if model.get("classes"):
        params["n_labels"] = model["encoder"]["image_channels"]
        targets = {"vq": "VQSegmentationModel"}
    if name not in targets:
        raise ValueError(
            f"the quantizer is {name!r}, and the original has {', '.join(targets)} for "
            "such a tokenizer: it cannot take this one"
        )
    if name == "gumbel":
        told = (*quantizer.temperature, *quantizer.temperature_steps)
        params["kl_weight"] = quantizer.kl_weight
        params["temperature_scheduler_config"] = {
            "target": "taming.lr_scheduler.LambdaWarmUpCosineScheduler",
            "params": dict(zip(_TEMPERATURE, told, strict=True)),
        }
    return targets[name], params


# What changes no result of the trained model.
_OF_TRAINING = {"gain", "dtype", "remat", "parent", "name"}


def _check_same(ours: Encoder | Decoder, theirs: Mapping[str, Any]) -> None:
    """Raises ValueError for a field that the original cannot be told."""
    for field in dataclasses.fields(ours):
        here = _plain(getattr(ours, field.name))
        there = _plain(theirs.get(field.name, field.default))
        if field.name not in _OF_TRAINING and here != there:
            raise ValueError(
                f"{type(ours).__name__} has {field.name}={here!r}; the original can "
                f"only have {there!r} here, so that it cannot take this model"
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value
