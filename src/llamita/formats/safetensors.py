"""safetensors files: a checked header, then tensors as views of the mapped file; and the way back, tensor by tensor.

Eight bytes say how long the JSON header is; it names each tensor's dtype, shape and place, and the data follow without a gap.
Nothing is trusted: every length is compared with the file before anything is cut. Knows no model: huggingface.py names the
tensors, a training checkpoint keeps its optimizer here. Source: github.com/huggingface/safetensors (README, tensor.rs).
"""

import json
import math
import mmap
import struct
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import NamedTuple

import numpy as np

from llamita.errors import ModelFileError
from llamita.files import atomic_file, map_file
from llamita.formats.json_text import MAX_TEXT_BYTES, parse_object, shown
from llamita.formats.lfs_pointer import check_no_pointer
from llamita.formats.pieces import Progress, write_array
from llamita.quant import Tensor

# The file's name of a dtype -> the numpy dtype of its bytes; bfloat16 numbers are the upper halves of float32 ones
NUMPY_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "I64": np.dtype("<i8")}
TENSOR_DTYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}  # -> quant.Tensor.dtype
METADATA = "__metadata__"

MAX_AXES = 8
ALIGNMENT_BYTES = 64  # of the data of files that we write: a cache line


class Place(NamedTuple):
    """Where one tensor lies: offset from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


def read_arrays(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Read a file as read-only numpy views by name, in file order; BF16 comes as uint16 bits.

    Nothing but the header is touched. Raises ModelFileError unless header and file size fit exactly.
    """
    mapping = map_file(path)
    return {name: _view(mapping, place) for name, place in parse_header(path, mapping).items()}


def read_tensors(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Read a file of weights as Tensors by name, in file order; they are read-only views.

    Raises ModelFileError unless header and file size fit exactly and all tensors are F32, F16 or BF16.
    """
    mapping = map_file(path)
    tensors = {}
    for name, place in parse_header(path, mapping).items():
        if place.dtype not in TENSOR_DTYPES:
            raise ModelFileError(path, f"dtype of {shown(name)}", place.dtype, "weights in F32, F16 or BF16")
        tensors[name] = Tensor(TENSOR_DTYPES[place.dtype], place.shape, _view(mapping, place))
    return tensors


def write_tensors(
    path: str | PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write numpy arrays as F32, F16, I64 or, from uint16 bits, BF16, whole or not at all.

    The bytes depend on the arrays, their names, their order and the metadata only. Raises ModelFileError.
    """
    codes = {dtype.newbyteorder("="): code for code, dtype in NUMPY_DTYPES.items()}
    forms = {}
    for name, array in arrays.items():
        code = codes.get(array.dtype.newbyteorder("="))
        if code is None:
            raise ModelFileError(path, f"dtype of {name}", array.dtype, "float32, float16, uint16 (bfloat16) or int64")
        forms[name] = code, array.shape
    write_streamed(path, forms, lambda name: [arrays[name]], metadata)


def write_streamed(
    path: str | PathLike[str],
    forms: Mapping[str, tuple[str, tuple[int, ...]]],
    load: Callable[[str], Iterable[np.ndarray]],
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write tensors of the given (dtype, shape) whole or not at all; load(name) yields the numbers of one, piece by piece.

    Tensors are asked for one at a time, in file order: wider numbers come first, so that all are aligned; otherwise the order
    is that of forms. Raises ModelFileError.
    """
    header: dict[str, object] = {METADATA: {"format": "pt", **(metadata or {})}}
    ordered = sorted(forms, key=lambda name: -NUMPY_DTYPES[forms[name][0]].itemsize)
    end = 0
    for name in ordered:
        code, shape = forms[name]
        begin, end = end, end + math.prod(shape) * NUMPY_DTYPES[code].itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT_BYTES)
    with atomic_file(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in ordered:
            code, shape = forms[name]
            n_written = 0
            for piece in load(name):
                write_array(file, piece, NUMPY_DTYPES[code].str, progress)
                n_written += piece.size
            assert n_written == math.prod(shape), f"{name}: {n_written} numbers instead of {shape}"


def parse_header(path: str | PathLike[str], data: bytes | mmap.mmap) -> dict[str, Place]:
    """Parse and check the header of a file's content: places by name, in file order; raise ModelFileError."""
    check_no_pointer(path, data)
    header, begin = _header(path, data)
    _check_metadata(path, header.pop(METADATA, {}))
    places = {name: _place(path, name, entry, begin) for name, entry in header.items()}
    places = dict(sorted(places.items(), key=lambda item: (item[1].offset, item[1].n_bytes)))
    end = begin
    for name, place in places.items():
        if place.offset != end:
            found, expected = f"{place.offset - begin}", f"{end - begin}, where the tensor before it ends"
            raise ModelFileError(path, f"offset of {shown(name)}", found, expected)
        end += place.n_bytes
    if end != len(data):
        remedy = "it was cut off" if len(data) < end else "it has bytes too many"
        raise ModelFileError(path, "file size", f"{len(data)} bytes", f"{end} as the header says", remedy)
    return places


def _header(path: str | PathLike[str], data: bytes | mmap.mmap) -> tuple[dict[str, object], int]:
    """The JSON object at the beginning, and where it ends."""
    if len(data) < 8:
        raise ModelFileError(path, "file size", f"{len(data)} bytes", "a safetensors file of at least 8")
    n_bytes = struct.unpack_from("<Q", data)[0]
    if n_bytes > min(MAX_TEXT_BYTES, len(data) - 8):
        expected = f"at most {min(MAX_TEXT_BYTES, len(data) - 8)}"
        raise ModelFileError(path, "header length", f"{n_bytes} bytes", expected, "is it a safetensors file at all?")
    return parse_object(data[8 : 8 + n_bytes], path, "header"), 8 + n_bytes


def _check_metadata(path: str | PathLike[str], metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelFileError(path, f"header field {METADATA}", shown(metadata), "an object of texts")


def _place(path: str | PathLike[str], name: str, entry: object, begin: int) -> Place:
    """Check one entry of the header by itself; whether the places fit together is parse_header's question."""
    field = f"header entry {shown(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(path, field, shown(entry), "dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in NUMPY_DTYPES:
        raise ModelFileError(path, f"dtype of {shown(name)}", shown(code), f"one of {', '.join(NUMPY_DTYPES)}")
    if not _are_counts(shape) or len(shape) > MAX_AXES or math.prod(max(n, 1) for n in shape) > 1 << 60:
        raise ModelFileError(path, f"shape of {shown(name)}", shown(shape), f"up to {MAX_AXES} counts")
    n_bytes = math.prod(shape) * NUMPY_DTYPES[code].itemsize
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != n_bytes:
        expected = f"a begin and an end {n_bytes} bytes later"
        raise ModelFileError(path, f"data_offsets of {shown(name)}", shown(offsets), expected)
    return Place(code, tuple(shape), begin + offsets[0], n_bytes)


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _view(mapping: mmap.mmap, place: Place) -> np.ndarray:
    dtype = NUMPY_DTYPES[place.dtype]
    array = np.frombuffer(mapping, dtype, place.n_bytes // dtype.itemsize, place.offset).reshape(place.shape)
    return array if array.flags.aligned else array.copy()  # compiled code wants aligned floats
