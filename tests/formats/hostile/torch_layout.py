"""A small sound checkpoint of llama2.c as torch.save writes it, its zip file by hand: what the hostile ones are made of."""

import struct
import zlib
from dataclasses import dataclass
from math import prod

from torch_files import pickled, storage, tensor

ARGS = {"dim": 4, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "vocab_size": 5, "multiple_of": 2, "max_seq_len": 8}
SHAPES = {
    "tok_embeddings.weight": (5, 4),
    "layers.0.attention.wq.weight": (4, 4),
    "layers.0.attention.wk.weight": (2, 4),
    "layers.0.attention.wv.weight": (2, 4),
    "layers.0.attention.wo.weight": (4, 4),
    "layers.0.feed_forward.w1.weight": (10, 4),
    "layers.0.feed_forward.w2.weight": (4, 10),
    "layers.0.feed_forward.w3.weight": (10, 4),
    "layers.0.attention_norm.weight": (4,),
    "layers.0.ffn_norm.weight": (4,),
    "norm.weight": (4,),
}
STORAGES = {str(i): bytes(4 * prod(shape)) for i, shape in enumerate(SHAPES.values())}
STATE = {name: tensor(storage("FloatStorage", str(i), prod(shape)), shape) for i, (name, shape) in enumerate(SHAPES.items())}


def checkpoint(state: object = STATE, args: object = ARGS) -> bytes:
    """The pickle of a ckpt.pt."""
    return pickled({"model": state, "model_args": args, "iter_num": 7})


@dataclass(frozen=True)
class Member:
    """A member of a zip file; n_bytes, n_stored and crc32 follow from the content unless the file shall lie about them."""

    name: str
    content: bytes = b""
    method: int = 0
    flags: int = 0
    mode: int = 0
    crc32: int | None = None
    n_bytes: int | None = None
    n_stored: int | None = None
    local_name: str | None = None
    local_method: int | None = None
    begin: int | None = None  # where the directory says that the member is
    extra: bytes = b""

    def numbers(self) -> tuple[int, int, int]:
        """crc32, bytes as stored, bytes."""
        found = (zlib.crc32(self.content), len(self.content), len(self.content))
        said = (self.crc32, self.n_stored, self.n_bytes)
        return tuple(f if s is None else s for f, s in zip(found, said, strict=True))  # pyright: ignore[reportReturnType]

    def local(self, place: int) -> bytes:
        """The member at this place of the file: its content begins at a multiple of 64 bytes, as torch has it."""
        name = (self.name if self.local_name is None else self.local_name).encode("utf-8", "surrogateescape")
        method = self.method if self.local_method is None else self.local_method
        padding = bytes(-(place + 30 + len(name) + 4) % 64)
        fields = (b"PK\3\4", 20, self.flags, method, 0, 0, *self.numbers(), len(name), 4 + len(padding))
        return struct.pack("<4s5H3I2H", *fields) + name + b"FB" + struct.pack("<H", len(padding)) + padding + self.content

    def entry(self, begin: int) -> bytes:
        """The member in the directory."""
        name = self.name.encode("utf-8", "surrogateescape")
        begin = begin if self.begin is None else self.begin
        sizes = (*self.numbers(), len(name), len(self.extra))
        fields = (b"PK\1\2", 20, 20, self.flags, self.method, 0, 0, *sizes, 0, 0, 0, self.mode << 16, begin)
        return struct.pack("<4s6H3I5H2I", *fields) + name + self.extra


def archive(members: list[Member], gap: bytes = b"", **end: int) -> bytes:
    """A zip file; gap: bytes before the directory. end: fields of the record behind it that shall be other numbers."""
    parts, directory, place = [], [], 0
    for member in members:
        directory.append(member.entry(place))
        parts.append(member.local(place))
        place += len(parts[-1])
    fields = {"disk": 0, "first_disk": 0, "n_here": len(members), "n": len(members), "n_bytes": sum(map(len, directory))}
    fields |= {"begin": place + len(gap), "n_comment": 0}
    return b"".join([*parts, gap, *directory, struct.pack("<4s4H2IH", b"PK\5\6", *(fields | end).values())])


def members(pickle: bytes | None = None) -> list[Member]:
    """The members of the sound ckpt.pt, or those with another pickle."""
    marks = [Member("ckpt/version", b"3\n"), Member("ckpt/byteorder", b"little")]
    weights = [Member(f"ckpt/data/{key}", content) for key, content in STORAGES.items()]
    return [Member("ckpt/data.pkl", checkpoint() if pickle is None else pickle), *marks, *weights]
