"""Record files that TensorFlow Datasets has prepared, addressed by index.

    index --(file, place in it)--> serialized example --features--> bytes, label

Files of the format `array_record` can be addressed, and TFDS does it. Files of the
format `tfrecord` are chains: where record n starts follows from the lengths of those
before it. The lengths of a file are read, past the contents, when its first record is
asked for.
"""

import bisect
import itertools
import struct
from collections.abc import Collection, Sequence

import numpy as np
from etils import epath

# A record is its length (uint64), a checksum of that, the contents, a checksum of them.
_LENGTH = struct.Struct("<Q")
_CHECKSUM = 4


class Records:
    """A split of a prepared TFDS builder, a `Store` of an `EncodedSource`.

    Args:
      dataset: the name of the data set.
      builder: a `tfds.core.DatasetBuilder` with features image, label and file_name.
      split: in the notation of TFDS, "train[:90%]" for example.
      dropped: file names of pictures that take no part.
    """

    def __init__(self, dataset: str, builder, split: str, dropped: Collection[str]):
        self._examples, self._dropped = _addressable(builder, split), dropped
        self.class_names = tuple(builder.info.features["label"].names)
        self._where = f"{builder.info.full_name} {split}"
        self.identity = {
            "name": dataset,
            "pictures": len(self._examples),
            "records": self._where,
        }

    def __len__(self) -> int:
        return len(self._examples)

    def name(self, index: int) -> str:
        """Says which record it is: its file name is inside of it."""
        return f"record {index} of {self._where}"

    def fetch(self, index: int) -> tuple[bytes, int]:
        """As `Store.fetch`."""
        example = self._examples[int(index)]
        if (name := example["file_name"].decode()) in self._dropped:
            raise ValueError(f"{name} takes no part, as in the paper")
        return example["image"], int(example["label"])


def _addressable(builder, split: str) -> Sequence[dict]:
    """Examples by index, their images still encoded."""
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    if builder.info.file_format == tfds.core.FileFormat.TFRECORD:
        return _TFRecords(builder.info, split, decoders)
    return builder.as_data_source(split=split, decoders=decoders)


class _TFRecords:
    """What `as_data_source` would be if it read tfrecord files."""

    def __init__(self, info, split: str, decoders):
        self._features, self._decoders = info.features, decoders
        self._parts = info.splits[split].file_instructions
        self._ends = list(itertools.accumulate(part.take for part in self._parts))
        self._starts: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict:
        number = bisect.bisect_right(self._ends, index)
        part = self._parts[number]
        if number not in self._starts:  # two threads may both do it, to the same end
            self._starts[number] = _record_starts(part.filename)
        place = part.skip + index - (self._ends[number] - part.take)
        if place >= len(self._starts[number]):
            raise ValueError("the file ends before this record")
        with epath.Path(part.filename).open("rb") as file:
            file.seek(self._starts[number][place])
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            file.read(_CHECKSUM)
            record = file.read(length)
        return self._features.deserialize_example_np(record, decoders=self._decoders)


def _record_starts(filename: str) -> np.ndarray:
    """Where each record of a file starts, in bytes: int64 [records]."""
    starts = [0]
    with epath.Path(filename).open("rb") as file:
        while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            starts.append(file.seek(length + 2 * _CHECKSUM, 1))
    return np.array(starts[:-1])
