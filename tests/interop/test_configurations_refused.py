"""Values of a wrong kind in a configuration: the key, the value, what it takes."""

import pytest
import yaml
from golden import FOLDER, golden

from taming_jax.interop.configurations import read

CONFIG = FOLDER / "13_vqmodel.yaml"
GUMBEL = golden("03_gumbelvq").config["params"]


def model(ddconfig=None, lossconfig=None, node=None, **params):
    """Golden 13's configuration with other values."""
    config = yaml.safe_load(CONFIG.read_text())["model"] | (node or {})
    config["params"] |= params
    config["params"]["ddconfig"] |= ddconfig or {}
    config["params"]["lossconfig"]["params"] |= lossconfig or {}
    return config


def gumbel(temperature=None, **params):
    config = {"target": "GumbelVQ", "params": GUMBEL | params}
    if temperature:
        scheduler = GUMBEL["temperature_scheduler_config"]
        changed = scheduler | {"params": scheduler["params"] | temperature}
        config["params"]["temperature_scheduler_config"] = changed
    return config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (model(remap=5), r"VQModel's params: remap is 5; it takes text, or nothing"),
        (model(image_key=["image"]), r"image_key is \['image'\]; it takes text"),
        (model(embed_dim=0), r"embed_dim is 0; it takes a whole number above 0"),
        (model(n_embed=True), r"n_embed is True; it takes a whole number above 0"),
        (
            model(node={"base_learning_rate": "x"}),
            r"configuration: base_learning_rate is 'x'; it takes a number above 0",
        ),
        (model({"ch": 0}), r"ddconfig: ch is 0; it takes a whole number above 0"),
        (model({"z_channels": 4.0}), r"z_channels is 4\.0; it takes a whole number"),
        (model({"dropout": "x"}), r"dropout is 'x'; it takes a number from 0 to below"),
        (model({"dropout": 1}), r"dropout is 1; it takes a number from 0 to below 1"),
        (
            model({"ch_mult": []}),
            r"ch_mult is \[\]; it takes a list .* one at least",
        ),
        (model({"ch_mult": [1, 0]}), r"ch_mult is \[1, 0\]; it takes a list of whole"),
        (model({"attn_resolutions": 16}), r"attn_resolutions is 16; it takes a list"),
        (model({"give_pre_end": "no"}), r"give_pre_end is 'no'; it takes true or fa"),
        (
            model(lossconfig={"disc_num_layers": -1}),
            r"disc_num_layers is -1; it takes a whole number above 0",
        ),
        (
            model(lossconfig={"disc_loss": "wgan"}),
            r"disc_loss is 'wgan'; it takes 'hinge' or 'vanilla'",
        ),
        (model(lossconfig={"use_actnorm": 1}), r"use_actnorm is 1; it takes true or"),
        (
            model(lossconfig={"disc_conditional": True}),
            r"disc_conditional=True; known is False: without its lossconfig the model",
        ),
        (gumbel(kl_weight="x"), r"GumbelVQ's params: kl_weight is 'x'; it takes a nu"),
        (gumbel({"lr_max": 0}), r"config's params: lr_max is 0; it takes a number abo"),
        (
            gumbel({"max_decay_steps": "many"}),
            r"max_decay_steps is 'many'; it takes a whole number, 0 or more",
        ),
        (
            gumbel(temperature_scheduler_config=0.5),
            r"temperature_scheduler_config is 0\.5; it takes keys with values",
        ),
        ({"vq": {"ch_mult": 3}}, r"vq: ch_mult is 3; it takes a list of whole numb"),
        ({"vq": {"encoder_ch_mult": []}}, r"encoder_ch_mult is \[\]; it takes a list"),
        ({"vq": {"l2_norm": "yes"}}, r"vq: l2_norm is 'yes'; it takes true or false"),
        ({"vq": {"beta": "x"}}, r"vq: beta is 'x'; it takes a number, 0 or more"),
    ],
)
def test_a_value_of_a_wrong_kind_is_named(config, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(config)
    assert "\n" not in str(caught.value)


def test_a_whole_number_may_be_written_as_yaml_takes_for_another():
    trained = read(model(lossconfig={"disc_start": 5e4}))["vqgan"].trained
    assert trained["disc_start"] == 50_000


@pytest.mark.parametrize(
    "said", [{"use_checkpoint": True}, {"attn_type": "vanilla-xformers"}]
)
def test_what_changes_no_number_of_latent_diffusions_is_passed_over(said):
    assert read(model(said)) == read(CONFIG)
