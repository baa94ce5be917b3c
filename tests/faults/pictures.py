"""Pictures disappear while a run reads them every epoch."""

import functools
import random
from pathlib import Path

from driver import Event
from PIL import Image
from tiny_command import STEPS, Run, ended, reached, step_said, until, write_card

PICTURES, SIZE = 40, 8
LOST = 3


def write_pictures(directory: Path) -> Path:
    """Grey ones, of PICTURES different values."""
    directory.mkdir()
    for i in range(PICTURES):
        Image.new("RGB", (SIZE, SIZE), (5 * i,) * 3).save(directory / f"{i:02}.png")
    return directory


def lose_pictures(number: int, *, seed: int, home: Path) -> list[Event]:
    """One run over a folder, out of which three pictures are taken, one by one.

    Raises:
      AssertionError: unless the run ends well and names each of them, once.
    """
    rng = random.Random(f"{seed}, pictures {number}")
    folder = write_pictures(home / f"pictures-{number}")
    workdir = home / f"folder-{number}"
    workdir.mkdir()
    data = {"name": "folder", "train": str(folder), "val": None, "image_size": SIZE,
            "max_bad_share": LOST / PICTURES}  # fmt: skip
    run = Run("vqgan", workdir, write_card(workdir, data), rng)
    process = run.start()
    removed, target = {}, 0
    for _ in range(LOST):
        target += rng.randint(1, 15)
        until(functools.partial(reached, run, 0, target), run, process)
        lost = rng.choice(sorted(folder.iterdir()))
        lost.unlink()
        removed[lost.name] = step_said(run.said())
    ending = ended(run, process, None, 0)
    assert step_said(run.said()) == STEPS["vqgan"]
    for name in removed:
        assert run.said().count(name) == 1, run.said()
    return [Event("", 0, f"{n} removed", step, ending) for n, step in removed.items()]
