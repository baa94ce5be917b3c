"""The evaluation of a tokenizer, against each measure taken in one go."""

import types

import jax
import numpy as np
import pytest
import tiny_run
from tiny_stage import random_perceptual

from taming_jax import data, load_vqgan
from taming_jax.metrics.evaluation import evaluate_vqgan
from taming_jax.metrics.frechet import fit_gaussian, frechet_distance
from taming_jax.models.perceptual import lpips
from taming_jax.units import from_uint8, to_uint8


@pytest.fixture(scope="module")
def vqgan(tmp_path_factory):
    return load_vqgan(tiny_run.write_run(tmp_path_factory.mktemp("evaluation") / "run"))


@pytest.fixture(scope="module")
def held_out():
    return data.open_source(tiny_run.CONFIG["data"], "val")


class ColourJudge:
    """Features: the mean colour. Prediction: 3 for what is rather red."""

    card = types.MappingProxyType({"held_out_accuracy": 0.75})

    def __call__(self, pictures):
        colours = pictures.mean(axis=(1, 2)).astype(np.float32)
        return colours, np.where(colours[:, 0] > 120, 3, 4)


@pytest.fixture(scope="module")
def measured(vqgan, held_out):
    """Eleven pictures, four at a time: the last batch is not full."""
    return evaluate_vqgan(
        vqgan,
        held_out,
        batch_size=4,
        judge=ColourJudge(),
        perceptual_params=random_perceptual(),
    )


@pytest.fixture(scope="module")
def expected(vqgan, held_out):
    """The same from one batch of all, by the references themselves."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    batch = next(data.eval_batches(held_out, batch_size=11, keep=("image", "label")))
    originals = batch["image"]
    codes = np.asarray(vqgan.encode(from_uint8(originals)))
    reconstructions = to_uint8(vqgan.decode(codes))
    pairs = list(zip(originals, reconstructions, strict=True))
    before, after = (ColourJudge()(x) for x in (originals, reconstructions))
    shares = np.unique(codes, return_counts=True)[1] / codes.size
    images = from_uint8(originals), from_uint8(reconstructions)
    return {
        "examples": 11,
        "psnr": np.mean([peak_signal_noise_ratio(*p) for p in pairs]),
        "ssim": np.mean(
            [
                structural_similarity(
                    *p,
                    channel_axis=-1,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                )
                for p in pairs
            ]
        ),
        "lpips": np.mean(jax.jit(lpips)(random_perceptual(), *images)),
        "codebook_usage": len(shares) / tiny_run.CODEBOOK_SIZE,
        "codebook_perplexity": np.exp(-np.sum(shares * np.log(shares))),
        "codebook_draws": codes.size,
        "codebook_size": tiny_run.CODEBOOK_SIZE,
        "judge_frechet": frechet_distance(
            fit_gaussian(before[0]), fit_gaussian(after[0])
        ),
        "judge_accuracy": np.mean(after[1] == batch["label"]),
        "judge_accuracy_on_originals": np.mean(before[1] == batch["label"]),
        "judge_held_out_accuracy": 0.75,
    }


def test_every_example_counts_once(measured, expected):
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        # A batch of 4 and one of 11 round differently, which flips a pixel's last bit.
        np.testing.assert_allclose(measured[name], value, rtol=1e-3, err_msg=name)


def test_figures_are_numbers_that_json_knows(measured):
    assert {type(value) for value in measured.values()} == {int, float}


def test_what_cannot_be_measured_is_absent(vqgan, held_out):
    figures = evaluate_vqgan(vqgan, held_out, batch_size=4)
    assert not [name for name in figures if "lpips" in name or "judge" in name]


def test_samples_limit_the_examples(vqgan, held_out):
    figures = evaluate_vqgan(vqgan, held_out, batch_size=4, samples=5)
    assert (figures["examples"], figures["codebook_draws"]) == (5, 5 * 16)
