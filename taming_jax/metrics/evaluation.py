"""What a tokenizer is worth on pictures, or maps, that it has not seen.

held-out pictures -> codes -> reconstructions -> uint8 -> every measure of this package

All figures of pictures are of them as a file would hold them: clipped and rounded to
uint8. Of class maps, pixel accuracy and IoU; of other maps, PSNR and the error as they
are. Every example counts once, and N stands beside what depends on it. Several
processes share the pictures of each batch, and all return the same figures.
"""

import jax
import numpy as np

from taming_jax.metrics import classes, codebook, frechet, pixels, shares
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
      held_out: a source of what it is for.
      batch_size: of everything that is computed.
      samples: how many, at most; None: all.
      judge: of pictures; None where the data have no classes.
      perceptual_params: the weights of LPIPS, for pictures, or None.

    Returns:
      examples; psnr [dB], ssim, lpips of pictures; psnr, mean_absolute_error in
      [0, 1] of depth and edges; pixel_accuracy, mean_iou of class maps;
      codebook_usage, _perplexity, _draws (N) and _size; judge_frechet,
      judge_accuracy, judge_accuracy_on_originals and judge_held_out_accuracy. What
      could not be measured is absent.
    """
    kind = vqgan.input.kind
    keep = (kind,) if judge is None else (kind, "label")
    counts = np.zeros(vqgan.codebook_size, np.int64)
    columns = {}  # name -> one array per batch, one row per picture
    for batch in shares.eval_batches(
        held_out, batch_size=batch_size, keep=keep, count=samples
    ):
        codes = vqgan.encode(vqgan.input.read(batch[kind]))
        found, codes = vqgan.decode(codes), np.asarray(codes)
        if kind == "image":
            measured = _of_pictures(batch, found, judge, perceptual_params)
        else:
            measured = _of_maps(vqgan, batch[kind], found)
        counts += codebook.count_codes(codes[batch["mask"]], vqgan.codebook_size)
        for name, values in {**measured, "mask": batch["mask"]}.items():
            columns.setdefault(name, []).append(values)
    columns = {name: np.stack(parts) for name, parts in columns.items()}
    columns = shares.all_rows(columns, columns.pop("mask"))
    counts = shares.total(counts)
    examples = len(next(iter(columns.values())))
    return {
        "examples": examples,
        **_means(columns),
        "codebook_usage": codebook.usage(counts),
        "codebook_perplexity": codebook.perplexity(counts),
        "codebook_draws": int(counts.sum()),
        "codebook_size": vqgan.codebook_size,
        **({} if judge is None else _judged(columns, judge)),
    }


def _of_pictures(batch, found, judge, perceptual_params):
    """Of every measure, one row per picture of the batch."""
    reconstructions = to_uint8(found)
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
    return measured


def _of_maps(vqgan, truth, found):
    """Of every measure, one row per map of the batch."""
    height, width = found.shape[1:3]
    truth = vqgan.input.read(truth)[:, :height, :width]
    if vqgan.module.classes:
        pair = classes.overlaps(truth, found, vqgan.module.image_channels)
        names = "pixel_accuracy", "intersections", "unions"
        measures = classes.pixel_accuracy(truth, found), *pair
        return dict(zip(names, map(np.asarray, measures), strict=True))
    difference = np.asarray(truth - found, np.float64) / 2  # in units of [0, 1]
    squares = np.square(difference).mean((1, 2, 3))
    return {
        "psnr": -10 * np.log10(np.maximum(squares, 10 ** (-pixels.PSNR_LIMIT / 10))),
        "mean_absolute_error": np.abs(difference).mean((1, 2, 3)),
    }


def _means(columns) -> dict[str, float]:
    """What is a mean over the examples, and IoU, which is of their sums."""
    names = "psnr", "ssim", "lpips", "mean_absolute_error", "pixel_accuracy"
    means = {name: float(columns[name].mean()) for name in names if name in columns}
    if "unions" in columns:
        pair = (columns[name].sum(0) for name in ("intersections", "unions"))
        means["mean_iou"] = classes.mean_iou(*pair)
    return means


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
