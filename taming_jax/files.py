"""Files of this machine and of buckets: where they are, and written whole.

    gs://BUCKET/NAME   an object of a bucket: whole or not there, never changed in part
    anything else      a file of this machine

`epath.Path` reads and writes both alike; what does differ between them is said here.
"""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import IO, Any

from etils import epath

# How tensorstore, by which arrays are read and written, begins to say so.
_UNANSWERED = ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "PERMISSION_DENIED",
               "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "UNAVAILABLE")  # fmt: skip


def in_bucket(path: str | PurePath) -> bool:
    """Whether a path is of a bucket and not of this machine."""
    return "://" in str(path)


def located(path: str | PurePath) -> epath.Path:
    """An absolute path; a bucket's is that already, and etils would break it."""
    given = epath.Path(path).expanduser()
    return given if in_bucket(given) else given.absolute()


@contextlib.contextmanager
def whole_file(path: str | PurePath) -> Iterator[IO[bytes]]:
    """A file to write, which is there, with all of it, once the block has ended well.

    What was there before stays until then.
    """
    path = epath.Path(path)
    if in_bucket(path):
        content = io.BytesIO()
        yield content
        path.write_bytes(content.getvalue())
        return
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("wb") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: str | PurePath, content: Any) -> None:
    """Writes JSON, whole."""
    with whole_file(path) as file:
        file.write(f"{json.dumps(content, indent=2)}\n".encode())


@contextlib.contextmanager
def new_directory(path: str | PurePath) -> Iterator[Path]:
    """A directory to fill; it gets its name when the block ends without an error.

    Raises:
      ValueError: if something is there already, for nothing is ever overwritten; or if
        it is in a bucket, where directories cannot be renamed.
    """
    path = on_disk(path)
    check_new(path)
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


def on_disk(path: str | PurePath) -> Path:
    """The same path; ValueError for one in a bucket."""
    if in_bucket(path):
        raise ValueError(
            f"{path} is in a bucket; what is made here goes to a disk of this machine: "
            "name a directory of it, and copy that"
        )
    return Path(path).expanduser()


def check_new(path: Path) -> None:
    """Raises ValueError unless a directory can be made here, or is there and empty."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(
            f"{path} exists and is not an empty directory; nothing is "
            "overwritten: name another one, or empty it"
        )


@contextlib.contextmanager
def reached(path: str | PurePath, what: str) -> Iterator[None]:
    """Looks into `path`, which is what `what` says.

    Raises:
      ValueError: if it is in a bucket and something fails, for want of permission
        mostly; the kind of the error depends on what reads buckets here.
    """
    try:
        yield
    except Exception as error:
        ours = isinstance(error, ValueError) and not unanswered(error, path)
        if ours or not in_bucket(path):
            raise
        reason = re.split(r"\n| \[", str(error))[0] or type(error).__name__
        raise ValueError(
            f"{what} is {str(path)!r}, which cannot be reached: {reason}; the account "
            "that this runs as needs a role on the bucket: roles/storage.objectViewer "
            "to read, roles/storage.admin to train there"
        ) from error


def unanswered(error: BaseException, path: str | PurePath) -> bool:
    """Whether an error is of the way to a bucket, and so says nothing of what is there.

    Connections get lost, and permissions expire; a file that is missing is missing.
    """
    if not in_bucket(path) or isinstance(error, FileNotFoundError):
        return False
    return isinstance(error, OSError) or str(error).startswith(_UNANSWERED)
