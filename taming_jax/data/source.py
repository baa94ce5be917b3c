"""What a data set offers to the pipeline, and how it reports what it cannot read.

    indices int64 [C] --Source.read--> {"image": uint8 [C,H,W,3], ...}

A source is random access: any picture by its index, so that order, sharding and
resuming are arithmetic over indices and live in the pipeline alone.

Legend: C examples read in one call, H = W = image_size of the configuration.
"""

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

LOG = logging.getLogger(__name__)

# The share of bad records is taken of at least so many, or one early would stop a run.
WINDOW = 1_000

# What is drawn for each example of training: where a crop lies, from left and from top,
# and whether it is mirrored.
CHANCES = ("across", "down", "mirror")


class Field(NamedTuple):
    """One entry of an example: a numpy dtype's name and the shape without a batch."""

    dtype: str
    shape: tuple[int, ...]


class Source(Protocol):
    """A data set at one size, addressed by index.

    Attributes:
      class_names: what label i is called; empty if the data set has no labels.
      region_names: what class i of a segmentation is called; empty if nobody knows.
      identity: names the data set in JSON's types, wherever it lies on the disk: equal
        for equal data, different for others. Neither size nor augmentation enters.
      example_spec: the fields that `read` can give, by name; `image` or `codes` is one.
      one_of: fields of which an example is one, so that only one can be read.
      chances: those of `CHANCES` that make a difference to `read`.
      chunk: so many examples are best read in one call.
      bad: the records that could not be read so far; `len(source.bad)` counts them.
    """

    class_names: Sequence[str]
    region_names: Sequence[str]
    identity: Mapping[str, object]
    example_spec: Mapping[str, Field]
    one_of: Sequence[str]
    chances: Sequence[str]
    chunk: int
    bad: "BadRecords"

    def __len__(self) -> int:
        """The number of examples; indices run below it."""

    def read(
        self, indices: np.ndarray, chances: np.ndarray | None, keep: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """The examples at `indices`, in that order; called by several threads at once.

        Args:
          indices: int64 [C], each in [0, len(self)).
          chances: float32 [C, 3] in [0, 1), one of each of `CHANCES`, for what the
            configuration leaves to chance; None reads without.
          keep: names out of `example_spec`; nothing else is computed or returned.

        Raises:
          UnreadableError: naming the first example that cannot be read.
        """


def is_mirrored(chances: np.ndarray) -> np.ndarray:
    """What the draws [..., 3] of `CHANCES` decide for each example: bool [...]."""
    return chances[..., CHANCES.index("mirror")] < 0.5


class UnreadableError(Exception):
    """One example cannot be read; another one will take its place."""

    def __init__(self, index: int, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.index = index


class BadRecords:
    """The records of one source that could not be read: each is named and counted once.

    Args:
      total: examples in the source.
      share: more than this share of the records tried, rounded up, is too many. While
        fewer than a thousand have been tried it is the share of a thousand, or of the
        whole source if that is smaller.
    """

    def __init__(self, total: int, share: float = 0.05):
        if not 0 <= share <= 1:
            raise ValueError(
                f"data.max_bad_share is {share}; it is a share in [0, 1]: 0.05 stops "
                "when more than 5 % of the pictures cannot be read"
            )
        self._total, self._share = total, share
        self._tried = 0
        self._reasons: dict[int, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._reasons)

    def __contains__(self, index: int) -> bool:
        return index in self._reasons

    def tried(self, count: int) -> None:
        """Counts `count` records as read, or attempted."""
        with self._lock:
            self._tried += count

    def add(self, record: UnreadableError) -> None:
        """Names a record the first time that it is met."""
        with self._lock:
            if record.index in self._reasons:
                return
            self._reasons[record.index] = str(record)
        LOG.warning("left out: %s", record)

    def check(self) -> None:
        """Raises ValueError if too many records are bad."""
        with self._lock:
            bad, reasons = len(self._reasons), list(self._reasons.values())
            base = min(self._total, max(self._tried, WINDOW))
        allowed = math.ceil(self._share * base)
        if bad > allowed or bad >= self._total > 0:
            raise ValueError(
                f"{bad} of {self._total} pictures cannot be read (the first: "
                f"{reasons[0]}); {allowed} are forgiven at this point: mend or remove "
                f"them, or raise data.max_bad_share (now {self._share})"
            )
