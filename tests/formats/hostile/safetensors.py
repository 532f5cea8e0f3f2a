"""Hostile model.safetensors files in a sound Hugging Face folder: the length in front, the JSON, dtypes, shapes, places."""

import json
import struct
from collections.abc import Callable
from math import prod

from hostile.case import Case

CONFIG = {
    "model_type": "llama",
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 6,
    "vocab_size": 5,
    "tie_word_embeddings": True,
}
SHAPES = {
    "model.embed_tokens.weight": [5, 4],
    "model.layers.0.input_layernorm.weight": [4],
    "model.layers.0.self_attn.q_proj.weight": [4, 4],
    "model.layers.0.self_attn.k_proj.weight": [2, 4],
    "model.layers.0.self_attn.v_proj.weight": [2, 4],
    "model.layers.0.self_attn.o_proj.weight": [4, 4],
    "model.layers.0.post_attention_layernorm.weight": [4],
    "model.layers.0.mlp.gate_proj.weight": [6, 4],
    "model.layers.0.mlp.up_proj.weight": [6, 4],
    "model.layers.0.mlp.down_proj.weight": [4, 6],
    "model.norm.weight": [4],
}
GATE = "model.layers.0.mlp.gate_proj.weight"
NORM = "model.norm.weight"  # the last in the file
DATA_BYTES = 4 * sum(map(prod, SHAPES.values()))


def header(names: list[str] | None = None) -> dict[str, object]:
    """The header of a file with these float32 tensors, one behind the other."""
    entries: dict[str, object] = {}
    end = 0
    for name in names or SHAPES:
        begin, end = end, end + 4 * prod(SHAPES[name])
        entries[name] = {"dtype": "F32", "shape": SHAPES[name], "data_offsets": [begin, end]}
    return entries


def file(text: object = None, n_data_bytes: int = DATA_BYTES, length: int | None = None) -> bytes:
    """A file with this header, the sound one if none, as JSON unless it is bytes already; length: what the file says of it."""
    content = text if isinstance(text, bytes) else json.dumps(header() if text is None else text).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + bytes(n_data_bytes)


def entry(name: str = GATE, n_more_bytes: int = 0, **changes: object) -> bytes:
    """The sound file with one tensor's entry changed; ... takes a field out."""
    fields = dict(header()[name] | changes)  # pyright: ignore[reportOperatorIssue]
    fields = {field: value for field, value in fields.items() if value is not ...}
    return file(header() | {name: fields}, DATA_BYTES + n_more_bytes)


def moved(name: str, n_bytes: int) -> bytes:
    """The sound file with one tensor's place moved."""
    begin, end = header()[name]["data_offsets"]  # pyright: ignore[reportIndexIssue]
    return entry(name, data_offsets=[begin + n_bytes, end + n_bytes])


def renamed(old: str, new: str) -> bytes:
    """The sound file with a tensor under another name."""
    return file({new if name == old else name: fields for name, fields in header().items()})


def with_text(old: str, new: str, count: int = 1) -> bytes:
    """The sound file with something in the header's text replaced."""
    text = json.dumps(header())
    assert old in text
    return file(text.replace(old, new, count).encode())


def case(fault: str, field: str, content: Callable[[], bytes]) -> Case:
    return Case(fault, field, lambda: {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": content()}, ".")


SOUND = {"one file": case("", "", file)}

CASES = [
    case("nothing in it", "file size: found 0 bytes", lambda: b""),
    case("seven bytes", "file size: found 7 bytes", lambda: bytes(7)),
    case("a header of no bytes", "header: ", lambda: file(b"", 0)),
    case("a length and nothing else", "header length", lambda: file()[:8]),
    case("a length of 2^63", "header length: found 9223372036854775808", lambda: file(length=1 << 63)),
    case("a length of 2^64 - 1", "header length: found 18446744073709551615", lambda: file(length=(1 << 64) - 1)),
    case("a length one byte beyond the file", "header length", lambda: file(length=len(file()) - 7)),
    case("a length one byte short of the last brace", "header: found.*JSON", lambda: file(length=len(file()) - 9 - DATA_BYTES)),
    case("a length that takes in the weights", "header: ", lambda: file(length=len(file()) - 8)),
    case("a big-endian length", "header length", lambda: struct.pack(">Q", len(file()) - DATA_BYTES - 8) + file()[8:]),
    case("a length of 32 bits", "header length", lambda: file()[:4] + file()[8:]),
    case("the header cut off in the middle", "header length", lambda: file()[:200]),
    case("the last byte missing", "file size.*cut off", lambda: file()[:-1]),
    case("no weights behind the header", "file size.*cut off", lambda: file(n_data_bytes=0)),
    case("a byte behind the last weight", "file size.*too many", lambda: file(n_data_bytes=DATA_BYTES + 1)),
    case("another file behind the last weight", "file size.*too many", lambda: file() + b"PK\3\4" + bytes(100)),
    case("bytes that are no UTF-8", "header: found 'utf-8'", lambda: file(b'{"\xff\xfe": 1}')),
    case("half a character at the end of the header", "header: found 'utf-8'", lambda: file(b'{"a": 1}\xe2\x96')),
    case("a header in UTF-16", "header: ", lambda: file(json.dumps(header()).encode("utf-16"))),
    case("a byte order mark", "header: ", lambda: file(b"\xef\xbb\xbf" + json.dumps(header()).encode())),
    case("zeros instead of a header", "header: ", lambda: file(bytes(400))),
    case("a list", r"header: found \[", lambda: file([header()])),
    case("a text", "header: found model", lambda: file(b'"model"')),
    case("a number", "header: found 7", lambda: file(b"7")),
    case("null", "header: found None", lambda: file(b"null")),
    case("Python's quotation marks", "header: ", lambda: file(repr(header()).encode())),
    case("a comma behind the last entry", "header: ", lambda: file(json.dumps(header())[:-1].encode() + b",}")),
    case("a comment", "header: ", lambda: file(b"/* weights */ " + json.dumps(header()).encode())),
    case("two objects, one behind the other", "header: found Extra data", lambda: file(json.dumps(header()).encode() * 2)),
    case("a line end inside a name", "header: found Invalid control", lambda: with_text(NORM, "model.\nnorm.weight")),
    case("lists fifty thousand deep", "header: found brackets nested", lambda: file(b"[" * 50_000)),
    case("objects fifty thousand deep", "header: found brackets nested", lambda: file(b'{"a":' * 50_000)),
    case("a quarter of a million empty objects", "header: found 500", lambda: file(b"[" + b"{}," * 250_000 + b"{}]")),
    case("as many empty objects as are allowed", r"header: found \[", lambda: file(b"[" + b"{}," * 32_000 + b"{}]")),
    case("half a million lists", "header length", lambda: file(b"[" + b"[]," * 500_000 + b"[]]")),
    case("two hundred thousand short texts", "header: found 20000", lambda: file(b"[" + b'"a",' * 200_000 + b'""]')),
    case(
        "thirty thousand names", "header entry 0", lambda: file(b"{" + b",".join(b'"%d":{}' % i for i in range(30_000)) + b"}")
    ),
    case("a million characters, one of them wide", "header: found", lambda: file(b'["' + b"a" * 1_000_000 + "😀".encode())),
    case("eight million characters", "header length", lambda: file(b'["' + b"a" * (8 << 20) + b'"]')),
    case("a number of ten thousand digits", "header: found Exceeds", lambda: with_text("[6, 4]", f"[6, {'4' * 10_000}]")),
    case("a size that is not a number", "header: found the number NaN", lambda: with_text("[6, 4]", "[6, NaN]")),
    case("an infinite size", "header: found the number Infinity", lambda: with_text("[6, 4]", "[6, Infinity]")),
    case("a tensor's name twice", "header: found the name", lambda: with_text(NORM, GATE)),
    case("a field of an entry twice", "header: found the name dtype", lambda: with_text('"F32"', '"F32", "dtype": "F16"')),
    case("metadata that are a text", "header field __metadata__", lambda: file({"__metadata__": "pt"} | header())),
    case("metadata with a number", "header field __metadata__", lambda: file({"__metadata__": {"step": 7}} | header())),
    case("metadata with an object", "header field __metadata__", lambda: file({"__metadata__": {"a": {"b": "c"}}} | header())),
    case("an entry that is null", f"header entry {GATE}", lambda: file(header() | {GATE: None})),
    case("an entry that is a list", f"header entry {GATE}", lambda: file(header() | {GATE: ["F32", [6, 4], [0, 96]]})),
    case("an entry without a dtype", f"header entry {GATE}", lambda: entry(dtype=...)),
    case("an entry without a shape", f"header entry {GATE}", lambda: entry(shape=...)),
    case("an entry without offsets", f"header entry {GATE}", lambda: entry(data_offsets=...)),
    case("an entry with a field of its own", f"header entry {GATE}", lambda: entry(quantization="nf4")),
    case("weights in float64", f"dtype of {GATE}: found F64", lambda: entry(dtype="F64", n_more_bytes=96)),
    case("weights in eight-bit floats", f"dtype of {GATE}: found F8_E4M3", lambda: entry(dtype="F8_E4M3")),
    case("weights in four-bit floats", f"dtype of {GATE}: found F4", lambda: entry(dtype="F4")),
    case("weights that are integers", f"dtype of {GATE}: found I64", lambda: entry(dtype="I64", shape=[12])),
    case("a dtype in small letters", f"dtype of {GATE}: found f32", lambda: entry(dtype="f32")),
    case("a dtype that is a number", f"dtype of {GATE}: found 0", lambda: entry(dtype=0)),
    case("a dtype that is a list", f"dtype of {GATE}", lambda: entry(dtype=["F32"])),
    case("a dtype with the escape codes of a terminal", f"dtype of {GATE}: found \\\\x1b", lambda: entry(dtype="\x1b[2J\x07")),
    case("a dtype of a hundred thousand characters", f"dtype of {GATE}: found xxx", lambda: entry(dtype="x" * 100_000)),
    case("a shape that is a number", f"shape of {GATE}: found 24", lambda: entry(shape=24)),
    case("a shape that is a text", f"shape of {GATE}: found 64", lambda: entry(shape="64")),
    case("a negative size", f"shape of {GATE}", lambda: entry(shape=[-6, -4])),
    case("a size of 6.0", f"shape of {GATE}", lambda: entry(shape=[6.0, 4])),
    case("a size that is true", f"shape of {GATE}", lambda: entry(shape=[True, 24])),
    case("a size that is a text", f"shape of {GATE}", lambda: entry(shape=["6", 4])),
    case("nine axes", f"shape of {GATE}", lambda: entry(shape=[6, 4, 1, 1, 1, 1, 1, 1, 1])),
    case("a product of 2^64", f"shape of {GATE}", lambda: entry(shape=[1 << 32, 1 << 32], data_offsets=[0, 0])),
    case("a product of 2^64 + 24, which wraps to the right one", f"shape of {GATE}", lambda: entry(shape=[(1 << 61) + 3, 8])),
    case("a huge axis behind one of zero", f"shape of {GATE}", lambda: entry(shape=[0, 1 << 61], data_offsets=[0, 0])),
    case("a terabyte", f"data_offsets of {GATE}", lambda: entry(shape=[1 << 19, 1 << 19])),
    case(
        "the terabyte's offsets too",
        "offset of|file size",
        lambda: entry(shape=[1 << 19, 1 << 19], data_offsets=[272, 272 + (1 << 40)]),
    ),
    case("offsets that are a number", f"data_offsets of {GATE}", lambda: entry(data_offsets=96)),
    case("three offsets", f"data_offsets of {GATE}", lambda: entry(data_offsets=[0, 96, 96])),
    case("offsets backwards", f"data_offsets of {GATE}", lambda: entry(data_offsets=[96, 0])),
    case("a negative offset", f"data_offsets of {GATE}", lambda: entry(data_offsets=[-96, 0])),
    case("offsets with fractions", f"data_offsets of {GATE}", lambda: entry(data_offsets=[0.0, 96.0])),
    case("a place four bytes short", f"data_offsets of {GATE}", lambda: entry(data_offsets=[224, 316])),
    case("a place beyond the file", f"offset of {NORM}", lambda: moved(NORM, 1 << 62)),
    case("a gap between two tensors", f"offset of {NORM}", lambda: moved(NORM, 4)),
    case("an overlap of two tensors", f"offset of {NORM}", lambda: moved(NORM, -4)),
    case("two tensors in one place", f"offset of {NORM}", lambda: moved(NORM, -DATA_BYTES + 16 + 80)),
    case("no tensors at all", "file size", lambda: file({})),
    case("no tensors and no weights", "tensors: found no model.embed_tokens.weight", lambda: file({}, 0)),
    case("a tensor under another name", "tensors: found no model.norm.weight", lambda: renamed(NORM, "model.norms.weight")),
    case("a tensor without a name", "tensors: found no model.norm.weight", lambda: renamed(NORM, "")),
    case("a name that is half a surrogate pair", "header: found 'utf-8'", lambda: renamed(NORM, "\ud800")),
    case(
        "a bias more",
        "tensors: found model.bias",
        lambda: file(
            header() | {"model.bias": {"dtype": "F32", "shape": [], "data_offsets": [DATA_BYTES, DATA_BYTES + 4]}},
            DATA_BYTES + 4,
        ),
    ),
    case("a matrix on its side", f"shape of {GATE}", lambda: entry(shape=[4, 6])),
    case("a matrix in one row", f"shape of {GATE}", lambda: entry(shape=[24])),
    case("half of the numbers in half precision", f"shape of {GATE}", lambda: entry(dtype="F16", shape=[12, 4])),
]
