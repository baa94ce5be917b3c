"""The opcodes of pickles, protocols 0 to 5: what each does to a `Machine`.

    ACTIONS[ord("K")](machine)    # BININT1 reads a byte, and pushes it as a number

Left out are those that Python itself refuses unless told what they mean: the registry
of extensions, and buffers out of band. `pickletools` of the standard library says what
each letter is called.
"""

import codecs
from collections.abc import Callable
from typing import Any

from taming_jax.interop.formats.machine import (
    INTEGER_BYTES,
    Global,
    Machine,
    Opaque,
    global_named,
    integer,
)

_PROTOCOL = 5  # the last there is


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
    return Opaque(called, (args, keywords)) if keywords else m.call(called, args)


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


_PUSHING = {letter: _pushing(value) for letter, value in (_VALUES | _RESULTS).items()}
ACTIONS = {ord(letter): action for letter, action in (_EFFECTS | _PUSHING).items()}
STOP = ord(".")
