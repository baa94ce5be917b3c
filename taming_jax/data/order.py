"""The order of examples: random, and yet arithmetic that starts anywhere.

    position --(epoch, place in it)--> Order(n, seed) --> index in [0, n)

Position p is the p-th example of a run, over all processes and epochs. What is shown
there follows from (seed, p) alone, so that a resumed run computes where it is instead
of reading again what it has seen. A Feistel network is a permutation whatever its
rounds compute; places that it sends outside the data set are sent on until they fall
inside (cycle walking), which keeps it one.

It is written in numpy rather than taken from `tf.random.experimental.index_shuffle`
because a checkpoint's data position has to mean the same under every TensorFlow there
will be, and because readers look for a bad record's successor outside any graph.
"""

import numpy as np

ROUNDS = 8  # 4 suffice for large sets (Luby and Rackoff, 1988), not for ten pictures

# Purposes: the first word of every hash, so that no two uses share their numbers.
_SHUFFLE, _AUGMENT = 1, 2


class Order:
    """A permutation of range(count) for each epoch, none of it kept in memory."""

    def __init__(self, count: int, seed: int):
        bits = max(2, (count - 1).bit_length())
        self._count, self._seed = count, seed
        self._low_bits = np.uint64(bits // 2)
        self._masks = [_ones(bits - bits // 2), _ones(bits // 2)]

    def __call__(self, positions: np.ndarray, shift: int = 0) -> np.ndarray:
        """int64 positions [N], from 0 on -> int64 indices [N] in [0, count).

        `shift` asks for the index so many places later in the same epoch, which wraps
        around at its end.
        """
        epochs, places = np.divmod(np.asarray(positions, np.int64), self._count)
        places = ((places + shift) % self._count).astype(np.uint64)
        keys = [_hashed(_SHUFFLE, self._seed, epochs)]
        while len(keys) < ROUNDS:
            keys.append(_splitmix(keys[-1]))
        indices = self._feistel(places, keys)
        while (outside := indices >= self._count).any():
            indices = np.where(outside, self._feistel(indices, keys), indices)
        return indices.astype(np.int64)

    def _feistel(self, values: np.ndarray, keys: list[np.ndarray]) -> np.ndarray:
        """Permutes the smallest power of two (4 at least) that holds the data set."""
        left, right = values >> self._low_bits, values & self._masks[1]
        for number, key in enumerate(keys):
            mixed = _splitmix(right ^ key) & self._masks[number % 2]
            left, right = right, left ^ mixed
        return left << self._low_bits | right


def draws(seed: int, positions: np.ndarray, count: int) -> np.ndarray:
    """Uniform numbers for augmentation: float64 [N, count] in [0, 1).

    A function of (seed, position), so that each epoch crops and flips anew and a
    resumed run does it in the same way.
    """
    positions = np.asarray(positions, np.int64)[:, None]
    bits = _hashed(_AUGMENT, seed, positions, np.arange(count)[None])
    return (bits >> np.uint64(11)) * 2.0**-53


def _hashed(*words) -> np.ndarray:
    """Integers, or arrays of them that broadcast -> uint64 with every bit mixed."""
    state = np.zeros(1, np.uint64)
    for word in words:
        word = np.asarray(word, np.int64).astype(np.uint64)
        state = _splitmix(state ^ word)
    return state


def _splitmix(values: np.ndarray) -> np.ndarray:
    """One step of splitmix64 (Steele, Lea and Flood, 2014): uint64 -> uint64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


def _ones(bits: int) -> np.uint64:
    return np.uint64(2**bits - 1)
