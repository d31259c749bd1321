"""Pickle, read as a program that builds inert values: nothing is imported, called or unpickled.

Format: CPython's ``pickletools``, protocols 2 to 5, of which only the operations are known that
build plain values (numbers, text, bytes, tuples, lists, dictionaries), refer to what was built
before, and *describe* a call. What a program would import is a :class:`Global`, a name; what it
would call is a :class:`Made`, the name with its arguments; what it leaves to its container is a
:class:`Reference`. Only names that the caller allows may stand in it, and any other is refused by
name: reading never gives a program more than it spells.

One reading only: keys are text or integers of 64 bits and stand once, nothing is dropped, the
program ends with its last byte and one value. A call acts when it is made, and may copy what it is
given: what was an argument or a state does not change afterwards.

``spelling`` is the SHA-256 of everything that the program says beside plain values: its operations,
places in the memo, lengths of frames and integers, names. Two programs of one spelling and the same
plain values in the same order are the same bytes.

Limits: 64 MiB, 5,000,000 operations, which take at most 1 GB in memory.
"""

from __future__ import annotations

import hashlib
import pickletools
import struct
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from provenance.errors import MalformedError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

MAX_PROGRAM: Final = 64 * 2**20
"""Longest program, in bytes. A hundred thousand tensors take about 30 MB."""

MAX_OPERATIONS: Final = 5_000_000
"""Most operations of a program; a tensor of a state dict takes about 40."""

_KEYS: Final = range(-(2**63), 2**63)
"""Integers as keys. Of wider ones, thousands can have one hash."""

_MAX_NAME: Final = 256
"""Longest part of a global's name, in bytes."""

_PROTOCOLS: Final = range(2, 6)
_NAMES: Final[Mapping[bytes, str]] = MappingProxyType(
    {operation.code.encode("latin-1"): operation.name for operation in pickletools.opcodes}
)
_MEND: Final = "save only tensors and plain values, such as a state dict"


@dataclass(frozen=True, slots=True)
class Global:
    """The name of what the program would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What the program would make by calling *function*; the rest it would do to it afterwards."""

    function: Global
    arguments: tuple[object, ...]
    entries: dict[str | int, object] = field(default_factory=dict)
    state: list[object] = field(default_factory=list)
    """None, or one value."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the program leaves to its container to find: a persistent identifier."""

    identifier: object


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was read."""

    value: object
    """None, bool, int, float, str, bytes, tuple, list, dict, Global, Made or Reference. Lists,
    dictionaries and what is made may be shared, and may hold themselves."""
    spelling: str
    references: tuple[Reference, ...]
    """What it leaves to its container, in the order in which it asks."""


def read_program(data: bytes, allowed: AbstractSet[str], *, where: str) -> Program:
    """Return what the pickle *data* describes; *allowed* are the globals' names, with dots.

    Raises:
        MalformedError: it is not one pickle, or not in one reading.
        UnreadableError: it uses an operation or a global that is not allowed.
    """
    if len(data) > MAX_PROGRAM:
        raise MalformedError(f"the pickle is longer than {MAX_PROGRAM} bytes", where=where)
    machine = _Machine(data, allowed, where)
    value = machine.run()
    spelling = hashlib.sha256(machine.spelling).hexdigest()
    return Program(value, spelling, tuple(machine.references))


class _Machine:
    """The stack, the marks on it, and the memo, while a program is read."""

    def __init__(self, data: bytes, allowed: AbstractSet[str], where: str) -> None:
        self.data = data
        self.allowed = allowed
        self.where = where
        self.place = 0
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.spelling = bytearray()
        self.references: list[Reference] = []
        self.fixed: dict[int, object] = {}

    def run(self) -> object:
        for _ in range(MAX_OPERATIONS):
            code = self.take(1)
            self.spelling += code
            if code == b".":
                return self.result()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise self.unknown(code)
            operation(self)
        raise self.malformed(f"the pickle has more than {MAX_OPERATIONS} operations")

    def result(self) -> object:
        value = self.pop()
        if self.stack or self.marks or self.place != len(self.data):
            raise self.malformed("the pickle does not end with one value")
        return value

    def malformed(self, what: str) -> MalformedError:
        return MalformedError(what, where=self.where)

    def unknown(self, code: bytes) -> MalformedError | UnreadableError:
        name = _NAMES.get(code)
        if name is None:
            return self.malformed(f"{code!r} is no operation of pickle")
        what = f"the pickle operation {name} is not read"
        return UnreadableError(what, where=self.where, hint=_MEND)

    def take(self, count: int) -> bytes:
        """Return the next *count* bytes of the program."""
        end = self.place + count
        if end > len(self.data):
            raise self.malformed("the pickle is cut off")
        data = self.data[self.place : end]
        self.place = end
        return data

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def spelled(self, width: int) -> int:
        """Return a number that belongs to the spelling."""
        data = self.take(width)
        self.spelling += data
        return int.from_bytes(data, "little")

    def line(self) -> str:
        end = self.data.find(b"\n", self.place, self.place + _MAX_NAME + 1)
        if end < 0:
            raise self.malformed("a global's name is cut off or too long")
        data = self.take(end - self.place)
        self.take(1)
        return self.text(data)

    def text(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self.malformed("a text of the pickle is not UTF-8") from error

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> object:
        self.top()
        return self.stack.pop()

    def top(self) -> object:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.malformed("the pickle takes what is not on its stack")
        return self.stack[-1]

    def pop_marked(self) -> list[object]:
        """Return what was pushed since the last mark."""
        if not self.marks:
            raise self.malformed("the pickle has no mark where it needs one")
        begin = self.marks.pop()
        values = self.stack[begin:]
        del self.stack[begin:]
        return values

    def pop_tuple(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def named(self, module: object, name: object) -> None:
        """Push the global *name* of *module*, if it is allowed."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.malformed("the name of a global is not text")
        found = Global(module, name)
        if str(found) not in self.allowed or "." in name:
            what = f"the pickle asks for {found}, and nothing is imported from a file"
            raise UnreadableError(what, where=self.where, hint=_MEND)
        self.spelling += f"{found}\n".encode()
        self.push(found)

    def put(self, index: int) -> None:
        if index in self.memo:
            raise self.malformed(f"the place {index} of the memo is taken")
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise self.malformed(f"the place {index} of the memo is empty")
        self.push(self.memo[index])

    def fix(self, value: object) -> None:
        """Let *value*, which a call was given, and all in it, never change again."""
        pending = [value]
        while pending:
            found = pending.pop()
            if id(found) in self.fixed:
                continue
            if isinstance(found, tuple | list):
                pending.extend(found)
            elif isinstance(found, dict):
                pending.extend(found.values())
            elif isinstance(found, Made):
                pending.extend((found.entries, *found.state))  # the arguments are fixed
            else:
                continue
            self.fixed[id(found)] = found

    def check_loose(self, target: object) -> None:
        if id(target) in self.fixed:
            raise self.malformed("the pickle changes what it gave to a call")

    def append(self, values: list[object]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise self.malformed("the pickle appends to what is no list")
        self.check_loose(target)
        target.extend(values)

    def set_items(self, values: list[object]) -> None:
        target = self.top()
        entries = target.entries if isinstance(target, Made) else target
        if not isinstance(entries, dict) or len(values) % 2:
            raise self.malformed("the pickle sets an item of what is no dictionary")
        self.check_loose(target)
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) is not str and type(key) is not int:
                raise UnreadableError(
                    "a key is neither text nor an integer", where=self.where, hint=_MEND
                )
            if type(key) is int and key not in _KEYS:
                raise UnreadableError("a key wider than 64 bits", where=self.where, hint=_MEND)
            if key in entries:
                raise self.malformed(f"the key {key!r} stands twice")
            entries[key] = value


def _protocol(machine: _Machine) -> None:
    protocol = machine.spelled(1)
    if machine.place != 2 or protocol not in _PROTOCOLS:  # noqa: PLR2004 - the first operation
        raise machine.malformed("the pickle does not begin with a protocol from 2 to 5")


def _frame(machine: _Machine) -> None:
    if machine.spelled(8) > len(machine.data) - machine.place:
        raise machine.malformed("the pickle is cut off")


def _long(machine: _Machine) -> None:
    data = machine.take(machine.spelled(1))
    machine.push(int.from_bytes(data, "little", signed=True))


def _reduce(machine: _Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise machine.malformed("the pickle calls what is no global")
    machine.fix(arguments)
    machine.push(Made(function, arguments))


def _build(machine: _Machine) -> None:
    state, target = machine.pop(), machine.top()
    if not isinstance(target, Made) or target.state:
        raise machine.malformed("the pickle sets the state of what has none, or twice")
    machine.check_loose(target)
    machine.fix(state)
    target.state.append(state)


def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _reference(machine: _Machine) -> None:
    found = Reference(machine.pop())
    machine.fix(found.identifier)
    machine.references.append(found)
    machine.push(found)


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.named(module, name)


def _text(width: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(machine.text(machine.take(machine.number(width))))


def _bytes(width: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(machine.take(machine.number(width)))


def _double(machine: _Machine) -> None:
    machine.push(struct.unpack(">d", machine.take(8))[0])


_OPERATIONS: Final[Mapping[bytes, Callable[[_Machine], None]]] = MappingProxyType(
    {
        b"\x80": _protocol,
        b"\x95": _frame,
        b"(": lambda machine: machine.marks.append(len(machine.stack)),
        b"N": lambda machine: machine.push(None),
        b"\x88": lambda machine: machine.push(True),  # noqa: FBT003 - the value itself
        b"\x89": lambda machine: machine.push(False),  # noqa: FBT003 - the same
        b"K": lambda machine: machine.push(machine.number(1)),
        b"M": lambda machine: machine.push(machine.number(2)),
        b"J": lambda machine: machine.push(int.from_bytes(machine.take(4), "little", signed=True)),
        b"\x8a": _long,
        b"G": _double,
        b"\x8c": _text(1),
        b"X": _text(4),
        b"\x8d": _text(8),
        b"C": _bytes(1),
        b"B": _bytes(4),
        b"\x8e": _bytes(8),
        b"\x96": _bytes(8),
        b")": lambda machine: machine.push(()),
        b"\x85": lambda machine: machine.pop_tuple(1),
        b"\x86": lambda machine: machine.pop_tuple(2),
        b"\x87": lambda machine: machine.pop_tuple(3),
        b"t": lambda machine: machine.push(tuple(machine.pop_marked())),
        b"]": lambda machine: machine.push([]),
        b"a": lambda machine: machine.append([machine.pop()]),
        b"e": lambda machine: machine.append(machine.pop_marked()),
        b"}": lambda machine: machine.push({}),
        b"s": _set_item,
        b"u": lambda machine: machine.set_items(machine.pop_marked()),
        b"q": lambda machine: machine.put(machine.spelled(1)),
        b"r": lambda machine: machine.put(machine.spelled(4)),
        b"\x94": lambda machine: machine.put(len(machine.memo)),
        b"h": lambda machine: machine.get(machine.spelled(1)),
        b"j": lambda machine: machine.get(machine.spelled(4)),
        b"c": lambda machine: machine.named(machine.line(), machine.line()),
        b"\x93": _stack_global,
        b"R": _reduce,
        b"b": _build,
        b"Q": _reference,
    }
)
"""Every operation that is read, by its byte: BININT to BINFLOAT, the texts and bytes, tuples,
lists, dictionaries, the memo (BINPUT to LONG_BINGET), GLOBAL, STACK_GLOBAL, REDUCE, BUILD and
BINPERSID. POP and DUP are missing: what a program drops would be in no value."""
