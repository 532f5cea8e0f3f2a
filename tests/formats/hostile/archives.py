"""Hostile ckpt.pt files: the zip file around the weights is cut off, lies about its members, or is none of torch.save."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hostile.case import Case
from hostile.torch_layout import Member, archive, checkpoint, members

MAX_32 = (1 << 32) - 1
WIDE = {"n_bytes": MAX_32, "n_stored": MAX_32, "extra": bytes(108) + b"\1\0\x10\0" + bytes(16)}  # sizes of 64 bits, both 0
PICKLE = "ckpt/data.pkl"
LAST = "ckpt/data/10"


def case(fault: str, field: str, content: Callable[[], bytes]) -> Case:
    return Case(fault, field, lambda: {"ckpt.pt": content()}, "ckpt.pt")


def changed(fault: str, field: str, member: str = LAST, /, **changes: object) -> Case:
    """The sound file with one member changed."""
    return case(fault, field, lambda: archive([replace(m, **changes) if m.name == member else m for m in members()]))


def with_more(fault: str, field: str, *more: Member) -> Case:
    """The sound file with more members behind the others."""
    return case(fault, field, lambda: archive([*members(), *more]))


def deflated() -> list[Member]:
    """The sound members with a compressed pickle."""
    pickle = checkpoint()
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(pickle) + packer.flush()
    member = Member(PICKLE, packed, method=8, n_bytes=len(pickle), crc32=zlib.crc32(pickle))
    return [member, *members()[1:]]


def bomb() -> bytes:
    """Sixteen megabytes of zeros for storage 10, packed."""
    packer = zlib.compressobj(9, wbits=-15)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(16)) + packer.flush()
    return archive([*members()[:-1], Member(LAST, packed, method=8, n_bytes=16 << 20)])


def many(n_members: int, **fields: Any) -> list[Member]:
    return [Member(f"ckpt/{i}", **fields) for i in range(n_members)]


def with_64_bit_end(place: int | None = None, magic: bytes = b"PK\6\6", n_bytes: int | None = None) -> bytes:
    """The sound file with the 64-bit form of its last record before the last record."""
    data = archive(members())
    body, end = data[:-22], data[-22:]
    _, _, _, n_here, n, n_directory, begin, _ = struct.unpack("<4s4H2IH", end)
    size = n_directory if n_bytes is None else n_bytes
    record = struct.pack("<4sQ2H2I4Q", magic, 44, 45, 45, 0, 0, n_here, n, size, begin)
    where = struct.pack("<4sIQI", b"PK\6\7", 0, len(body) if place is None else place, 1)
    return body + record + where + end


SOUND = {
    "zip": case("", "", lambda: archive(members())),
    "zip with a 64-bit record": case("", "", with_64_bit_end),
}

_END = "end of the zip file"
CASES = [
    case("nothing but the magic", _END, lambda: b"PK\3\4"),
    case("an empty zip file", "file size", lambda: archive([])),
    case("the last byte missing", _END, lambda: archive(members())[:-1]),
    case("one byte too many", _END, lambda: archive(members()) + b"\0"),
    case("cut off in the middle", _END, lambda: archive(members())[:1000]),
    case("the directory missing", _END, lambda: archive(members())[:-800]),
    case("a comment behind the directory", _END, lambda: archive(members(), n_comment=5) + b"hello"),
    case("a comment that is not there", "zip file", lambda: archive(members(), n_comment=1)),
    case("a program before the members", "header field", lambda: b"\x7fELF" + bytes(60) + archive(members())),
    case("the second of two disks", "zip file", lambda: archive(members(), disk=1)),
    case("a directory on another disk", "zip file", lambda: archive(members(), first_disk=1)),
    case("more members here than in all", "zip file", lambda: archive(members(), n_here=15)),
    case("no members, says the end", "zip directory", lambda: archive(members(), n=0, n_here=0)),
    case("a member less, says the end", "zip directory", lambda: archive(members(), n=13, n_here=13)),
    case("a member more, says the end", "zip", lambda: archive(members(), n=15, n_here=15)),
    case("65,535 members, says the end", "zip members", lambda: archive(members(), n=65535, n_here=65535)),
    case("a directory that begins at 0", "place of the zip directory", lambda: archive(members(), begin=0)),
    case("a directory that begins at 2^32 - 1", "place of the zip directory", lambda: archive(members(), begin=MAX_32)),
    case("a directory of 2^32 - 1 bytes", "place of the zip directory", lambda: archive(members(), n_bytes=MAX_32)),
    case("a directory of no bytes", "place of the zip directory", lambda: archive(members(), n_bytes=0)),
    case("a 64-bit record elsewhere", _END, lambda: with_64_bit_end(place=1 << 62)),
    case("a 64-bit record with another magic", _END, lambda: with_64_bit_end(magic=b"PK\0\0")),
    case("a 64-bit record of 2^63 bytes of directory", "place of the zip directory", lambda: with_64_bit_end(n_bytes=1 << 63)),
    case("bytes between the members and the directory", "zip members", lambda: archive(members(), gap=bytes(100))),
    case("a member twice", "zip members", lambda: archive([*members(), members()[-1]])),
    case("a compressed pickle", f"zip member {PICKLE}: found compressed", lambda: archive(deflated())),
    case("as many members and extra fields as are allowed", "zip members: found 0", lambda: archive(many(10_000, **WIDE))),
    case("a bomb: sixteen megabytes of zeros, packed", f"zip member {LAST}: found compressed", bomb),
    changed("a member that says it is compressed", f"zip member {LAST}: found compressed", method=8),
    changed("a member whose own header says that it is compressed", f"zip member {LAST}: found another header", local_method=8),
    changed("an encrypted member", f"zip member {LAST}: found a link", flags=1),
    changed("a symbolic link", f"zip member {LAST}: found a link", mode=0o120777),
    changed("a device", f"zip member {LAST}: found a link", mode=0o020666),
    changed("a named pipe", f"zip member {LAST}: found a link", mode=0o010666),
    changed("a member with another name of its own", f"zip member {LAST}: found another header", local_name="ckpt/data/11"),
    changed("a member beyond the file", f"place of zip member {LAST}", begin=1 << 31),
    changed("a member inside the one before it", f"place of zip member {LAST}", begin=1500),
    changed("a member in the place of the first", "place of zip member", begin=0),
    changed("a stored size one larger than the size", f"zip member {LAST}: found compressed", n_stored=17),
    changed("a size beyond the directory", f"size of zip member {LAST}", n_bytes=1 << 30, n_stored=1 << 30),
    changed("a size of 2^32 - 2", f"size of zip member {LAST}", n_bytes=MAX_32 - 1, n_stored=MAX_32 - 1),
    changed("a pickle with a wrong checksum", f"checksum of zip member {PICKLE}", PICKLE, crc32=7),
    changed("a storage smaller than its tensor", "data.pkl", n_bytes=12, n_stored=12),
    changed("a storage of nothing", "data.pkl: found storage 10", content=b""),
    with_more("a name that is no UTF-8", "name of a zip member", Member("ckpt/\udcff")),
    with_more("a second pickle", "zip members: found 2", Member("other/data.pkl", b"\x80\x02}.")),
    case("no pickle", "zip members: found 0", lambda: archive(members()[1:])),
    changed("a pickle one folder deeper", "zip members: found 0", PICKLE, name="ckpt/old/data.pkl"),
    changed("a pickle outside of a folder", "zip members: found 0", PICKLE, name="data.pkl"),
    changed("a pickle of five megabytes", f"size of zip member {PICKLE}", PICKLE, content=bytes(5 << 20)),
    changed("numbers of a big-endian machine", "byteorder", "ckpt/byteorder", content=b"big"),
    changed("a byte order of no kind", "byteorder", "ckpt/byteorder", content=b"l"),
    case("many members, of which the end counts four", "zip directory", lambda: archive(many(30_000), n=4, n_here=4)),
    case("twenty thousand members", "zip members: found 20000", lambda: archive(many(20_000))),
    changed("a size in a 64-bit field that is not there", "zip directory: found no 64-bit", n_bytes=MAX_32),
    changed("a 64-bit field cut off", "zip directory: found no 64-bit", n_bytes=MAX_32, extra=b"\1\0\4\0" + bytes(4)),
    changed(
        "a 64-bit size of 2^64 - 1",
        f"size of zip member {LAST}",
        **WIDE | {"extra": b"\1\0\x10\0" + b"\xff" * 16},
    ),
    changed("a 64-bit place of 2^63", "place of zip member", begin=MAX_32, extra=b"\1\0\x08\0" + bytes(7) + b"\x80"),
    case(
        "a million extra fields of nothing",
        "zip directory: found 65532 bytes",
        lambda: archive([replace(m, extra=bytes(65532)) for m in members() * 4]),
    ),
]
