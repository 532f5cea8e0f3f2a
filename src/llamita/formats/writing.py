"""Model to disk in any format: `write_model`, what a file of each can hold, and how large it becomes.

The other direction is `read_model` in __init__.py; where a file may be written is target.py's question. Knows what formats
there are and no layout of any.
"""

import math
from os import PathLike

from llamita.errors import SettingError
from llamita.files import check_room
from llamita.formats import gguf_writer, huggingface_writer, llama2c, llama2c_writer
from llamita.formats.pieces import Progress
from llamita.model import Model, tensor_shapes
from llamita.quant import ComputedTensor

LLAMA2C_VERSIONS = {"llama2c-v0": 0, "llama2c-v1": 1, "llama2c-v2": 2}
# What `llamita export --to` may say -> the dtypes that such a file can be asked to hold its matrices in
DTYPES = {
    "llama2c-v0": ("f32",),
    "llama2c-v1": ("f32",),
    "llama2c-v2": ("q8_0",),
    "safetensors": ("f32", "f16", "bf16"),
    "gguf": ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"),
}
FORMATS = tuple(DTYPES)


def write_model(
    model: Model,
    path: str | PathLike[str],
    to: str,
    group: int | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a model in one of FORMATS, whole or not at all: a file, or of safetensors a folder (see huggingface_writer.write).

    group: weights per scale of llama2c-v2, where the writer shall not choose. dtype: one of the format's DTYPES; left out, see
    default_dtype. progress is told of bytes when they are written: about expected_bytes in the end. Raises SettingError for a
    dtype that the format has no place for, ModelFileError for a model that it cannot hold and for a disk without room.
    """
    check_dtype(to, dtype)
    dtype = dtype or default_dtype(model, to)
    check_room(path, expected_bytes(model, to, dtype))
    if to == "gguf":
        gguf_writer.write(model, path, dtype, progress)
    elif to == "safetensors":
        huggingface_writer.write(model, path, dtype or "f32", progress=progress)
    else:
        llama2c_writer.write(model, path, LLAMA2C_VERSIONS[to], group, progress)


def check_dtype(to: str, dtype: str | None) -> None:
    """Raise SettingError unless there is a format `to`, and its files can hold the dtype, if one is asked for."""
    if to not in FORMATS:
        raise SettingError(f"format: found {to}, expected {', '.join(FORMATS)}")
    if dtype is not None and dtype not in DTYPES[to]:
        remedy = "; choose another format" if len(DTYPES[to]) == 1 else ""
        raise SettingError(f"dtype: found {dtype}, expected {', '.join(DTYPES[to])}: {to} has no place for others{remedy}")


def default_dtype(model: Model, to: str) -> str | None:
    """The one dtype of a model's matrices where the format can hold it; else f32, or q8_0 where it holds nothing else.

    None: GGUF, which holds each as it is stored. Matrices that an adapter changes are not stored: others count, if there are.
    """
    if to == "gguf":
        return None
    matrices = [tensor for tensor in model.tensors.values() if len(tensor.shape) == 2]
    stored = {tensor.dtype for tensor in matrices if not isinstance(tensor, ComputedTensor)} or {t.dtype for t in matrices}
    return next(iter(stored)) if len(stored) == 1 and stored <= {*DTYPES[to]} else DTYPES[to][0]


def expected_bytes(model: Model, to: str, dtype: str | None) -> int:
    """Bytes that the weights of a model take in a file, headers and vocabulary left out; dtype as write_model has it."""
    if to in LLAMA2C_VERSIONS:
        group = llama2c_writer.fitting_group(model)
        return llama2c.layout(model.config, LLAMA2C_VERSIONS[to], group)[1]
    if to == "gguf":
        return gguf_writer.weight_bytes(model, dtype)
    itemsize = 4 if dtype in (None, "f32") else 2
    return sum(math.prod(shape) for shape in tensor_shapes(model.config).values()) * itemsize
