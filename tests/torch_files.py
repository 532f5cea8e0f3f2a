"""Files of torch.save made without torch, sound or hostile: a pickle of protocol 2, opcode by opcode, in a plain zip file.

tests/formats/test_torch_file.py compares them with what torch itself writes and reads.
"""

import io
import math
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np

from llamita.quant import Tensor

STORAGES = {"f32": "FloatStorage", "f16": "HalfStorage", "bf16": "BFloat16Storage"}
ALIGNMENT_BYTES = 64


class Opcodes(bytes):
    """Opcodes that stand in the pickle as they are, in the place of a value."""


def name(module: str, attribute: str) -> Opcodes:
    """The opcode that looks up a global."""
    return Opcodes(f"c{module}\n{attribute}\n".encode())


def call(module: str, attribute: str, *arguments: object) -> Opcodes:
    """Opcodes that call a global."""
    return Opcodes(name(module, attribute) + value(tuple(arguments)) + b"R")


def value(content: object, storages: dict[str, bytes] | None = None) -> Opcodes:
    """Opcodes of a value; the bytes of its tensors are added to storages."""
    storages = {} if storages is None else storages

    def join(items: object, end: bytes) -> bytes:
        return b"(" + b"".join(value(item, storages) for item in items) + end  # pyright: ignore[reportGeneralTypeIssues]

    match content:
        case Opcodes():
            return content
        case None | bool():
            return Opcodes({None: b"N", True: b"\x88", False: b"\x89"}[content])
        case str():
            return Opcodes(b"X" + struct.pack("<I", len(content.encode())) + content.encode())
        case int() if -(1 << 31) <= content < 1 << 31:
            return Opcodes(b"J" + struct.pack("<i", content))
        case int():
            n_bytes = content.bit_length() // 8 + 1
            return Opcodes(b"\x8a" + bytes([n_bytes]) + content.to_bytes(n_bytes, "little", signed=True))
        case float():
            return Opcodes(b"G" + struct.pack(">d", content))
        case tuple():
            return Opcodes(join(content, b"t"))
        case list():
            return Opcodes(b"]" + join(content, b"e"))
        case dict():
            items = [part for pair in content.items() for part in pair]
            begin = call("collections", "OrderedDict") if isinstance(content, OrderedDict) else b"}"
            return Opcodes(begin + join(items, b"u"))
        case Tensor():
            key = store(content, storages)
            return tensor(storage(STORAGES[content.dtype], key, content.data.size), content.shape)
    raise TypeError(type(content))


def store(content: Tensor, storages: dict[str, bytes]) -> str:
    """Add the numbers of a tensor, unless they are there already, and return the key of their storage."""
    numbers = np.ascontiguousarray(content.data).tobytes()
    key = next((key for key, stored in storages.items() if stored == numbers), str(len(storages)))
    storages[key] = numbers
    return key


def storage(kind: str, key: str, n_numbers: int) -> Opcodes:
    """The persistent id of a storage."""
    return Opcodes(value(("storage", name("torch", kind), key, "cpu", n_numbers)) + b"Q")


def tensor(stored: Opcodes, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, offset: int = 0) -> Opcodes:
    """The call that makes a tensor, of dense rows where no strides are given."""
    hooks = call("collections", "OrderedDict")
    if strides is None:
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return call("torch._utils", "_rebuild_tensor_v2", stored, offset, shape, strides, False, hooks)


def pickled(content: object, storages: dict[str, bytes] | None = None) -> bytes:
    """A pickle of plain values, tensors and Opcodes."""
    return b"\x80\x02" + value(content, storages) + b"."


def saved(content: object) -> bytes:
    """The file of torch.save of plain values, tensors and Opcodes."""
    storages: dict[str, bytes] = {}
    return wrapped(pickled(content, storages), storages)


def wrapped(pickle: bytes, storages: Mapping[str, bytes] | None = None) -> bytes:
    """The file of torch.save around a pickle and the bytes of its storages."""
    members = {"archive/data.pkl": pickle, "archive/byteorder": b"little"}
    return zipped(
        members | {f"archive/data/{key}": data for key, data in (storages or {}).items()} | {"archive/version": b"3\n"}
    )


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip file of plain members, their contents aligned as torch aligns them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for member, content in members.items():
            info = zipfile.ZipInfo(member)
            n_header = file.tell() + 30 + len(member.encode()) + 4
            padding = -n_header % ALIGNMENT_BYTES
            info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
            archive.writestr(info, content)
    return file.getvalue()
