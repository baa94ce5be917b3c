"""What codes on disk hold of conditions besides labels and maps with a tokenizer.

    entries of examples --written--> {field: [B, ...]}, as `described` in codes.json

Objects and keypoints are small and lie there as examples have them, so that training
can still put objects into random order. Of what is made of whole pictures the tokens
lie there, NAME_tokens.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from taming_jax.conditions.kinds import Data
from taming_jax.conditions.table import (
    CONDITIONS,
    Condition,
    as_facts,
    check_classes,
    coded,
    requested,
)


def beside(condition: Any, data: Data) -> dict[str, Condition]:
    """Those of `config.prior.condition` that are neither labels nor have a tokenizer.

    Raises:
      ValueError: as `conditions_for`; for one that training makes anew from the
        pictures each time, which codes on disk are without.
    """
    made = {
        name: CONDITIONS[name].of(data, name, **options)
        for name, options in requested(condition)
        if name != "label" and not coded([name])
    }
    if anew := [name for name, kind in made.items() if not kind.kept]:
        raise ValueError(
            f"prior.condition={anew[0]!r} with degraded=True makes each picture worse "
            "in another way every time, and codes on disk are without pictures: encode "
            "them on the way (no codes/ in the run), or set degraded=False"
        )
    return made


def fields(name: str, kind: Condition) -> tuple[str, ...]:
    """What the condition reads of codes on disk."""
    return (f"{name}_tokens",) if kind.kept == "tokens" else kind.entries


def described(
    conditions: Mapping[str, Condition], spec: Mapping[str, tuple[str, tuple]]
) -> dict[str, dict[str, Any]]:
    """Each field's dtype and shape in JSON's types, and of tokens what makes them.

    spec: dtype and shape of an example's entries.
    """
    about = {}
    for name, kind in conditions.items():
        for field in fields(name, kind):
            if kind.kept == "tokens":
                dtype, shape = np.min_scalar_type(kind.size - 1).name, (kind.length,)
                about[field] = {"of": as_facts({name: kind})[0]}
            else:
                (dtype, shape), about[field] = spec[field], {}
            about[field] |= {"dtype": dtype, "shape": shape}
    return json.loads(json.dumps(about))


def written(conditions: Mapping[str, Condition], batch: Mapping) -> dict[str, Any]:
    """The fields of a batch's examples: tokens int32 [B,n], or entries.

    Raises:
      ValueError: for class maps with classes that are not told: training sees tokens
        only.
    """
    check_classes(conditions, batch)
    values = {}
    for name, kind in conditions.items():
        for field in fields(name, kind):
            tokens = kind.kept == "tokens"
            values[field] = (
                kind.tokens(kind.of_batch(batch)) if tokens else batch[field]
            )
    return values
