"""llama2.c's model files, read: v0 (float32, what `run` reads), v1 (float32) and v2 (int8 groups, what `runq` reads).

A header of small integers, then the tensors one behind the other; the file's size follows from the header and must be equal.
Reading maps the file: every tensor is a view, and nothing but the header is touched. llama2c_writer.py is the other direction;
both share `layout`. Source: export.py, run.c and runq.c of llama2.c. Knows no tokenizer.
"""

import mmap
import struct
from os import PathLike, fspath
from typing import Any, NamedTuple

import numpy as np

from llamita.config import LIMITS, ModelConfig
from llamita.errors import ModelFileError
from llamita.files import map_file
from llamita.model import Model
from llamita.quant import Tensor

MAGIC = 0x616B3432  # "ak42" in llama2.c's words; the bytes on disk are "24ka"
V0_HEADER_BYTES = 28
HEADER_BYTES = 256  # of v1 and v2
ROPE_TABLES = "rope tables"  # v0 carries cosines and sines, which every reader skips

# llama2.c's name of each header integer, in file order -> the field of ModelConfig
HEADER_FIELDS = {
    "dim": "width",
    "hidden_dim": "mlp_width",
    "n_layers": "n_layers",
    "n_heads": "n_heads",
    "n_kv_heads": "n_kv_heads",
    "vocab_size": "vocab_size",
    "max_seq_len": "context",
}

_ATTENTION = tuple(f"layers.*.attention.{part}" for part in ("query", "key", "value", "output"))
_MLP = tuple(f"layers.*.mlp.{part}" for part in ("gate", "down", "up"))  # w1, w2, w3
_V0_ORDER = (
    *("embedding", "layers.*.attention_norm", *_ATTENTION, "layers.*.mlp_norm", *_MLP),
    *("norm", ROPE_TABLES, "head"),
)
_V1_ORDER = ("layers.*.attention_norm", "layers.*.mlp_norm", "norm", "embedding", *_ATTENTION, *_MLP, "head")


class Header(NamedTuple):
    """What the first bytes of a file say; group is 1 where nothing is quantized."""

    version: int
    config: ModelConfig
    group: int


class Place(NamedTuple):
    """Where one tensor lies. dtype is "f32", or "q8_0": all int8 weights, then all float32 scales."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    n_bytes: int


def read(path: str | PathLike[str]) -> Model:
    """Read a v0, v1 or v2 file, whichever it is, as a Model of read-only views without a tokenizer.

    Raises ModelFileError unless header and file size fit exactly.
    """
    mapping = map_file(path)
    version, config, group = parse_header(path, mapping)
    places, n_bytes = layout(config, version, group)
    if len(mapping) != n_bytes:
        state = "it was cut off" if len(mapping) < n_bytes else "it has bytes too many"
        expected = f"{n_bytes} as its v{version} header says"
        raise ModelFileError(path, "file size", f"{len(mapping)} bytes", expected, f"{state}, or it is no llama2.c model")
    tensors = {place.name: _view(mapping, place, group) for place in places}
    tables = tensors.pop(ROPE_TABLES).data.reshape(2, config.context, -1) if version == 0 else None
    return Model(config, tensors, name=fspath(path), source_format=f"llama2.c v{version}", rope_tables=tables)


def parse_header(path: str | PathLike[str], data: bytes | mmap.mmap) -> Header:
    """Parse and check the header of a file's content; raise ModelFileError at a field that no Llama can have."""
    if len(data) < V0_HEADER_BYTES:
        raise ModelFileError(path, "file size", f"{len(data)} bytes", f"a header of at least {V0_HEADER_BYTES}")
    if struct.unpack_from("<I", data)[0] != MAGIC:
        numbers = struct.unpack_from("<7i", data)
        return Header(0, _config(path, numbers, tied=numbers[5] > 0), 1)  # an untied head is written as a negative vocabulary
    if len(data) < HEADER_BYTES:
        raise ModelFileError(path, "file size", f"{len(data)} bytes", f"a header of {HEADER_BYTES}")
    _, version, *numbers, shared = struct.unpack_from("<Ii7iB", data)
    if version not in (1, 2):
        raise ModelFileError(path, "version", version, "1 or 2 (0 has no magic)")
    if shared not in (0, 1):
        raise ModelFileError(path, "shared_classifier", shared, "0 or 1")
    if numbers[5] < 1:
        raise ModelFileError(path, "header field vocab_size", numbers[5], f"1 to {LIMITS['vocab_size']}")
    config = _config(path, tuple(numbers), tied=shared == 1)
    group = struct.unpack_from("<i", data, 37)[0] if version == 2 else 1
    if any(data[41 if version == 2 else 37 : HEADER_BYTES]):
        raise ModelFileError(path, "header padding", "other bytes", "zeros", "the header is damaged or of a newer version")
    if version == 2:
        _check_group(path, config, group)
    return Header(version, config, group)


def layout(config: ModelConfig, version: int, group: int) -> tuple[list[Place], int]:
    """Place every tensor of a file: (places in file order, size of the file in bytes). group: weights per scale, for v2."""
    offset = HEADER_BYTES if version else V0_HEADER_BYTES
    shapes = _shapes(config)
    places = []
    for pattern in _V1_ORDER if version else _V0_ORDER:
        if pattern == "head" and config.tied_embedding:
            continue
        rows, columns = shapes[pattern]
        quantized = version == 2 and rows > 0
        n_weights = max(rows, 1) * columns
        n_bytes = n_weights + n_weights // group * 4 if quantized else n_weights * 4
        shape = (rows, columns) if rows else (columns,)
        for i in range(config.n_layers if "*" in pattern else 1):
            places.append(Place(pattern.replace("*", str(i)), shape, "q8_0" if quantized else "f32", offset, n_bytes))
            offset += n_bytes
    return places, offset


def largest_group(config: ModelConfig) -> int:
    """The largest power of two up to 64 that divides every row, so that no group of v2 straddles two rows."""
    group = 64
    while config.width % group or config.mlp_width % group:
        group //= 2
    return group


def _shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """(rows, columns) by name, rows 0 for vectors. Here head size * heads is the width, always."""
    width, kv, mlp = config.width, config.kv_width, config.mlp_width
    shapes = {"embedding": (config.vocab_size, width), "head": (config.vocab_size, width), "norm": (0, width)}
    shapes |= {"layers.*.attention_norm": (0, width), "layers.*.mlp_norm": (0, width)}
    shapes |= dict(zip(_ATTENTION, ((width, width), (kv, width), (kv, width), (width, width)), strict=True))
    shapes |= dict(zip(_MLP, ((mlp, width), (width, mlp), (mlp, width)), strict=True))
    return shapes | {ROPE_TABLES: (0, config.context * config.head_size)}  # cosines, then sines, of half a head each


def _config(path: str | PathLike[str], numbers: tuple[int, ...], tied: bool) -> ModelConfig:
    """Check the seven integers one by one, before any of them divides, multiplies or allocates."""
    values = dict(zip(HEADER_FIELDS, numbers, strict=True))
    values["vocab_size"] = abs(values["vocab_size"])
    for name, field in HEADER_FIELDS.items():
        if not 1 <= values[name] <= LIMITS[field]:
            remedy = "is it a llama2.c model at all?" if name == "dim" else ""
            raise ModelFileError(path, f"header field {name}", values[name], f"1 to {LIMITS[field]}", remedy)
    dim, n_heads, n_kv_heads = values["dim"], values["n_heads"], values["n_kv_heads"]
    if dim % n_heads or (dim // n_heads) % 2:
        raise ModelFileError(path, "header field n_heads", n_heads, f"a divisor of dim {dim} that leaves an even head size")
    if n_heads % n_kv_heads:
        raise ModelFileError(path, "header field n_kv_heads", n_kv_heads, f"a divisor of n_heads {n_heads}")
    counts: dict[str, Any] = {field: values[name] for name, field in HEADER_FIELDS.items()}
    return ModelConfig(**counts, tied_embedding=tied)


def _check_group(path: str | PathLike[str], config: ModelConfig, group: int) -> None:
    """Refuse groups that straddle rows: llama2.c's export.py writes them (it looks at dim only), and runq drops their tails."""
    if group < 1:
        raise ModelFileError(path, "header field group_size", group, "at least 1")
    if config.width % group or config.mlp_width % group:
        expected = f"a divisor of dim {config.width} and of hidden_dim {config.mlp_width}"
        remedy = f"its groups straddle rows: export again with group size {largest_group(config)} (`llamita export` picks it)"
        raise ModelFileError(path, "header field group_size", group, expected, remedy)


def _view(mapping: mmap.mmap, place: Place, group: int) -> Tensor:
    if place.dtype == "f32":
        count = place.n_bytes // 4
        return Tensor("f32", place.shape, np.frombuffer(mapping, "<f4", count, place.offset).reshape(place.shape))
    rows, columns = place.shape
    weights = np.frombuffer(mapping, np.int8, rows * columns, place.offset).reshape(rows, columns // group, group)
    scales = np.frombuffer(mapping, "<f4", rows * columns // group, place.offset + rows * columns)
    if not scales.flags.aligned:  # int8 weights of an odd count lie before them; compiled code wants aligned floats
        scales = scales.copy()
    return Tensor("q8_0", place.shape, weights, scales.reshape(rows, columns // group))
