"""Directories that a verb writes: new, and there only once they are complete."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_directory(path: str | Path) -> Iterator[Path]:
    """A directory to fill; it gets its name when the block ends without an error.

    Raises:
      ValueError: if something is there already: nothing is ever overwritten.
    """
    path = Path(path).expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(
            f"{path} exists and is not an empty directory; nothing is "
            "overwritten: name another one, or empty it"
        )
    unfinished = path.with_name(f".{path.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of one that was killed
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
    except BaseException:  # an interruption too
        shutil.rmtree(unfinished)
        raise
    if path.exists():
        path.rmdir()
    unfinished.rename(path)
