"""Pickles, read without running them.

A pickle is a program that may import and call anything. Here it runs on a machine that
cannot:

    bytes --load--> numbers, strings, containers, what `calls` make of calls, and

    Global    the name of a class or function
    Opaque    what calling it would have returned, and what it was given

so that what frameworks put beside the weights is read past. It is bounded, too: every
opcode counts to `OPCODES`, calls copy no more than the pickle holds, what is a key is
hashed quickly, and nothing recurses. `check_tree` promises the same to those who walk
what came out.
"""

from collections.abc import Callable, Mapping
from typing import Any

from taming_jax.interop.formats.machine import OPCODES, Global, Machine, Opaque
from taming_jax.interop.formats.opcodes import ACTIONS, STOP

__all__ = ["Global", "Opaque", "check_tree", "load"]

BYTES = 2**26  # of the largest pickle; the numbers in tensors are no part of it
DEPTH = 64  # of containers in containers


def load(
    pickle: bytes,
    calls: Mapping[str, Callable] | None = None,
    persistent: Callable[[Any], Any] | None = None,
    begin: int = 0,
) -> tuple[Any, int]:
    """What a pickle of protocol 0 to 5 says.

    Args:
      pickle: the bytes; what follows its end is not looked at.
      calls: what is to be called instead of a function, by that function's name.
      persistent: what an id that stands for an object elsewhere is replaced by.
      begin: where the pickle begins.

    Returns:
      (value, end), `end` being the place behind the last opcode. Mappings and sets of
      the standard library are dict, set and frozenset, without what was hung on them.

    Raises:
      ValueError: if it is no pickle, damaged, or exceeds the bounds.
    """
    machine = Machine(pickle, begin, calls or {}, persistent or _no_persistent)
    try:
        for _ in range(OPCODES):
            opcode = machine.opcode()
            if opcode == STOP:
                return machine.pop(), machine.at
            ACTIONS[opcode](machine)
        raise ValueError(f"it has more than {OPCODES} opcodes")
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
        reason = " ".join(f"{e}".split())[:200]
        raise ValueError(f"its pickle is broken at byte {machine.at}: {reason}") from e


def check_tree(value: Any) -> None:
    """Raises ValueError if value holds itself, is deep, or unfolds to very much.

    What is mentioned twice counts twice, as it does for those who walk it. `Opaque` is
    a leaf.
    """
    level, count = [value], 0
    for _ in range(DEPTH):
        level = [node for node in level if isinstance(node, _CONTAINERS)]
        count += sum(map(len, level))
        if not level:
            return
        if count > OPCODES:
            raise ValueError(f"it unfolds to more than {OPCODES} values")
        level = [child for node in level for child in _children(node)]
    raise ValueError(f"it is deeper than {DEPTH} containers, or holds itself")


_CONTAINERS = (dict, list, tuple, set, frozenset)


def _children(node: Any):
    return node.values() if isinstance(node, dict) else node


def _no_persistent(identity: Any) -> Any:
    raise ValueError("it points to objects elsewhere")
