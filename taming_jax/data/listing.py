"""Which picture files there are, and what they are called, in a form that can move.

    path --find--> Found(root, names, classes) --held_out--> a split of it --> Files

Names are relative to a root. They alone say what is held out and, with the sizes of
some of the files, which data set this is: the same pictures in another place are the
same data.
"""

import hashlib
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from typing import NamedTuple

from etils import epath

from taming_jax.data.decoding import SUFFIXES
from taming_jax.files import in_bucket, located, reached

_SIZES = 1024  # files whose sizes enter the identity: of millions it would take minutes
_AT_ONCE = 32  # questions to a bucket, which takes a while to answer each


class Found(NamedTuple):
    """Picture files: `root` and sorted `names` below it; classes where it has them."""

    root: epath.Path
    names: Sequence[str]
    classes: tuple[str, ...]


def find(path: str | PurePath, key: str) -> Found:
    """The pictures of a directory, in full, or of a .txt list.

    Raises:
      ValueError: naming `key`, if there is nothing, or less than the list names, or a
        bucket that cannot be looked into.
    """
    if not path or not isinstance(path, str | PurePath):
        raise ValueError(
            f"{key} is {path!r}; it is a directory of pictures or a .txt list of "
            f"files: set {key} to a path"
        )
    given = located(path)  # so that a list's relative and absolute lines compare
    with reached(given, key):
        if given.is_dir():
            found = _in_directory(given)
        elif given.suffix == ".txt" and given.is_file():
            found = _in_list(given, key)
        else:
            state = "is neither of them" if given.exists() else "does not exist"
            raise ValueError(
                f"{key} is {str(path)!r}, which {state}; give a directory of pictures "
                "or a .txt list of files"
            )
    if not found.names:
        raise ValueError(
            f"{key} is {str(path)!r}, which has no pictures; there should be some with "
            f"the endings {', '.join(SUFFIXES)}: fill it or give another"
        )
    return found


def held_out(found: Found, split: str, share: float) -> Found:
    """The part for `split`: "val" has the names whose hashes are smallest.

    So a picture stays on its side, as a rule, when others come or go.

    Raises:
      ValueError: if the share, or its complement, is not of one picture at least.
    """
    if not 0 < share < 1 or len(found.names) < 2:
        raise ValueError(
            f"data.val is {share} of {len(found.names)} pictures; a share in (0, 1) of "
            "two pictures or more is held out: set data.val to 0.05, to a directory or "
            "to a .txt list"
        )
    count = min(max(1, round(share * len(found.names))), len(found.names) - 1)
    ranked = sorted(found.names, key=lambda name: (_digest([name]), name))
    chosen = ranked[:count] if split == "val" else ranked[count:]
    return found._replace(names=sorted(chosen))


class Files:
    """Picture files, a `Store` of an `EncodedSource`.

    Args:
      dataset: the name of the data set.
      found: the files.
      classes: sub-directories of the training data in the order of their labels. There
        are labels if these sub-directories hold all of the files.
      class_names: what people call the classes, if not by the sub-directories.
    """

    def __init__(
        self,
        dataset: str,
        found: Found,
        classes: Sequence[str],
        class_names: Sequence[str] | None = None,
    ):
        self._root, self._names = found.root, found.names
        self._labels = {name: label for label, name in enumerate(classes)}
        labelled = set(found.classes) and set(found.classes) <= set(classes)
        self.class_names = tuple(class_names or classes) if labelled else ()
        self.identity = {
            "name": dataset,
            "pictures": len(found.names),
            "digest": _digest([*found.names, *self._some_sizes()]),
        }

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """The file's path."""
        return str(self._root / self._names[index])

    def fetch(self, index: int) -> tuple[bytes, int]:
        """As `Store.fetch`."""
        name = self._names[index]
        label = self._labels[_top(name)] if self.class_names else -1
        return (self._root / name).read_bytes(), label

    def _some_sizes(self) -> Iterable[str]:
        """The sizes in bytes of at most 1024 files, spread evenly."""

        def size(name):
            return str((self._root / name).stat().length)

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            names = self._names[:: -(-len(self._names) // _SIZES)]
            return list(threads.map(size, names))


def _in_directory(root: epath.Path) -> Found:
    """All pictures below `root`; hidden files and directories are not looked at."""
    names = []
    for folder, folders, files in _walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = str(folder)[len(str(root)) :].strip("/")
        names += [
            f"{below}/{name}" if below else name
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    names.sort()
    classed = all("/" in name for name in names)
    return Found(root, names, tuple(sorted({_top(n) for n in names if classed})))


def _walk(root: epath.Path) -> Iterator[tuple]:
    """As `os.walk`; links are followed, for class directories often are links."""
    if not in_bucket(root):
        yield from os.walk(root, followlinks=True)
        return
    # Asked for every name whether it is a directory, as `Path.walk` does, a bucket
    # answers for hours. What is called a picture is taken for one.
    names = [child.name for child in root.iterdir() if child != root]
    pictures = [name for name in names if name.lower().endswith(SUFFIXES)]
    others = sorted(set(names).difference(pictures))
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        are_folders = list(threads.map(lambda name: (root / name).is_dir(), others))
    folders = list(itertools.compress(others, are_folders))
    yield root, folders, sorted({*names}.difference(folders))
    for name in folders:
        yield from _walk(root / name)


def _in_list(path: epath.Path, key: str) -> Found:
    """The files that the lines name."""
    lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    paths = [_absolute(line, path.parent) for line in lines if line]
    if missing := _missing(paths):
        few = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ValueError(
            f"{key} is {str(path)!r}, of whose {len(paths)} files {len(missing)} are "
            f"missing: {few}; a line is a path, absolute or relative to {path.parent}: "
            "mend the list or bring the files"
        )
    root = _common_directory(paths)
    return Found(epath.Path(root or "/"), sorted(p[len(root) + 1 :] for p in paths), ())


def _absolute(line: str, directory: epath.Path) -> str:
    absolute = line.startswith("/") or "://" in line
    return line if absolute else f"{directory}/{line.removeprefix('./')}"


def _missing(paths: Sequence[str]) -> list[str]:
    """Those that are not there; to list directories is quicker than to ask for each."""
    wanted = defaultdict(list)
    for path in paths:
        wanted[path.rpartition("/")[0]].append(path)
    missing = []
    for directory, files in wanted.items():
        _, folders, names = next(_walk(epath.Path(directory)), (None, [], []))
        there = {*folders, *names}
        missing += [path for path in files if path.rpartition("/")[2] not in there]
    return missing


def _common_directory(paths: Sequence[str]) -> str:
    """The deepest directory above all of them; "" for the root."""
    parts = [path.split("/")[:-1] for path in paths]
    if not parts:
        return ""
    pairs = zip(min(parts), max(parts), strict=False)
    return "/".join(a for a, b in itertools.takewhile(lambda p: p[0] == p[1], pairs))


def _top(name: str) -> str:
    return name.partition("/")[0]


def _digest(words: Iterable[str]) -> str:
    """16 hexadecimal digits that tell one sequence of words from another."""
    digest = hashlib.blake2b(digest_size=8)
    for word in words:
        digest.update(word.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()
