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

    Args:
      path: of the directory.
      request: what it is for, in JSON's types, with its `count` of parts.
      count_grows: whether the same parts come first where `count` is larger, so that
        those which are there may stay.
      of_all: the files that are made of all parts; gone once there are to be more.

    Attributes:
      path: of the directory.

    Raises:
      ValueError: if something is there that is no part of this request.
    """

    def __init__(
        self,
        path: str | Path,
        request: Mapping[str, Any],
        *,
        count_grows: bool = False,
        of_all: Iterable[str] = (),
    ):
        self.path, self._of_all = on_disk(path), tuple(of_all)
        self._request = json.loads(json.dumps(request))
        self._is_unwritten = True
        there = self.path / REQUEST
        if not there.exists():
            check_new(self.path)
            return
        before = json.loads(there.read_text())
        self._is_unwritten = count_grows and before.get("count", 0) < request["count"]
        if self._is_unwritten:
            before["count"] = request["count"]
        _check_same(self.path, before, self._request)

    def begun_with(self, parts: Iterable) -> Iterator:
        """The same parts; the directory is made when the first one is at hand.

        So a request that cannot be fulfilled leaves nothing behind.
        """
        from taming_jax import processes

        first = list(itertools.islice(parts, 1))
        processes.barrier("the first picture", seconds=24 * 3600)
        if processes.is_first() and self._is_unwritten:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in self._of_all:
                (self.path / name).unlink(missing_ok=True)
            write_json(self.path / REQUEST, self._request)
        self._is_unwritten = False
        processes.barrier("the directory")
        yield from itertools.chain(first, parts)


def _check_same(path: Path, before: Mapping, now: Mapping) -> None:
    """Of long lists it says only that they differ."""
    for key in sorted(before.keys() | now.keys()):
        old, new = (repr(side.get(key)) for side in (before, now))
        if old != new:
            shown = f"{key}={old}, now {key}={new}" if len(old + new) < 99 else key
            grows = key == "count" and before.get(key, 0) < now[key]
            why = ", which gives the pictures other numbers" if grows else ""
            raise ValueError(
                f"{path} holds pictures of another request ({shown}{why}); name "
                "another --output, or ask for the same to complete it"
            )
