"""Hostile GGUF files: the container lies about counts, lengths, types, shapes, places or alignment.

Among them, by their names there, the classes that llama.cpp's tests/test-gguf.cpp refuses, each in a file that is a whole model
but for that.
"""

import struct
from collections.abc import Callable

import gguf_bytes as hand
from hostile.case import Case

MAX_32, MAX_64 = (1 << 32) - 1, (1 << 64) - 1
ENTRIES = [hand.entry(key, *value) for key, value in hand.KEYS.items()]
SHAPES = {name: dims for name, (dims, _) in hand.TENSORS.items()}
NORM = "output_norm.weight"  # the last tensor
DATA_BYTES = sum(len(hand.padded(bytes(hand.n_bytes(dims, hand.F32)))) for dims in SHAPES.values())


def records(alignment: int = 32) -> list[bytes]:
    """The records of the sound file's tensors, or with places for another alignment."""
    found, offset = [], 0
    for name, dims in SHAPES.items():
        found.append(hand.record(name, dims, hand.F32, offset))
        offset += -(-hand.n_bytes(dims, hand.F32) // alignment) * alignment
    return found


def last(name: str | bytes = NORM, dims: tuple[int, ...] = (8,), kind: int = hand.F32, move: int = 0) -> list[bytes]:
    """The records of the sound file, but for the last one."""
    return [*records()[:-1], hand.record(name, dims, kind, DATA_BYTES - 32 + move)]


def file(
    more: bytes = b"", tensors: list[bytes] | None = None, n_keys: int | None = None, n_tensors: int | None = None,
    magic: bytes = b"GGUF", version: int = 3, n_data_bytes: int = DATA_BYTES,
) -> bytes:  # fmt: skip
    """The sound file, with another entry behind the others, other records, counts or first bytes."""
    entries = [*ENTRIES, more] if more else ENTRIES
    tensors = records() if tensors is None else tensors
    counts = (len(tensors) if n_tensors is None else n_tensors, len(entries) if n_keys is None else n_keys)
    head = magic + struct.pack("<IQQ", version, *counts)
    return hand.padded(head + b"".join([*entries, *tensors])) + bytes(n_data_bytes)


def case(fault: str, field: str, content: Callable[[], bytes]) -> Case:
    return Case(fault, field, lambda: {"model.gguf": content()}, "model.gguf")


def entry(fault: str, field: str, content: bytes) -> Case:
    """The sound file with one entry more."""
    return case(fault, field, lambda: file(content))


def tensor(fault: str, field: str, *arguments: object, **more: object) -> Case:
    """The sound file with another record of the last tensor."""
    return case(fault, field, lambda: file(tensors=last(*arguments, **more)))  # pyright: ignore[reportArgumentType]


def array(kind: int, n_items: int, items: bytes = b"", key: str = "list") -> bytes:
    return hand.text(key) + struct.pack("<IIQ", hand.ARRAY, kind, n_items) + items


def aligned(value: int, kind: int = hand.UINT32) -> bytes:
    return hand.entry("general.alignment", kind, value)


def full() -> bytes:
    """The limit of keys and tensors, of no use."""
    keys = [hand.entry(str(i), hand.UINT8, 0) for i in range(1 << 12)]
    return hand.padded(hand.header(keys, [hand.record(str(i), (32,), hand.I8, 32 * i) for i in range(10_000)]))


SOUND = {"container": case("", "", file), "one more key": entry("", "", hand.entry("more", hand.UINT64, 7))}

CASES = [
    # as llama.cpp's test has them
    case("header: bad magic", "header field dim", lambda: file(magic=b"FUGG")),
    case("header: bad version 0", "version: found 0", lambda: file(version=0)),
    case("header: bad version 1", "version: found 1", lambda: file(version=1)),
    case("header: bad version, of the future", "version: found 4", lambda: file(version=4)),
    case("header: bad number of tensors", "number of tensors: found 18446744073709551615", lambda: file(n_tensors=MAX_64)),
    case("header: bad number of keys", "number of metadata keys: found 18446744073709551615", lambda: file(n_keys=MAX_64)),
    entry("key: bad size", "length of metadata key 7", struct.pack("<Q", MAX_64) + b"key"),
    entry("key: empty", "metadata key 7: found an empty key", hand.entry("", hand.UINT32, 1)),
    entry("key: bad type", "type of key: found 13", hand.text("key") + struct.pack("<II", 13, 0)),
    entry("key: duplicate", "metadata key 7: found llama.block_count twice", hand.entry("llama.block_count", hand.UINT32, 1)),
    entry("key: bad alignment", "general.alignment: found 13", aligned(13)),
    entry("key: alignment of the wrong type", "general.alignment: found 32", aligned(32, hand.INT32)),
    tensor("tensor: bad name size", "length of name of tensor 10: found 64 bytes", "n" * 64),
    tensor("tensor: bad number of axes", f"axes of {NORM}: found 5", NORM, (8, 1, 1, 1, 1)),
    tensor("tensor: bad shape", f"shape of {NORM}", NORM, (MAX_64,)),
    tensor("tensor: more weights than 63 bits", f"shape of {NORM}", NORM, (1 << 33, 1 << 33)),
    tensor("tensor: more bytes than 63 bits", f"shape of {NORM}", NORM, (1 << 31, 1 << 30), hand.I64),
    tensor("tensor: bytes that wrap when padded", f"shape of {NORM}", NORM, (4, (1 << 30) - 1, (1 << 30) + 1)),
    tensor("tensor: bad type", f"type of {NORM}: found 43", NORM, (8,), 43),
    tensor("tensor: bad offset", f"offset of {NORM}", move=32),
    tensor("tensor: duplicate name", "name of tensor 10: found blk.0.attn_norm.weight twice", "blk.0.attn_norm.weight"),
    case("tensor: bad alignment", "general.alignment: found 48", lambda: file(aligned(48), records(48))),
    case("tensor: inconsistent alignment", "offset of blk.0.attn_norm.weight", lambda: file(aligned(64), records(32))),
    case("data: not enough", f"data of {NORM}: found the end", lambda: file()[:-1]),
    case("data: bad alignment", "general.alignment: found 0", lambda: file(aligned(0))),
    case("data: offsets of another alignment", "offset of blk.0.attn_norm.weight", lambda: file(tensors=records(64))),
    case(
        "data: sizes whose sum wraps",
        "data of a: found the end",
        lambda: file(tensors=[hand.record("a", ((1 << 63) - 64,), hand.I8), hand.record("b", (64,), hand.I8, (1 << 63) - 64)]),
    ),
    # cut off
    case("the magic and nothing else", "version: found the end", lambda: b"GGUF"),
    case("cut off in the version", "version: found the end", lambda: file()[:6]),
    case("cut off before the counts", "number of tensors: found the end", lambda: file()[:8]),
    case("cut off between the counts", "number of metadata keys: found the end", lambda: file()[:20]),
    case("cut off in a key", "metadata key 0: found the end", lambda: file()[:40]),
    case("cut off in a record", ".*found the end", lambda: file()[:500]),
    case("no data", "data of token_embd.weight: found the end", lambda: file(n_data_bytes=0)),
    case("half of the data", "data of blk.0.ffn_norm.weight: found the end", lambda: file(n_data_bytes=DATA_BYTES // 2)),
    case("one key less than is said", "length of name of tensor 0", lambda: file(n_keys=8)),
    case("one key more than is said", "axes of llama.attention.layer_norm_rms_epsilon: found 6", lambda: file(n_keys=6)),
    case("one tensor more than is said", "tensors: found no output_norm.weight", lambda: file(n_tensors=10)),
    case("one tensor more than there is", "length of name of tensor 11|offset of ", lambda: file(n_tensors=12)),
    case("twenty thousand keys", "number of metadata keys", lambda: file(n_keys=20_000)),
    case("twenty thousand tensors", "number of tensors", lambda: file(n_tensors=20_000)),
    case("counts of what is not there", "length of metadata key 0", lambda: b"GGUF" + struct.pack("<IQQ", 3, 9, 4_000)),
    case("as many keys and tensors as are allowed", "data of", full),
    # byte order, versions
    case("big-endian", "version: found 3 in big-endian", lambda: b"GGUF" + struct.pack(">IQQ", 3, 11, 7) + bytes(1000)),
    case("the magic of ggml, long before", "header field dim", lambda: file(magic=b"lmgg")),
    case("version 2^32 - 1", "version: found 4294967295", lambda: file(version=MAX_32)),
    case("version 1 with its lengths of 32 bits", "version: found 1", lambda: b"GGUF" + struct.pack("<III", 1, 11, 7) * 50),
    # keys and values
    entry("a key of 70,000 bytes", "length of metadata key 7: found 70000", hand.entry("k" * 70_000, hand.UINT32, 1)),
    entry("a key whose length wraps the place", "length of metadata key 7", struct.pack("<Q", MAX_64 - 300) + b"key"),
    entry("a key that is no UTF-8", "metadata key 7: found b'", hand.entry(b"\xff\xfe", hand.UINT32, 1)),
    entry("a key with escape codes", r"type of \\x1b\[2J: found 99", hand.text("\x1b[2J") + struct.pack("<I", 99)),
    entry("a type of 2^32 - 1", "type of key: found 4294967295", hand.text("key") + struct.pack("<I", MAX_32)),
    entry("a text beyond the file", "key: found the end", hand.text("key") + struct.pack("<IQ", hand.STRING, 1 << 20)),
    entry("a text of 2^63 bytes", "length of key: found 922", hand.text("key") + struct.pack("<IQ", hand.STRING, 1 << 63)),
    entry("a text of 2^64 - 1 bytes", "length of key", hand.text("key") + struct.pack("<IQ", hand.STRING, MAX_64)),
    entry("an array of 2^63 numbers, which hangs others", "length of list: found 922", array(hand.UINT8, 1 << 63)),
    entry("an array of 2^62 doubles, whose bytes wrap", "length of list", array(hand.FLOAT64, 1 << 62)),
    entry("an array beyond the file", "list: found the end", array(hand.FLOAT32, 10_000)),
    entry("an array of half a million numbers", "length of list: found 500000", array(hand.FLOAT32, 500_000)),
    entry("an array of no type", "type of list: found 13", array(13, 1)),
    entry("an array of arrays", "type of list: found an array of arrays", array(hand.ARRAY, 1, array(hand.UINT8, 1))),
    entry("an array of 2^64 - 1 texts", "length of list", array(hand.STRING, MAX_64)),
    entry("an array of a million texts that are not there", "list: found the end", array(hand.STRING, 1_000_000)),
    entry("a text in an array of 2^62 bytes", "list: found the end", array(hand.STRING, 1, struct.pack("<Q", 1 << 62))),
    entry("texts whose lengths wrap around", "list: found the end", array(hand.STRING, 2, struct.pack("<Q", MAX_64 - 7) * 2)),
    entry("an alignment of 2^31", "offset of blk.0", aligned(1 << 31)),
    entry("an alignment of 33", "general.alignment: found 33", aligned(33)),
    entry("an alignment that is a text", "general.alignment: found 32", hand.entry("general.alignment", hand.STRING, "32")),
    entry("an alignment that is a list", r"general.alignment: found \[", array(hand.UINT8, 1, b"\x20", "general.alignment")),
    entry("an alignment of -32", "general.alignment: found -32", aligned(-32, hand.INT32)),
    # tensors
    case("a name of 2^64 - 1 bytes", "length of name of tensor 0", lambda: file(tensors=[struct.pack("<Q", MAX_64)])),
    tensor("a name that is no UTF-8", "name of tensor 10: found b'", b"\xc3\x28"),
    tensor("a name with escape codes and a bad type", r"type of \\x1b\[2J: found 99", "\x1b[2J", (8,), 99),
    case("2^32 - 1 axes", "axes of a: found 4294967295", lambda: file(tensors=[hand.text("a") + struct.pack("<I", MAX_32)])),
    tensor("a type that was taken out", f"type of {NORM}: found 4", NORM, (8,), 4),
    tensor("rows that are no whole blocks", f"shape of {NORM}: found rows of 8", NORM, (8,), hand.Q8_0),
    tensor("a shape that wraps to 4", f"shape of {NORM}", NORM, (4194305, 4194305, 211106198978564)),
    tensor("a huge axis behind one of 0", f"shape of {NORM}", NORM, (0, MAX_64)),
    tensor("an axis of 0", f"shape of {NORM}", NORM, (0,)),
    tensor("a tensor of a terabyte", f"data of {NORM}: found the end", NORM, (1 << 38,)),
    tensor("an offset inside the tensor before it", f"offset of {NORM}", move=-32),
    tensor("an offset that is not aligned", f"offset of {NORM}", move=4),
    tensor("an offset of 2^64 - 1", f"offset of {NORM}", move=MAX_64 - DATA_BYTES + 32),
    case("two tensors exchanged", "offset of", lambda: file(tensors=records()[::-1])),
]
