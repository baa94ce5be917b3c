"""What the pipeline costs: its images/s against the bare work that it has to do.

    python -m benchmarks.data_pipeline [--folder DIR] [--size 256] [--seconds 4]

Real pictures: reading and decoding the same files in full, reading and decoding them
to a square, the pipeline. Drawn pictures: rendering, the pipeline. All of them have as
many threads as the pipeline takes, and take turns, so that a drift of the machine meets
each; the best turn counts. CPU time tells the cost where other programs compete for the
cores. Without --folder, photographs of scikit-image are written as JPEGs of 500 x 375
pixels, the usual size in ImageNet.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from taming_jax import data
from taming_jax.data.decoding import decode_square
from taming_jax.data.stream import READY, worker_threads

BATCH = 32
ROUNDS = 3


def main() -> None:
    """Measures both kinds of data and prints one JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or _write_photographs(Path(temporary))
        rates = measure(_on_files(folder, arguments.size), arguments.seconds)
        report("jpeg", arguments.size, rates)
    for name in ("shapes", "scenes"):
        report(name, 64, measure(_on_drawings(name, 64), arguments.seconds))


class Rate(NamedTuple):
    """What a turn came to: per second of the clock, and of the process's CPU time."""

    per_second: float
    per_cpu_second: float


def measure(works: dict[str, Iterator[int]], seconds: float) -> dict[str, Rate]:
    """The best turn of each; an iterator yields how many images a step of it was."""
    turns = {name: [] for name in works}
    for name, work in itertools.chain.from_iterable([works.items()] * ROUNDS):
        for _ in range(READY + 1):  # what the pipeline has made in others' turns
            next(work)
        images, clock, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - clock < seconds:
            images += next(work)
        spent = time.perf_counter() - clock, time.process_time() - cpu
        turns[name].append(Rate(*(images / time for time in spent)))
    return {name: Rate(*map(max, zip(*t, strict=True))) for name, t in turns.items()}


def report(name: str, size: int, rates: dict[str, Rate]) -> None:
    """Prints images/s, and the pipeline's as a share of each bare work's."""
    *bare, pipeline = rates
    line = {"data": name, "size": size, "threads": worker_threads()}
    line |= {f"{work}/s": round(rate.per_second) for work, rate in rates.items()}
    for kind in Rate._fields:
        line |= {
            f"pipeline / {work} {kind}": round(
                getattr(rates[pipeline], kind) / getattr(rates[work], kind), 2
            )
            for work in bare
        }
    print(json.dumps(line))


def _on_files(folder: Path, size: int) -> dict[str, Iterator[int]]:
    paths = data.list_images(folder)

    def decode(path):
        with Image.open(path) as picture:
            picture.load()

    def square(path):
        decode_square(path.read_bytes(), size)

    source = data.open_source(
        {"name": "folder", "train": folder, "val": folder, "image_size": size}, "train"
    )
    return {
        "decoding": _threaded(decode, paths),
        "decoding to a square": _threaded(square, paths),
        "pipeline": _pipeline(source),
    }


def _on_drawings(name: str, size: int) -> dict[str, Iterator[int]]:
    source = data.open_source(
        {"name": name, "train": 100_000, "val": 1, "image_size": size}, "train"
    )
    chunks = np.arange(len(source)).reshape(-1, source.chunk)

    def render(indices):
        source.read(indices, None, ("image",))

    return {
        "rendering": _threaded(render, chunks, images=source.chunk),
        "pipeline": _pipeline(source),
    }


def _threaded(work: Callable, items, images: int = 1) -> Iterator[int]:
    """Does `work` on a batch of items after the other, for ever."""
    endless = itertools.cycle(items)
    count = BATCH // images
    with ThreadPoolExecutor(worker_threads()) as pool:
        while True:
            list(pool.map(work, itertools.islice(endless, count)))
            yield BATCH


def _pipeline(source) -> Iterator[int]:
    for batch in data.train_batches(source, batch_size=BATCH, seed=0):
        yield len(batch["image"])


def _write_photographs(folder: Path) -> Path:
    from skimage import data as photographs

    originals = (photographs.coffee(), photographs.astronaut(), photographs.chelsea())
    for number in range(64):
        picture = Image.fromarray(originals[number % len(originals)])
        picture = picture.rotate(number, Image.Resampling.BILINEAR)
        picture.resize((500, 375)).save(folder / f"{number}.jpg", quality=95)
    return folder


if __name__ == "__main__":
    main()
