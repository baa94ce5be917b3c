"""Pictures of a megapixel, told what is where: a window that slides; two cores.

The prior learns crops of 128 pixels, 16 x 16 codes, out of scenes that are drawn with
512. It is told the class map of each, with half its pixels: 8 x 8 codes. Pictures of
any size are then drawn through a window of 16 x 16 codes, docs/megapixel.png for
example. On held-out crops pictures come back with 25.7 dB and class maps with 95 % of
their pixels; a code costs the prior 3.4 bits. All three train in 19 minutes of a
processor's time, and are as narrow as it takes to bring them along, as `scenes`.

    python train_vqgan.py --config configs/megapixels.py
    python train_vqgan.py --config configs/megapixels.py --stage=condition_vqgan
    python train_prior.py --config configs/megapixels.py
    python -m taming_jax sample --workdir runs/megapixels --condition docs/scene.png \
      --height 1024 --width 1024 --count 1 --output OUT
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The recipe card."""
    config = ConfigDict()
    config.seed = 0
    config.data = dict(name="scenes", train=24_000, val=200, image_size=128, zoom=4)
    config.vqgan = _pictures()
    config.condition_vqgan = _class_maps()
    config.prior = _prior()
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    return config


def _pictures() -> dict:
    return dict(
        model=dict(
            **_body(3, (20, 40), (16, 32, 48)), quantizer=_quantizer(512), classes=False
        ),
        discriminator=dict(channels=16, layers=2, norm="none"),
        # loss
        l1_weight=1.0,
        l2_weight=2.0,
        difference_weight=0.5,
        sharpness_weight=2.0,
        perceptual_weight=0.0,
        perceptual_weights=placeholder(str),
        codebook_weight=10.0,
        adversarial_loss="hinge",
        adversarial_weight=0.35,
        adaptive_weight=True,
        disc_start=1_500,
        adversarial_start=1_540,
        adversarial_ramp=0,
        decoder_only_start=1_500,
        disc_learning_rate=8e-4,
        disc_optimizer=dict(b1=0.5, b2=0.9),
        **_run(steps=2_000, batch_size=8),
    )


def _class_maps() -> dict:
    return dict(
        input="segmentation",
        stretch=False,
        model=dict(
            **_body(11, (16, 32), (12, 12, 24)),
            quantizer=_quantizer(256),
            classes=True,
        ),
        # loss
        l1_weight=0.0,
        l2_weight=0.0,
        difference_weight=0.0,
        sharpness_weight=0.0,
        perceptual_weight=0.0,
        codebook_weight=0.1,  # cross-entropies of eleven classes are small numbers
        adversarial_weight=0.0,
        **_run(steps=1_000, batch_size=4),
    )


def _body(channels: int, encoder: tuple[int, ...], decoder: tuple[int, ...]) -> dict:
    """Encoder and decoder; patches instead of pixels, where pixels are dear."""
    cheap = dict(
        attention_resolutions=(),
        middle_attention=False,
        resample="patch",
        latent_channels=32,
        image_channels=channels,
        norm_groups=0,  # without normalisation, given the gain, it learns sooner
        gain=3**0.5,
    )
    return dict(
        encoder=dict(patch_size=4, **_levels(encoder, blocks=1), **cheap),
        decoder=dict(patch_size=2, **_levels(decoder, blocks=2), **cheap),
    )


def _levels(channels: tuple[int, ...], blocks: int) -> dict:
    """Of these widths; the first have a block each."""
    return dict(
        channels=channels[0],
        multipliers=tuple(c // channels[0] for c in channels),
        blocks=tuple(int(level < blocks) for level in range(len(channels))),
    )


def _quantizer(codes: int) -> dict:
    return dict(
        name="ema",
        codebook_size=codes,
        dim=32,
        beta=0.25,
        start_step=200,
        blend_steps=200,
        revive_every=50,
        revive_until=1_500,
    )


def _run(steps: int, batch_size: int) -> dict:
    """Optimizer and run of a tokenizer."""
    return dict(
        learning_rate=1.2e-3,
        optimizer=dict(
            b1=0.9,
            b2=0.99,
            weight_decay=1e-4,
            clip=1.0,
            schedule="cosine",
            warmup_steps=30,
            final_share=0.1,
        ),
        ema_decay=0.985,
        steps=steps,
        batch_size=batch_size,
        accumulate=1,
        log_every=50,
        image_every=500,
        eval_every=500,
        checkpoint_every=500,
        keep_checkpoints=2,
        stall_seconds=1_800,
        on_nonfinite="stop",
        init_from=placeholder(str),
    )


def _prior() -> dict:
    return dict(
        tokenizer=placeholder(str),  # a directory; None: the run's own
        condition=dict(name="segmentation", side=64),
        condition_tokenizer=placeholder(str),
        shared_vocabulary=False,
        label_dropout=0.1,
        pkeep=1.0,
        model=dict(
            width=80,
            layers=4,
            heads=4,
            norm="rms",
            mlp="relu2",  # cheaper than a gated one on a CPU
            bias=False,
            qk_norm=True,
            learned_positions=True,
            rotary=True,
            rotary_base=20.0,
            condition_everywhere=True,
            above=True,
            tied_head=True,
            dropout=0.0,
        ),
        sampling=dict(
            temperature=0.8,  # what goes wrong in one window, all that follow see
            top_k=placeholder(int),
            top_p=0.8,
            guidance=2.0,
            guidance_schedule="constant",
        ),
        # optimizer
        learning_rate=1.5e-3,
        optimizer=dict(
            b1=0.9,
            b2=0.95,
            weight_decay=0.05,
            clip=1.0,
            schedule="cosine",
            warmup_steps=50,
            final_share=0.02,
        ),
        ema_decay=0.99,
        # run
        steps=1_000,
        batch_size=12,
        accumulate=1,
        log_every=50,
        image_every=500,
        eval_every=500,
        eval_examples=200,
        checkpoint_every=500,
        keep_checkpoints=2,
        stall_seconds=1_800,
        on_nonfinite="stop",
        init_from=placeholder(str),
    )
