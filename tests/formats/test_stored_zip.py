"""Zip files of plain members: every place is checked, what a zip file may have besides is refused, and nothing is unpacked."""

import io
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from llamita.errors import ModelFileError
from llamita.files import map_file
from llamita.formats.stored_zip import Member, read_member, read_members
from torch_files import zipped

MEMBERS = {"a/data.pkl": b"pickle", "a/data/0": bytes(range(200)), "a/ü": b""}
GOOD = zipped(MEMBERS)
ENTRIES, LOCALS = (
    [i for i in range(len(GOOD)) if GOOD.startswith(magic, i)] for magic in (b"PK\1\2", b"PK\3\4")
)  # where headers begin
END = len(GOOD) - 22
HEAP_LIMIT_BYTES = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.zip"


def read(path: Path, content: bytes) -> dict[str, Member]:
    path.write_bytes(content)
    return read_members(path, map_file(path))


def zip_by(write: Callable[[zipfile.ZipFile], None]) -> bytes:
    """A zip file as Python writes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        write(archive)
    return file.getvalue()


def changed(number: int, form: str, *places: int) -> bytes:
    """The good file with another number at some places."""
    content = bytearray(GOOD)
    for place in places:
        struct.pack_into(form, content, place, number)
    return bytes(content)


def link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("a/data/0")
    info.external_attr = 0o120777 << 16
    archive.writestr(info, "/etc/passwd")


def bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("a/data/0", bytes(50 << 20), zipfile.ZIP_DEFLATED)


def with_64_bits(content: bytes, **numbers: int) -> bytes:
    """A file whose directory is written in 64 bits, as for files of more than 4 GB; numbers change what is said."""
    *_, n_entries, n_bytes, begin, _ = struct.unpack("<4s4H2IH", content[-22:])
    place = len(content) - 22
    said = {"n_entries": n_entries, "n_bytes": n_bytes, "begin": begin, "place": place} | numbers
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, n_entries, said["n_entries"], said["n_bytes"], said["begin"])
    return content[:-22] + end + struct.pack("<4sIQI", b"PK\6\7", 0, said["place"], 1) + content[-22:]


def with_wide_entry(n_bytes: int, begin: int) -> bytes:
    """A file with one member of six bytes, whose size and place are said in 64 bits."""
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a" + b"pickle"
    extra = struct.pack("<2H3Q", 1, 24, n_bytes, n_bytes, begin)
    entry = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 1, len(extra), 0, 0, 0, 0, 0xFFFFFFFF
    )
    directory = entry + b"a" + extra
    return local + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(directory), len(local), 0)


def test_members_are_found_where_they_lie(path):
    members = read(path, GOOD)
    assert {name: GOOD[member.offset : member.offset + member.n_bytes] for name, member in members.items()} == MEMBERS
    assert read_member(path, map_file(path), "a/data.pkl", members["a/data.pkl"], 100) == b"pickle"


def test_files_of_more_than_four_gigabytes_say_so_in_64_bits(path):
    assert read(path, with_64_bits(GOOD)) == read(path, GOOD)
    assert read(path, with_wide_entry(6, 0)) == {"a": Member(31, 6, 0)}


def test_a_member_is_checked_and_must_be_small(path):
    members = read(path, GOOD.replace(b"pickle", b"pickl3"))
    with pytest.raises(ModelFileError, match=r"checksum of zip member a/data.pkl: found [0-9a-f]{8}, expected"):
        read_member(path, map_file(path), "a/data.pkl", members["a/data.pkl"], 100)
    with pytest.raises(ModelFileError, match=r"size of zip member a/data/0: found 200 bytes, expected at most 100"):
        read_member(path, map_file(path), "a/data/0", members["a/data/0"], 100)


HOSTILE = {
    "a bomb": (zip_by(bomb), "compressed data, expected plain data"),
    "a link": (zip_by(link), "zip member a/data/0: found a link"),
    "a folder": (zip_by(lambda archive: archive.mkdir("a")), "zip member a/: found a link"),
    "a name twice": (zipped(MEMBERS | {"a/data/1": b""}).replace(b"data/1", b"data/0"), "a/data/0 twice"),
    "a password": (changed(1, "<H", ENTRIES[0] + 8), "something encrypted"),
    "a method of compression here only": (changed(8, "<H", ENTRIES[0] + 10), "compressed data"),
    "a method of compression there only": (changed(8, "<H", LOCALS[0] + 8), "another header"),
    "another size when packed": (changed(100, "<I", ENTRIES[1] + 20), "compressed data"),
    "a size beyond the next": (changed(90, "<I", ENTRIES[0] + 20, ENTRIES[0] + 24), "place of zip member a/data/0"),
    "two at one place": (changed(0, "<I", ENTRIES[1] + 42), "place of zip member a/data/0: found 0"),
    "a place beyond the file": (changed(1 << 31, "<I", ENTRIES[2] + 42), "place of zip member a/ü"),
    "a gap": (changed(LOCALS[2], "<I", ENTRIES[0] + 42), "place of zip member a/data/0"),
    "another name there": (GOOD.replace(b"a/data/0", b"a/data/1", 1), "zip member a/data/0: found another header"),
    "another disk": (changed(1, "<H", ENTRIES[0] + 34), "something encrypted"),
    "a name that is no UTF-8": (GOOD.replace("ü".encode(), b"\xff\xff"), "name of a zip member"),
    "a name beyond the directory": (changed(5000, "<H", ENTRIES[2] + 28), "an entry that was cut off"),
    "a comment of an entry": (changed(1, "<H", ENTRIES[2] + 32), "an entry that was cut off"),
    "no 64-bit number": (changed(0xFFFFFFFF, "<I", ENTRIES[0] + 42), "no 64-bit number"),
    "bytes before": (b"PK\3\4" + GOOD, "place of the zip directory"),
    "bytes behind": (GOOD + b"\0", "end of the zip file: found something else"),
    "a comment": (GOOD[:-2] + b"\1\0" + b"c", "end of the zip file: found something else"),
    "a comment that is not there": (changed(7, "<H", END + 20), "a comment"),
    "several parts": (changed(1, "<H", END + 4), "one of several parts"),
    "more entries than there are": (changed(60000, "<H", END + 8, END + 10), "zip members: found 60000, expected at most"),
    "fewer entries than there are": (changed(2, "<H", END + 8, END + 10), "zip directory: found "),
    "a directory elsewhere": (changed(0, "<I", END + 16), "place of the zip directory"),
    "a cut end": (GOOD[:-5], "it was cut off"),
    "nothing but an end": (b"PK\3\4" + GOOD[-22:], "place of the zip directory"),
    "something else": (b"\x80\x02}." + GOOD, "first bytes 80027d2e"),
    "four bytes": (b"PK\3\4", "it was cut off"),
    "a 64-bit end elsewhere": (with_64_bits(GOOD, place=0), "its 64-bit form at 0"),
    "a 64-bit end beyond": (with_64_bits(GOOD, place=(1 << 64) - 1), "its 64-bit form at"),
    "a 64-bit directory beyond": (with_64_bits(GOOD, begin=1 << 63), "place of the zip directory"),
    "more entries in 64 bits": (with_64_bits(GOOD, n_entries=1 << 40), "a comment, expected a whole file"),
    "a wide size beyond": (with_wide_entry(1 << 63, 0), "size of zip member a"),
    "a wide place beyond": (with_wide_entry(6, 1 << 63), "place of zip member a"),
}  # fmt: skip


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_zip_file_is_refused_in_little_memory(fault, path):
    content, found = HOSTILE[fault]
    path.write_bytes(content)
    mapping = map_file(path)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError) as caught:
            read_members(path, mapping)
        assert tracemalloc.get_traced_memory()[1] < HEAP_LIMIT_BYTES
    finally:
        tracemalloc.stop()
    assert found in str(caught.value)


def test_damaged_zip_files_are_read_within_their_bounds_or_refused(path):
    rng = random.Random(1)
    places = [*range(LOCALS[0], LOCALS[0] + 50), *range(ENTRIES[0], len(GOOD))]
    n_read = 0
    for _ in range(500):
        content = bytearray(GOOD)
        for _ in range(rng.randint(1, 2)):
            content[rng.choice(places)] = rng.choice([0, 1, 255, rng.randrange(256)])
        with suppress(ModelFileError):
            members = read(path, bytes(content))
            assert all(0 < member.offset <= member.offset + member.n_bytes <= len(content) for member in members.values())
            n_read += 1
    assert 0 < n_read < 500
