"""What CONFIG may be, and what it may not."""

import json
import re

import numpy as np
import pytest
import yaml
from golden import FOLDER, OF_NO_USE

from taming_jax.interop import contents
from taming_jax.interop.configurations import read
from taming_jax.interop.formats.tensors import Tensor
from taming_jax.interop.known import KNOWN
from taming_jax.interop.matching import sources_of
from taming_jax.interop.parts import find_parts
from taming_jax.interop.priors import find_prior

SHAPES = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("shapes/*")}
CONFIG = FOLDER / "13_vqmodel.yaml"
OF_NO_USE = (*OF_NO_USE, "quantize.codebook_used")
LPIPS = "loss.perceptual_loss."


# Known for another size of pictures only.
DERIVED = {
    "llamagen_gpt_b_384": "llamagen_gpt_b_256",
    "llamagen_gpt_xl_256": "llamagen_gpt_xl_384",
    "llamagen_gpt_xxl_256": "llamagen_gpt_xxl_384",
    "llamagen_gpt_3b_256": "llamagen_gpt_3b_384",
}


def test_what_is_not_known_by_its_tensors_says_so():
    doubts = {name: known.doubt for name, known in KNOWN.items() if known.doubt}
    assert doubts.keys() == KNOWN.keys() - SHAPES.keys()
    derived = {name for name, doubt in doubts.items() if doubt.startswith("derived")}
    assert derived == DERIVED.keys()


def test_the_size_of_pictures_is_in_no_tensor_of_llamagens_transformers():
    """Where both are known; all else that is said of two sizes is the same."""
    small, large = SHAPES["llamagen_gpt_l_256"], SHAPES["llamagen_gpt_l_384"]
    assert small["parameters"] == large["parameters"]
    for name, other in (("llamagen_gpt_l_256", "llamagen_gpt_l_384"), *DERIVED.items()):
        both = [dict(KNOWN[each].configuration["gpt"]) for each in (name, other)]
        sizes = {arguments.pop("block_size") for arguments in both}
        assert (both[0], sizes) == (both[1], {16**2, 24**2})


@pytest.mark.parametrize("name", sorted(SHAPES.keys() | DERIVED.keys()))
def test_every_tensor_of_a_known_model_is_used_once(name):
    """At full size, by names and shapes; of a transformer its tokenizers', too."""
    models, used = read(name), []
    tensors = {
        name: Tensor(np.dtype(np.float32), tuple(shape), read=None)
        for name, shape in SHAPES[DERIVED.get(name, name)]["parameters"].items()
    }
    for stage, model in models.items():
        find = find_prior if stage == "prior" else find_parts
        parts = find(model, contents.of_stage(tensors, stage))
        prefix = contents.PREFIXES[stage] if len(models) > 1 else ""
        used += [prefix + source.name for source in sources_of(parts.sources)]
    assert len(used) == len(set(used))
    wanted = {n for n in tensors if not n.endswith(OF_NO_USE) and LPIPS not in n}
    assert set(map(as_published, used)) == set(map(as_published, wanted))


def as_published(name):
    """What LlamaGen's transformer has in one tensor goes by the name of that one."""
    fused = re.sub(r"\.w[qkv]\.weight$", ".wqkv.weight", name)
    return fused.replace("cls_embedding.embedding_table.weight", "embeddings").replace(
        "tok_embeddings.weight", "embeddings"
    )


@pytest.mark.parametrize(
    "name", sorted(set(SHAPES) - {"llamagen_vq8", "llamagen_vq16"})
)
def test_a_known_configuration_is_the_published_one(name):
    known = json.loads(json.dumps(KNOWN[name].configuration))
    if "gpt" in known:
        known = known["gpt"]
    if name == "imagenetdepth_vqgan":  # said there by the data
        assert known["params"].pop("image_key") == "depth"
    assert known == SHAPES[name]["config"]


def test_a_yaml_its_content_and_its_model_alone_are_the_same():
    whole = yaml.safe_load(CONFIG.read_text())
    assert read(CONFIG) == read(whole) == read(whole["model"])


def test_sizes_that_a_transformer_does_not_say_are_the_originals():
    """Of its class GPT: 12 layers of 8 heads, 256 wide."""
    named = json.loads(json.dumps(KNOWN["drin_transformer"].configuration))
    sizes = named["params"]["transformer_config"]["params"]
    sizes |= {"n_layer": 12, "n_head": 8, "n_embd": 256}
    said = read(named)["prior"]
    for name in ("n_layer", "n_head", "n_embd"):
        del sizes[name]
    assert read(named)["prior"] == said
    fields = ("layers", "heads", "width")
    assert [said.model[field] for field in fields] == [12, 8, 256]
    del sizes["vocab_size"]
    with pytest.raises(ValueError, match="vocab_size is None; it takes a whole number"):
        read(named)


def test_names_are_llamagens_own():
    """Its command line and its reports say the same in other words."""
    mine = {"codebook_size": 99, "l2_norm": True, "beta": 0.5, "ch_mult": [1, 2]}
    theirs = {"codebook_size": 99, "codebook_l2_norm": True, "commit_loss_beta": 0.5}
    theirs |= {"encoder_ch_mult": [1, 2], "decoder_ch_mult": [1, 2]}
    assert read({"vq": mine}) == read({"vq": theirs})


def test_latent_diffusions_options_are_known():
    options = {"use_ema": True, "batch_resize_range": [256, 384], "lr_g_factor": 1.0}
    changed = model(**options, target="ldm.models.autoencoder.VQModelInterface")
    assert read(changed)["vqgan"].model == read(CONFIG)["vqgan"].model


def test_latent_diffusions_tokenizer_is_found_beneath_it():
    upon = {
        "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
        "params": {
            "first_stage_config": model()["model"],
            "cond_stage_config": {"target": "ldm.modules.encoders.ClassEmbedder"},
        },
    }
    assert read(upon) == {"vqgan": read(CONFIG)["vqgan"]}


@pytest.mark.parametrize("target", ["VQModel", "VQSegmentationModel"])
def test_class_maps_are_known_by_their_key(target):
    """The one of S-FLCKR is a VQModel, and says so beneath its transformer only."""
    params = model()["model"]["params"] | {"lossconfig": {"target": "DummyLoss"}}
    upon = {
        "target": "taming.models.cond_transformer.Net2NetTransformer",
        "params": {
            "cond_stage_key": "segmentation",
            "first_stage_config": model()["model"],
            "cond_stage_config": {"target": target, "params": params},
        },
    }
    assert read(upon)["condition_vqgan"].model["classes"]


def test_a_yaml_may_write_numbers_as_the_originals_reader_takes_them(tmp_path):
    """Without a point; YAML 1.1 takes such for text."""
    path = tmp_path / "model.yaml"
    whole = CONFIG.read_text()
    path.write_text(whole.replace("disc_weight: 0.8", "disc_weight: 8e-1"))
    assert path.read_text() != whole
    assert read(path) == read(CONFIG)


def test_options_reach_the_model():
    options = {"resamp_with_conv": False, "dropout": 0.25, "give_pre_end": True}
    fields = read(model(ddconfig=options))["vqgan"].model
    assert fields["encoder"]["resample"] == fields["decoder"]["resample"] == "plain"
    assert fields["encoder"]["dropout"] == 0.25
    assert fields["decoder"]["give_pre_end"]


def test_losses_become_the_recipes():
    loss = {
        "disc_start": 7,
        "disc_weight": 0.5,
        "disc_factor": 0.5,
        "use_actnorm": True,
    }
    loss |= {"disc_loss": "vanilla", "disc_ndf": 16, "perceptual_weight": 0.1}
    trained = read(model(lossconfig=loss))["vqgan"].trained
    assert trained == {
        "disc_start": 7,
        "adversarial_weight": 0.25,
        "adversarial_loss": "vanilla",
        "codebook_weight": 1.0,
        "perceptual_weight": 0.1,
        "discriminator": {"channels": 16, "layers": 2, "norm": "act"},
    }


def model(target=None, ddconfig=None, lossconfig=None, **changes):
    """Golden 13's configuration with other params, of its parts too."""
    config = yaml.safe_load(CONFIG.read_text())
    node = config["model"]
    node["target"] = target or node["target"]
    node["params"] |= changes
    node["params"]["ddconfig"] |= ddconfig or {}
    params = node["params"]["lossconfig"]["params"]
    if isinstance(lossconfig, str):
        node["params"]["lossconfig"] = {"target": lossconfig}
    elif lossconfig:
        params.pop("disc_start"), params.pop("disc_weight"), params.pop("disc_ndf")
        params |= lossconfig
    return config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            "vqgan_imagenet",
            r"no configuration: give a \.yaml, or a name out of vqgan_im",
        ),
        (
            FOLDER / "index.json",
            r"has no model\.target: give the \.yaml that came with",
        ),
        (FOLDER / "13_vqmodel.ckpt", r"13_vqmodel\.ckpt is no \.yaml: "),
        (
            model("taming.models.vqgan.VQ"),
            r"target is 'taming\.models\.vqgan\.VQ'; token",
        ),
        (
            model("ldm.models.autoencoder.AutoencoderKL"),
            r"tokenizers are VQModel, VQMo",
        ),
        (model(n_embedd=3), r"params has no key 'n_embedd'; did you mean 'n_embed'\?"),
        (model(ddconfig={"chh": 3}), r"ddconfig has no key 'chh'; did you mean 'ch'\?"),
        (
            model(ddconfig={"double_z": True}),
            r"double_z=True; tokenizers have False: is",
        ),
        (
            model(ddconfig={"attn_type": "linear"}),
            r"has attn_type='linear'; known: vanilla, none",
        ),
        (model(ddconfig={"ch": 33}), r"a level of 33 channels, which norm_groups=32"),
        (model(ddconfig={"out_ch": 4}), r"image_channels is 3, the decoder's 4"),
        (
            model(lossconfig={"disc_conditional": True}),
            r"disc_conditional=True; known ",
        ),
        (model(lossconfig={"disc_weight": "x"}), r"disc_weight is 'x'; it takes a num"),
        (model(lossconfig={"disc_wait": 1}), r"has no key 'disc_wait'; did you mean"),
        (
            model(ddconfig={"ch": "x"}),
            r"ddconfig: ch is 'x'; it takes a whole number",
        ),
        (
            model(ddconfig={"ch_mult": 3}),
            r"ch_mult is 3; it takes a list of whole numbe",
        ),
        (model(n_embed=-1), r"params: n_embed is -1; it takes a whole number"),
        (
            model(lossconfig="none"),
            r"lossconfig's target is 'none'; known are VQLPIPSWi",
        ),
        ({"vq": 3}, r"vq: 3 is no mapping of keys to values"),
        ({"vq": {"chmult": 1}}, r"vq has no key 'chmult'; did you mean 'ch_mult'\?"),
        ({"gpt": {}}, r"gpt: dim is None; it takes a whole number above 0"),
        (
            {"model": {"target": "VQModel"}},
            r"params do not say ddconfig, embed_dim, n_e",
        ),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_line(config, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(config)
    assert "\n" not in str(caught.value)
