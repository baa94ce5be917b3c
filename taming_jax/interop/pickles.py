"""Pickles, read without running them.

A pickle is a program that may import and call anything. Here it runs on a machine that
cannot:

    bytes --load--> numbers, strings, containers, what `calls` make of calls, and

    Global    the name of a class or function
    Opaque    what calling it would have returned, and what it was given

so that what frameworks put beside the weights is read past. It is bounded, too: every
opcode is one of `OPCODES`, calls copy no more than the pickle holds, what is a key is
hashed quickly, and nothing recurses. `check_tree` promises the same to those who walk
what came out.
"""

import codecs
from collections.abc import Callable, Mapping
from typing import Any

from taming_jax.interop.machine import (
    INTEGER_BYTES,
    Global,
    Machine,
    Opaque,
    global_named,
    integer,
)

__all__ = ["Global", "Opaque", "check_tree", "load"]

BYTES = 2**26  # of the largest pickle; the numbers in tensors are no part of it
OPCODES = 2**21  # a tensor takes about 40
DEPTH = 64  # of containers in containers
_PROTOCOL = 5


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
            opcode = machine.take(1)
            if opcode == b".":
                return machine.pop(), machine.at
            _ACTIONS[opcode](machine)
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


# What opcodes read from the program and push.


def _text(form: str) -> Callable[[Machine], str]:
    """A string in UTF-8, its length first; Python writes lone surrogates, too."""
    return lambda m: m.take(m.number(form)).decode("utf-8", "surrogatepass")


def _data(form: str) -> Callable[[Machine], bytes]:
    return lambda m: m.take(m.number(form))


def _python_2_string(data: bytes) -> str | bytes:
    """Text mostly, but it may be bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _decimal(line: bytes) -> int | bool:
    """An integer in decimals; protocol 0 writes True as 01."""
    if line in (b"00", b"01"):
        return line == b"01"
    if len(line) > 2 * INTEGER_BYTES:
        raise ValueError(f"an integer of {len(line)} digits")
    return int(line.removesuffix(b"L"))


def _quoted(line: bytes) -> bytes:
    """Between quotes, with Python's escapes."""
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise ValueError("a string without quotes")
    return codecs.escape_decode(line[1:-1])[0]


_VALUES: dict[bytes, Callable[[Machine], Any]] = {
    # constants and empty containers
    b"N": lambda m: None,
    b"\x88": lambda m: True,
    b"\x89": lambda m: False,
    b")": lambda m: (),
    b"]": lambda m: [],
    b"}": lambda m: {},
    b"\x8f": lambda m: set(),
    # numbers
    b"K": lambda m: m.number("<B"),
    b"M": lambda m: m.number("<H"),
    b"J": lambda m: m.number("<i"),
    b"G": lambda m: m.number(">d"),
    b"\x8a": lambda m: integer(m.take(m.number("<B"))),
    b"\x8b": lambda m: integer(m.take(m.number("<i"))),
    b"I": lambda m: _decimal(m.line()),
    b"L": lambda m: _decimal(m.line()),
    b"F": lambda m: float(m.line()),
    # strings and bytes
    b"\x8c": _text("<B"),
    b"X": _text("<I"),
    b"\x8d": _text("<Q"),
    b"C": _data("<B"),
    b"B": _data("<I"),
    b"\x8e": _data("<Q"),
    b"\x96": _data("<Q"),
    b"U": lambda m: _python_2_string(m.take(m.number("<B"))),
    b"T": lambda m: _python_2_string(m.take(m.number("<i"))),
    b"S": lambda m: _python_2_string(_quoted(m.line())),
    b"V": lambda m: m.line().decode("raw-unicode-escape"),
    # what was remembered
    b"g": lambda m: m.memo[int(m.line())],
    b"h": lambda m: m.memo[m.number("<B")],
    b"j": lambda m: m.memo[m.number("<I")],
    # globals, and objects that are elsewhere
    b"c": lambda m: global_named(m.line().decode(), m.line().decode()),
    b"P": lambda m: m.persistent(m.line().decode()),
}


# What opcodes make of what is on the stack.


def _dictionary(m: Machine) -> dict:
    return m.fill({}, _pairs(m.since_mark()))


def _pairs(items: list) -> list[tuple[Any, Any]]:
    return list(zip(items[::2], items[1::2], strict=True))


def _tuple(count: int) -> Callable[[Machine], tuple]:
    return lambda m: tuple([m.pop() for _ in range(count)][::-1])


def _global_by_stack(m: Machine) -> Global:
    module, name = _tuple(2)(m)
    if not (isinstance(module, str) and isinstance(name, str)):
        raise TypeError("a global's name is no string")
    return global_named(module, name)


def _called(m: Machine) -> Any:
    called, args = _tuple(2)(m)
    return m.call(called, args)


def _called_with_keywords(m: Machine) -> Any:
    called, args, keywords = _tuple(3)(m)
    return m.call(called, (*args, keywords)) if keywords else m.call(called, args)


def _old_object(m: Machine) -> Any:
    called, *args = m.since_mark()
    return m.call(called, tuple(args))


def _older_object(m: Machine) -> Any:
    called = global_named(m.line().decode(), m.line().decode())
    return m.call(called, tuple(m.since_mark()))


_RESULTS: dict[bytes, Callable[[Machine], Any]] = {
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"t": lambda m: tuple(m.since_mark()),
    b"l": lambda m: m.since_mark(),
    b"d": _dictionary,
    b"\x91": lambda m: frozenset(m.set_of(m.since_mark())),
    b"\x93": _global_by_stack,
    b"R": _called,
    b"\x81": _called,
    b"\x92": _called_with_keywords,
    b"o": _old_object,
    b"i": _older_object,
    b"Q": lambda m: m.persistent(m.pop()),
    b"2": lambda m: m.top,
}


# What opcodes do to what is there.


def _append(m: Machine) -> None:
    item = m.pop()
    m.extend(m.top, [item])


def _append_all(m: Machine) -> None:
    items = m.since_mark()
    m.extend(m.top, items)


def _set(m: Machine) -> None:
    pair = _tuple(2)(m)
    m.fill(m.top, [pair])


def _set_all(m: Machine) -> None:
    items = m.since_mark()
    m.fill(m.top, _pairs(items))


def _build(m: Machine) -> None:
    """State of an object; what hangs on a container or a tensor is dropped."""
    state = m.pop()
    if isinstance(m.top, Opaque):
        m.top.state = state


def _remember(m: Machine, place: int) -> None:
    m.memo[place] = m.top


def _check_protocol(m: Machine) -> None:
    if (protocol := m.number("<B")) > _PROTOCOL:
        raise ValueError(f"protocol {protocol}, and {_PROTOCOL} is the last one known")


def _check_frame(m: Machine) -> None:
    """Frames say how much may be read at once; all of it is here already."""
    m.check(m.number("<Q"))


_EFFECTS: dict[bytes, Callable[[Machine], Any]] = {
    b"(": lambda m: m.mark(),
    b"0": lambda m: m.drop(),
    b"1": lambda m: m.since_mark(),
    b"a": _append,
    b"e": _append_all,
    b"\x90": _append_all,
    b"s": _set,
    b"u": _set_all,
    b"b": _build,
    b"p": lambda m: _remember(m, int(m.line())),
    b"q": lambda m: _remember(m, m.number("<B")),
    b"r": lambda m: _remember(m, m.number("<I")),
    b"\x94": lambda m: _remember(m, len(m.memo)),
    b"\x80": _check_protocol,
    b"\x95": _check_frame,
}


def _pushing(value: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    return lambda m: m.push(value(m))


_ACTIONS = _EFFECTS | {
    opcode: _pushing(value) for opcode, value in (_VALUES | _RESULTS).items()
}
