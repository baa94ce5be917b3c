"""The machine that a pickle is a program for, without the right to import and to call.

Its opcodes are in `opcodes.py`; here is what they work on: the bytes, the stack with
its marks, the memo, and what takes the place of classes and their objects. Whatever an
opcode asks for that is not there raises, IndexError or the like; what would take too
much raises ValueError.

An opcode of two bytes may mention something of many megabytes that was made before. So
nothing that an opcode does takes longer the larger such a thing is, or it is counted.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

OPCODES = 2**20  # of a pickle; a tensor takes about 40
INTEGER_BYTES = 255
LINE = 2**16  # bytes of a line of the oldest protocol
NAME = 2**10  # letters of a class or function
KEY = 2**12  # letters of a key
KEY_PARTS = 16  # of a tuple that is a key
# Python's hashes of strings and bytes cannot be made to collide, those of numbers and
# tuples can; so many collisions are borne.
PLAIN_KEYS = 2**13
_DEEP = (tuple, frozenset)
_OF_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


@dataclass(frozen=True)
class Global:
    """A class or function that the pickle names; it is never imported."""

    name: str  # "collections.OrderedDict"

    def __repr__(self) -> str:
        return f"Global({self.name[:80]!r})"


@dataclass(eq=False, slots=True)
class Opaque:
    """An object of a class that is not known here.

    What it carries is as the pickle has it, perhaps without end: it is a leaf to those
    who walk a tree, and who looks into it should expect anything.

    Attributes:
      kind: its class, or what was called to make it.
      args: what that was called with.
      state: what it was told to become.
      items: what was appended to it.
      pairs: what was set in it.
    """

    kind: Any
    args: tuple
    state: Any = None
    items: list[Any] = field(default_factory=list)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its class, or function."""
        return self.kind.name if isinstance(self.kind, Global) else "?"

    def __repr__(self) -> str:
        return f"Opaque({self.name[:80]!r})"


class Machine:
    """Bytes, stack and memo.

    Args:
      pickle: the program.
      begin: where it begins.
      calls: what is called by which name, besides what makes containers.
      persistent: what a persistent id stands for.

    Attributes:
      at: the place of the next byte.
      memo: what the program remembers, by numbers.
    """

    def __init__(
        self,
        pickle: bytes,
        begin: int,
        calls: Mapping[str, Callable],
        persistent: Callable[[Any], Any],
    ):
        self.at, self.memo, self.persistent = begin, {}, persistent
        self._pickle, self._plain_keys = pickle, PLAIN_KEYS
        self._letters, self._items = len(pickle), OPCODES  # that calls may copy
        self._stack, self._marks, self._floor = [], [], 0
        self._calls = {
            "builtins.set": self.set_of,
            "builtins.frozenset": lambda items=(): frozenset(self.set_of(items)),
            "builtins.complex": complex,
            "builtins.bytes": _bytes,
            "builtins.bytearray": _bytes,
            "_codecs.encode": _bytes,
            "collections.OrderedDict": lambda pairs=(): self.fill({}, pairs),
            "collections.defaultdict": lambda factory=None: {},
            "copyreg._reconstructor": lambda kind, base, state: Opaque(kind, (state,)),
            **calls,
        }

    def opcode(self) -> int:
        """The next byte."""
        if self.at >= len(self._pickle):
            raise ValueError("it is cut short")
        self.at += 1
        return self._pickle[self.at - 1]

    def take(self, count: int) -> bytes:
        """The next bytes."""
        self.check(count)
        begin, self.at = self.at, self.at + count
        return self._pickle[begin : self.at]

    def check(self, count: int) -> None:
        """Whether so many bytes follow."""
        if not 0 <= count <= len(self._pickle) - self.at:
            raise ValueError(f"{count} bytes should follow: it is cut short")

    def line(self) -> bytes:
        """The bytes before the next end of a line."""
        end = self._pickle.index(b"\n", self.at, self.at + LINE)
        taken = self.take(end - self.at)
        self.at += 1
        return taken

    def number(self, form: str) -> int | float:
        """The next bytes as a number, in a form of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        if len(self._stack) <= self._floor:
            raise IndexError("nothing is on the stack")
        return self._stack.pop()

    @property
    def top(self) -> Any:
        if len(self._stack) <= self._floor:
            raise IndexError("nothing is on the stack")
        return self._stack[-1]

    def mark(self) -> None:
        self._floor = len(self._stack)
        self._marks.append(self._floor)

    def drop(self) -> None:
        """Drops what is on top, be it a mark."""
        if self._marks and self._floor == len(self._stack):
            self.since_mark()
        else:
            self.pop()

    def since_mark(self) -> list[Any]:
        """Takes all that was pushed after the last mark, and the mark."""
        begin = self._marks.pop()
        self._floor = self._marks[-1] if self._marks else 0
        taken = self._stack[begin:]
        del self._stack[begin:]
        return taken

    def fill(self, target: Any, pairs: Iterable[tuple[Any, Any]]) -> Any:
        """Sets keys of a mapping, or notes what an object was told to set."""
        if isinstance(target, Opaque):
            target.pairs += pairs
        elif isinstance(target, dict):
            for key, value in pairs:
                target[self._key(key)] = value
        else:
            raise TypeError(f"{type(target).__name__} is no mapping")
        return target

    def extend(self, target: Any, items: Iterable[Any]) -> None:
        """Appends to a list, adds to a set, or notes what an object was told to add."""
        if isinstance(target, Opaque):
            target.items += items
        elif isinstance(target, set):
            target.update(map(self._key, items))
        elif isinstance(target, list):
            target += items
        else:
            raise TypeError(f"{type(target).__name__} holds no items")

    def set_of(self, items: Iterable[Any] = ()) -> set:
        return set(map(self._key, items))

    def call(self, called: Any, args: tuple) -> Any:
        """What a call returns, if it is known, else an `Opaque`."""
        if not isinstance(args, tuple):
            raise TypeError("the arguments of a call are no tuple")
        if not isinstance(called, Global | Opaque):
            raise TypeError(f"{type(called).__name__} cannot be called")
        function = self._calls.get(getattr(called, "name", None))
        if function is None or isinstance(called, Opaque):
            return Opaque(called, args)
        for arg in args:
            if isinstance(arg, str | bytes):
                self._letters -= len(arg)
            elif hasattr(arg, "__len__"):
                self._items -= len(arg)
        if self._letters < 0 or self._items < 0:
            raise ValueError("its calls copy more than there is")
        return function(*args)

    def _key(self, key: Any) -> Any:
        """A key that is hashed and compared quickly, and few that may collide."""
        if isinstance(key, Global | Opaque):
            return key
        if isinstance(key, str | bytes):
            if len(key) > KEY:
                raise ValueError(f"a key has {len(key)} letters")
            return key
        parts = key if isinstance(key, tuple) else (key,)
        if len(parts) > KEY_PARTS or any(isinstance(p, _DEEP) for p in parts):
            raise ValueError("a key is a long tuple, or one of tuples")
        self._plain_keys -= 1
        if self._plain_keys < 0:
            raise ValueError(f"more than {PLAIN_KEYS} keys are no strings")
        return key


def global_named(module: str, name: str) -> Global:
    """A global by the name that it has in Python 3."""
    if len(module) + len(name) > NAME:
        raise ValueError("a class has too long a name")
    return Global(f"{_OF_PYTHON_2.get(module, module)}.{name}")


def integer(data: bytes) -> int:
    """A signed integer of as many bytes as it has, little-endian."""
    if len(data) > INTEGER_BYTES:
        raise ValueError(f"an integer of {len(data)} bytes")
    return int.from_bytes(data, "little", signed=True)


def _bytes(content: str | bytes = b"", encoding: str = "latin1") -> bytes:
    """Bytes, which old protocols write as a call with a string."""
    return content if isinstance(content, bytes) else content.encode("latin1")
