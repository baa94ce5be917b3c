"""A tokenizer that is there already, trained further on your own pictures.

    python train_vqgan.py --config configs/finetune.py:MODEL --config.data.train=DIR
    python train_prior.py --config configs/finetune.py:MODEL --config.data.train=DIR

MODEL is a run's directory, a converted model's (docs/finetuning.md) or the name of one
that the package brings along: `--config configs/finetune.py:shapes` is the small one.
The model's fields, its discriminator's and the size of the pictures are read from it;
all else stands here. Made for one accelerator; on a CPU only small models are fun.

Low and constant rates, because most of it is known already. The discriminator learns
for 2,000 steps before it counts: a new one, or one that knows other pictures, would
blur what the model can do.
"""

import json

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from taming_jax import stored


def get_config(model: str = "shapes") -> ConfigDict:
    directory = stored.find(model, "vqgan")
    theirs = json.loads((directory / "config.json").read_text())["config"]
    if theirs["vqgan"].get("input", "image") != "image":
        raise ValueError(
            f"{model} tokenizes maps, and this card is for pictures: train it further "
            "by a copy of its own card (a converted model brings one) with init_from"
        )
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        name="folder",
        train=placeholder(str),
        val=placeholder(str),
        image_size=theirs["data"]["image_size"],
        crop="random",
        zoom=1.2,  # crops move both ways: a folder is seldom large
        flip=True,
    )
    config.vqgan = _vqgan(theirs["vqgan"], model)
    if (directory / "perceptual.npz").exists():
        config.vqgan.perceptual_weights = str(directory / "perceptual.npz")
    config.prior = _prior()
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    return config


def _vqgan(theirs: dict, model: str) -> dict:
    return dict(
        model=theirs["model"],
        discriminator=theirs["discriminator"],
        init_from=model,
        # loss
        l1_weight=1.0,
        l2_weight=theirs.get("l2_weight", 0.0),
        difference_weight=theirs.get("difference_weight", 0.0),
        sharpness_weight=theirs.get("sharpness_weight", 0.0),
        perceptual_weight=theirs.get("perceptual_weight", 1.0),
        perceptual_weights=placeholder(str),
        codebook_weight=theirs.get("codebook_weight", 1.0),
        adversarial_loss=theirs.get("adversarial_loss", "hinge"),
        adversarial_weight=theirs.get("adversarial_weight", 0.8),
        adaptive_weight=theirs.get("adaptive_weight", True),
        disc_start=0,
        adversarial_start=2_000,
        adversarial_ramp=2_000,
        decoder_only_start=placeholder(int),  # 0: the codes stay, and so do priors
        # optimizer
        learning_rate=5e-5,
        disc_learning_rate=5e-5,
        optimizer=dict(b1=0.5, b2=0.9, clip=1.0, warmup_steps=500),
        ema_decay=0.999,
        # run
        steps=20_000,
        batch_size=8,
        accumulate=1,
        log_every=50,
        image_every=500,
        eval_every=1_000,
        eval_examples=1_000,
        checkpoint_every=1_000,
        keep_checkpoints=3,
        stall_seconds=1_800,
        on_nonfinite="stop",
    )


def _prior() -> dict:
    return dict(
        tokenizer=placeholder(str),  # a directory; None: the run's own
        condition="label",  # the folders' names; "none" where there are no classes
        shared_vocabulary=False,
        label_dropout=0.1,
        pkeep=1.0,
        model=dict(
            width=768,
            layers=12,
            heads=12,
            norm="rms",
            mlp="swiglu",
            bias=False,
            qk_norm=True,
            learned_positions=False,
            rotary=True,
            rotary_base=10_000.0,
            condition_everywhere=False,
            above=False,
            dropout=0.1,  # a few thousand pictures are soon known by heart
            dtype="bfloat16",
            remat=False,
        ),
        sampling=dict(
            temperature=1.0,
            top_k=placeholder(int),
            top_p=0.95,
            guidance=2.0,
            guidance_schedule="constant",
        ),
        # optimizer
        learning_rate=3e-4,
        optimizer=dict(
            b1=0.9,
            b2=0.95,
            weight_decay=0.05,
            clip=1.0,
            schedule="cosine",
            warmup_steps=1_000,
            final_share=0.1,
        ),
        ema_decay=0.999,
        # run
        steps=60_000,
        batch_size=64,
        accumulate=1,
        log_every=50,
        image_every=1_000,
        eval_every=2_000,
        eval_examples=1_000,
        checkpoint_every=1_000,
        keep_checkpoints=3,
        stall_seconds=1_800,
        on_nonfinite="stop",
        init_from=placeholder(str),
    )
