"""Hostile tokenizer.model files of sentencepiece: a protobuf message that is cut, lies or describes no vocabulary."""

import struct
from collections.abc import Callable

from hostile.case import Case, read_vocabulary

MAX_64 = (1 << 64) - 1
UNKNOWN, CONTROL, BYTE = 2, 3, 6
SPACE = "\u2581"


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes | str, n_bytes: int | None = None) -> bytes:
    """A field of text or bytes, or of a message; n_bytes: the length that it says."""
    data = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(data) if n_bytes is None else n_bytes) + data


def score(value: float) -> bytes:
    return varint(2 << 3 | 5) + struct.pack("<f", value)


def piece(text: str | bytes, kind: int = 1, value: float = 0.0) -> bytes:
    return message(1, message(1, text) + score(value) + (number(3, kind) if kind != 1 else b""))


PIECES = [piece("<unk>", UNKNOWN), piece("<s>", CONTROL), piece("</s>", CONTROL), piece(SPACE, value=-1), piece("a", value=-2)]
TRAINER = message(2, number(3, 2))  # BPE
NORMALIZER = message(3, message(1, "identity") + number(3, 1) + number(4, 0) + number(5, 1))
CHARSMAP = struct.pack("<I", 1024) + bytes(1024) + b"a\0"  # a trie without children, and one replacement


def model(more: bytes = b"", pieces: list[bytes] = PIECES, trainer: bytes = TRAINER, normalizer: bytes = NORMALIZER) -> bytes:
    return b"".join(pieces) + trainer + normalizer + more


def with_charsmap(table: bytes) -> bytes:
    return model(normalizer=message(3, message(1, "nfkc") + message(2, table)))


def with_root(unit: int, child: int = 0) -> bytes:
    """The model with another root of the charsmap's trie, and another unit where the root's value is looked for."""
    units = [unit] + [0] * 255
    units[(unit >> 10) % 256] |= child
    return with_charsmap(struct.pack("<I256I", 1024, *units) + b"a\0")


def with_pieces(*more: bytes) -> bytes:
    return model(pieces=[*PIECES, *more])


def case(fault: str, field: str, content: Callable[[], bytes]) -> Case:
    return Case(fault, field, lambda: {"tokenizer.model": content()}, "tokenizer.model", read_vocabulary)


SOUND = {"sentencepiece": case("", "", model), "with a charsmap": case("", "", lambda: with_charsmap(CHARSMAP))}

_CONTENT = "content.*: found"
CASES = [
    case("nothing but a tag", _CONTENT, lambda: b"\x0a"),
    case("a tag and an endless length", _CONTENT, lambda: b"\x0a" + b"\xff" * 20),
    case("cut off in a piece", _CONTENT, lambda: model()[:20]),
    case("cut off in the rules", _CONTENT, lambda: model()[:-3]),
    case("no pieces", "content: found first bytes", lambda: model(pieces=[])),
    case("one byte too many", _CONTENT, lambda: model(b"\x0a")),
    case("a piece of 2^63 bytes", _CONTENT, lambda: model(message(1, b"", 1 << 63))),
    case("a piece of 2^64 - 1 bytes", _CONTENT, lambda: model(message(1, b"", MAX_64))),
    case("a text longer than its piece", _CONTENT, lambda: with_pieces(message(1, message(1, b"ab", 50) + score(0)))),
    case("a field of number 0", _CONTENT, lambda: model(b"\0\0")),
    case("a group, which nobody writes any more", _CONTENT, lambda: model(b"\x0b\x0c")),
    case("a wire type of 7", _CONTENT, lambda: model(b"\x0f")),
    case("an integer of eleven bytes", _CONTENT, lambda: model(b"\x20" + b"\x80" * 10 + b"\1")),
    case("an integer without an end", _CONTENT, lambda: model(b"\x20\xff")),
    case("a piece that is an integer", _CONTENT, lambda: model(pieces=[*PIECES[:1], number(1, 5)], trainer=b"\x12")),
    case("a piece that is no UTF-8", _CONTENT, lambda: with_pieces(piece(b"\xff\xfe"))),
    case("an empty piece", _CONTENT, lambda: with_pieces(piece(""))),
    case("a piece without anything", _CONTENT, lambda: with_pieces(message(1, b""))),
    case("a piece twice", _CONTENT, lambda: with_pieces(piece("a"))),
    case("a type of 0", _CONTENT, lambda: with_pieces(piece("b", 0))),
    case("a type of 2^32", _CONTENT, lambda: with_pieces(piece("b", 1 << 32))),
    case("no unknown piece", _CONTENT, lambda: model(pieces=PIECES[1:])),
    case("two unknown pieces", _CONTENT, lambda: with_pieces(piece("<unk2>", UNKNOWN))),
    case("a score that is not a number", _CONTENT, lambda: with_pieces(piece("b", value=float("nan")))),
    case("an infinite score", _CONTENT, lambda: with_pieces(piece("b", value=float("-inf")))),
    case("a byte piece without the others", _CONTENT, lambda: with_pieces(piece("<0x00>", BYTE))),
    case("a byte piece that spells no byte", _CONTENT, lambda: with_pieces(*(piece(f"b{i}", BYTE) for i in range(256)))),
    case("byte fallback without bytes", _CONTENT, lambda: model(trainer=message(2, number(3, 2) + number(35, 1)))),
    case("a model type of 9", _CONTENT, lambda: model(trainer=message(2, number(3, 9)))),
    case("a model type that is a text", _CONTENT, lambda: model(trainer=message(2, message(3, "BPE")))),
    case("a name of BOS that is a number", _CONTENT, lambda: model(trainer=message(2, number(46, 1)))),
    case("a name of BOS that is no UTF-8", _CONTENT, lambda: model(trainer=message(2, message(46, b"\xff")))),
    case("a charsmap of three bytes", _CONTENT, lambda: with_charsmap(b"\0\0\0")),
    case("a charsmap of no trie", _CONTENT, lambda: with_charsmap(struct.pack("<I", 0) + b"a\0")),
    case("a charsmap longer than its field", _CONTENT, lambda: with_charsmap(struct.pack("<I", 1 << 20) + bytes(1030))),
    case("a charsmap of 2^32 - 4 bytes", _CONTENT, lambda: with_charsmap(struct.pack("<I", 0xFFFFFFFC) + bytes(1030))),
    case("a charsmap whose last text has no end", _CONTENT, lambda: with_charsmap(CHARSMAP[:-1])),
    case("a charsmap whose child lies outside", _CONTENT, lambda: with_root(1 << 21)),
    case("a charsmap whose value lies behind the texts", _CONTENT, lambda: with_root(1 << 8 | 1 << 10, 0x80000100)),
    case("a charsmap that is an integer", _CONTENT, lambda: model(normalizer=message(3, number(2, 7)))),
    case("two hundred thousand empty pieces", _CONTENT, lambda: b"\x0a\0" * 200_000),
    case("a hundred thousand fields of nothing", _CONTENT, lambda: model(b"\x22\0" * 100_000 + b"\x0b")),
    case("a piece of three million characters", _CONTENT, lambda: with_pieces(piece("a" * 3_000_000 + "😀"))),
]
