"""The numbers that GGUF files are written in: types of metadata values, and ggml's tensor types with the size of their blocks.

Tables for the parser, the reader and the writer. Source: ggml's docs/gguf.md and ggml.h.
"""

from typing import NamedTuple

import numpy as np

MAGIC = b"GGUF"
VERSION = 3  # that we write; 2 has the same layout
ALIGNMENT = 32  # bytes, where general.alignment says nothing else
ARCHITECTURE = "llama"

# Code of a metadata type -> its struct format, little-endian; texts and arrays have a length of their own
NUMBER_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
UINT32, INT32, FLOAT32, BOOL, TEXT, ARRAY = 4, 5, 6, 7, 8, 9


class TensorType(NamedTuple):
    """How ggml stores numbers: blocks of `weights` numbers in n_bytes bytes; name as quant.Tensor.dtype has it."""

    code: int
    name: str
    weights: int
    n_bytes: int


_TENSOR_TYPES = (
    TensorType(0, "f32", 1, 4),
    TensorType(1, "f16", 1, 2),
    TensorType(2, "q4_0", 32, 18),
    TensorType(3, "q4_1", 32, 20),
    TensorType(6, "q5_0", 32, 22),
    TensorType(7, "q5_1", 32, 24),
    TensorType(8, "q8_0", 32, 34),
    TensorType(9, "q8_1", 32, 36),
    TensorType(10, "q2_k", 256, 84),
    TensorType(11, "q3_k", 256, 110),
    TensorType(12, "q4_k", 256, 144),
    TensorType(13, "q5_k", 256, 176),
    TensorType(14, "q6_k", 256, 210),
    TensorType(15, "q8_k", 256, 292),
    TensorType(16, "iq2_xxs", 256, 66),
    TensorType(17, "iq2_xs", 256, 74),
    TensorType(18, "iq3_xxs", 256, 98),
    TensorType(19, "iq1_s", 256, 50),
    TensorType(20, "iq4_nl", 32, 18),
    TensorType(21, "iq3_s", 256, 110),
    TensorType(22, "iq2_s", 256, 82),
    TensorType(23, "iq4_xs", 256, 136),
    TensorType(24, "i8", 1, 1),
    TensorType(25, "i16", 1, 2),
    TensorType(26, "i32", 1, 4),
    TensorType(27, "i64", 1, 8),
    TensorType(28, "f64", 1, 8),
    TensorType(29, "iq1_m", 256, 56),
    TensorType(30, "bf16", 1, 2),
    TensorType(34, "tq1_0", 256, 54),
    TensorType(35, "tq2_0", 256, 66),
    TensorType(39, "mxfp4", 32, 17),
    TensorType(40, "nvfp4", 64, 36),
    TensorType(41, "q1_0", 128, 18),
    TensorType(42, "q2_0", 64, 18),
)
TENSOR_TYPES = {kind.code: kind for kind in _TENSOR_TYPES}
TENSOR_TYPES_BY_NAME = {kind.name: kind for kind in _TENSOR_TYPES}

# Blocks that the engine reads as they lie: names of the parts of a quant.Tensor -> their bytes in a block of 32 weights
BLOCKS = {
    "q8_0": np.dtype([("scales", "<f2"), ("data", "i1", 32)]),
    "q4_0": np.dtype([("scales", "<f2"), ("data", "u1", 16)]),
    "q4_1": np.dtype([("scales", "<f2"), ("offsets", "<f2"), ("data", "u1", 16)]),
}
NUMBER_CODES = {"f32": "<f4", "f16": "<f2", "bf16": "<u2", "f64": "<f8"}  # numpy's names of plain numbers
