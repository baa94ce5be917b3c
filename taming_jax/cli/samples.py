"""The files of `sample`, which never holds many pictures in memory.

    batches of pictures --write--> OUTPUT/00000.png, 00001.png, ...
    those files --put_together--> samples.npz, row by row; grid.png, of the first rows

What is missing is found by one look at the directory, however many files are in it.
"""

import concurrent.futures
import itertools
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np

from taming_jax import pictures
from taming_jax.cli.progress import Progress
from taming_jax.cli.sample_grid import write_grid
from taming_jax.files import whole_file
from taming_jax.metrics.shares import batch_starts

OF_ALL = ("samples.npz", "grid.png")


def path_of(output: Path, number: int) -> Path:
    """Where a picture is."""
    return output / f"{number:05}.png"


def unfinished(output: Path, total: int, batch_size: int) -> tuple[list[int], int]:
    """Where those of this process's batches begin that are not all there.

    And how many of the `total` pictures are in them.
    """
    there = {path.name for path in output.iterdir()} if output.exists() else set()
    is_there = [path_of(output, i).name in there for i in range(total)]
    starts = [
        start
        for start in batch_starts(total, batch_size)
        if not all(is_there[start : start + batch_size])
    ]
    return starts, sum(min(batch_size, total - start) for start in starts)


def write(
    output: Path, batches: Iterable[tuple[int, np.ndarray]], progress: Progress
) -> None:
    """Writes (first number, pictures uint8 [b,H,W,C]), as they come.

    A batch is packed by threads while the next one is drawn.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        packing = []
        for start, drawn in batches:
            _finish(packing)
            packing = [
                pool.submit(pictures.write_png, path_of(output, start + i), picture)
                for i, picture in enumerate(drawn)
            ]
            progress(len(drawn))
        _finish(packing)


def _finish(packing: Iterable[concurrent.futures.Future]) -> None:
    """Waits, and raises what went wrong."""
    for future in packing:
        future.result()


def put_together(output: Path, prior, asked, count: int, beside=(), **columns) -> int:
    """Writes samples.npz and grid.png of the pictures, all of which are there.

    Args:
      output: the directory.
      prior: that drew them.
      asked: what it was asked for, as `cli.conditions.asked_for` gives it: G things.
      count: pictures of each thing.
      beside: pictures that stand at the left of the rows, each uint8 [G,H,W,3].
      columns: more that goes into samples.npz, by name: [G * count, ...].

    Returns:
      How many pictures grid.png shows.
    """
    labels = asked
    if isinstance(asked, Mapping):
        things = np.arange(len(jax.tree.leaves(asked)[0]), dtype=np.int32)
        labels = asked.get("label", things)
    labels = labels.repeat(count)
    paths = [path_of(output, i) for i in range(len(labels))]
    with whole_file(output / "samples.npz") as file:
        pack(file, _alike(paths), len(paths), {"labels": labels, **columns})
    names = [prior.class_names[i] for i in labels] if prior.class_names else []
    return write_grid(
        output / "grid.png",
        paths,
        count,
        names,
        [*beside, *_conditions(prior, asked)],
    )


def _conditions(prior, asked) -> list[np.ndarray]:
    """What is asked for, for people: uint8 [G,H,W,3] of each condition."""
    if not isinstance(asked, Mapping):
        return []
    told, size = prior.vocabulary.told, prior.grid[1] * prior.tokenizer().stride
    return [told[name].draw(asked[name], size) for name in told if name != "label"]


def pack(file, rows: Iterable[np.ndarray], total: int, columns: Mapping) -> None:
    """Writes an .npz: `total` rows as arr_0, one at a time, and arrays by name."""
    rows = iter(rows)
    first = next(rows)
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (total, *first.shape),
    }
    with zipfile.ZipFile(file, "w") as archive:

        def entry(name):
            # Without a date: the same pictures make the same file.
            info = zipfile.ZipInfo(f"{name}.npy")
            return archive.open(info, "w", force_zip64=True)

        with entry("arr_0") as packed:
            np.lib.format.write_array_header_1_0(packed, header)
            for row in itertools.chain([first], rows):
                packed.write(row.tobytes())
        for name, column in columns.items():
            with entry(name) as packed:
                np.lib.format.write_array(packed, column, allow_pickle=False)


def _alike(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    """The pictures, one after the other.

    Raises:
      ValueError: for one that is not of the first one's shape.
    """
    shape = None
    for path in paths:
        picture = pictures.read_png(path)
        shape = shape or picture.shape
        if picture.shape != shape:
            raise ValueError(
                f"{path} is {picture.shape} and the first picture is {shape}: remove "
                "it, and the same command draws it again"
            )
        yield picture
