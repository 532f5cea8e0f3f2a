"""The members of an uncompressed zip file as places in the mapped file: what torch.save wraps its files in.

Nothing is unpacked or copied, and nothing is believed: whatever a zip file may have and torch.save does not write is refused,
such as compression (and with it zip bombs), links, two members of one name or at one place, and bytes before, between or behind
the members. Knows no content. Source: PKWARE's APPNOTE.TXT.
"""

import mmap
import stat
import struct
import zlib
from os import PathLike
from typing import NamedTuple

from llamita.errors import ModelFileError
from llamita.formats.file_names import ZIP_MAGIC
from llamita.formats.json_text import shown

MAX_MEMBERS = 10_000  # one for each tensor
_MAX_EXTRA_BYTES = 128  # of an entry: 28 for 64-bit numbers, up to 68 to align the content

_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64_PLACE = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENCRYPTED = 0x2041  # of the flags: encrypted, strongly encrypted, masked
_DESCRIPTOR_BYTES = 24  # at most, behind a member whose sizes its header left out
_MAX_32 = 0xFFFFFFFF  # a number that is 64 bits wide and lies elsewhere


class Member(NamedTuple):
    """Where a member's content lies in the file."""

    offset: int
    n_bytes: int
    crc32: int


class _Entry(NamedTuple):
    """What the directory at the end says of a member; begin: where its own header lies."""

    name: str
    begin: int
    n_bytes: int
    crc32: int


def read_members(path: str | PathLike[str], data: mmap.mmap) -> dict[str, Member]:
    """Find the members of a zip file's content by name, in file order; path is for messages. Raises ModelFileError."""
    if data[:4] != ZIP_MAGIC:
        raise ModelFileError(path, "content", f"first bytes {data[:4].hex()}", "a zip file as torch.save writes it")
    begin, end, n_entries = _directory(path, data)
    members: dict[str, Member] = {}
    place = 0
    for entry in sorted(_entries(path, data[begin:end], n_entries), key=lambda entry: entry.begin):
        name = shown(entry.name)
        if not place <= entry.begin <= place + (_DESCRIPTOR_BYTES if place else 0):
            expected = f"{place}, where the one before it ends"
            raise ModelFileError(path, f"place of zip member {name}", entry.begin, expected, "the file is damaged")
        if entry.name in members:
            raise ModelFileError(path, "zip members", f"{name} twice", "each name once")
        member = _member(path, data, entry)
        place = member.offset + member.n_bytes
        if place > begin:
            raise ModelFileError(path, f"size of zip member {name}", entry.n_bytes, f"at most {begin - member.offset}")
        members[entry.name] = member
    if begin - place > _DESCRIPTOR_BYTES:
        raise ModelFileError(path, "zip members", f"{begin - place} bytes behind the last", "the directory")
    return members


def read_member(path: str | PathLike[str], data: mmap.mmap, name: str, member: Member, limit_bytes: int) -> bytes:
    """The content of a small member, whose checksum is right; raise ModelFileError otherwise."""
    if member.n_bytes > limit_bytes:
        raise ModelFileError(path, f"size of zip member {shown(name)}", f"{member.n_bytes} bytes", f"at most {limit_bytes}")
    content = data[member.offset : member.offset + member.n_bytes]
    if zlib.crc32(content) != member.crc32:
        raise ModelFileError(
            path, f"checksum of zip member {shown(name)}", f"{zlib.crc32(content):08x}", f"{member.crc32:08x}", "it is damaged"
        )
    return content


def _directory(path: str | PathLike[str], data: mmap.mmap) -> tuple[int, int, int]:
    """Where the directory at the end begins and ends, and how many entries it has."""
    tail = len(data) - _END.size
    if tail < 0 or data[tail : tail + 4] != b"PK\5\6":
        raise ModelFileError(
            path, "end of the zip file", "something else", "its directory", "it was cut off, or has bytes too many"
        )
    *disks, n_here, n_entries, n_bytes, begin, n_comment = _END.unpack_from(data, tail)[1:]
    place64 = tail - _END64_PLACE.size
    if place64 >= 0 and data[place64 : place64 + 4] == b"PK\6\7":
        _, disk, tail, n_disks = _END64_PLACE.unpack_from(data, place64)
        if disk or n_disks > 1 or tail + _END64.size != place64:
            raise ModelFileError(path, "end of the zip file", f"its 64-bit form at {tail}", f"at {place64 - _END64.size}")
        magic, _, _, _, *disks, n_here, n_entries, n_bytes, begin = _END64.unpack_from(data, tail)
        if magic != b"PK\6\6":
            raise ModelFileError(path, "end of the zip file", f"bytes {magic.hex()}", "its 64-bit form")
    if any(disks) or n_here != n_entries or n_comment:
        raise ModelFileError(path, "zip file", "one of several parts, or a comment", "a whole file without")
    if begin + n_bytes != tail:
        raise ModelFileError(path, "place of the zip directory", f"{begin} to {begin + n_bytes}", f"an end at {tail}")
    if n_entries > MAX_MEMBERS or n_bytes < n_entries * _ENTRY.size:
        raise ModelFileError(path, "zip members", n_entries, f"at most {min(MAX_MEMBERS, n_bytes // _ENTRY.size)}")
    return begin, tail, n_entries


def _entries(path: str | PathLike[str], directory: bytes, n_entries: int) -> list[_Entry]:
    """The entries of the directory, which is nothing but them."""
    entries, place = [], 0
    for _ in range(n_entries):
        if directory[place : place + 4] != b"PK\1\2" or place + _ENTRY.size > len(directory):
            raise ModelFileError(path, "zip directory", f"something else at its byte {place}", f"{n_entries} entries")
        fields = _ENTRY.unpack_from(directory, place)
        *_, flags, method, _, _, crc32, n_stored, n_bytes, n_name, n_extra, n_comment, disk, _, mode, begin = fields
        place += _ENTRY.size
        name, extra = directory[place : place + n_name], directory[place + n_name : place + n_name + n_extra]
        place += n_name + n_extra + n_comment
        if n_extra > _MAX_EXTRA_BYTES:
            raise ModelFileError(path, "zip directory", f"{n_extra} bytes of extra fields", f"at most {_MAX_EXTRA_BYTES}")
        if len(extra) < n_extra or place > len(directory):
            raise ModelFileError(path, "zip directory", "an entry that was cut off", f"{n_entries} entries")
        n_bytes, n_stored, begin = _wide_numbers(path, extra, (n_bytes, n_stored, begin))
        try:
            entry = _Entry(name.decode("utf-8"), begin, n_bytes, crc32)
        except UnicodeDecodeError:
            raise ModelFileError(path, "name of a zip member", shown(name), "UTF-8") from None
        if method or n_stored != n_bytes:
            remedy = "unpack it, or save it again with torch.save"
            raise ModelFileError(path, f"zip member {shown(entry.name)}", "compressed data", "plain data", remedy)
        if flags & _ENCRYPTED or disk or stat.S_IFMT(mode >> 16) not in (0, stat.S_IFREG):
            raise ModelFileError(path, f"zip member {shown(entry.name)}", "a link, or something encrypted", "a plain file")
        entries.append(entry)
    if place != len(directory):
        raise ModelFileError(path, "zip directory", f"{len(directory)} bytes", f"{place}, {n_entries} entries")
    return entries


def _wide_numbers(path: str | PathLike[str], extra: bytes, numbers: tuple[int, ...]) -> list[int]:
    """The numbers of an entry; those that need 64 bits come, in this order, from its extra field 1."""
    wide, place = b"", 0
    while place + 4 <= len(extra):
        kind, n_bytes = struct.unpack_from("<2H", extra, place)
        if kind == 1:
            wide = extra[place + 4 : place + 4 + n_bytes]
        place += 4 + n_bytes
    found = []
    for number in numbers:
        if number == _MAX_32:
            if len(wide) < 8:
                raise ModelFileError(path, "zip directory", "no 64-bit number", "one where 32 bits are too few")
            number, wide = struct.unpack_from("<Q", wide)[0], wide[8:]
        found.append(number)
    return found


def _member(path: str | PathLike[str], data: mmap.mmap, entry: _Entry) -> Member:
    """Where the content lies, behind the member's own header, which must be one and have the same name."""
    begin = entry.begin + _LOCAL.size
    if begin <= len(data):
        magic, _, _, method, *_, n_name, n_extra = _LOCAL.unpack_from(data, entry.begin)
        if magic == ZIP_MAGIC and method == 0 and data[begin : begin + n_name] == entry.name.encode():
            return Member(begin + n_name + n_extra, entry.n_bytes, entry.crc32)
    raise ModelFileError(path, f"zip member {shown(entry.name)}", "another header", "its own", "the file is damaged")
