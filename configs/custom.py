"""Your own pictures: a folder of JPEG, PNG or WebP files, at best a few thousand.

    python train_vqgan.py --config configs/custom.py --config.data.train=DIR
    python train_prior.py --config configs/custom.py --config.data.train=DIR

The folders in DIR are the classes that the prior is asked for. Other variants, the same
one in both commands:

    --config configs/custom.py:small                 for a laptop's processor
    --config configs/custom.py:unconditional         pictures without classes
    --config configs/custom.py:small_unconditional   both

Pictures asked for by maps, here of classes, that lie in a folder of their own under the
pictures' names; the same card in all three commands:

    python train_vqgan.py --config configs/custom.py:segmentation \
      --config.data.train=DIR --config.data.train_maps.segmentation=MAPS
    python train_vqgan.py ... --stage=condition_vqgan
    python train_prior.py ...

    --config configs/custom.py:depth                 of depth, grey or floats
    --config configs/custom.py:edges                 of edges, grey
    --config configs/custom.py:small_segmentation    and so on

For classes say --config.condition_vqgan.model.encoder.image_channels=N, how many there
are, with the background.

The plain one is for an accelerator: 256 x 256 pixels, 16 x 16 codes of 1024. `small`
has 64 x 64 pixels, 8 x 8 codes of 512. Every twentieth picture is held out unless
data.val names another folder.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

MAPS = ("segmentation", "depth", "edges")


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        name="folder",
        train=placeholder(str),
        val=placeholder(str),
        image_size=256,
        crop="random",
        zoom=1.0,  # above 1 crops move both ways, not along the longer side only
        flip=True,
    )
    config.vqgan = _vqgan()
    config.prior = _prior()
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    words = set(variant.split("_")) - {""}
    kinds = [kind for kind in MAPS if kind in words]
    told = words - {"small"}
    if told - {"unconditional", *MAPS} or len(told) > 1:
        raise ValueError(
            f"custom has no variant {variant!r}: there are 'unconditional', "
            f"{', '.join(map(repr, MAPS))}, 'small', and each as 'small_unconditional'"
        )
    if "small" in words:
        config.data.image_size = 64
        _make_small(config.vqgan)
        _make_small_prior(config.prior)
    if "unconditional" in words:
        config.prior.update(condition="none", label_dropout=0.0)
        config.prior.sampling.guidance = 1.0
    for kind in kinds:
        _tell_maps(config, kind, "small" in words)
    return config


def _tell_maps(config: ConfigDict, kind: str, small: bool) -> None:
    """A tokenizer of maps like that of pictures, and a prior that is told its codes."""
    config.data.train_maps = {kind: placeholder(str)}
    config.data.val_maps = {kind: placeholder(str)}  # where data.val is a path
    config.condition_vqgan = _vqgan()
    maps, classes = config.condition_vqgan, kind == "segmentation"
    if small:
        _make_small(maps)
    # 151: ADE20K's. One value, whichever of the two is set.
    channels = FieldReference(151 if classes else 1)
    for half in (maps.model.encoder, maps.model.decoder):
        half.image_channels = channels
    maps.model.classes = classes
    maps.input = kind
    maps.update(adversarial_weight=0.0, sharpness_weight=0.0, perceptual_weight=0.0)
    if classes:  # cross-entropy alone, whose numbers are small
        maps.update(l1_weight=0.0, l2_weight=0.0, difference_weight=0.0)
    maps.codebook_weight = 0.1 if classes else 1.0
    config.prior.condition = kind
    config.prior.condition_tokenizer = placeholder(str)
    config.prior.model.condition_everywhere = True


def _vqgan() -> dict:
    backbone = dict(
        channels=128,
        multipliers=(1, 1, 2, 2, 4),
        attention_resolutions=(16,),
        resolution=256,
        latent_channels=256,
        patch_size=1,
        resample="conv",
        middle_attention=True,
        norm_groups=32,
        gain=1.0,
    )
    return dict(
        model=dict(
            encoder=dict(blocks=2, **backbone),
            decoder=dict(blocks=3, **backbone),
            quantizer=dict(
                name="ema",
                codebook_size=1_024,
                dim=64,  # 8 above 4,096 codes, see docs/recipes.md
                beta=0.25,
                start_step=500,
                blend_steps=500,
                revive_every=100,
                revive_until=20_000,
            ),
            dtype="bfloat16",
            remat=False,
        ),
        discriminator=dict(channels=64, layers=3, norm="batch"),
        # loss
        l1_weight=1.0,
        l2_weight=0.0,
        difference_weight=0.0,
        sharpness_weight=0.0,
        perceptual_weight=0.0,  # 1.0 looks better: it needs weights, see the README
        perceptual_weights=placeholder(str),
        codebook_weight=1.0,
        adversarial_loss="hinge",
        adversarial_weight=0.4,
        adaptive_weight=True,
        disc_start=20_000,
        adversarial_start=21_000,  # the discriminator learns before it counts
        adversarial_ramp=5_000,
        decoder_only_start=placeholder(int),
        # optimizer
        learning_rate=1e-4,
        disc_learning_rate=1e-4,
        optimizer=dict(
            b1=0.9,
            b2=0.95,
            weight_decay=0.0,
            clip=1.0,
            schedule="cosine",
            warmup_steps=1_000,
            final_share=0.1,
        ),
        disc_optimizer=dict(b1=0.5, b2=0.9),
        ema_decay=0.999,
        # run
        steps=60_000,
        batch_size=32,
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


def _make_small(vqgan: ConfigDict) -> None:
    """Patches instead of pixels, and few steps: minutes on two cores."""
    model = vqgan.model
    model.dtype = "float32"
    cheap = dict(
        attention_resolutions=(),
        middle_attention=False,
        resample="patch",
        latent_channels=64,
        norm_groups=0,
        gain=3**0.5,
    )
    model.encoder.update(
        patch_size=4, channels=64, multipliers=(1, 2), blocks=1, **cheap
    )
    model.decoder.update(
        patch_size=2, channels=32, multipliers=(1, 2, 4), blocks=1, **cheap
    )
    model.quantizer.update(codebook_size=512, start_step=250, blend_steps=250)
    model.quantizer.update(revive_every=50, revive_until=3_000)
    vqgan.discriminator.update(channels=16, layers=2, norm="none")
    vqgan.update(
        l2_weight=2.0,
        difference_weight=0.5,
        sharpness_weight=0.5,  # 2.0, as for drawings, lays a grid over photographs
        codebook_weight=10.0,
        learning_rate=1e-3,
        disc_learning_rate=8e-4,
        ema_decay=0.99,
        steps=4_000,
        batch_size=8,
        disc_start=3_000,
        adversarial_start=3_100,
        adversarial_ramp=200,
        image_every=500,
        eval_every=500,
        checkpoint_every=500,
    )
    vqgan.optimizer.warmup_steps = 50


def _make_small_prior(prior: ConfigDict) -> None:
    prior.model.update(
        width=160,
        layers=4,
        heads=5,
        mlp="relu2",
        learned_positions=True,
        rotary_base=20.0,
        condition_everywhere=True,
        above=True,
        dtype="float32",
    )
    prior.update(
        learning_rate=2e-3,
        ema_decay=0.99,
        steps=3_000,
        batch_size=32,
        image_every=500,
        eval_every=500,
        checkpoint_every=500,
    )
    prior.optimizer.update(warmup_steps=50, final_share=0.02, muon=2.0)
