"""ImageNet at 256 x 256 with the paper's models: f = 16, 16384 codes, 1.4B parameters.

Esser, Rombach, Ommer 2021 (arXiv 2012.09841), table 7 and the published model
`vqgan_imagenet_f16_16384`: 76.1M parameters, reconstruction FID 4.98 on the 50,000
validation pictures. The prior is the paper's class-conditional transformer of 48
layers: FID 15.98 as it is, 5.20 with rejection by a classifier. The paper gives no
hours.

    python train_vqgan.py --config configs/imagenet.py --config.data.train=DIR
    python train_prior.py --config configs/imagenet.py --config.data.train=DIR

where DIR holds the folders nXXXXXXXX/*.JPEG, and data.val the like; or leave both as
TFDS splits. The paper's rate is 4.5e-6 times the global batch and nothing here
multiplies it: on 8 devices, --config.vqgan.batch_size=96 goes with
--config.vqgan.learning_rate=4.3e-4.

What came after the paper, in both commands:

    --config configs/imagenet.py:modern

has a tokenizer of the same size and grid whose 16384 codes stay in use, and LlamaGen's
transformer. Nobody has trained it at this size yet.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "modern"):
        raise ValueError(f"imagenet has no variant {variant!r}: there is 'modern'")
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        name="imagenet",
        train="train",
        val=placeholder(str),  # another folder; TFDS has its validation split
        image_size=256,
        crop="random",
        zoom=1.0,  # above 1 crops move both ways, not along the longer side only
        flip=True,
    )
    config.vqgan = _modern_vqgan() if variant else _vqgan()
    config.prior = _modern_prior() if variant else _prior()
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    return config


def _autoencoder() -> dict:
    """The paper's, of both variants."""
    backbone = dict(
        channels=128,
        multipliers=(1, 1, 2, 2, 4),
        attention_resolutions=(16,),
        resolution=256,
        latent_channels=256,
        dropout=0.0,
    )
    return dict(encoder=dict(blocks=2, **backbone), decoder=dict(blocks=3, **backbone))


def _vqgan() -> dict:
    return dict(
        model=dict(
            **_autoencoder(),
            quantizer=dict(
                name="vq",
                codebook_size=16_384,
                dim=256,
                beta=0.25,
                legacy=True,  # beta on the wrong side, as the published model has it
            ),
            dtype="float32",
            remat=False,
        ),
        discriminator=dict(channels=64, layers=3, norm="batch"),
        # loss
        l1_weight=1.0,
        l2_weight=0.0,
        perceptual_weight=1.0,
        perceptual_weights=placeholder(str),
        codebook_weight=1.0,
        adversarial_loss="hinge",
        adversarial_weight=0.8,
        adaptive_weight=True,
        disc_start=250_001,
        adversarial_start=250_001,
        adversarial_ramp=0,
        # optimizer
        learning_rate=5.4e-5,  # 4.5e-6 x 12
        disc_learning_rate=5.4e-5,
        optimizer=dict(b1=0.5, b2=0.9),
        ema_decay=0.999,  # the paper has none
        # run
        steps=1_000_000,  # the paper names no number
        batch_size=12,
        accumulate=1,
        log_every=100,
        image_every=5_000,
        eval_every=10_000,
        eval_examples=2_000,
        checkpoint_every=5_000,
        keep_checkpoints=3,
        stall_seconds=1_800,
        on_nonfinite="stop",
        init_from=placeholder(str),
    )


def _prior() -> dict:
    """The paper's class-conditional transformer, 1.4B parameters."""
    return dict(
        tokenizer=placeholder(str),  # a directory; None: the run's own
        condition="label",
        shared_vocabulary=True,  # class c is said with token c
        label_dropout=0.0,
        pkeep=1.0,
        model=dict(
            width=1_536,
            layers=48,
            heads=24,
            norm="layer",
            mlp="gelu",
            bias=True,
            learned_positions=True,
            dropout=0.0,
            dtype="bfloat16",
            remat=True,
        ),
        sampling=dict(
            temperature=1.0,
            top_k=600,
            top_p=0.92,
            guidance=1.0,
            guidance_schedule="constant",
        ),
        # optimizer
        learning_rate=2.9e-4,  # 4.5e-6 x 64, the rule of the original's cards
        optimizer=dict(b1=0.9, b2=0.95, weight_decay=0.01),
        ema_decay=0.999,  # the paper has none
        # run
        steps=1_000_000,  # the paper names no number
        batch_size=64,
        accumulate=1,
        log_every=100,
        image_every=5_000,
        eval_every=10_000,
        eval_examples=5_000,
        checkpoint_every=5_000,
        keep_checkpoints=3,
        stall_seconds=1_800,
        on_nonfinite="stop",
        init_from=placeholder(str),
    )


def _modern_vqgan() -> dict:
    """The paper's encoder and decoder with what later tokenizers have in common.

    LlamaGen (Sun et al. 2024) reaches FID 2.19 with as many codes of eight dimensions
    in 40 epochs, IBQ (Shi et al. 2024) 1.37 with this adversary in 330. Here are 80.
    """
    return dict(
        model=dict(
            **_autoencoder(),
            quantizer=dict(
                name="ema",  # what won at 64 pixels, see docs/recipes.md
                codebook_size=16_384,
                dim=8,  # of 64 so many are not filled
                beta=0.25,
                start_step=2_000,
                blend_steps=2_000,
                revive_every=500,
                revive_until=50_000,
            ),
            dtype="bfloat16",
            remat=False,
        ),
        discriminator=dict(channels=64, layers=3, norm="batch"),
        # loss
        l1_weight=0.0,
        l2_weight=1.0,
        perceptual_weight=1.0,
        perceptual_weights=placeholder(str),
        codebook_weight=1.0,
        adversarial_loss="hinge",
        adversarial_weight=0.1,
        adaptive_weight=False,
        disc_start=20_000,
        adversarial_start=25_000,  # the discriminator learns before it counts
        adversarial_ramp=10_000,
        lecam_weight=0.05,
        lecam_decay=0.999,
        r1_weight=0.0,
        r1_every=1,
        # optimizer
        learning_rate=1e-4,
        disc_learning_rate=1e-4,
        optimizer=dict(
            b1=0.9,
            b2=0.95,
            weight_decay=0.0,
            clip=1.0,
            schedule="cosine",
            warmup_steps=5_000,
            final_share=0.1,
        ),
        disc_optimizer=dict(b1=0.5, b2=0.9),
        ema_decay=0.999,
        # run
        steps=400_000,  # 80 epochs
        batch_size=256,
        accumulate=1,
        log_every=100,
        image_every=5_000,
        eval_every=10_000,
        eval_examples=2_000,
        checkpoint_every=5_000,
        keep_checkpoints=3,
        stall_seconds=1_800,
        on_nonfinite="stop",
        init_from=placeholder(str),
    )


def _modern_prior() -> dict:
    """LlamaGen-L's transformer, 0.34B parameters, trained as RAR is.

    Sun et al. 2024 (arXiv 2406.06525) reach FID 3.80 with this size and guidance 2, Yu
    et al. 2024 (arXiv 2411.00776) 1.70 with 0.46B parameters and random orders, which
    make way for the rows from half of the training on. Queries and keys are scaled.
    """
    return dict(
        tokenizer=placeholder(str),
        condition="label",
        shared_vocabulary=False,
        label_dropout=0.1,
        pkeep=1.0,
        order="raster",
        random_order=1.0,
        random_order_start=0.5,
        random_order_end=0.75,
        model=dict(
            width=1_024,
            layers=24,
            heads=16,
            kv_heads=placeholder(int),
            norm="rms",
            mlp="swiglu",
            bias=False,
            qk_norm=True,
            learned_positions=False,
            target_positions=True,
            rotary=True,
            rotary_base=10_000.0,
            dropout=0.1,
            dtype="bfloat16",
            remat=False,
        ),
        sampling=dict(
            temperature=1.0,
            top_k=placeholder(int),
            top_p=placeholder(float),
            guidance=2.0,  # LlamaGen's at this size
            guidance_schedule="constant",  # RAR's is power-cosine:2.5, up to 15.5
        ),
        # optimizer
        learning_rate=4e-4,
        optimizer=dict(
            b1=0.9,
            b2=0.96,
            weight_decay=0.03,
            clip=1.0,
            schedule="cosine",
            warmup_steps=62_500,
            final_share=0.025,
        ),
        ema_decay=0.9999,
        # run
        steps=250_000,
        batch_size=2_048,
        accumulate=1,
        log_every=100,
        image_every=5_000,
        eval_every=10_000,
        eval_examples=5_000,
        checkpoint_every=5_000,
        keep_checkpoints=3,
        stall_seconds=1_800,
        on_nonfinite="stop",
        init_from=placeholder(str),
    )
