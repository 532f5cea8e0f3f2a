"""Hostile tokenizer.bin files of llama2.c and tokenizer.model files of Llama 3: lists of pieces that are cut, lie or repeat."""

import base64
import struct
from collections.abc import Callable

from hostile.case import Case, read_vocabulary

PIECES = (b"<unk>", b"\n<s>\n", b"\n</s>\n", b" ", b"a", b" a")
MAX_32 = (1 << 32) - 1


def entry(piece: bytes, score: float = 0.0, n_bytes: int | None = None) -> bytes:
    return struct.pack("<fI", score, len(piece) if n_bytes is None else n_bytes) + piece


def vocabulary(more: bytes = b"", max_piece_bytes: int = 7, n_pieces: int = len(PIECES)) -> bytes:
    """The sound tokenizer.bin, with more behind it."""
    return struct.pack("<I", max_piece_bytes) + b"".join(entry(piece, -i) for i, piece in enumerate(PIECES[:n_pieces])) + more


def lines(*more: bytes, n_bytes: int = 256) -> bytes:
    """A tiktoken file of the bytes and of other lines."""
    return b"\n".join([*(line(bytes([i]), i) for i in range(n_bytes)), *more, b""])


def line(token: bytes, rank: int) -> bytes:
    return base64.b64encode(token) + b" %d" % rank


def case(fault: str, field: str, content: Callable[[], bytes]) -> Case:
    return Case(f"llama2.c: {fault}", field, lambda: {"tokenizer.bin": content()}, "tokenizer.bin", read_vocabulary)


def ranked(fault: str, field: str, content: Callable[[], bytes]) -> Case:
    return Case(f"tiktoken: {fault}", field, lambda: {"tokenizer.model": content()}, "tokenizer.model", read_vocabulary)


SOUND = {"tokenizer.bin": case("", "", vocabulary), "tiktoken": ranked("", "", lambda: lines(line(b"ab", 256)))}

CASES = [
    case("nothing in it", "file size: found 0 bytes", lambda: b""),
    case("two bytes", "content: found first bytes 0700", lambda: b"\7\0"),
    case("the longest piece's length and nothing else", "entries: found 0", lambda: vocabulary(n_pieces=0)),
    case("two pieces, without an end", "entries: found 2", lambda: vocabulary(n_pieces=2)),
    case("an entry cut off in its score", "entry 6: found 3 bytes", lambda: vocabulary(b"\0\0\0")),
    case("an entry cut off in its length", "entry 6: found 7 bytes", lambda: vocabulary(bytes(7))),
    case("a piece cut off", "length of entry 6: found 7", lambda: vocabulary(entry(b"abc", n_bytes=7))),
    case("the last byte missing", "length of entry 5: found 2", lambda: vocabulary()[:-1]),
    case("a byte too many", "entry 6: found 1 bytes", lambda: vocabulary(b"\0")),
    case("a piece of 2^32 - 1 bytes", "length of entry 6: found 4294967295", lambda: vocabulary(entry(b"a", n_bytes=MAX_32))),
    case("a piece of 2^31 bytes, negative for run.c", "length of entry 6", lambda: vocabulary(entry(b"a", n_bytes=1 << 31))),
    case("a piece longer than the longest", "length of entry 6: found 8", lambda: vocabulary(entry(b"a" * 8))),
    case("a longest piece of 0 bytes", "length of entry 0: found 5", lambda: vocabulary(max_piece_bytes=0)),
    case("a longest piece of 2^32 - 1 bytes", "content: found first bytes ffff", lambda: vocabulary(max_piece_bytes=MAX_32)),
    case("a longest piece of 65,536 bytes", "content: found first bytes 00000100", lambda: vocabulary(max_piece_bytes=1 << 16)),
    case("a score that is not a number", "scores: found", lambda: vocabulary(entry(b"b", float("nan")))),
    case("an infinite score", "scores: found", lambda: vocabulary(entry(b"b", float("inf")))),
    case("infinite scores that cancel", "scores", lambda: vocabulary(entry(b"b", float("inf")) + entry(b"c", -float("inf")))),
    case("a model instead", "length of entry 1: found 589824", lambda: struct.pack("<7i", 8, 16, 2, 2, 1, 9, 6) + bytes(999)),
    case("a big-endian length", "content: found first bytes 00000007", lambda: b"\0\0\0\7" + vocabulary()[4:]),
    case("a count of tokens first", "length of entry 1: found", lambda: struct.pack("<I", 6) + vocabulary()),
    case("zeros", "entry 124: found 7 bytes", lambda: bytes(1003)),
    ranked("no base64", "content: found first bytes", lambda: b"!!!! 0\n"),
    ranked("no rank", "content: found first bytes", lambda: b"AA==\n"),
    ranked("a first rank of 1", "line 1: found", lambda: b"AA== 1\n"),
    ranked("a negative rank", "content: found first bytes", lambda: b"AA== -1\n"),
    ranked("a rank twice", "line 258: found", lambda: lines(line(b"ab", 256), line(b"ac", 256))),
    ranked("a rank left out", "line 257: found", lambda: lines(line(b"ab", 257))),
    ranked("a rank of twenty digits", "line 257: found", lambda: lines(line(b"ab", 10**20))),
    ranked("a token twice", "content: found", lambda: lines(line(b"\0", 256))),
    ranked("an empty token", "line 257: found", lambda: lines(b" 256")),
    ranked("an empty line", "line 257: found", lambda: lines(b"", line(b"ab", 256))),
    ranked("bad padding", "line 257: found", lambda: lines(b"YWI 256")),
    ranked("a token in the alphabet of addresses", "line 257: found", lambda: lines(b"__8= 256")),
    ranked("three fields", "line 257: found", lambda: lines(b"YWI= 256 7")),
    ranked("a zero byte in a line", "line 257: found", lambda: lines(b"YW\0= 256")),
    ranked("a token of five thousand bytes", "line 257: found", lambda: lines(line(b"a" * 5000, 256))),
    ranked("three million empty lines", "line 2: found", lambda: lines(b"", n_bytes=1) + b"\n" * 3_000_000),
    ranked("a line of three million characters", "line 2: found", lambda: lines(b"A" * 3_000_000, n_bytes=1)),
    ranked("bytes missing", "content: found", lambda: lines(n_bytes=1)),
]
