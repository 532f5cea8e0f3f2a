"""GGUF files, written: any Model with its vocabulary and chat template, as llama.cpp and all around it read them.

The header follows from the config; then the tensors, one by one and in pieces. Blocks that a model has already are copied; new
ones are made by the gguf library, whose rounding is that of ggml to the bit. The other direction is gguf.py.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import cast

import numpy as np

from llamita.errors import ModelFileError
from llamita.files import atomic_file
from llamita.formats.gguf import END_KEYS, TEMPLATE_KEY, gguf_name
from llamita.formats.gguf_config import ROPE_FACTORS, config_metadata, rope_factors
from llamita.formats.gguf_file import padded, serialize_header, tensor_bytes
from llamita.formats.gguf_types import ARCHITECTURE, BLOCKS, NUMBER_CODES, TENSOR_TYPES_BY_NAME, TensorType
from llamita.formats.pieces import Progress, pieces, write_array
from llamita.model import Model, tensor_shapes
from llamita.quant import ComputedTensor, Tensor
from llamita.tokenizer import Tokenizer

FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "bf16": 32}  # dtype -> general.file_type
_QUANTIZATION_VERSION = 2


def write(model: Model, path: str | PathLike[str], dtype: str | None = "f16", progress: Progress | None = None) -> None:
    """Write a model as GGUF, whole or not at all: its matrices as one of FILE_TYPES, its norms as float32.

    dtype None: each matrix as it is stored. A matrix whose rows are no whole blocks of 32 becomes f16 instead of q8_0, q4_0 or
    q4_1, as in llama.cpp. Raises ModelFileError for weights that dtype cannot hold, TokenizerError for such a vocabulary,
    ModelError for a broken model.
    """
    if dtype is not None and dtype not in FILE_TYPES:
        raise ModelFileError(path, "dtype", dtype, ", ".join(FILE_TYPES))
    tensors = _tensors(model.validate(), dtype)
    metadata = _metadata(model, path, _main_dtype(tensors))
    header = serialize_header(metadata, {name: (kind, tensor.shape) for name, (tensor, kind) in tensors.items()})
    with atomic_file(path) as file:
        file.write(header)
        for name, (tensor, kind) in tensors.items():
            for array in _encoded(tensor, kind, path, name):
                write_array(file, array, NUMBER_CODES.get(kind.name, "u1"), progress)
            n_bytes = tensor_bytes(kind, tensor.shape)
            file.write(bytes(padded(n_bytes) - n_bytes))


def weight_bytes(model: Model, dtype: str | None) -> int:
    """Bytes that the tensors of a model take in a file."""
    return sum(tensor_bytes(kind, tensor.shape) for tensor, kind in _tensors(model, dtype).values())


def _tensors(model: Model, dtype: str | None) -> dict[str, tuple[Tensor, TensorType]]:
    """Tensors by their names in the file, and how each is stored."""
    tensors = {gguf_name(name): model.tensors[name] for name in tensor_shapes(model.config)}
    if (factors := rope_factors(model.config)) is not None:
        tensors[ROPE_FACTORS] = Tensor.from_array(factors)
    return {name: (tensor, _kind(tensor, dtype)) for name, tensor in tensors.items()}


def _kind(tensor: Tensor, dtype: str | None) -> TensorType:
    kind = TENSOR_TYPES_BY_NAME[(dtype or tensor.dtype) if len(tensor.shape) == 2 else "f32"]
    return kind if tensor.shape[-1] % kind.weights == 0 else TENSOR_TYPES_BY_NAME["f16"]


def _main_dtype(tensors: dict[str, tuple[Tensor, TensorType]]) -> str:
    """The dtype in which most weights are stored."""
    counts: Counter[str] = Counter()
    for tensor, kind in tensors.values():
        counts[kind.name] += math.prod(tensor.shape)
    return counts.most_common(1)[0][0]


def _metadata(model: Model, path: str | PathLike[str], main_dtype: str) -> dict[str, object]:
    values: dict[str, object] = {
        "general.architecture": ARCHITECTURE,
        "general.type": "model",
        "general.name": os.fsencode(Path(path).stem).decode("utf-8", "replace"),
        "general.quantization_version": _QUANTIZATION_VERSION,
    }
    if main_dtype in FILE_TYPES:
        values["general.file_type"] = FILE_TYPES[main_dtype]
    values |= config_metadata(model.config)
    if model.tokenizer is None:
        values["tokenizer.ggml.model"] = "no_vocab"
    else:
        from llamita.formats.gguf_vocabulary import vocabulary_metadata

        values |= vocabulary_metadata(cast(Tokenizer, model.tokenizer), model.config.vocab_size)
        ends = [token_id for token_id in model.stop_ids if token_id != values.get(END_KEYS[0])]
        values |= dict(zip(END_KEYS[1:], ends, strict=False))
    if model.chat_template:
        values[TEMPLATE_KEY] = model.chat_template
    return values


def _encoded(tensor: Tensor, kind: TensorType, path: str | PathLike[str], name: str) -> Iterator[np.ndarray]:
    """The rows of a tensor as they lie in the file, some at a time."""
    if kind.name not in BLOCKS:
        try:
            yield from (piece.data for piece in pieces(tensor, kind.name))
        except OverflowError as error:
            raise ModelFileError(path, name, error, "less than 65520", "write bf16 or f32") from None
        return
    dtype = "f32" if isinstance(tensor, ComputedTensor) else tensor.dtype  # rounded once
    for piece in pieces(tensor, dtype, tensor.group):
        is_copy = piece.dtype == kind.name and piece.group % kind.weights == 0
        blocks = _copied(piece, kind) if is_copy else _quantized(piece, kind)
        if not np.isfinite(blocks["scales"]).all():
            raise ModelFileError(path, name, "a weight too large for float16 scales, or no number", "finite weights")
        yield blocks.view(np.uint8)


def _copied(piece: Tensor, kind: TensorType) -> np.ndarray:
    """The blocks of a piece that has such; of larger groups of q8_0, each block takes the group's scale."""
    n_rows, n_columns = piece.shape
    blocks = np.empty((n_rows, n_columns // kind.weights), BLOCKS[kind.name])
    blocks["data"] = piece.data.reshape(*blocks.shape, -1)
    for part in ("scales", "offsets"):
        if (numbers := getattr(piece, part)) is not None:
            with np.errstate(over="ignore"):
                blocks[part] = np.repeat(numbers, piece.group // kind.weights, axis=1)
    return blocks


def _quantized(piece: Tensor, kind: TensorType) -> np.ndarray:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    with np.errstate(all="ignore"):  # groups of numbers so small that their scale is 0 become zeros
        data = quantize(piece.dequantize(), GGMLQuantizationType(kind.code))
    return data.view(BLOCKS[kind.name])
