"""The smallest thing that is the real thing: drawn shapes, two cores, ten minutes.

No file is needed. The tokenizer (six minutes) reaches 28.0 dB with all of its 512 codes
in use; its last 800 steps have the adversary, too, and move no idle codes any more. Of
1,000 samples of the prior (four minutes) 99.9 % show what was asked for; a code costs
it 1.8 bits.

    python train_vqgan.py --config configs/shapes.py
    python train_prior.py --config configs/shapes.py
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The recipe card."""
    config = ConfigDict()
    config.seed = 0
    config.data = dict(name="shapes", train=24_000, val=500, image_size=64)
    config.vqgan = _vqgan()
    config.prior = _prior()
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    return config


def _vqgan() -> dict:
    # Patches instead of pixels, where pixels are dear; two blocks in the middle, too.
    cheap = dict(
        attention_resolutions=(),
        middle_attention=False,
        resample="patch",
        latent_channels=64,
        norm_groups=0,  # without normalisation, given the gain, it learns sooner
        gain=3**0.5,
    )
    model = dict(
        encoder=dict(
            patch_size=4, channels=64, multipliers=(1, 2), blocks=(1, 0), **cheap
        ),
        decoder=dict(
            patch_size=2, channels=32, multipliers=(1, 2, 4), blocks=(1, 1, 0), **cheap
        ),
        quantizer=dict(
            name="ema",
            codebook_size=512,
            dim=64,
            beta=0.25,
            start_step=250,
            blend_steps=250,
            revive_every=50,
            revive_until=2_600,
        ),
    )
    return dict(
        model=model,
        discriminator=dict(channels=16, layers=2, norm="none"),  # batch: it soon wins
        # loss
        l1_weight=1.0,
        l2_weight=2.0,
        difference_weight=0.5,
        sharpness_weight=2.0,  # without it edges are softer, for some tenths of a dB
        perceptual_weight=0.0,
        perceptual_weights=placeholder(str),
        codebook_weight=10.0,
        adversarial_loss="hinge",
        adversarial_weight=0.35,
        adaptive_weight=True,
        disc_start=2_600,
        adversarial_start=2_640,
        adversarial_ramp=0,
        decoder_only_start=placeholder(int),
        # optimizer
        learning_rate=1.2e-3,
        disc_learning_rate=8e-4,
        optimizer=dict(
            b1=0.9,
            b2=0.99,
            weight_decay=1e-4,
            clip=1.0,
            schedule="cosine",
            warmup_steps=30,
            final_share=0.1,
        ),
        disc_optimizer=dict(b1=0.5, b2=0.9),
        ema_decay=0.985,
        # run
        steps=3_400,
        batch_size=8,
        accumulate=1,
        log_every=50,
        image_every=600,
        eval_every=600,
        checkpoint_every=600,
        keep_checkpoints=2,
        stall_seconds=1_800,
        on_nonfinite="stop",
        init_from=placeholder(str),
    )


def _prior() -> dict:
    return dict(
        tokenizer=placeholder(str),  # a directory; None: the run's own
        condition="label",
        shared_vocabulary=False,
        label_dropout=0.1,
        pkeep=1.0,
        model=dict(
            width=160,
            layers=4,
            heads=5,
            norm="rms",
            mlp="relu2",  # cheaper than a gated one on a CPU
            bias=False,
            qk_norm=True,
            learned_positions=True,
            rotary=True,
            rotary_base=20.0,
            condition_everywhere=True,
            above=True,
            dropout=0.0,
        ),
        sampling=dict(
            temperature=0.8,
            top_k=placeholder(int),
            top_p=0.95,
            guidance=3.0,
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
            muon=2.0,
        ),
        ema_decay=0.99,
        # run
        steps=2_100,
        batch_size=16,
        accumulate=1,
        log_every=50,
        image_every=500,
        eval_every=500,
        eval_examples=500,
        checkpoint_every=500,
        keep_checkpoints=2,
        stall_seconds=1_800,
        on_nonfinite="stop",
        init_from=placeholder(str),
    )
