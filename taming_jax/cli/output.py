"""What a verb writes bit by bit: others' results are never written into."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from taming_jax.files import check_new, on_disk, write_json

REQUEST = "request.json"


class PartsDirectory:
    """A directory that fills bit by bit, and says in request.json what it is for.

    Whoever makes the same request again may go on; several processes fill it together.

    Attributes:
      path: of the directory.

    Raises:
      ValueError: if something is there that is no part of this request.
    """

    def __init__(self, path: str | Path, request: Mapping[str, Any]):
        self.path = on_disk(path)
        self._request = json.loads(json.dumps(request))
        there = self.path / REQUEST
        if there.exists():
            _check_same(self.path, json.loads(there.read_text()), self._request)
        else:
            check_new(self.path)

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
