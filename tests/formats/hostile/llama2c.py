"""Hostile .bin files of llama2.c, v0, v1 and v2: headers that lie, sizes that do not fit, other files under that name."""

import gzip
import struct
from collections.abc import Callable

from hostile.case import Case

INT_MAX, INT_MIN = (1 << 31) - 1, -1 << 31
MAGIC = 0x616B3432
FIELDS = {"dim": 8, "hidden_dim": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "vocab_size": 9, "max_seq_len": 6}
GROUP = 4


def v0(rest: bytes | None = None, /, **fields: int) -> bytes:
    """A file of the seven header integers, some replaced, and the weights of the sound one unless `rest` is given."""
    return struct.pack("<7i", *(FIELDS | fields).values()) + (bytes(4 * (n_weights() + 6 * 4)) if rest is None else rest)


def v1(rest: bytes | None = None, magic: int = MAGIC, version: int = 1, shared: int = 1, **fields: int) -> bytes:
    header = struct.pack("<Ii7iB", magic, version, *(FIELDS | fields).values(), shared).ljust(256, b"\0")
    return header + (bytes(4 * n_weights()) if rest is None else rest)


def v2(rest: bytes | None = None, group: int = GROUP, shared: int = 1, **fields: int) -> bytes:
    header = struct.pack("<Ii7iBi", MAGIC, 2, *(FIELDS | fields).values(), shared, group).ljust(256, b"\0")
    n_norms = 5 * FIELDS["dim"]
    n_quantized = n_weights() - n_norms
    return header + (bytes(4 * n_norms + n_quantized + n_quantized // GROUP * 4) if rest is None else rest)


def n_weights() -> int:
    """Weights of the sound model: embedding, two layers, three norms; the head is the embedding."""
    dim, hidden, kv = 8, 16, 4
    return 9 * dim + 2 * (2 * dim + 2 * dim * dim + 2 * dim * kv + 3 * dim * hidden) + dim


def with_byte(data: bytes, place: int, value: int) -> bytes:
    return data[:place] + bytes([value]) + data[place + 1 :]


def case(fault: str, field: str, content: Callable[[], bytes]) -> Case:
    return Case(fault, field, lambda: {"model.bin": content()}, "model.bin")


def wrapping() -> bytes:
    """A v0 file whose size is right where it is computed in integers of 32 bits: each matrix of a layer takes 2^32 bytes."""
    dim = 1 << 15
    n_small = dim + 2 * dim + dim + dim  # embedding of one token, norms of the layer, last norm, rope tables of one position
    fields = {"dim": dim, "hidden_dim": dim, "n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "vocab_size": 1, "max_seq_len": 1}
    return v0(bytes(4 * n_small), **fields)


SOUND = {
    "v0": case("", "", v0),
    "v1": case("", "", v1),
    "v2": case("", "", v2),
}

_FIELD = "header field "
CASES = [
    case("nothing in it", "file size: found 0 bytes", lambda: b""),
    case("one byte", "file size: found 1 bytes", lambda: b"\0"),
    case("v0: the header lacks its last byte", "file size: found 27 bytes", lambda: v0()[:27]),
    case("v0: a header and no weights", "file size: found 28 bytes", lambda: v0()[:28]),
    case("v0: the last weight is missing", "file size", lambda: v0()[:-4]),
    case("v0: the last byte is missing", "file size", lambda: v0()[:-1]),
    case("v0: half of the file is missing", "file size.*it was cut off", lambda: v0()[: len(v0()) // 2]),
    case("v0: one byte too many", "file size.*bytes too many", lambda: v0() + b"\0"),
    case("v0: the file twice, one behind the other", "file size.*bytes too many", lambda: v0() * 2),
    case("v0: a zip archive behind the weights", "file size", lambda: v0() + b"PK\5\6" + bytes(18)),
    case("v0: no rope tables", "file size", lambda: v0()[: -6 * 4 * 4]),
    case("v0: says untied, but has no head", "file size", lambda: v0(vocab_size=-9)),
    *(case(f"v0: {name} is 0", f"{_FIELD}{name}: found 0", lambda name=name: v0(**{name: 0})) for name in FIELDS),
    *(
        case(f"v0: {name} is negative", f"{_FIELD}{name}: found -1", lambda name=name: v0(**{name: -1}))
        for name in FIELDS
        if name != "vocab_size"
    ),
    *(
        case(f"v0: {name} is the largest integer", f"{_FIELD}{name}: found {INT_MAX}", lambda name=name: v0(**{name: INT_MAX}))
        for name in FIELDS
    ),
    case("v0: the vocabulary is the smallest integer, which has no positive", f"{_FIELD}vocab", lambda: v0(vocab_size=INT_MIN)),
    case("v0: three heads in a width of eight", f"{_FIELD}n_heads", lambda: v0(n_heads=3, n_kv_heads=3)),
    case("v0: heads of one number, which RoPE cannot turn", f"{_FIELD}n_heads", lambda: v0(n_heads=8)),
    case("v0: more heads than numbers", f"{_FIELD}n_heads", lambda: v0(n_heads=16)),
    case("v0: more key than query heads", f"{_FIELD}n_kv_heads", lambda: v0(n_kv_heads=4)),
    case("v0: three key heads for four query heads", f"{_FIELD}n_kv_heads", lambda: v0(n_heads=4, n_kv_heads=3)),
    case("v0: one layer more than there is", "file size", lambda: v0(n_layers=3)),
    case("v0: one token less than there is", "file size", lambda: v0(vocab_size=8)),
    case("v0: a size that is right in 32 bits only", "file size", wrapping),
    case("v0: a petabyte", "file size", lambda: v0(dim=1 << 17, hidden_dim=1 << 20, n_layers=1024, vocab_size=1 << 22)),
    case("v0: big-endian integers", _FIELD + "dim", lambda: struct.pack(">7i", *FIELDS.values()) + v0()[28:]),
    case("v0: integers of 64 bits", _FIELD, lambda: struct.pack("<7q", *FIELDS.values()) + v0()[28:]),
    case("v0: integers as floats", _FIELD + "dim", lambda: struct.pack("<7f", *FIELDS.values()) + v0()[28:]),
    case("v0: compressed", _FIELD, lambda: gzip.compress(v0(), mtime=0)),
    case("v1: the magic and nothing else", "file size: found 4 bytes", lambda: v1()[:4]),
    case("v1: the header lacks its last byte", "file size: found 255 bytes", lambda: v1()[:255]),
    case("v1: a header and no weights", "file size: found 256 bytes", lambda: v1()[:256]),
    case("v1: the last weight is missing", "file size", lambda: v1()[:-4]),
    case("v1: four bytes too many", "file size.*bytes too many", lambda: v1() + bytes(4)),
    case("v1: the magic in the wrong byte order", _FIELD + "dim", lambda: v1(magic=0x32346B61)),
    case("v1: version 0, which has no magic", "version: found 0", lambda: v1(version=0)),
    case("v1: version 3", "version: found 3", lambda: v1(version=3)),
    case("v1: version -1", "version: found -1", lambda: v1(version=-1)),
    case("v1: the head is shared twice", "shared_classifier: found 2", lambda: v1(shared=2)),
    case("v1: the head's flag is 255", "shared_classifier: found 255", lambda: v1(shared=255)),
    case("v1: says untied, but has no head", "file size", lambda: v1(shared=0)),
    case("v1: a negative vocabulary, as only v0 has it", f"{_FIELD}vocab_size: found -9", lambda: v1(vocab_size=-9)),
    case("v1: no layers", f"{_FIELD}n_layers: found 0", lambda: v1(n_layers=0)),
    case("v1: a context of 2^31 - 1 tokens", f"{_FIELD}max_seq_len", lambda: v1(max_seq_len=INT_MAX)),
    case("v1: no heads, by which everything is divided", f"{_FIELD}n_heads: found 0", lambda: v1(n_heads=0)),
    case("v1: a group size where only v2 has one", "header padding", lambda: with_byte(v1(), 37, GROUP)),
    case("v1: the last byte of the padding is set", "header padding", lambda: with_byte(v1(), 255, 1)),
    case("v1: the weights of v2", "file size", lambda: v1(rest=v2()[256:])),
    case("v2: the weights of v1", "file size", lambda: v2(rest=v1()[256:])),
    case("v2: the last scale is missing", "file size", lambda: v2()[:-4]),
    case("v2: one byte too many", "file size.*bytes too many", lambda: v2() + b"\0"),
    case("v2: the header lacks all behind the flag", "file size: found 37 bytes", lambda: v2()[:37]),
    case("v2: groups of 0, by which everything is divided", f"{_FIELD}group_size: found 0", lambda: v2(group=0)),
    case("v2: groups of -4", f"{_FIELD}group_size: found -4", lambda: v2(group=-4)),
    case("v2: groups of the smallest integer", f"{_FIELD}group_size", lambda: v2(group=INT_MIN)),
    case("v2: groups of the largest integer", f"{_FIELD}group_size", lambda: v2(group=INT_MAX)),
    case("v2: groups of 3, which divide no row", f"{_FIELD}group_size", lambda: v2(group=3)),
    case("v2: groups as long as an mlp row, longer than the others", f"{_FIELD}group_size", lambda: v2(group=16)),
    case("v2: groups that straddle the rows of the mlp", f"{_FIELD}group_size", lambda: v2(group=8, hidden_dim=12)),
    case("v2: groups of 2, for which scales are missing", "file size", lambda: v2(group=2)),
    case("v2: the padding begins with a byte", "header padding", lambda: with_byte(v2(), 41, 1)),
    case("v2: a width of 0", f"{_FIELD}dim: found 0", lambda: v2(dim=0)),
    case("v2: says untied, but has no head", "file size", lambda: v2(shared=0)),
    case("a page that says why a download failed", _FIELD, lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
    case(
        "a pointer of Git LFS instead of the file",
        "content: found a git-lfs pointer",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 60816028\n",
    ),
    case("text in UTF-16", _FIELD, lambda: "Once upon a time there was no model".encode("utf-16")),
    case("a program", _FIELD, lambda: b"\x7fELF\2\1\1" + bytes(57)),
    case("a picture", _FIELD, lambda: b"\x89PNG\r\n\x1a\n" + bytes(40)),
    case("nothing but 0xFF", _FIELD, lambda: b"\xff" * 1000),
    case("nothing but zeros", f"{_FIELD}dim: found 0", lambda: bytes(4096)),
]
