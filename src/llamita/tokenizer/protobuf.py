"""The little of Protocol Buffers that a sentencepiece model needs: fields of a message, one behind the other.

Every length is compared with the bytes that are left before anything is cut. Knows wire types, no message. Source:
https://protobuf.dev/programming-guides/encoding
"""

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 are groups, long deprecated

Value = int | bytes


class ProtobufError(Exception):
    """Bytes that are no message; str(error) says what was found, at which byte."""


def read_fields(data: bytes, start: int = 0) -> Iterator[tuple[int, int, Value]]:
    """The fields of a message as (number, wire type, value): an int of VARINT, else the bytes; raise ProtobufError."""
    position, end = start, len(data)
    while position < end:
        key, position = read_varint(data, position)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise ProtobufError(f"field number 0 at byte {position}")
        if wire == VARINT:
            value, position = read_varint(data, position)
            yield number, wire, value
            continue
        if wire == BYTES:
            n_bytes, position = read_varint(data, position)
        elif wire in (FIXED32, FIXED64):
            n_bytes = 4 if wire == FIXED32 else 8
        else:
            raise ProtobufError(f"wire type {wire} at byte {position}")
        if n_bytes > end - position:
            raise ProtobufError(f"a field of {n_bytes} bytes at byte {position}, where {end - position} are left")
        yield number, wire, data[position : position + n_bytes]
        position += n_bytes


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """An unsigned integer of up to 64 bits, and where it ends; raise ProtobufError."""
    if data[position : position + 1] < b"\x80" and position < len(data):  # nearly all are small
        return data[position], position + 1
    value = 0
    for i, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position + i + 1
    raise ProtobufError(f"an integer without an end at byte {position}")


def varint(value: int) -> bytes:
    """An unsigned integer, or a negative one of 64 bits."""
    value &= 0xFFFFFFFFFFFFFFFF
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def field(number: int, value: int | float | str | bytes) -> bytes:
    """One field: an int (or bool) as VARINT, a float as FIXED32, text and bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | FIXED32) + struct.pack("<f", value)
    data = value.encode("utf-8") if isinstance(value, str) else value
    return varint(number << 3 | BYTES) + varint(len(data)) + data
