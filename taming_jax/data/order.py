"""The order of examples: random, and yet arithmetic that starts anywhere.

    position --(epoch, place in it)--> Order(count, seed) --> index in [0, count)

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

from taming_jax.data.draws import Draws

ROUNDS = 8  # 4 suffice for large sets (Luby and Rackoff, 1988), not for ten pictures


class Order:
    """A permutation of range(count) for each epoch, none of it kept in memory.

    Args:
      count: examples in the data set, fewer than 2^62.
      seed: of the run; each epoch has another order under it.
    """

    def __init__(self, count: int, seed: int):
        bits = max(2, (count - 1).bit_length())
        self._count, self._seed = count, seed
        self._halves = (bits - bits // 2, bits // 2)  # bits of the left, of the right

    def __call__(self, positions: np.ndarray, shift: int = 0) -> np.ndarray:
        """int64 positions [N], from 0 on -> int64 indices [N] in [0, count).

        `shift` asks for the index so many places later in the same epoch, which wraps
        around at its end.
        """
        epochs, places = np.divmod(positions, self._count)
        indices = self._feistel(epochs, (places + shift) % self._count)
        while (outside := indices >= self._count).any():
            indices = np.where(outside, self._feistel(epochs, indices), indices)
        return indices

    def _feistel(self, epochs: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Permutes the smallest power of two (4 at least) that holds the data set."""
        low = self._halves[1]
        left, right = values >> low, values & (1 << low) - 1
        for number in range(ROUNDS):
            draws = Draws(self._seed, epochs << 32 | right)
            mixed = draws.choice(f"round {number}", 1 << self._halves[number % 2])
            left, right = right, left ^ mixed
        return left << low | right
