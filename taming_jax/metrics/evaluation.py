"""What a tokenizer is worth on pictures that it has not seen.

held-out pictures -> codes -> reconstructions -> uint8 -> every measure of this package

All figures are of the pictures as a file would hold them: clipped and rounded to
uint8. Every example counts once, and N stands beside what depends on it. Several
processes share the pictures of each batch, and all return the same figures.
"""

import jax
import numpy as np

from taming_jax.metrics import codebook, frechet, pixels, shares
from taming_jax.metrics.judge import Judge
from taming_jax.models.perceptual import lpips
from taming_jax.pretrained import PretrainedVQGAN
from taming_jax.units import from_uint8, to_uint8


def evaluate_vqgan(
    vqgan: PretrainedVQGAN,
    held_out,
    *,
    batch_size: int = 16,
    samples: int | None = None,
    judge: Judge | None = None,
    perceptual_params=None,
) -> dict[str, float | int]:
    """Measures the reconstructions of the first `samples` held-out pictures (or all).

    Args:
      vqgan: the tokenizer.
      held_out: a source of pictures.
      batch_size: of everything that is computed.
      samples: how many, at most; None: all.
      judge: None where the data have no classes.
      perceptual_params: the weights of LPIPS, or None.

    Returns:
      examples; psnr [dB], ssim, lpips; codebook_usage, _perplexity, _draws (N) and
      _size; judge_frechet, judge_accuracy, judge_accuracy_on_originals and
      judge_held_out_accuracy. What could not be measured is absent.
    """
    keep = ("image",) if judge is None else ("image", "label")
    counts = np.zeros(vqgan.codebook_size, np.int64)
    columns = {}  # name -> one array per batch, one row per picture
    for batch in shares.eval_batches(
        held_out, batch_size=batch_size, keep=keep, count=samples
    ):
        codes, measured = _measure(vqgan, batch, judge, perceptual_params)
        counts += codebook.count_codes(codes[batch["mask"]], vqgan.codebook_size)
        for name, values in {**measured, "mask": batch["mask"]}.items():
            columns.setdefault(name, []).append(values)
    columns = {name: np.stack(parts) for name, parts in columns.items()}
    columns = shares.all_rows(columns, columns.pop("mask"))
    counts = shares.total(counts)
    means = {name: float(column.mean()) for name, column in columns.items()}
    return {
        "examples": len(columns["psnr"]),
        **{name: means[name] for name in ("psnr", "ssim", "lpips") if name in means},
        "codebook_usage": codebook.usage(counts),
        "codebook_perplexity": codebook.perplexity(counts),
        "codebook_draws": int(counts.sum()),
        "codebook_size": vqgan.codebook_size,
        **({} if judge is None else _judged(columns, judge)),
    }


def _measure(vqgan, batch, judge, perceptual_params):
    """One batch -> its codes, and of every measure one row per picture."""
    codes = vqgan.encode(from_uint8(batch["image"]))
    reconstructions = to_uint8(vqgan.decode(codes))
    height, width = reconstructions.shape[1:3]
    originals = batch["image"][:, :height, :width]
    measured = {
        "psnr": pixels.psnr(originals, reconstructions),
        "ssim": pixels.ssim(originals, reconstructions),
    }
    if perceptual_params is not None:
        distances = _lpips(perceptual_params, originals, reconstructions)
        measured["lpips"] = np.asarray(distances)
    if judge is not None:
        measured["features"], predicted = judge(reconstructions)
        measured["is_right"] = predicted == batch["label"]
        measured["original_features"], predicted = judge(originals)
        measured["original_is_right"] = predicted == batch["label"]
    return np.asarray(codes), measured


@jax.jit
def _lpips(params, originals, reconstructions):
    return lpips(params, from_uint8(originals), from_uint8(reconstructions))


def _judged(columns, judge: Judge) -> dict[str, float]:
    """What the judge's features and predictions say of all pictures together."""
    return {
        "judge_frechet": frechet.frechet_distance(
            frechet.fit_gaussian(columns["original_features"]),
            frechet.fit_gaussian(columns["features"]),
        ),
        "judge_accuracy": float(columns["is_right"].mean()),
        "judge_accuracy_on_originals": float(columns["original_is_right"].mean()),
        "judge_held_out_accuracy": judge.card["held_out_accuracy"],
    }
