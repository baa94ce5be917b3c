"""Weights of one prior as the first ones of another, where these can be the same thing.

    what is stored, facts of the new prior --fitted--> its classes, its grid, its order

Tokens of another tokenizer, or of another condition, are other tokens: their rows may
have the same shapes and mean nothing here, so that facts are compared before shapes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from taming_jax import stored
from taming_jax.conditions.kinds import Label
from taming_jax.conditions.table import Condition, from_facts
from taming_jax.models.positions import resized
from taming_jax.orders import Order, make_order
from taming_jax.training.recipe import PriorRecipe

# Of a condition's fields those that say of how much it is told, of which classes, and
# how training draws it; all others say what its tokens mean.
_FREE = ("image_size", "side", "objects", "names", "cut", "degraded")
# What published priors call a kind, where it is another word than ours.
_CALLED = {"coord": "coordinates"}
# Of a prior's parameters those that have one row for each token, and on which axis.
_BY_TOKEN = (("embedding", 0), ("embedding_above", 0), ("head/kernel", 1))


def fitted(
    path: str,
    model: stored.Stored,
    like: Any,
    *,
    recipe: PriorRecipe,
    facts: Mapping[str, Any],
) -> stored.Stored:
    """A stored prior with rows for other classes and positions for another grid.

    Args:
      path: of the model, for people.
      model: the stored prior.
      like: the new prior's parameters, or their shapes.
      recipe: of the new prior.
      facts: of the new prior, as `Stage.facts`.

    Raises:
      ValueError: if it was trained on another tokenizer's codes, or is told something
        else. What a published prior does not say is not compared.
    """
    theirs = model.record["facts"]
    _check_codes(path, theirs, facts)
    shared = bool(model.config["prior"].get("shared_vocabulary"))
    if shared != recipe.shared_vocabulary:
        raise ValueError(
            f"init_from={path} has shared_vocabulary={shared}, and here it is "
            f"{not shared}: other tokens say what it is told; set it as it is there"
        )
    _check_condition(path, theirs, facts, shared)
    if not shared:
        model = _with_labels(model, like, _told(theirs), _told(facts))
    _check_length(path, like, theirs, facts)
    return _at_grid(model, like, facts["grid"], recipe.order)


def _check_codes(path: str, theirs: Mapping, ours: Mapping) -> None:
    """Raises ValueError for codes of another tokenizer."""
    remedy = (
        "set prior.tokenizer to the one that it was trained on, or train without "
        "init_from"
    )
    if theirs["codes"] != ours["codes"]:
        raise ValueError(
            f"init_from={path} draws {theirs['codes']} codes, and the tokenizer here "
            f"has {ours['codes']}: {remedy}"
        )
    there, here = (facts["tokenizer"]["fingerprint"] for facts in (theirs, ours))
    if _differ(there, here):
        raise ValueError(
            f"init_from={path} was trained on codes of another tokenizer (fingerprint "
            f"{there[:12]}, here {here[:12]}), by whose numbers other things are "
            f"meant: {remedy}"
        )


def _check_condition(path: str, theirs: Mapping, ours: Mapping, shared: bool) -> None:
    """Raises ValueError where the same tokens say something else, or by other codes.

    Labels may come and go where a token says "no class"; a shared vocabulary lacks it.
    """
    names = [_names(facts) for facts in (theirs, ours)]
    if not shared and sum("label" in each for each in names) == 1:
        names = [[name for name in each if name != "label"] for each in names]
    if names[0] != names[1]:
        there, here = (" and ".join(_names(f)) or "nothing" for f in (theirs, ours))
        raise ValueError(
            f"init_from={path} is told {there}, and here it is {here}: set "
            "prior.condition as it is there, or train without init_from"
        )
    there = _meanings(theirs)
    for name, fields in _meanings(ours).items():
        known = there.get(name, {})
        for field in sorted(known.keys() & fields.keys()):
            if known[field] != fields[field]:
                raise ValueError(
                    f"init_from={path} is told {name} with {field}={known[field]!r}, "
                    f"and here it is {fields[field]!r}: other tokens; have it as it "
                    "is there, or train without init_from"
                )
    there, here = (f.get("condition", {}).get("fingerprint") for f in (theirs, ours))
    if _differ(there, here):
        raise ValueError(
            f"init_from={path} is told codes of another tokenizer (fingerprint "
            f"{there[:12]}, here {here[:12]}): set prior.condition_tokenizer to the "
            "one that it was trained on, or train without init_from"
        )


def _check_length(path: str, like: Any, theirs: Mapping, ours: Mapping) -> None:
    """Raises ValueError for learned positions of another number of condition tokens."""
    there, here = (
        facts.get("condition", {}).get("length", 1) for facts in (theirs, ours)
    )
    if there != here and "positions" in like:
        raise ValueError(
            f"init_from={path} has learned positions of {there} condition tokens, and "
            f"here there are {here}: have as many, or train without init_from"
        )


def _differ(there: str | None, here: str | None) -> bool:
    """Whether two fingerprints are known to be of two tokenizers."""
    return None not in (there, here) and there != here


def _names(facts: Mapping) -> list[str]:
    """The kinds of what a prior is told; [] of nothing."""
    condition = facts.get("condition", {})
    kind = condition.get("kind", "none")
    if "told" in condition or kind in ("label", "none"):
        return list(_told(facts))
    return [_CALLED.get(kind, kind)]


def _told(facts: Mapping) -> dict[str, Condition]:
    """The conditions by name, in order, as far as facts say them."""
    if "told" in (condition := facts.get("condition", {})):
        return from_facts(condition["told"])
    names = tuple(facts["class_names"])
    return {"label": Label(names, condition.get("null_label", False))} if names else {}


def _meanings(facts: Mapping) -> dict[str, dict[str, Any]]:
    """Of each condition but labels, by name, what decides what its tokens mean."""
    known = {}
    for name, kind in _told(facts).items():
        fields = [field.name for field in dataclasses.fields(kind) if field.compare]
        if name != "label":
            known[name] = {f: getattr(kind, f) for f in fields if f not in _FREE}
    if steps := facts.get("condition", {}).get("steps"):  # as published ones say it
        known["coordinates"] = {"steps": steps, "one": False}
    return known


def _with_labels(
    model: stored.Stored,
    like: Any,
    theirs: Mapping[str, Condition],
    ours: Mapping[str, Condition],
) -> stored.Stored:
    """A prior for other classes: what it knows of all else is kept, and of as many.

    A label that it does not have begins as that of no class.
    """
    flat = flatten_dict(model.variables["params"], sep="/")
    wanted = flatten_dict(like, sep="/")
    codes = model.record["facts"]["codes"]
    came_from = _rows(theirs, ours, codes)
    if (came_from == np.arange(len(came_from))).all():
        return model
    for name, axis in _BY_TOKEN:
        if name not in flat or name not in wanted:
            continue
        count = wanted[name].shape[axis]
        if count <= codes:  # logits of codes alone
            continue
        whole = np.resize(came_from[-1:], count)
        whole[: len(came_from)] = came_from[:count]
        flat[name] = np.take(np.asarray(flat[name]), whole, axis)
    variables = {**model.variables, "params": unflatten_dict(flat, sep="/")}
    return dataclasses.replace(model, variables=variables)


def _rows(
    theirs: Mapping[str, Condition], ours: Mapping[str, Condition], codes: int
) -> np.ndarray:
    """Of each token here, the last of which says nothing, the token there."""
    blocks, first = {}, codes
    for name, kind in theirs.items():
        blocks[name] = np.arange(first, first + kind.size)
        first += kind.size
    found = [np.arange(codes)]
    for name, kind in ours.items():
        known = blocks.get(name, np.zeros(0, int))[: kind.size]
        found += [known, np.full(kind.size - len(known), first)]
    return np.concatenate([*found, [first]])


def _at_grid(
    model: stored.Stored, like: Any, grid: Sequence[int], order: Order
) -> stored.Stored:
    """A prior for another grid of codes, or order: its learned positions, interpolated.

    Where there are more than its grid has, as in the original's that draw any grid,
    they are kept as they are if the new prior has as many.
    """
    facts, section = model.record["facts"], model.config["prior"]
    old, new = tuple(facts["grid"]), tuple(grid)
    flat, wanted = (flatten_dict(t, sep="/") for t in (model.variables["params"], like))
    old_order = make_order(section.get("order", "raster"), old)
    new_order = make_order(order, new)
    if old == new and (old_order == new_order).all():
        return model
    told = facts.get("condition", {}).get("length", 1)
    for name, condition in (("positions", told), ("target_positions", 0)):
        if name not in flat or name not in wanted:
            continue
        rows = wanted[name].shape[0]
        if facts.get("any_grid") and rows == flat[name].shape[0]:
            continue
        first, image = np.split(np.asarray(flat[name]), [condition])
        image = resized(image[: old[0] * old[1]], old, new, old_order, new_order)
        flat[name] = np.concatenate([first, np.asarray(image)])[:rows]
    variables = {**model.variables, "params": unflatten_dict(flat, sep="/")}
    return dataclasses.replace(model, variables=variables)
