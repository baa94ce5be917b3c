"""Random numbers for drawn pictures: functions of (seed, index, purpose), no state.

Integers of 64 bits throughout, so that every machine draws the same.
"""

import hashlib

import numpy as np


class Draws:
    """Numbers for B pictures, each from its own seed, index and the number's purpose.

    A draw is splitmix64 of the picture's key moved on by a hash of the purpose's name:
    another purpose more, or another batch around the picture, changes none of them.

    Args:
      seed: names a stream of pictures; any integer.
      indices: int64 [B], positions in the stream.
    """

    def __init__(self, seed: int, indices: np.ndarray):
        stream = _splitmix(np.array([seed % 2**64], np.uint64))
        self._keys = _splitmix(stream ^ _splitmix(indices.astype(np.uint64)))

    def lanes(self, count: int) -> "Draws":
        """Independent draws for `count` things in each picture: arrays [B, count]."""
        lane = _splitmix(np.arange(count, dtype=np.uint64))
        draws = object.__new__(Draws)
        draws._keys = _splitmix(self._keys[:, None] + lane)
        return draws

    def uniform(self, purpose: str, low: float, high: float) -> np.ndarray:
        """float32 in [low, high], one of 2^24 equal steps."""
        steps = (self._bits(purpose) >> np.uint64(40)).astype(np.float32)
        return low + (high - low) * (steps / np.float32(2**24))

    def choice(self, purpose: str, count: int) -> np.ndarray:
        """int32 in [0, count)."""
        half = self._bits(purpose) >> np.uint64(32)
        return (half * np.uint64(count) >> np.uint64(32)).astype(np.int32)

    def order(self, purpose: str, count: int) -> np.ndarray:
        """0 .. count - 1, shuffled for each picture: int64 [B, count]."""
        return self.lanes(count)._bits(purpose).argsort(axis=1, kind="stable")

    def _bits(self, purpose: str) -> np.ndarray:
        digest = hashlib.blake2b(purpose.encode(), digest_size=8).digest()
        return _splitmix(self._keys + np.uint64(int.from_bytes(digest, "little")))


def _splitmix(state: np.ndarray) -> np.ndarray:
    """The step of splitmix64 (Steele, Lea and Flood 2014): uint64 -> uint64."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
