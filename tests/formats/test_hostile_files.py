"""Thousands of damaged files from a seed: each is read, or refused with one line; nothing hangs, nothing grows.

Damage knows the layout: most random flips die on the first check, so header integers, lengths and tags get extreme values too.
"""

import json
import random
import re
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from llamita.config import ModelConfig
from llamita.errors import LlamitaError
from llamita.formats import huggingface, huggingface_writer, llama2c, llama2c_writer
from llamita.formats.safetensors import read_arrays
from llamita.model import random_model, tensor_shapes
from llamita.tokenizer.conversion import to_llama2c
from llamita.tokenizer.llama2c import parse_tokenizer_bin, serialize_tokenizer_bin
from llamita.tokenizer.protobuf import varint
from llamita.tokenizer.sentencepiece import parse_sentencepiece

INTEGERS = [0, 1, 2, 3, 7, 8, 64, 127, 128, 255, 256, 65535, 65536, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 0x616B3432]
JSON_VALUE = re.compile(rb'-?[0-9][0-9.e+-]*|true|false|null|"[^"]*"')
JSON_VALUES = [
    *(b"%d" % number for number in [*INTEGERS, -1, 1 << 63, 10**400]),
    *(
        b"1.5",
        b"1e999",
        b"-1e-9",
        b"NaN",
        b"true",
        b"null",
        b"[]",
        b"{}",
        b"[[1]]",
        b'""',
        b'"\\n\\u0000"',
        b'"F32"',
        b'"..", "a"',
    ),
    *(b"9" * 5000, b"[" * 5000, b'{"a":' * 5000, b'"' + b"x" * 5000 + b'"'),
]
N_FILES = 1000
HEAP_LIMIT_BYTES = 4 << 20  # for files of some kilobytes

Damage = Callable[[bytearray, random.Random], None]


def flip(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def insert(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.randbytes(rng.randrange(1, 9))


def remove(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data) + 1)
    del data[place : place + rng.randrange(1, 9)]


def overwrite_header(data: bytearray, rng: random.Random) -> None:
    """Put an extreme integer where a header of llama2.c has one; group_size lies at byte 37."""
    place = rng.choice([*range(0, 37, 4), 37])
    if place + 4 <= len(data):
        struct.pack_into("<I", data, place, rng.choice(INTEGERS))


def overwrite_anywhere(data: bytearray, rng: random.Random) -> None:
    if len(data) >= 4:
        struct.pack_into("<I", data, rng.randrange(len(data) - 3), rng.choice(INTEGERS))


def overwrite_varint(data: bytearray, rng: random.Random) -> None:
    """Put another tag, length or number where a protobuf may have one."""
    if data:
        place = rng.randrange(len(data))
        data[place : place + 1] = varint(rng.choice([*INTEGERS, (1 << 64) - 1, rng.randrange(64)]))


def damaged(data: bytes, rng: random.Random, damages: list[Damage]) -> bytes:
    """A copy with one to three damages."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        rng.choice(damages)(content, rng)
    return bytes(content)


def peak_bytes(action: Callable[[], object]) -> int:
    """The most memory that an action held at once."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def read_or_refuse(action: Callable[[], object]) -> bool:
    """Whether it was read; anything but a LlamitaError of one line fails the test."""
    line = None
    try:
        action()
    except LlamitaError as error:
        line = str(error)
    assert line is None or line.isprintable()  # a line end is not printable
    return line is None


@pytest.mark.parametrize("version", [0, 1, 2])
def test_damaged_models_are_read_or_refused(tmp_path, version):
    config = ModelConfig(width=8, n_layers=2, n_heads=2, n_kv_heads=1, mlp_width=12, vocab_size=9, context=6)
    path = tmp_path / "damaged.bin"
    llama2c_writer.write(random_model(config), path, version)
    good, rng = path.read_bytes(), random.Random(version)

    def read() -> None:
        with np.errstate(all="ignore"):  # damaged weights may be anything
            for tensor in llama2c.read(path).validate().tensors.values():
                tensor.dequantize()

    n_read = 0
    for i in range(N_FILES):
        path.write_bytes(damaged(good, rng, [flip, cut, insert, remove, *[overwrite_header] * 6]))
        n_read += read_or_refuse(read)
        if i % 25 == 0:
            assert peak_bytes(lambda: read_or_refuse(read)) < HEAP_LIMIT_BYTES
    assert 0 < n_read < N_FILES


def overwrite_json_value(data: bytearray, rng: random.Random) -> None:
    """Put an extreme value in place of one number or word of a JSON text."""
    if values := list(JSON_VALUE.finditer(data)):
        place = rng.choice(values)
        data[place.start() : place.end()] = rng.choice(JSON_VALUES)


def write_with_header(path: Path, header: bytes, rest: bytes) -> None:
    """A safetensors file whose length of the header is right, so that the header itself is looked at."""
    path.write_bytes(struct.pack("<Q", len(header)) + header + rest)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a small untied model, and an index of shards that lists all of it."""
    config = ModelConfig(8, 2, 2, 1, 12, vocab_size=9, context=6, tied_embedding=False)
    huggingface_writer.write(random_model(config), tmp_path / "model")
    names = [huggingface.huggingface_name(name) for name in tensor_shapes(config)]
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-1-of-1.safetensors")}
    (tmp_path / "model" / huggingface.INDEX_NAME).write_text(json.dumps(index))
    return tmp_path / "model"


def test_damaged_headers_of_safetensors_are_read_or_refused(folder):
    path = folder / huggingface.WEIGHTS_NAME
    good, rng = path.read_bytes(), random.Random(6)
    end = 8 + struct.unpack_from("<Q", good)[0]
    n_read = 0
    for i in range(2 * N_FILES):
        if i % 2:
            path.write_bytes(damaged(good[:end], rng, [flip, cut, insert, remove, overwrite_anywhere]) + good[end:])
        else:
            header = damaged(good[8:end], rng, [flip, insert, remove, *[overwrite_json_value] * 6])
            write_with_header(path, header, good[end:])
        n_read += read_or_refuse(lambda: huggingface.read(folder).validate())
        if i % 25 == 0:
            assert peak_bytes(lambda: read_or_refuse(lambda: read_arrays(path))) < HEAP_LIMIT_BYTES
    assert 0 < n_read < 2 * N_FILES


@pytest.mark.parametrize("name", [huggingface.CONFIG_NAME, huggingface.INDEX_NAME])
def test_damaged_json_of_a_folder_is_read_or_refused(folder, name):
    if name == huggingface.INDEX_NAME:
        (folder / huggingface.WEIGHTS_NAME).rename(folder / "model-1-of-1.safetensors")
    good, rng = (folder / name).read_bytes(), random.Random(7)
    n_read = 0
    for i in range(2 * N_FILES):
        (folder / name).write_bytes(damaged(good, rng, [flip, cut, insert, remove, *[overwrite_json_value] * 12]))
        n_read += read_or_refuse(lambda: huggingface.read(folder).validate())
        if i % 25 == 0:
            assert peak_bytes(lambda: read_or_refuse(lambda: huggingface.read(folder))) < HEAP_LIMIT_BYTES
    assert 0 < n_read < 2 * N_FILES


def encode_and_decode(tokenizer) -> None:
    with suppress(LlamitaError):
        ids = tokenizer.encode("Once upon a time 日本 😀\n", bos=True)
        assert all(0 <= token_id < tokenizer.vocab_size for token_id in ids)
    tokenizer.decode(range(tokenizer.vocab_size))


def test_damaged_tokenizer_bins_are_read_or_refused(toy_sentencepiece_bytes):
    good = serialize_tokenizer_bin(to_llama2c(parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")))
    rng = random.Random(3)
    n_read = 0
    for i in range(N_FILES):
        data = damaged(good, rng, [flip, cut, insert, remove, *[overwrite_anywhere] * 4])
        n_read += read_or_refuse(lambda data=data: encode_and_decode(parse_tokenizer_bin(data, "t.bin")))
        if i % 25 == 0:
            action = lambda data=data: read_or_refuse(lambda: parse_tokenizer_bin(data, "t.bin"))  # noqa: E731
            assert peak_bytes(action) < HEAP_LIMIT_BYTES
    assert 0 < n_read < N_FILES


def test_damaged_sentencepiece_models_are_read_or_refused_and_never_reach_the_library_unchecked(toy_sentencepiece_bytes):
    rng = random.Random(4)
    # the end of the file, where the rules are, is damaged as often as the pieces
    pieces, rules = toy_sentencepiece_bytes[:-200], toy_sentencepiece_bytes[-200:]
    n_read = 0
    for i in range(N_FILES):
        damages = [flip, cut, insert, remove, *[overwrite_varint] * 4]
        data = damaged(pieces, rng, damages) + rules if i % 2 else pieces + damaged(rules, rng, damages)
        n_read += read_or_refuse(lambda data=data: encode_and_decode(parse_sentencepiece(data, "t.model")))
        if i % 25 == 0:
            action = lambda data=data: read_or_refuse(lambda: parse_sentencepiece(data, "t.model"))  # noqa: E731
            assert peak_bytes(action) < HEAP_LIMIT_BYTES
    assert 0 < n_read < N_FILES


def test_a_damaged_table_of_replacements_never_crashes_the_library(shared_data):
    good = Path(shared_data / "tokenizers/sentencepiece_test/test_model.model").read_bytes()
    start = good.index(b"nfkc") + 8  # the table itself, in the normalizer's rules
    rng = random.Random(5)
    n_read = 0
    for i in range(150):
        data = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            place = start + 4 * rng.randrange(1, 40 if i % 2 else 40_000)  # the root and its children, or anywhere
            struct.pack_into("<I", data, place, rng.choice([rng.getrandbits(32), rng.choice(INTEGERS)]))
        n_read += read_or_refuse(lambda data=data: encode_and_decode(parse_sentencepiece(bytes(data), "t.model")))
    assert 0 < n_read < 150
