"""A GGUF file's header, checked to the last length before anything is cut or allocated; and the way back.

Magic, version, counts, metadata (typed values by key), one record for each tensor; then the data, each tensor on a border of
general.alignment. Metadata are only walked over: a value is decoded when it is asked for, so that a hostile file costs no
memory. Knows no model: gguf.py names the tensors. Source: ggml's docs/gguf.md, and gguf.cpp, which makes the same checks.
"""

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import NamedTuple, NoReturn

from llamita.errors import ModelFileError
from llamita.formats.gguf_types import (
    ALIGNMENT,
    ARRAY,
    BOOL,
    FLOAT32,
    INT32,
    MAGIC,
    NUMBER_FORMATS,
    TENSOR_TYPES,
    TEXT,
    UINT32,
    VERSION,
    TensorType,
)
from llamita.formats.json_text import shown

MAX_KEYS = 1 << 12
MAX_TENSORS = 10_000  # a Llama of 1024 layers has 9219
MAX_KEY_BYTES = (1 << 16) - 1
MAX_TEXT_BYTES = 1 << 20  # of a chat template; one wide character makes a text four times as long in memory
MAX_ITEMS = 1 << 14  # of an array of numbers, but for those of a vocabulary
MAX_TEXTS = 1 << 20  # in all arrays together: tokens and merges of Llama 3 are 0.4 million
MAX_TOKEN_BYTES = (1 << 16) - 1
VOCABULARY_PREFIX = "tokenizer."
MAX_NAME_BYTES = 63  # as in ggml, where a zero follows
MAX_AXES = 4
MAX_COUNT = (1 << 63) - 1  # weights or bytes of a tensor: a larger count wraps in ggml

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class Place(NamedTuple):
    """Where one tensor lies: shape as numpy has it, rows before columns; offset from the beginning of the file."""

    kind: TensorType
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


class Header(NamedTuple):
    """What a file says before its data; places by tensor name, in file order."""

    version: int
    metadata: "Metadata"
    places: dict[str, Place]


class _Entry(NamedTuple):
    """Where a value lies: the type of its items, how many, or -1 of a value that is no array, and where the first begins."""

    kind: int
    n_items: int
    offset: int


class Metadata(Mapping[str, object]):
    """The metadata of a file: str, int, float, bool or a list of them by key, decoded at each access.

    Access raises ModelFileError for text that is not UTF-8.
    """

    def __init__(self, path: str | PathLike[str], data: bytes | mmap.mmap, entries: dict[str, _Entry]) -> None:
        self._path, self._data, self._entries = path, data, entries

    def __getitem__(self, key: str) -> object:
        kind, n_items, offset = self._entries[key]
        if kind == TEXT:
            if n_items < 0:
                return self._texts(key, 1, offset, MAX_TEXT_BYTES)[0]
            return self._texts(key, n_items, offset, MAX_TOKEN_BYTES)
        values = struct.unpack_from(f"<{abs(n_items)}{NUMBER_FORMATS[kind]}", self._data, offset)
        return list(values) if n_items >= 0 else values[0]

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def n_items(self, key: str) -> int:
        """How many items an array has, without decoding them; -1 of what is no array, or not there."""
        entry = self._entries.get(key)
        return -1 if entry is None else entry.n_items

    def kind(self, key: str) -> int:
        """The type of a value, ARRAY of any array."""
        entry = self._entries[key]
        return entry.kind if entry.n_items < 0 else ARRAY

    def _texts(self, key: str, n: int, at: int, limit_bytes: int) -> list[str]:
        texts, data, view, unpack = [], self._data, memoryview(self._data), _U64.unpack_from
        try:
            for _ in range(n):
                begin, at = at + 8, at + 8 + unpack(view, at)[0]
                if at - begin > limit_bytes:
                    found, expected = f"{at - begin} bytes as item {len(texts)}", f"at most {limit_bytes}"
                    raise ModelFileError(self._path, key, found, expected)
                texts.append(data[begin:at].decode())
        except UnicodeDecodeError as error:
            raise ModelFileError(self._path, key, f"{shown(error.object[:80])} as item {len(texts)}", "text in UTF-8") from None
        return texts


class _Cursor:
    """A place in the header that moves on as it is read, and never past the end of the file."""

    def __init__(self, path: str | PathLike[str], data: bytes | mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 0

    def skip(self, n_bytes: int, field: str) -> int:
        """Move over n_bytes that must be there; the place where they begin."""
        begin = self.at
        if n_bytes > len(self.data) - begin:
            self.refuse_end(field, begin + n_bytes)
        self.at += n_bytes
        return begin

    def skip_texts(self, n: int, field: str) -> None:
        """Move over n texts: the loop that takes the time where a vocabulary is large."""
        at, view, unpack = self.at, memoryview(self.data), _U64.unpack_from
        try:
            for _ in range(n):
                at += 8 + unpack(view, at)[0]
        except (struct.error, OverflowError):
            self.refuse_end(field, at + 8)
        self.at = min(at, len(view))
        self.skip(at - self.at, field)

    def number(self, layout: struct.Struct, field: str) -> int:
        return layout.unpack_from(self.data, self.skip(layout.size, field))[0]

    def text(self, field: str, limit_bytes: int) -> str:
        n_bytes = self.number(_U64, f"length of {field}")
        if n_bytes > limit_bytes:
            raise ModelFileError(self.path, f"length of {field}", f"{n_bytes} bytes", f"at most {limit_bytes}")
        begin = self.skip(n_bytes, field)
        try:
            return self.data[begin : self.at].decode()
        except UnicodeDecodeError as error:
            raise ModelFileError(self.path, field, shown(error.object[:80]), "text in UTF-8") from None

    def refuse_end(self, field: str, needed: int) -> NoReturn:
        found, expected = f"the end of the file at byte {len(self.data)}", f"at least {needed} bytes"
        raise ModelFileError(self.path, field, found, expected, "it was cut off, or it is damaged")


def parse_header(path: str | PathLike[str], data: bytes | mmap.mmap) -> Header:
    """Parse and check the header of a file's content; raise ModelFileError.

    Whether the data are there too is the question of check_data: a header alone may be worth reading.
    """
    cursor = _Cursor(path, data)
    version = _version(cursor)
    n_tensors = _count(cursor, "number of tensors", MAX_TENSORS)
    n_keys = _count(cursor, "number of metadata keys", MAX_KEYS)
    metadata = Metadata(path, data, _entries(cursor, n_keys))
    alignment = _alignment(path, metadata)
    records = _records(cursor, n_tensors)
    begin = end = padded(cursor.at, alignment)
    places = {}
    for name, (place, stated) in records.items():
        if stated != end - begin:
            expected = f"{end - begin}, where the tensor before it ends, on a border of {alignment} bytes"
            raise ModelFileError(path, f"offset of {shown(name)}", stated, expected)
        places[name] = place._replace(offset=end)
        end += padded(place.n_bytes, alignment)
    return Header(version, metadata, places)


def check_data(path: str | PathLike[str], data: bytes | mmap.mmap, header: Header) -> None:
    """Raise ModelFileError unless every tensor lies within the file. What follows the last one may be anything, or missing."""
    for name, place in header.places.items():
        if place.offset + place.n_bytes > len(data):
            found, expected = f"the end of the file at byte {len(data)}", f"{place.n_bytes} bytes at {place.offset}"
            raise ModelFileError(path, f"data of {shown(name)}", found, expected, "it was cut off: download or copy it again")


def serialize_header(metadata: Mapping[str, object], forms: Mapping[str, tuple[TensorType, tuple[int, ...]]]) -> bytes:
    """The header of a file of these metadata and tensors, up to the border where the data begin.

    forms: type and shape of each tensor by name; each follows the one before on a border of ALIGNMENT bytes. A bool is written
    as BOOL, an int as UINT32, a float as FLOAT32, items of a list as BOOL, INT32, FLOAT32 or STRING.
    """
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(forms), len(metadata))]
    for key, value in metadata.items():
        parts += _serialized_text(key), _serialized_value(value)
    offset = 0
    for name, (kind, shape) in forms.items():
        assert len(name.encode()) <= MAX_NAME_BYTES, name
        record = struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind.code, offset)
        parts += _serialized_text(name), record
        offset += padded(tensor_bytes(kind, shape))
    header = b"".join(parts)
    return header.ljust(padded(len(header)), b"\0")


def tensor_bytes(kind: TensorType, shape: tuple[int, ...]) -> int:
    """The bytes of a tensor whose rows are whole blocks."""
    return math.prod(shape) // kind.weights * kind.n_bytes


def padded(n_bytes: int, alignment: int = ALIGNMENT) -> int:
    """n_bytes rounded up to a border."""
    return -(-n_bytes // alignment) * alignment


def _serialized_text(text: str) -> bytes:
    data = text.encode()
    return _U64.pack(len(data)) + data


def _serialized_value(value: object) -> bytes:
    """A value with its type before it."""
    if isinstance(value, str):
        return _U32.pack(TEXT) + _serialized_text(value)
    if not isinstance(value, list):
        kind = {bool: BOOL, int: UINT32, float: FLOAT32}[type(value)]
        return _U32.pack(kind) + struct.pack("<" + NUMBER_FORMATS[kind], value)
    kind = {bool: BOOL, int: INT32, float: FLOAT32, str: TEXT}[type(value[0])]
    if kind == TEXT:
        items = b"".join(map(_serialized_text, value))
    else:
        items = struct.pack(f"<{len(value)}{NUMBER_FORMATS[kind]}", *value)
    return struct.pack("<IIQ", ARRAY, kind, len(value)) + items


def _version(cursor: _Cursor) -> int:
    magic = cursor.data[cursor.skip(4, "magic") : cursor.at]
    if magic != MAGIC:
        raise ModelFileError(cursor.path, "magic", shown(magic), MAGIC.decode(), "is it a GGUF file at all?")
    version = cursor.number(_U32, "version")
    if version and not version & 0xFFFF:
        found = f"{version >> 24} in big-endian order"
        raise ModelFileError(cursor.path, "version", found, "a little-endian file", "convert the model again for such machines")
    if version not in (2, VERSION):
        raise ModelFileError(
            cursor.path, "version", version, f"2 or {VERSION}", "convert the model again" if version < 2 else ""
        )
    return version


def _count(cursor: _Cursor, field: str, limit: int) -> int:
    count = cursor.number(_U64, field)
    if count > limit:
        raise ModelFileError(cursor.path, field, count, f"at most {limit}")
    return count


def _entries(cursor: _Cursor, n_keys: int) -> dict[str, _Entry]:
    """Walk over the metadata; every value lies within the file."""
    entries: dict[str, _Entry] = {}
    n_texts_left = MAX_TEXTS
    for i in range(n_keys):
        key = cursor.text(f"metadata key {i}", MAX_KEY_BYTES)
        if not key or key in entries:
            found = f"{shown(key)} twice" if key else "an empty key"
            raise ModelFileError(cursor.path, f"metadata key {i}", found, "keys that differ")
        entries[key] = entry = _entry(cursor, shown(key), n_texts_left)
        n_texts_left -= max(entry.n_items, 0) if entry.kind == TEXT else 0
    return entries


def _entry(cursor: _Cursor, key: str, limit_texts: int) -> _Entry:
    kind = cursor.number(_U32, f"type of {key}")
    is_array = kind == ARRAY
    n_items = -1
    if is_array:
        kind = cursor.number(_U32, f"type of {key}")
        limit = limit_texts if kind == TEXT else MAX_TEXTS if key.startswith(VOCABULARY_PREFIX) else MAX_ITEMS
        n_items = _count(cursor, f"length of {key}", limit)
    begin = cursor.at
    if kind in NUMBER_FORMATS:
        cursor.skip(abs(n_items) * struct.calcsize("<" + NUMBER_FORMATS[kind]), key)
    elif kind == TEXT and is_array:
        cursor.skip_texts(n_items, key)
    elif kind == TEXT:
        n_bytes = cursor.number(_U64, f"length of {key}")
        if n_bytes > MAX_TEXT_BYTES:
            raise ModelFileError(cursor.path, f"length of {key}", f"{n_bytes} bytes", f"at most {MAX_TEXT_BYTES}")
        cursor.skip(n_bytes, key)
    else:
        found = "an array of arrays" if kind == ARRAY else kind
        raise ModelFileError(cursor.path, f"type of {key}", found, "a type of GGUF's list, or a plain array of one")
    return _Entry(kind, n_items, begin)


def _alignment(path: str | PathLike[str], metadata: Metadata) -> int:
    key = "general.alignment"
    if key not in metadata:
        return ALIGNMENT
    value = metadata[key]
    if metadata.kind(key) != UINT32 or not isinstance(value, int) or value < 1 or value & (value - 1):
        raise ModelFileError(path, key, shown(value), "a power of two as uint32")
    return value


def _records(cursor: _Cursor, n_tensors: int) -> dict[str, tuple[Place, int]]:
    """Name -> place without an offset, and the offset that the file states."""
    records: dict[str, tuple[Place, int]] = {}
    for i in range(n_tensors):
        name = cursor.text(f"name of tensor {i}", MAX_NAME_BYTES)
        if name in records:
            raise ModelFileError(cursor.path, f"name of tensor {i}", f"{shown(name)} twice", "names that differ")
        records[name] = _place(cursor, shown(name)), cursor.number(_U64, f"offset of {shown(name)}")
    return records


def _place(cursor: _Cursor, name: str) -> Place:
    n_axes = cursor.number(_U32, f"axes of {name}")
    if n_axes > MAX_AXES:
        raise ModelFileError(cursor.path, f"axes of {name}", n_axes, f"at most {MAX_AXES}")
    axes = struct.unpack_from(f"<{n_axes}Q", cursor.data, cursor.skip(8 * n_axes, f"shape of {name}"))
    code = cursor.number(_U32, f"type of {name}")
    kind = TENSOR_TYPES.get(code)
    if kind is None:
        raise ModelFileError(cursor.path, f"type of {name}", code, "a tensor type of ggml's list")
    if (columns := axes[0] if axes else 1) % kind.weights:
        raise ModelFileError(cursor.path, f"shape of {name}", f"rows of {columns}", f"a multiple of {kind.weights}")
    n_bytes = tensor_bytes(kind, axes)
    if max(math.prod(max(n, 1) for n in axes), n_bytes) > MAX_COUNT:
        raise ModelFileError(cursor.path, f"shape of {name}", axes, f"at most {MAX_COUNT} weights and bytes")
    return Place(kind, axes[::-1], 0, n_bytes)
