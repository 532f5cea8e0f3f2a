"""GGUF's container: the classes of llama.cpp's tests/test-gguf.cpp, cuts everywhere, and hostile lengths at no cost."""

import random
import struct
import time
import tracemalloc

import pytest

import gguf_bytes as hand
from llamita.errors import ModelFileError
from llamita.formats.gguf_file import Header, check_data, parse_header, serialize_header, tensor_bytes
from llamita.formats.gguf_types import TENSOR_TYPES, TENSOR_TYPES_BY_NAME

ENTRIES = [
    hand.entry("general.architecture", hand.STRING, "llama"),
    *(hand.entry(f"number.{kind}", kind, 1) for kind in hand.FORMATS),
    *(hand.entry(f"list.{kind}", hand.ARRAY, (kind, [1, 0, 1])) for kind in hand.FORMATS),
    hand.entry("texts", hand.ARRAY, (hand.STRING, ["one", "", "drei 😀"])),
    hand.entry("empty", hand.ARRAY, (hand.STRING, [])),
]
DATA = bytes(range(128)) + bytes(range(34)) + bytes(30) + bytes(7)  # the last tensor is not padded
RECORDS = [hand.record("a", (8, 4)), hand.record("b", (32,), hand.Q8_0, 128), hand.record("c", (7, 1, 1, 1), hand.I8, 192)]
SOUND = hand.padded(hand.header(ENTRIES, RECORDS)) + DATA


def parse(data: bytes, with_data: bool = True) -> Header:
    header = parse_header("m.gguf", data)
    if with_data:
        check_data("m.gguf", data, header)
    return header


def aligned(value: int, kind: int = hand.UINT32) -> list[bytes]:
    return [hand.entry("general.alignment", kind, value)]


def test_all_types_of_values_are_decoded():
    metadata = parse(SOUND).metadata
    assert len(metadata) == len(list(metadata)) == len(ENTRIES)
    assert metadata["general.architecture"] == "llama"
    for kind in hand.FORMATS:
        assert metadata[f"number.{kind}"] == 1
        assert metadata[f"list.{kind}"] == [1, 0, 1]
        expected = bool if kind == hand.BOOL else float if kind in (hand.FLOAT32, hand.FLOAT64) else int
        assert type(metadata[f"number.{kind}"]) is expected
    assert metadata["texts"] == ["one", "", "drei 😀"]
    assert metadata["empty"] == []
    assert "number.4" in metadata
    assert "number" not in metadata
    assert metadata.get("number") is None


def test_tensors_lie_where_the_header_puts_them():
    header = parse(SOUND)
    begin = len(SOUND) - len(DATA)
    assert {
        name: (place.kind.name, place.shape, place.offset - begin, place.n_bytes) for name, place in header.places.items()
    } == {
        "a": ("f32", (4, 8), 0, 128),
        "b": ("q8_0", (32,), 128, 34),
        "c": ("i8", (1, 1, 1, 7), 192, 7),
    }


# The classes that llama.cpp's test-gguf.cpp accepts: (file, whether its data are there)
ACCEPTED = {
    "header empty": (hand.padded(hand.header([], [])), True),
    "kv success": (hand.header(ENTRIES, []), True),
    "tensors success": (hand.padded(hand.header(ENTRIES, RECORDS)), False),
    "tensors zero dim": (hand.padded(hand.header([], [hand.record("a", (8, 0)), hand.record("b", (8,))])), False),
    "tensors custom align": (hand.header(aligned(1), [hand.record("a", (1,)), hand.record("b", (1,), hand.F32, 4)]), False),
    "data success": (SOUND, True),
    "data custom align": (
        hand.header(aligned(1), [hand.record("a", (3,), hand.I8), hand.record("b", (1,), 0, 3)]) + b"1234567",
        True,
    ),
    # and what its model loader accepts beyond
    "version 2": (SOUND.replace(b"GGUF\3", b"GGUF\2"), True),
    "bytes behind the data": (SOUND + b"anything", True),
    "no axes": (hand.padded(hand.header([], [hand.record("a", ())])) + b"1234", True),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_llama_cpp_accepts_is_accepted(name):
    parse(*ACCEPTED[name])


TWO = [hand.record("a", (8,)), hand.record("b", (8,), hand.F32, 32)]
HUGE = 0x7FFFFFFFFFFFFFC0
# and those that it refuses -> a part of our message
REFUSED = {
    "header bad magic": (SOUND.replace(b"GGUF", b"FUGG"), "magic: found b'FUGG', expected GGUF"),
    "header version 0": (SOUND.replace(b"GGUF\3", b"GGUF\0"), "version: found 0, expected 2 or 3"),
    "header version 1": (SOUND.replace(b"GGUF\3", b"GGUF\1"), "version: found 1, expected 2 or 3; convert"),
    "header version future": (SOUND.replace(b"GGUF\3", b"GGUF\4"), "version: found 4, expected 2 or 3"),
    "header n_tensors": (b"GGUF" + struct.pack("<IQQ", 3, 2**64 - 1, 0), "number of tensors: found 18446744073709551615"),
    "header n_kv": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**64 - 1), "number of metadata keys: found 18446744073709551615"),
    "kv bad key size": (hand.header([b"\xff" * 8 + b"key"], []), "length of metadata key 0: found 18446744073709551615 bytes"),
    "kv empty key": (hand.header([hand.entry("", hand.UINT32, 1)], []), "metadata key 0: found an empty key"),
    "kv bad type": (hand.header([hand.text("key") + struct.pack("<II", 13, 0)], []), "type of key: found 13"),
    "kv duplicate key": (hand.header([ENTRIES[0]] * 2, []), "metadata key 1: found general.architecture twice"),
    "kv bad align": (hand.header(aligned(13), []), "general.alignment: found 13, expected a power of two"),
    "kv wrong type align": (
        hand.header(aligned(32, hand.INT32), []),
        "general.alignment: found 32, expected a power of two as",
    ),
    "tensors bad name size": (hand.header([], [hand.record("n" * 64, (8,))]), "length of name of tensor 0: found 64 bytes"),
    "tensors bad n_dims": (hand.header([], [hand.record("a", (1,) * 5)]), "axes of a: found 5, expected at most 4"),
    "tensors bad shape": (hand.header([], [hand.record("a", (2**64 - 1,))]), "shape of a: found"),
    "tensors ne too big": (hand.header([], [hand.record("a", (2**33, 2**33))]), "shape of a: found"),
    "tensors nbytes too big": (hand.header([], [hand.record("a", (1525000000,) * 2, hand.I64)]), "shape of a: found"),
    "tensors nbytes pad wrap": (hand.header([], [hand.record("a", (4, 2**30 - 1, 2**30 + 1))]), "shape of a: found"),
    "tensors bad type": (hand.header([], [hand.record("a", (8,), 43)]), "type of a: found 43"),
    "tensors bad offset": (hand.header([], [hand.record("a", (8,), 0, 2**64 - 1)]), "offset of a: found 18446744073709551615"),
    "tensors duplicate name": (hand.header([], TWO[:1] * 2), "name of tensor 1: found a twice"),
    "tensors bad align": (hand.header(aligned(13), TWO), "general.alignment: found 13"),
    "tensors inconsistent align": (hand.header(aligned(1), [TWO[0], hand.record("b", (8,), 0, 64)]), "offset of b: found 64"),
    "data not enough": (SOUND[:-1], "data of c: found the end of the file"),
    "data bad align": (hand.header(aligned(13), TWO) + bytes(64), "general.alignment: found 13"),
    "data inconsistent align": (hand.header(aligned(64), TWO) + bytes(256), "offset of b: found 32, expected 64"),
    "data mem size overflow": (
        hand.padded(hand.header([], [hand.record("a", (HUGE,), hand.I8), hand.record("b", (HUGE,), hand.I8, HUGE)]))
        + bytes(32),
        "data of a: found the end of the file",
    ),
    # and what others stumble over
    "big-endian": (
        b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "version: found 3 in big-endian order, expected a little-endian file",
    ),
    "array of arrays": (
        hand.header([hand.text("k") + struct.pack("<IIQ", 9, 9, 0)], []),
        "type of k: found an array of arrays",
    ),
    "array of 2**63 that hangs gguf 0.19": (
        hand.header([hand.text("k") + struct.pack("<IIQ", 9, 0, 2**63)], []),
        "length of k: found 9223372036854775808, expected at most",
    ),
    "a million axes": (hand.header([], [hand.text("a") + struct.pack("<I", 10**6)]), "axes of a: found 1000000"),
    "shape that wraps to 4": (hand.header([], [hand.record("a", (4194305, 4194305, 211106198978564))]), "shape of a: found"),
    "more declared than there is": (hand.padded(hand.header([], [hand.record("a", (5000000,))])) + bytes(64), "data of a"),
    "rows of half a block": (hand.header([], [hand.record("a", (48, 2), hand.Q8_0)]), "shape of a: found rows of 48"),
    "removed type": (hand.header([], [hand.record("a", (32,), 4)]), "type of a: found 4"),
    "key that is no text": (hand.header([hand.entry(b"\xff\xfe", hand.UINT32, 1)], []), r"metadata key 0: found b'\xff\xfe'"),
    "name that is no text": (hand.header([], [hand.record(b"\xff", (8,))]), r"name of tensor 0: found b'\xff'"),
    "long value": (hand.header([hand.text("k") + struct.pack("<IQ", 8, 1 << 30)], []), "length of k: found 1073741824 bytes"),
    "texts past the end": (
        hand.header([hand.text("k") + struct.pack("<IIQQ", 9, 8, 2, 1 << 62)], []),
        "k: found the end of the file",
    ),
    "texts whose lengths wrap": (
        hand.header([hand.text("k") + struct.pack("<IIQQ", 9, 8, 2, 2**64 - 8)], []),
        "k: found the end of the file",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_refuses_and_more_is_refused_at_once(name):
    data, message = REFUSED[name]
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ModelFileError) as caught:
        parse(data)
    seconds, (_, peak_bytes) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(caught.value).startswith(f"m.gguf: {message}")
    assert str(caught.value).isprintable()
    assert seconds < 0.25
    assert peak_bytes < 1 << 20


def test_every_cut_is_refused():
    for n_bytes in range(len(SOUND)):
        with pytest.raises(ModelFileError, match=r"m.gguf: .*found the end of the file"):
            parse(SOUND[:n_bytes])


def test_padding_behind_the_last_tensor_may_be_missing():
    data = hand.padded(hand.header([], TWO[:1])) + bytes(32)
    assert parse(data).places["a"].n_bytes == 32
    with pytest.raises(ModelFileError, match="data of a"):
        parse(data[:-1])


def test_text_that_is_no_utf8_is_refused_when_it_is_asked_for():
    metadata = parse(hand.header([hand.entry("k", hand.ARRAY, (hand.STRING, ["good", b"b\xffd"]))], [])).metadata
    with pytest.raises(ModelFileError, match=r"k: found b'b\\xffd' as item 1, expected text in UTF-8"):
        metadata["k"]


def test_a_long_vocabulary_that_ends_badly_costs_no_memory():
    tokens = struct.pack("<Q", 2) + b"ab"
    data = hand.header([hand.text("k") + struct.pack("<IIQ", 9, 8, 20001) + tokens * 20000], [])
    tracemalloc.start()
    with pytest.raises(ModelFileError, match="k: found the end of the file"):
        parse(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1 << 14


def test_a_vocabulary_of_a_hundred_thousand_is_read_fast():
    tokens = [f"token{i}" for i in range(100_000)]
    data = hand.header([hand.entry("k", hand.ARRAY, (hand.STRING, tokens))], [])
    started = time.process_time()
    assert parse(data).metadata["k"] == tokens
    assert time.process_time() - started < 0.5


def test_random_files_of_all_types_are_read_as_they_were_made():
    rng = random.Random(0)
    for _ in range(20):
        alignment = 1 << rng.randrange(8)
        records, expected, offset = [], [], 0
        for i in range(rng.randrange(1, 12)):
            kind = rng.choice(list(TENSOR_TYPES.values()))
            shape = (*(rng.randrange(1, 4) for _ in range(rng.randrange(4))), kind.weights * rng.randrange(1, 5))
            records.append(hand.record(f"t{i}", shape[::-1], kind.code, offset))
            expected.append((f"t{i}", kind, shape))
            offset += len(hand.padded(bytes(tensor_bytes(kind, shape)), alignment))
        data = hand.padded(hand.header([*ENTRIES, *aligned(alignment)], records), alignment) + bytes(offset)
        places = parse(data).places
        assert [(name, place.kind, place.shape) for name, place in places.items()] == expected


def test_a_serialized_header_is_parsed_as_it_was():
    metadata = {"a": "text", "b": 7, "c": -0.5, "d": True, "e": ["x", "", "é"], "f": [-1, 2], "g": [0.25], "h": [True, False]}
    forms = {"x": (TENSOR_TYPES_BY_NAME["q4_0"], (3, 64)), "y": (TENSOR_TYPES_BY_NAME["f32"], (5,))}
    data = serialize_header(metadata, forms)
    assert len(data) % 32 == 0
    header = parse_header("m.gguf", data)
    assert dict(header.metadata) == metadata
    assert {name: (place.kind, place.shape) for name, place in header.places.items()} == forms
    assert [place.offset - len(data) for place in header.places.values()] == [0, 128]


def test_the_table_of_types_is_that_of_the_gguf_library():
    from gguf import GGML_QUANT_SIZES

    theirs = {kind.value: (kind.name.lower(), *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    theirs[9] = ("q8_1", 32, 36)  # the library has 40, ggml.h's scales became float16
    ours = {code: (kind.name, kind.weights, kind.n_bytes) for code, kind in TENSOR_TYPES.items()}
    assert {code: ours[code] for code in theirs} == theirs
