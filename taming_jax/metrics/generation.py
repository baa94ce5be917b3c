"""What a prior is worth: what it draws, and what it makes of pictures it has not seen.

held-out pictures -> codes -> bits per token
conditions -> samples -> uint8 -> judge, reader: are they that, do they look alike

All figures are of pictures as a file would hold them, and N stands beside them.
Several processes share pictures and samples, and all return the same figures.
"""

from collections.abc import Mapping

import jax
import numpy as np

from taming_jax import data
from taming_jax.metrics import asked as asked_scores
from taming_jax.metrics import drawn, frechet, placed, shares
from taming_jax.metrics.judge import Judge
from taming_jax.metrics.likelihood import condition_of, nats_of
from taming_jax.metrics.reader import Reader
from taming_jax.pretrained import PretrainedPrior
from taming_jax.units import from_uint8, to_uint8

# What figures of samples stand beside: the same of the held-out pictures.
_BESIDE = ("of_originals", "of_reconstructions")


def evaluate_prior(
    prior: PretrainedPrior,
    held_out,
    *,
    seed: int = 0,
    batch_size: int = 16,
    samples: int | None = None,
    judge: Judge | None = None,
    reader: Reader | None = None,
) -> dict[str, float | int]:
    """Measures a prior by its likelihood and, where there is a judge, by its samples.

    Samples are asked for class by class in turn, or by the conditions of the held-out
    pictures, one after the other, and drawn as the prior's recipe says.

    Args:
      prior: with its tokenizer.
      held_out: a source of pictures, with what the prior is told of them.
      seed: of the samples.
      batch_size: of everything that is computed.
      samples: how many are drawn, and at most how many of the held-out pictures are
        read; None: as many as are held out.
      judge: None where the data have no classes.
      reader: of what conditions show; None where the data have no maps.

    Returns:
      examples, nats_per_token, bits_per_token; with a judge also samples (N),
      label_accuracy (conditional priors), judge_accuracy_on_originals,
      judge_accuracy_on_reconstructions, judge_held_out_accuracy, and judge_frechet
      (samples against originals) beside judge_frechet_of_reconstructions. For other
      conditions the figures of `asked`, each beside what it is _of_originals and
      _of_reconstructions: how far reader and tokenizer err by themselves; for
      coordinates of crops places_told_apart, see `placed`.
    """
    count = samples or len(held_out)
    told = asked_scores.names(prior.vocabulary.told, reader)
    nlls, seen = _read_held_out(
        prior, held_out, batch_size, min(count, len(held_out)), judge, reader
    )
    figures = {
        "examples": len(nlls),
        "nats_per_token": float(nlls.mean()),
        "bits_per_token": float(nlls.mean() / np.log(2)),
    }
    if placed.can_be_told_apart(prior.vocabulary.told, held_out):
        figures["places_told_apart"] = placed.told_apart(
            prior, held_out, count=len(nlls), batch_size=batch_size
        )
    if judge is None and not told:
        return figures
    asked, labels, heard = what_to_draw(prior, held_out, count, batch_size)
    rows = dict.fromkeys(told, ((), np.float64))
    if judge is not None:
        features = seen["features_of_originals"]
        rows |= {"features": (features.shape[1:], features.dtype)}
        rows |= {"is_right": ((), bool)}

    def measure(which, pictures):
        part = jax.tree.map(lambda values: values[which], asked)
        return _scores(prior, part, pictures, labels[which], judge, reader)

    measured = drawn.measured(
        prior, heard, measure, rows, count=count, seed=seed, batch_size=batch_size
    )
    figures["samples"] = count
    for name in told:
        figures[name] = _mean(measured[name])
        beside = [f"{name}_{which}" for which in _BESIDE]
        figures |= {column: _mean(seen[column]) for column in beside}
    if judge is None:
        return figures
    if prior.vocabulary.classes:
        figures["label_accuracy"] = float(measured["is_right"].mean())
    return figures | _judged(measured, seen, judge)


def _read_held_out(prior, held_out, batch_size, count, judge, reader):
    """Mean nats per token of each picture, and what others make of them all."""
    keep = ("image", "index", *prior.vocabulary.entries)
    keep += ("label",) if judge else ()
    keep, columns = tuple(dict.fromkeys(keep)), {}
    is_shown = judge is not None or asked_scores.names(prior.vocabulary.told, reader)
    for batch in shares.eval_batches(
        held_out, batch_size=batch_size, keep=keep, count=count
    ):
        codes = prior.tokenizer().encode(from_uint8(batch["image"]))
        asked, heard = condition_of(prior, batch)
        measured = {"mask": batch["mask"], "nll": nats_of(prior, codes, heard)}
        if is_shown:
            decoded = to_uint8(prior.tokenizer().decode(codes))
            both = zip(_BESIDE, (batch["image"], decoded), strict=True)
            for which, pictures in both:
                labels = batch.get("label")
                found = _scores(prior, asked, pictures, labels, judge, reader)
                measured |= {f"{name}_{which}": found[name] for name in found}
        for name, values in measured.items():
            columns.setdefault(name, []).append(values)
    columns = {name: np.stack(parts) for name, parts in columns.items()}
    columns = shares.all_rows(columns, columns.pop("mask"))
    return columns.pop("nll"), columns


def _scores(prior, asked, pictures, labels, judge, reader) -> dict[str, np.ndarray]:
    """What reader and judge make of pictures, one row for each."""
    found = {}
    if isinstance(asked, Mapping):
        found = asked_scores.scores(prior.vocabulary.told, asked, pictures, reader)
    if judge is not None:
        found["features"], predicted = judge(pictures)
        found["is_right"] = predicted == labels
    return found


def _judged(measured, seen, judge: Judge) -> dict[str, float]:
    """What the judge says of samples, beside originals and reconstructions."""
    samples = frechet.fit_gaussian(measured["features"])
    originals, decoded = (
        frechet.fit_gaussian(seen[f"features_{which}"]) for which in _BESIDE
    )
    right = [float(seen[f"is_right_{which}"].mean()) for which in _BESIDE]
    return {
        "judge_accuracy_on_originals": right[0],
        "judge_accuracy_on_reconstructions": right[1],
        "judge_held_out_accuracy": judge.card["held_out_accuracy"],
        "judge_frechet": frechet.frechet_distance(originals, samples),
        "judge_frechet_of_reconstructions": frechet.frechet_distance(
            originals, decoded
        ),
    }


def what_to_draw(prior, held_out, count: int, batch_size: int):
    """What samples are drawn for, [N, ...]; int32 [N] what they should show; how it is
    said.

    Labels are asked for in turn; other conditions are those of the held-out pictures,
    with the label of the picture where there is one, asked for or not. Pictures that
    training makes worse are said as bad, and compared as they were.
    """
    kinds, labels = prior.vocabulary.told, np.arange(count, dtype=np.int32)
    if not set(kinds) - {"label"}:
        labels = labels % max(1, prior.vocabulary.classes)
        return labels, labels, labels
    keep = tuple(dict.fromkeys((*prior.vocabulary.entries, "label")))
    keep = ("index", *(name for name in keep if name in held_out.example_spec))
    parts = []
    for batch in data.eval_batches(
        held_out, batch_size=batch_size, keep=keep, count=min(count, len(held_out))
    ):
        there = {name: batch[name][batch["mask"]] for name in keep}
        asked, heard = jax.tree.map(np.asarray, condition_of(prior, there))
        shown = there.get("label", np.zeros(len(there["index"]), int))
        parts.append((asked, shown, heard))
    asked, labels, heard = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
    rows = np.arange(count) % len(labels)
    return jax.tree.map(lambda part: part[rows], (asked, labels, heard))


def _mean(values: np.ndarray) -> float:
    """Of those that are figures; NaN where none is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")
