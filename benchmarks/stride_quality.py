"""What a window's stride costs in quality: pictures drawn for maps, and the truth.

    python -m benchmarks.stride_quality [--model scenes] [--side 256] [--count 50]
                                        [--strides 1,2,4,8]

Held-out scenes, larger than the prior's grid and at the scale that it was trained on.
Each stride draws them for the same class maps with the same keys, and with the settings
of the model's recipe. Pictures are reduced to 64 pixels, and a reader that was trained
on scenes cut out alike reads class maps and edges off them; it knows nothing of the
model. Beside the originals and their reconstructions:

    iou           of class maps: mean over the classes that were asked for
    edge_f_score  harmonic mean of precision and recall of edges, within a pixel

and how much of both is lost beside the exact way, picture by picture, each with the
standard error of the mean over pictures in brackets. Seconds are the processor's, of
one picture, compiled before and not decoded.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

import taming_jax
from taming_jax import data
from taming_jax.metrics import truth
from taming_jax.metrics.reader import Reader, reader_of
from taming_jax.units import from_uint8, to_uint8

READS = ("segmentation", "edges")
COLUMNS = ("pictures", "iou", "edge_f_score", "iou lost", "edges lost", "seconds")
READ_AT = 64  # pixels
TOGETHER = 10  # pictures that are drawn in one batch

Scores = Mapping[str, np.ndarray]


def main() -> None:
    """Prints the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="scenes", help="a name or a directory")
    parser.add_argument("--side", type=int, default=256, help="in pixels")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--strides", default="1,2,4,8", help="1, the exact way, first")
    parser.add_argument("--reader", default="runs/stride_quality", help="is kept here")
    args = parser.parse_args()
    prior = taming_jax.load_prior(args.model)
    settings = prior.vqgan.config["data"]
    large = data.open_source(cut_out(settings, args.side), "val")
    small = {
        split: data.open_source(cut_out(settings, args.side, READ_AT), split)
        for split in ("train", "val")
    }
    if args.count % TOGETHER or not 0 < args.count <= len(large):
        parser.error(
            f"--count {args.count}: give a multiple of {TOGETHER} up to {len(large)}, "
            "the pictures that are held out"
        )
    reader = reader_of(small["train"], directory=args.reader, reads=READS)
    about = {**vars(args), "jax": jax.__version__, **prior.default_settings}
    print(json.dumps({**about, "device": jax.devices()[0].device_kind}))
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    which = np.arange(args.count)
    given = large.read(which, None, ("image", "segmentation"))
    asked = small["val"].read(which, None, READS)
    exact = None
    for name, pictures, seconds in ways(prior, given, args.strides):
        scores = scored(reader, asked, pictures)
        row(name, scores, exact, seconds)
        exact = scores if name == "exact" else exact


def cut_out(settings: Mapping, side: int, size: int | None = None) -> dict:
    """Scenes of a recipe's scale, cut out with `side` pixels; drawn with `size` ones.

    Raises:
      ValueError: for a side that the drawn scenes have no whole number of.
    """
    whole = settings["image_size"] * settings.get("zoom", 1)
    if side < 1 or whole % side or side % READ_AT:
        raise ValueError(
            f"--side {side}: scenes are drawn with {whole} pixels, and are read with "
            f"{READ_AT}; give a divisor of the one that is a multiple of the other"
        )
    return dict(settings) | {"image_size": size or side, "zoom": whole // side}


def ways(
    prior, given: Mapping[str, np.ndarray], strides: str
) -> Iterator[tuple[str, np.ndarray, float | None]]:
    """(name, pictures uint8 [N,S,S,3], seconds of one, or None) of each way."""
    originals, maps = given["image"], given["segmentation"]
    yield "originals", originals, None
    vqgan, count = prior.vqgan, len(originals)
    codes = batched(lambda rows: vqgan.encode(from_uint8(originals[rows])), count)
    yield "reconstructions", decoded(vqgan, codes), None
    keys = jax.random.split(jax.random.key(0), count)
    for stride in map(int, strides.split(",")):
        settings = prior.default_settings | {"window_stride": stride}
        spent = []

        def draw(rows, settings=settings, spent=spent):
            began, shape = time.process_time(), codes.shape[1:]
            drawn = prior.sample(keys[rows], maps[rows], shape=shape, **settings)
            drawn = np.asarray(drawn)
            spent.append(time.process_time() - began)
            return drawn

        pictures = decoded(vqgan, batched(draw, count))
        name = "exact" if stride == 1 else f"stride {stride}"
        # The first batch compiles; where it is the only one, that counts.
        yield name, pictures, float(np.mean(spent[1:] or spent)) / TOGETHER


def batched(function: Callable[[slice], np.ndarray], count: int) -> np.ndarray:
    """What it gives for the rows of so many pictures, batch by batch."""
    parts = [function(slice(i, i + TOGETHER)) for i in range(0, count, TOGETHER)]
    return np.concatenate(parts)


def decoded(vqgan, codes: np.ndarray) -> np.ndarray:
    """Codes [N,h,w] -> pictures uint8 [N,S,S,3]."""
    return batched(lambda rows: to_uint8(vqgan.decode(codes[rows])), len(codes))


def scored(reader: Reader | Callable, asked: Mapping, pictures: np.ndarray) -> Scores:
    """The truth's figures of each picture [N,S,S,3], read with READ_AT pixels."""
    read = reader(reduced(pictures, READ_AT))
    return {
        "iou": truth.iou(asked["segmentation"], read["segmentation"]),
        "edge_f_score": truth.edge_f_score(asked["edges"], read["edges"]),
    }


def reduced(pictures: np.ndarray, size: int) -> np.ndarray:
    """Pictures uint8 [N,S,S,3] -> [N,size,size,3], each pixel a mean."""
    step = pictures.shape[1] // size
    parts = pictures.reshape(len(pictures), size, step, size, step, 3)
    return np.round(parts.mean((2, 4))).astype(np.uint8)


def row(name: str, scores: Scores, exact: Scores | None, seconds: float | None):
    """One line of the table."""
    cells = [name, *map(mean_of, scores.values())]
    lost = [mean_of(exact[n] - scores[n]) for n in scores] if exact else ["", ""]
    cells += [*lost, "" if seconds is None else f"{seconds:.1f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def mean_of(values: np.ndarray) -> str:
    """Mean and its standard error, of those that there are."""
    values = values[~np.isnan(values)]
    return f"{values.mean():.3f} ({values.std(ddof=1) / len(values) ** 0.5:.3f})"


if __name__ == "__main__":
    main()
