"""Pickle, read as a program that builds inert values: nothing is imported, called or unpickled.

Format: CPython's ``pickletools``, which splits the program into operations; protocols 2 to 5. Only
operations are read that build plain values (numbers, text, bytes, tuples, lists, dictionaries),
refer to earlier values, or *describe* a call. What a program would import is a :class:`Global`, a
name, which the caller must allow; what it would call is a :class:`Made`, the name with its
arguments; what it leaves to its container is a :class:`Reference`.

Nothing is ambiguous: keys are text or 64-bit integers and unique, nothing is dropped, the program
ends with its last byte and one value. A call acts when it is made, and may copy what it is given,
so an argument or a state must not change afterwards.

Where the caller allows every global, so are sets, objects that are made without a call of their
class (as the call of ``copyreg.__newobj__`` that they stand for) and keys of any kind; those whose
equality with others is unknown are a :class:`Key` each.

``spelling`` is the SHA-256 of everything in the program but plain values: operations, memo indices,
lengths of frames and integers, names. Two programs with equal spelling and the same plain values in
the same order are the same bytes.

Limits: 64 MiB; 5,000,000 operations, which take at most 1 GB in memory.
"""

from __future__ import annotations

import hashlib
import pickletools
import struct
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from provenance.errors import MalformedError, UnreadableError

MAX_PROGRAM: Final = 64 * 2**20
"""Longest program, in bytes. A hundred thousand tensors take about 30 MB."""

MAX_OPERATIONS: Final = 5_000_000
"""Most operations of a program; a tensor of a state dict takes about 40."""

HINT: Final = "save only tensors and plain values, such as a state dict"

_KEYS: Final = range(-(2**63), 2**63)
"""Integers as keys. Of wider ones, thousands can have one hash."""

_PROTOCOLS: Final = range(2, 6)


@dataclass(frozen=True, slots=True)
class Global:
    """The name of what the program would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}{':' if '.' in self.name else '.'}{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What the program would make by calling *function*, then setting entries and state."""

    function: Global
    arguments: tuple[object, ...]
    entries: dict[Any, object] = field(default_factory=dict)
    state: list[object] = field(default_factory=list)
    """None, or one value."""
    items: list[object] = field(default_factory=list)
    """What is appended to it, before entries and state."""

    @property
    def bare(self) -> bool:
        """Whether the call is all."""
        return not (self.items or self.entries or self.state)


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """A key of a dictionary that may equal another which is spelled in another way."""

    value: object


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A persistent identifier, which the container resolves."""

    identifier: object


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was read."""

    value: object
    """None, bool, int, float, str, bytes, tuple, list, dict, Global, Made or Reference. Lists,
    dictionaries and what is made may be shared, and contain themselves."""
    spelling: str
    references: tuple[Reference, ...]
    """In the order of the program."""
    globals: frozenset[str]
    """Every name that it would import."""


def read_program(data: bytes, allowed: AbstractSet[str] | None, *, where: str) -> Program:
    """Return what the pickle *data* describes; *allowed* are the globals' names, None for any.

    Raises UnreadableError where it uses an operation, a global or a key that is not read, and else
    MalformedError.
    """
    if len(data) > MAX_PROGRAM:
        raise MalformedError(f"the pickle is longer than {MAX_PROGRAM} bytes", where=where)
    machine = _Machine(data, allowed)
    try:
        value = machine.run()
    except UnreadableError as error:
        raise error.inside(where) from error
    except (ValueError, ArithmeticError, struct.error, Warning) as error:  # of pickletools, too
        raise MalformedError(f"not a pickle that is read: {error}", where=where) from error
    spelling = hashlib.sha256(machine.spelling).hexdigest()
    return Program(value, spelling, tuple(machine.references), frozenset(machine.globals))


class _Machine:
    """The stack, its marks and the memo. Raises ValueError where the program is malformed."""

    def __init__(self, data: bytes, allowed: AbstractSet[str] | None) -> None:
        self.data = data
        self.allowed = allowed
        self.operations = _OPERATIONS if allowed is not None else {**_OPERATIONS, **_OF_OBJECTS}
        self.hint = HINT if allowed is not None else None
        self.globals: set[str] = set()
        self.place = 0
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.spelling = bytearray()
        self.references: list[Reference] = []
        self.fixed: dict[int, object] = {}
        self.sets: dict[int, list[object]] = {}
        """The elements of each set that can be added to, by the id of its call."""

    def run(self) -> object:
        operations = islice(pickletools.genops(self.data), MAX_OPERATIONS)
        for operation, argument, self.place in operations:  # type: ignore[assignment] # of bytes
            self.spelling.append(ord(operation.code))
            act = self.operations.get(operation.name)
            if act is None:
                what = f"pickle operation {operation.name} is not read"
                raise UnreadableError(what, hint=self.hint)
            act(self, argument)
        if operation.name != "STOP":
            raise ValueError(f"more than {MAX_OPERATIONS} operations")
        value = self.pop()
        if self.stack or self.marks or self.place + 1 != len(self.data):
            raise ValueError("the pickle does not end with one value")
        return value

    def protocol(self, protocol: int) -> None:
        if self.place or protocol not in _PROTOCOLS:
            raise ValueError("the pickle does not begin with a protocol from 2 to 5")
        self.spelling.append(protocol)

    def frame(self, length: int) -> None:
        if length > len(self.data) - self.place - 9:
            raise ValueError("a frame is cut off")
        self.spelling += length.to_bytes(8, "little")

    def text(self, text: str) -> None:
        if not text.isascii():
            text.encode()  # pickletools reads lone surrogates
        self.stack.append(text)

    def long(self, number: int) -> None:
        self.spelling.append(self.data[self.place + 1])
        self.stack.append(number)

    def top(self) -> object:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("the pickle takes what is not on its stack")
        return self.stack[-1]

    def pop(self) -> object:
        self.top()
        return self.stack.pop()

    def pop_marked(self) -> list[object]:
        """Return what was pushed since the last mark."""
        if not self.marks:
            raise ValueError("the pickle has no mark where it needs one")
        begin = self.marks.pop()
        values = self.stack[begin:]
        del self.stack[begin:]
        return values

    def global_(self, argument: str) -> None:
        # pickletools decodes escapes, which pickle does not, and joins both names with a space.
        module, _, name = argument.partition(" ")
        if not self.data.startswith(f"c{module}\n{name}\n".encode(), self.place):
            raise ValueError("a global's name is not plain")
        self.named(name, module)

    def named(self, name: object, module: object) -> None:
        """Push the global *name* of *module*, if it is allowed."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("the name of a global is not text")  # noqa: TRY004 - of the program
        if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
            raise ValueError("a global's name is not plain")
        found = Global(module, name)
        if self.allowed is not None and str(found) not in self.allowed:
            what = f"the pickle asks for {found}, and nothing is imported from a file"
            raise UnreadableError(what, hint=HINT)
        self.globals.add(str(found))
        self.spelling += f"{found}\n".encode()
        self.stack.append(found)

    def put(self, index: int, *, spelled: bool = True) -> None:
        if index in self.memo:
            raise ValueError(f"the place {index} of the memo is taken")
        if spelled:
            self.spelling += b"%d\n" % index
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"the place {index} of the memo is empty")
        self.spelling += b"%d\n" % index
        self.stack.append(self.memo[index])

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise ValueError("the pickle calls what is not a global")  # noqa: TRY004 - as above
        self.fix(arguments)
        self.stack.append(Made(function, arguments))

    def new_object(self, name: str) -> None:
        """Describe an object of a class that is not called, by the call of copyreg for it."""
        given = [self.pop() for _ in range(3 if name.endswith("_ex__") else 2)][::-1]
        if not isinstance(given[0], Global) or not isinstance(given[1], tuple):
            what = "the pickle makes an object of what is not a global"
            raise ValueError(what)  # noqa: TRY004 - as above
        given = given if name.endswith("_ex__") else [given[0], *given[1]]
        self.fix(given)
        self.stack.append(Made(Global("copyreg", name), tuple(given)))

    def call(self, name: str, given: object) -> None:
        """Describe the call of a type of Python's own."""
        self.fix(given)
        self.stack.append(Made(Global("builtins", name), (given,)))

    def empty_set(self) -> None:
        elements: list[object] = []
        self.call("set", elements)
        self.sets[id(self.stack[-1])] = elements

    def add_items(self) -> None:
        values, target = self.pop_marked(), self.target()
        if not isinstance(target, Made) or id(target) not in self.sets:
            raise ValueError("the pickle adds to what is not a set")
        self.fix(values)
        self.sets[id(target)].extend(values)

    def build(self) -> None:
        state, target = self.pop(), self.target()
        if not isinstance(target, Made) or target.state:
            raise ValueError("the pickle sets the state of what has none, or twice")
        self.fix(state)
        target.state.append(state)

    def reference(self) -> None:
        found = Reference(self.pop())
        self.fix(found.identifier)
        self.references.append(found)
        self.stack.append(found)

    def fix(self, value: object) -> None:
        """Forbid further changes of *value*, which a call was given, and of all in it."""
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
                # The arguments are fixed.
                pending.extend((found.items, found.entries, *found.state))
            else:
                continue
            self.fixed[id(found)] = found

    def target(self) -> object:
        """Return the value on the stack that is about to change."""
        if id(self.top()) in self.fixed:
            raise ValueError("the pickle changes what it gave to a call")
        return self.stack[-1]

    def append(self, values: list[object]) -> None:
        target = self.target()
        if isinstance(target, Made) and self.allowed is None:
            if target.entries or target.state:
                raise ValueError("the pickle appends after it set entries or a state")
            target = target.items
        if not isinstance(target, list):
            raise ValueError("the pickle appends to what is not a list")  # noqa: TRY004 - as above
        target.extend(values)

    def set_items(self, values: list[object]) -> None:
        target = self.target()
        if isinstance(target, Made) and target.state:
            raise ValueError("the pickle sets an item after the state")
        entries = target.entries if isinstance(target, Made) else target
        if not isinstance(entries, dict) or len(values) % 2:
            raise ValueError("the pickle sets an item of what is not a dictionary")
        for given, value in zip(values[::2], values[1::2], strict=True):
            key = self.key(given)
            if key in entries:
                raise ValueError(f"duplicate key {key!r}")
            entries[key] = value

    def key(self, value: object) -> object:
        """Return *value* as a key that can be hashed, and does not change."""
        if self.allowed is None and (value is None or type(value) in (bool, float, bytes)):
            return value
        if type(value) is str or (type(value) is int and value in _KEYS):
            return value
        if self.allowed is None:
            self.fix(value)
            return Key(value)
        wide = type(value) is int
        what = "is wider than 64 bits" if wide else "is neither text nor an integer"
        raise UnreadableError(f"a key {what}", hint=HINT)


def _constant(value: object) -> Callable[[_Machine, Any], object]:
    return lambda machine, _: machine.stack.append(value)


def _tuple(count: int) -> Callable[[_Machine, Any], object]:
    return lambda machine, _: machine.stack.append(
        tuple([machine.pop() for _ in range(count)][::-1])
    )


_OPERATIONS: Final[Mapping[str, Callable[[_Machine, Any], object]]] = (
    {
        "PROTO": _Machine.protocol,
        "FRAME": _Machine.frame,
        "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
        "NONE": _constant(None),
        "NEWTRUE": _constant(True),  # noqa: FBT003 - the value itself
        "NEWFALSE": _constant(False),  # noqa: FBT003 - the same
        "EMPTY_TUPLE": _constant(()),
        "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
        "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
        "LONG1": _Machine.long,
        "BYTEARRAY8": lambda machine, value: machine.stack.append(bytes(value)),
        "TUPLE1": _tuple(1),
        "TUPLE2": _tuple(2),
        "TUPLE3": _tuple(3),
        "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_marked())),
        "APPEND": lambda machine, _: machine.append([machine.pop()]),
        "APPENDS": lambda machine, _: machine.append(machine.pop_marked()),
        "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
        "SETITEMS": lambda machine, _: machine.set_items(machine.pop_marked()),
        "MEMOIZE": lambda machine, _: machine.put(len(machine.memo), spelled=False),
        "GLOBAL": _Machine.global_,
        "STACK_GLOBAL": lambda machine, _: machine.named(machine.pop(), machine.pop()),
        "REDUCE": lambda machine, _: machine.reduce(),
        "BUILD": lambda machine, _: machine.build(),
        "BINPERSID": lambda machine, _: machine.reference(),
        "STOP": lambda machine, _: machine.top(),
    }
    | dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put)
    | dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get)
    | dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _Machine.text)
    | dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "BINFLOAT", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
        lambda machine, value: machine.stack.append(value),
    )
)
"""Every operation that is read. Not POP and DUP: what a program drops is in no value."""

_OF_OBJECTS: Final[Mapping[str, Callable[[_Machine, Any], object]]] = {
    "NEWOBJ": lambda machine, _: machine.new_object("__newobj__"),
    "NEWOBJ_EX": lambda machine, _: machine.new_object("__newobj_ex__"),
    "EMPTY_SET": lambda machine, _: machine.empty_set(),
    "FROZENSET": lambda machine, _: machine.call("frozenset", machine.pop_marked()),
    "ADDITEMS": lambda machine, _: machine.add_items(),
    "BYTEARRAY8": lambda machine, value: machine.call("bytearray", bytes(value)),
    "LONG4": lambda machine, value: machine.stack.append(value),
}
"""Operations that are read where every global is allowed."""
