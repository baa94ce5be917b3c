"""Published files: from their official addresses, checked, into a directory.

Published(address, sha256) --fetch--> DIRECTORY/NAME, those very bytes or nothing
"""

import hashlib
import os
import urllib.request
from pathlib import Path
from typing import NamedTuple

from taming_jax.files import whole_file

_PATIENCE = 20.0  # seconds for an answer, and between two pieces of a file
_PIECE = 2**20  # bytes


class Published(NamedTuple):
    """A file that somebody else publishes, and the digest of what it must be."""

    address: str
    sha256: str

    @property
    def name(self) -> str:
        return self.address.rpartition("/")[2]


def fetch(published: Published, directory: str | os.PathLike) -> Path:
    """Fetches a file into `directory` and returns where it lies.

    Raises:
      ValueError: if other bytes came than were published.
      OSError: if the address cannot be reached.
    """
    path = Path(directory) / published.name
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with (
        urllib.request.urlopen(published.address, timeout=_PATIENCE) as answer,
        whole_file(path) as file,
    ):
        while piece := answer.read(_PIECE):
            digest.update(piece)
            file.write(piece)
        if digest.hexdigest() != published.sha256:
            raise ValueError(
                f"{published.address} sent another file than was published: SHA-256 "
                f"{digest.hexdigest()[:8]}..., not {published.sha256[:8]}...; is the "
                "network behind a log-in page? Nothing of it was kept"
            )
    return path
