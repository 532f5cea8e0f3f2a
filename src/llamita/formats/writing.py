"""Model to disk in any format: `write_model`, and what each format can hold.

The other direction is `read_model` in __init__.py. Knows what formats there are and no layout of any.
"""

from os import PathLike

from llamita.errors import SettingError
from llamita.formats import huggingface_writer, llama2c_writer
from llamita.formats.pieces import Progress
from llamita.model import Model
from llamita.quant import FLOAT_DTYPES

LLAMA2C_VERSIONS = {"llama2c-v0": 0, "llama2c-v1": 1, "llama2c-v2": 2}
FORMATS = (*LLAMA2C_VERSIONS, "safetensors")  # what `llamita export --to` may say


def write_model(
    model: Model,
    path: str | PathLike[str],
    to: str,
    group: int | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a model in one of FORMATS, whole or not at all: a file, or of safetensors a folder (see huggingface_writer.write).

    group: weights per scale of llama2c-v2, where the writer shall not choose. dtype: f32, f16 or bf16 of safetensors, where it
    shall not be that of the embedding, or f32 where that is quantized. Raises ModelFileError for what the format cannot hold.
    """
    if to not in FORMATS:
        raise SettingError(f"format: found {to}, expected {', '.join(FORMATS)}")
    if to == "safetensors":
        stored = model.tensors["embedding"].dtype
        huggingface_writer.write(model, path, dtype or (stored if stored in FLOAT_DTYPES else "f32"), progress=progress)
    else:
        llama2c_writer.write(model, path, version=LLAMA2C_VERSIONS[to], group=group, progress=progress)
