"""A pickle reader that can run nothing: a stack machine for the opcodes that torch.save writes, and no others.

A pickle is a program that may call anything by its name. Here a name becomes a Name, which does nothing, and only if the caller
lists it; a call is answered by the caller's function of that name, or refused. The number of opcodes, and with it the memory,
is bounded, and nothing recurses. Knows no torch. Source: Python's pickletools.py; CVE-2025-32434, CVE-2026-24747 of torch.load.
"""

import pickle
import pickletools
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from llamita.formats.json_text import shown

MAX_OPCODES = 1 << 17  # a tensor takes about 30
_MAX_NAME_BYTES = 200

Call = Callable[[tuple], object]


@dataclass(frozen=True)
class Name:
    """What stands in the place of a global, such as torch.FloatStorage."""

    name: str


class PickleError(ValueError):
    """A pickle that is broken, or whose parts do not fit."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found, expected)
        self.found, self.expected = found, expected


class MoreThanDataError(PickleError):
    """A pickle that wants more than data: a call, a class, an opcode that runs code."""


def read_pickle(
    data: bytes, calls: Mapping[str, Call], names: Collection[str], persistent: Callable[[object], object]
) -> object:
    """The object of a pickle: dicts with texts or integers as keys, lists, tuples, texts, numbers, None, and what `calls` make.

    calls: by the name of a callable, the function of its arguments that is called instead. names: other globals that may be
    named. persistent: the object of a persistent id. Raises PickleError for anything else, as calls and persistent may.
    """
    machine = _Machine(data, calls, names, persistent)
    try:
        return machine.run()
    except (IndexError, KeyError, struct.error, UnicodeDecodeError):  # an empty stack, an unknown place of the memo, the end
        raise PickleError(f"a broken pickle at byte {machine.place}", "what torch.save writes") from None


class _Machine:
    """The state of one reading: place in the data, stack, the stacks below its marks, and the memo."""

    def __init__(
        self, data: bytes, calls: Mapping[str, Call], names: Collection[str], persistent: Callable[[object], object]
    ) -> None:
        self._data, self._calls, self._persistent = data, calls, persistent
        self._names = {*names, *calls}
        self.place = 0
        self._stack: list = []
        self._below: list[list] = []
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        for _ in range(MAX_OPCODES):
            opcode = self._data[self.place : self.place + 1]
            operation = _OPERATIONS.get(opcode)
            if operation is None:
                known = {code.code.encode("latin-1"): code.name for code in pickletools.opcodes}
                found = f"opcode {known.get(opcode, opcode.hex()) or 'none'} at byte {self.place}"
                raise MoreThanDataError(found, "those that torch.save writes")
            self.place += 1
            operation(self)
            if opcode == pickle.STOP:
                return self._stack[0]
        raise PickleError(f"more than {MAX_OPCODES} opcodes", "the weights of a model")

    def stop(self) -> None:
        if self.place != len(self._data) or len(self._stack) != 1 or self._below:
            raise PickleError("something behind the object", "one object")

    def protocol(self) -> None:
        if (version := self._number("<B")) != 2:
            raise PickleError(f"protocol {version}", "2, that of torch.save")

    def push(self, value: object) -> None:
        self._stack.append(value)

    def push_number(self, form: str) -> None:
        self.push(self._number(form))

    def push_long(self) -> None:
        self.push(int.from_bytes(self._take(self._number("<B")), "little", signed=True))

    def push_text(self) -> None:
        self.push(self._take(self._number("<I")).decode())

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def join(self) -> None:
        """Make a tuple of all down to the mark."""
        items = self._pop_to_mark()
        self.push(tuple(items))

    def join_last(self, n_items: int) -> None:
        items = [self._stack.pop() for _ in range(n_items)]
        self.push(tuple(reversed(items)))

    def append(self) -> None:
        self._extend([self._stack.pop()])

    def append_to_mark(self) -> None:
        self._extend(self._pop_to_mark())

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items_to_mark(self) -> None:
        self._set(self._pop_to_mark())

    def name(self) -> None:
        name = f"{self._line()}.{self._line()}"
        if name not in self._names:
            raise MoreThanDataError(f"the name {shown(name)}", "tensors and plain values")
        self.push(Name(name))

    def call(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not Name or function.name not in self._calls or type(arguments) is not tuple:
            called = function.name if type(function) is Name else f"a {type(function).__name__}"
            raise MoreThanDataError(f"a call of {called}", "calls that make tensors")
        self.push(self._calls[function.name](arguments))

    def set_attributes(self) -> None:
        """Drop the attributes of an OrderedDict: torch keeps versions of its modules there."""
        self._stack.pop()
        if type(self._stack[-1]) is not dict:
            raise PickleError(f"attributes of a {type(self._stack[-1]).__name__}", "those of an OrderedDict")

    def find_persistent(self) -> None:
        self.push(self._persistent(self._stack.pop()))

    def remember(self, form: str) -> None:
        self._memo[self._number(form)] = self._stack[-1]

    def recall(self, form: str) -> None:
        self.push(self._memo[self._number(form)])

    def _take(self, n_bytes: int) -> bytes:
        taken = self._data[self.place : self.place + n_bytes]
        if len(taken) < n_bytes:
            raise PickleError(f"{len(self._data)} bytes", f"{self.place + n_bytes} at least")
        self.place += n_bytes
        return taken

    def _number(self, form: str) -> int:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self._data.find(b"\n", self.place, self.place + _MAX_NAME_BYTES)
        if end < 0:
            raise PickleError("a name without an end", f"one of at most {_MAX_NAME_BYTES} bytes")
        return self._take(end + 1 - self.place)[:-1].decode()

    def _pop_to_mark(self) -> list:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _extend(self, items: list) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise PickleError(f"items for a {type(target).__name__}", "a list")
        target.extend(items)

    def _set(self, items: list) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise PickleError(f"{len(items)} items for a {type(target).__name__}", "keys and values for a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):  # hashing nested tuples recurses without a limit
                raise PickleError(f"a {type(key).__name__} as the key of a dict", "a text or an integer")
            target[key] = value


_OPERATIONS: dict[bytes, Callable[[_Machine], None]] = {
    pickle.PROTO: _Machine.protocol,
    pickle.STOP: _Machine.stop,
    pickle.MARK: _Machine.mark,
    pickle.NONE: lambda machine: machine.push(None),
    pickle.NEWTRUE: lambda machine: machine.push(True),
    pickle.NEWFALSE: lambda machine: machine.push(False),
    pickle.BININT: lambda machine: machine.push_number("<i"),
    pickle.BININT1: lambda machine: machine.push_number("<B"),
    pickle.BININT2: lambda machine: machine.push_number("<H"),
    pickle.BINFLOAT: lambda machine: machine.push_number(">d"),
    pickle.LONG1: _Machine.push_long,
    pickle.BINUNICODE: _Machine.push_text,
    pickle.EMPTY_TUPLE: lambda machine: machine.push(()),
    pickle.EMPTY_LIST: lambda machine: machine.push([]),
    pickle.EMPTY_DICT: lambda machine: machine.push({}),
    pickle.TUPLE: _Machine.join,
    pickle.TUPLE1: lambda machine: machine.join_last(1),
    pickle.TUPLE2: lambda machine: machine.join_last(2),
    pickle.TUPLE3: lambda machine: machine.join_last(3),
    pickle.APPEND: _Machine.append,
    pickle.APPENDS: _Machine.append_to_mark,
    pickle.SETITEM: _Machine.set_item,
    pickle.SETITEMS: _Machine.set_items_to_mark,
    pickle.BINPUT: lambda machine: machine.remember("<B"),
    pickle.LONG_BINPUT: lambda machine: machine.remember("<I"),
    pickle.BINGET: lambda machine: machine.recall("<B"),
    pickle.LONG_BINGET: lambda machine: machine.recall("<I"),
    pickle.GLOBAL: _Machine.name,
    pickle.BINPERSID: _Machine.find_persistent,
    pickle.REDUCE: _Machine.call,
    pickle.BUILD: _Machine.set_attributes,
}
