"""A published checkpoint, whatever it is, as data: nothing in it is run or trusted.

    path --open_checkpoint--> dicts, lists, numbers, strings, and `Tensor` for arrays

What a file is, its first bytes say and not its name: torch.save's two formats,
safetensors, or something that people get instead of the file that they wanted.
"""

import os
from pathlib import Path
from typing import Any

from taming_jax.files import in_bucket, located
from taming_jax.interop.formats.pickles import Global, Opaque, check_tree
from taming_jax.interop.formats.safetensors import (
    is_safetensors,
    read_safetensors,
    write_safetensors,
)
from taming_jax.interop.formats.tensors import Tensor
from taming_jax.interop.formats.torch_files import read_legacy, read_zip, write_torch

__all__ = [
    "Global",
    "Opaque",
    "Tensor",
    "open_checkpoint",
    "write_safetensors",
    "write_torch",
]

_HEAD = 1024
_DOWNLOAD = "download it again"
# How files begin that are something else, what they are, and what to do.
_OTHERS = (
    (b"version https://git-lfs", "a pointer of git-LFS, not the file it stands for",
     "run `git lfs pull`, or download the file itself"),
    (b"<", "a page of the web (HTML or XML), not a checkpoint",
     "open it in a browser to see what the server said, and download the file again"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it (gunzip, tar -xzf)"),
    (b"BZh", "compressed by bzip2", "unpack it"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"\x89HDF", "an HDF5 file, of Keras perhaps", "give the PyTorch checkpoint"),
    (b"\x93NUMPY", "a numpy array", "give the PyTorch checkpoint"),
    (b"PK\5\6", "an empty archive", _DOWNLOAD),
)  # fmt: skip


def open_checkpoint(path: str | os.PathLike) -> Any:
    """What a checkpoint holds; of its tensors only where they are.

    Returns:
      Nested dict, list, tuple, set, numbers, strings, bytes, None; `Tensor`; and, for
      what is not known here and so not imported, `Global` (a class) and `Opaque` (an
      object). It is a tree that may be walked by recursion: no container holds itself.

    Raises:
      ValueError: in one line, what the file is instead, or what is wrong with it, and
        what to do.
    """
    if in_bucket(path):
        raise ValueError(f"{path} is in a bucket: copy it to this machine first")
    path = Path(located(path))
    if not path.is_file():
        state = "a directory" if path.is_dir() else "not there"
        raise ValueError(f"no checkpoint at {path}: it is {state}; give a file's path")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        content = _reader(head)(path)
        check_tree(content)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return content


def _reader(head: bytes):
    if not head:
        raise ValueError(f"it is empty; {_DOWNLOAD}")
    if is_safetensors(head):
        return read_safetensors
    for begin, what, remedy in _OTHERS:
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(begin):
            raise ValueError(f"it is {what}; {remedy}")
    if head[257:262] == b"ustar":
        raise ValueError(
            "it is a tar archive; unpack it, or, if torch wrote it before 2017, let "
            "torch load it and save it again"
        )
    if head.startswith(b"PK\3\4"):
        return read_zip
    return read_legacy
