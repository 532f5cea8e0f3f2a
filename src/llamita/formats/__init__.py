"""Disk to Model and back: `read_model` recognises a format by its content and finds the tokenizer that lies beside it.

The border between untrusted files and the rest: behind it, a Model's parts fit each other. Each format is one module with
`read(path)` and `write(model, path)`; nothing outside formats/ knows a file layout. Knows no engine.
"""

from dataclasses import replace
from os import PathLike
from pathlib import Path

from llamita.errors import ModelFileError, SettingError
from llamita.formats import huggingface, llama2c, llama2c_writer
from llamita.formats.tokenizer_files import find_tokenizer, read_tokenizer, write_tokenizer
from llamita.model import Model, check_tokenizer_fits
from llamita.quant import FLOAT_DTYPES
from llamita.tokenizer import Tokenizer

__all__ = ["read_model", "read_tokenizer", "weight_paths", "write_model", "write_tokenizer"]

MODEL_FILE_IN_FOLDER = "model.bin"
LLAMA2C_VERSIONS = {"llama2c-v0": 0, "llama2c-v1": 1, "llama2c-v2": 2}
FORMATS = (*LLAMA2C_VERSIONS, "safetensors")  # what `llamita export --to` may say


def read_model(path: str | PathLike[str], tokenizer: str | PathLike[str] | None = None) -> Model:
    """Read a model file, or a folder with a config.json (Hugging Face) or a model.bin, with the tokenizer named or found there.

    A tokenizer beside the model counts only if it has as many tokens as the model; without one, Model.tokenizer is None.
    Weights stay on disk until they are touched. Raises ModelFileError; ModelError for a named tokenizer that does not fit.
    """
    folder = _huggingface_folder(Path(path))
    model_path = _model_file(Path(path)) if folder is None else folder / huggingface.WEIGHTS_NAME
    model = llama2c.read(model_path) if folder is None else huggingface.read(folder)
    if tokenizer is not None:
        return _with_tokenizer(model, read_tokenizer(tokenizer))
    found = find_tokenizer(model_path, model.config.vocab_size)
    return model if found is None else _with_tokenizer(model, found)


def write_model(model: Model, path: str | PathLike[str], to: str, group: int | None = None, dtype: str | None = None) -> None:
    """Write a model in one of FORMATS, whole or not at all: a file, or of safetensors a folder (see huggingface.write).

    group: weights per scale of llama2c-v2, where the writer shall not choose. dtype: f32, f16 or bf16 of safetensors, where it
    shall not be that of the embedding, or f32 where that is quantized. Raises ModelFileError for what the format cannot hold.
    """
    if to not in FORMATS:
        raise SettingError(f"format: found {to}, expected {', '.join(FORMATS)}")
    if to == "safetensors":
        stored = model.tensors["embedding"].dtype
        huggingface.write(model, path, dtype or (stored if stored in FLOAT_DTYPES else "f32"))
    else:
        llama2c_writer.write(model, path, version=LLAMA2C_VERSIONS[to], group=group)


def weight_paths(model: Model) -> list[Path]:
    """The files in which the weights of a model lie that was read; none of one made in memory."""
    path = Path(model.name)
    if path.is_dir():
        return huggingface.weight_paths(path)
    return [path] if path.is_file() else []


def _huggingface_folder(path: Path) -> Path | None:
    """The folder with a config.json that is named, or in which one of its main files is."""
    if path.is_dir():
        return path if (path / huggingface.CONFIG_NAME).exists() else None
    return path.parent if path.name in huggingface.MAIN_NAMES else None


def _model_file(path: Path) -> Path:
    """The model file itself, where a folder is named."""
    if not path.is_dir():
        return path
    if not (path / MODEL_FILE_IN_FOLDER).exists():
        raise ModelFileError(
            path, "folder", "no model", f"a {huggingface.CONFIG_NAME} or a {MODEL_FILE_IN_FOLDER}", "name the model file itself"
        )
    return path / MODEL_FILE_IN_FOLDER


def _with_tokenizer(model: Model, tokenizer: Tokenizer) -> Model:
    model = replace(model, tokenizer=tokenizer)
    check_tokenizer_fits(model)
    return model
