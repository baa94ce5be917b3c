"""How fast the embedded data are drawn: images per second of one process, one thread.

    python -m benchmarks.embedded_data [--seconds 2]

One JSON line for each data set, size, batch and choice of keys, in the order in which
they are measured. The rates are of processor time, so that other work on the machine
weighs less; the wall clock's rate stands beside them.
"""

import argparse
import json
import time

import numpy as np

from taming_jax.data import scenes, shapes

BATCHES = {64: (8, 32, 256), 256: (8, 32)}  # size -> pictures in one call


def main() -> None:
    """Draws, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement")
    seconds = parser.parse_args().seconds
    for dataset in (shapes, scenes):
        for size, batches in BATCHES.items():
            for keep in (("image",), tuple(dataset.EXAMPLE)):
                for batch in batches:
                    rates = images_per_second(dataset, size, batch, keep, seconds)
                    case = {"data": dataset.__name__.rpartition(".")[2], "size": size,
                            "batch": batch, "keys": len(keep)}  # fmt: skip
                    print(json.dumps(case | rates))


def images_per_second(dataset, size: int, batch: int, keep, seconds: float) -> dict:
    """Rates of processor and wall time over at least so many seconds of drawing."""
    dataset.render(0, np.arange(batch), size, keep)  # textures are made once
    count, wall, processor = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        dataset.render(0, np.arange(count, count + batch), size, keep)
        count += batch
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {
        "images_per_second": round(count / processor),
        "by_the_wall_clock": round(count / wall),
    }


if __name__ == "__main__":
    main()
