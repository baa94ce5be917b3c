"""What a verb writes: whole or not there at all, and nothing of others overwritten."""

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from taming_jax.files import in_bucket, write_json

REQUEST = "request.json"


@contextlib.contextmanager
def new_directory(path: str | Path) -> Iterator[Path]:
    """A directory to fill; it gets its name when the block ends without an error.

    Raises:
      ValueError: if something is there already, for nothing is ever overwritten; or if
        it is in a bucket, where directories cannot be renamed.
    """
    path = _on_disk(path)
    _check_new(path)
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


class PartsDirectory:
    """A directory that fills bit by bit, and says in request.json what it is for.

    Whoever makes the same request again may go on; several processes fill it together.

    Attributes:
      path: of the directory.

    Raises:
      ValueError: if something is there that is no part of this request.
    """

    def __init__(self, path: str | Path, request: Mapping[str, Any]):
        self.path = _on_disk(path)
        self._request = json.loads(json.dumps(request))
        there = self.path / REQUEST
        if there.exists():
            _check_same(self.path, json.loads(there.read_text()), self._request)
        else:
            _check_new(self.path)

    def begun_with(self, parts: Iterable) -> Iterator:
        """The same parts; the directory is made when the first one is at hand.

        So a request that cannot be fulfilled leaves nothing behind.
        """
        from taming_jax import processes

        first = list(itertools.islice(parts, 1))
        processes.barrier("the first picture", seconds=24 * 3600)
        if processes.is_first() and not (self.path / REQUEST).exists():
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.path / REQUEST, self._request)
        processes.barrier("the directory")
        yield from itertools.chain(first, parts)


def _on_disk(path: str | Path) -> Path:
    if in_bucket(path):
        raise ValueError(
            f"{path} is in a bucket; what is made here goes to a disk of this machine: "
            "name a directory of it, and copy that"
        )
    return Path(path).expanduser()


def _check_new(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(
            f"{path} exists and is not an empty directory; nothing is "
            "overwritten: name another one, or empty it"
        )


def _check_same(path: Path, before: Mapping, now: Mapping) -> None:
    """Of long lists it says only that they differ."""
    for key in sorted(before.keys() | now.keys()):
        old, new = (repr(side.get(key)) for side in (before, now))
        if old != new:
            shown = f"{key}={old}, now {key}={new}" if len(old + new) < 99 else key
            raise ValueError(
                f"{path} holds pictures of another request ({shown}); name another "
                "--output, or ask for the same to complete it"
            )
