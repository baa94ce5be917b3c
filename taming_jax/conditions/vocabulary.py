"""What a prior's tokens mean: codes, and what pictures are asked for by.

    what is asked for -> condition tokens [B, n]
    codes [B, h, w] -> image tokens [B, h * w], row by row or in another order
    sequence = condition tokens, then image tokens

Codes are the tokens 0..K-1 in every vocabulary; whatever else there is follows them, so
that "can be drawn" means "is below K".
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.conditions.kinds import Label
from taming_jax.conditions.table import Condition
from taming_jax.conditions.windows import Sides, Together
from taming_jax.units import Codes, Labels, Tokens


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The tokens of one prior.

        0 .. K-1      codes
        K .. K+C-1    what it is told: class labels, or the tokens of other conditions,
                      one condition after the other
        K+C           nothing: unconditional, or dropped for guidance

    Attributes:
      codes: K, the size of the tokenizer's codebook.
      classes: how many class labels there are, 0 where they are not told.
      shared: the paper's: token c of the condition is token c, there are no others.
      start: what an unconditional sequence begins with in a shared vocabulary (Esser
        et al. 2021, `sos_token`).
      told: the conditions by name; None: labels, if there are classes.

    Raises:
      ValueError: for a shared vocabulary with more to say than there are codes.
    """

    codes: int
    classes: int = 0
    shared: bool = False
    start: int = 0
    told: Mapping[str, Condition] | None = None

    def __post_init__(self):
        if self.told is None:
            label = Label(tuple(f"class {i}" for i in range(self.classes)))
            object.__setattr__(self, "told", {"label": label} if self.classes else {})
        elif "label" in self.told:
            object.__setattr__(self, "classes", self.told["label"].size)
        if self.shared and self._others > self.codes:
            what = "classes" if set(self.told) == {"label"} else "condition tokens"
            raise ValueError(
                f"shared_vocabulary=True says {self._others} {what} with "
                f"{self.codes} codes: set it to False, or take a larger codebook"
            )

    @property
    def size(self) -> int:
        """How many tokens there are: V."""
        return self.codes if self.shared else self.codes + self._others + 1

    @property
    def nothing(self) -> int:
        """The token that asks for nothing in particular."""
        return self.start if self.shared else self.codes + self._others

    @property
    def length(self) -> int:
        """How many condition tokens there are: n."""
        return sum(condition.length for condition in self.told.values()) or 1

    @property
    def grids(self) -> tuple[tuple[int, int, int], ...]:
        """What lies on the picture: (first condition token, rows, columns) of each."""
        if not self.told:
            return ((0, 1, 1),)
        found, first = [], 0
        for condition in self.told.values():
            if condition.grid:
                found.append((first, *condition.grid))
            first += condition.length
        return tuple(found)

    @property
    def entries(self) -> tuple[str, ...]:
        """Of an example, which a batch has to bring."""
        names = [e for condition in self.told.values() for e in condition.entries]
        return tuple(dict.fromkeys(names))

    def label_tokens(self, labels: Labels) -> Tokens:
        """Labels [B] in [0, C) -> condition tokens [B, 1]."""
        return self.asked_tokens({"label": labels})

    def no_label(self, batch: int) -> Tokens:
        """Condition tokens [B, n] that leave the picture to the prior."""
        return jnp.full((batch, self.length), self.nothing, jnp.int32)

    def condition_tokens(self, labels: Labels | None, batch: int) -> Tokens:
        """Labels [B], or None in an unconditional prior -> [B, 1]."""
        return self.no_label(batch) if labels is None else self.label_tokens(labels)

    def batch_tokens(
        self, batch: Mapping, count: int, variables: Any = None, key=None
    ) -> Tokens:
        """What the entries of a batch of `count` examples say -> [B, n].

        Args:
          batch: with at least `entries`.
          count: B.
          variables: of the condition's tokenizer.
          key: for what training leaves to chance; None: nothing.
        """
        if not self.told:
            return self.no_label(count)
        asked = {name: kind.of_batch(batch) for name, kind in self.told.items()}
        return self.asked_tokens(asked, variables, key)

    def asked_tokens(self, asked: Mapping, variables: Any = None, key=None) -> Tokens:
        """What is asked for, checked, by the names of conditions -> [B, n]."""
        first, parts = 0 if self.shared else self.codes, []
        for i, (name, kind) in enumerate(self.told.items()):
            own = None if key is None else jax.random.fold_in(key, i)
            parts.append(first + kind.tokens(asked[name], variables, own))
            first += kind.size
        return jnp.concatenate(parts, axis=1)

    def checked(self, given: Any) -> dict[str, Any] | None:
        """What people ask for -> by the names of conditions; None of no condition.

        Raises:
          ValueError: for what this prior cannot be told; it says what it can.
        """
        named = self._named(given)
        if named is None:
            return None
        asked = {name: kind.checked(named[name]) for name, kind in self.told.items()}
        _check_counts(asked)
        return asked

    def over(self, given: Any, shape: Sides, window: Sides) -> Together | None:
        """The same of pictures larger than a window: what each window is told.

        Args:
          given: what people ask for, for all of the picture.
          shape: (h, w) of the pictures, in codes.
          window: of a window.

        Raises:
          ValueError: as `checked`, and for a condition of another size.
        """
        named = self._named(given)
        if named is None:
            return None
        parts = {
            name: kind.over(named[name], shape, window)
            for name, kind in self.told.items()
        }
        _check_counts(parts)
        sizes = [kind.size for kind in self.told.values()]
        first = 0 if self.shared else self.codes
        firsts = tuple(itertools.accumulate(sizes[:-1], initial=first))
        return Together(tuple(parts.values()), firsts)

    def _named(self, given: Any) -> Mapping[str, Any] | None:
        """What people ask for, by names, nothing missing; None of no condition."""
        if not self.told:
            if given is not None:
                raise ValueError(
                    "this prior is unconditional and has no use for labels: leave them "
                    "out, and say how many samples by batch="
                )
            return None
        (first, *others) = self.told
        if not others:
            if isinstance(given, Mapping) and set(given) == {first}:
                given = given[first]
            given = {first: given}
        elif not isinstance(given, Mapping) or set(given) != set(self.told):
            names = "nothing" if given is None else type(given).__name__
            names = ", ".join(given) if isinstance(given, Mapping) else names
            raise ValueError(
                f"this prior is told {' and '.join(self.told)} together, as a dict of "
                f"these; it was given {names}"
            )
        for name, kind in self.told.items():
            if given[name] is None:
                raise ValueError(kind.missing())
        return given

    @property
    def _others(self) -> int:
        return sum(condition.size for condition in self.told.values())


def _check_counts(asked: Mapping[str, Any]) -> None:
    """Raises ValueError for conditions of so many pictures and of so many others."""
    counts = {name: len(jax.tree.leaves(part)[0]) for name, part in asked.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"conditions of how many pictures? {found}: give equally many")


def image_tokens(codes: Codes, order=None) -> Tokens:
    """[B, h, w] -> [B, h * w]; in the order of `orders.make_order`, or by rows."""
    tokens = codes.reshape(len(codes), -1)
    return tokens if order is None else tokens[:, np.asarray(order)]


def codes_of(tokens: Tokens, grid: tuple[int, int], order=None) -> Codes:
    """[B, h * w] -> [B, h, w]: the inverse of `image_tokens`."""
    if order is not None:
        tokens = tokens[:, np.argsort(order)]
    return tokens.reshape(len(tokens), *grid)
