"""Disk to Model and back: `read_model` recognises a format by its content and finds the tokenizer that lies beside it.

The border between untrusted files and the rest: behind it, a Model's parts fit each other. Each format is one module with
`read(path)` and `write(model, path)`; nothing outside formats/ knows a file layout. Knows no engine.
"""

from dataclasses import replace
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llamita.errors import ModelFileError
from llamita.files import map_file
from llamita.formats.file_names import (
    ADAPTER_CONFIG_NAME,
    CONFIG_NAME,
    MAIN_NAMES,
    OLD_TORCH_MAGIC,
    PARAMS_NAME,
    SHARDS,
    WEIGHTS_NAME,
    ZIP_MAGIC,
    is_safetensors,
)
from llamita.formats.gguf_types import MAGIC as GGUF_MAGIC
from llamita.formats.lfs_pointer import check_no_pointer
from llamita.formats.tokenizer_files import find_tokenizer, find_usual_tokenizer, read_tokenizer, write_tokenizer
from llamita.model import Model, check_tokenizer_fits
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.marks import end_ids

if TYPE_CHECKING:
    from llamita.formats.writing import write_model

__all__ = ["read_model", "read_tokenizer", "weight_paths", "write_model", "write_tokenizer"]

FOLDERS = {CONFIG_NAME: "huggingface", PARAMS_NAME: "meta"}  # what names a folder's format
FILES = {"model.bin": "llama2c", "ckpt.pt": "llama2c_checkpoint"}


def __getattr__(name: str) -> object:
    """Load the writers when they are first asked for (PEP 562): who only reads does not wait for them."""
    if name != "write_model":
        raise AttributeError(f"module 'llamita.formats' has no attribute {name!r}")
    return _format("writing").write_model


def read_model(
    path: str | PathLike[str],
    tokenizer: str | PathLike[str] | None = None,
    dtype: str | None = None,
    adapter: str | PathLike[str] | None = None,
) -> Model:
    """Read a model file, or a folder of Hugging Face, of Meta or with one model file, with the tokenizer named or found there.

    A tokenizer inside the file comes first; one beside it counts only if it has as many tokens as the model, or somewhat fewer
    where the model may be padded, as those in llama2.c's files are not: of these, the tokenizer may also be ./tokenizer.bin, as
    llama2.c has it. Without one, Model.tokenizer is None. Weights stay on
    disk until they are touched. dtype q8_0 or q4_0: quantized, see quantized_copy.py. adapter: the folder of a LoRA adapter to
    apply; its own tokenizer and chat template come before the model's. Raises ModelFileError; ModelError for a tokenizer that
    is named, or inside, and does not fit.
    """
    model = _read_as_stored(path, tokenizer, adapter)
    if dtype is None:
        return model
    digest = "" if adapter is None else _format("adapter").adapter_digest(adapter)
    return _format("quantized_copy").quantized(model, dtype, weight_paths(model), digest)


def _read_as_stored(
    path: str | PathLike[str], tokenizer: str | PathLike[str] | None, adapter: str | PathLike[str] | None
) -> Model:
    name, source = _find_model(Path(path))
    read = _format(name).read
    has_other = tokenizer is not None or (adapter is not None and _format("adapted_model").brings_tokenizer(adapter))
    model = read(source, vocabulary=False) if has_other and name == "gguf" else read(source)
    if adapter is not None:
        model = _format("adapted_model").adapted(model, adapter)
    if tokenizer is not None:
        return _with_tokenizer(model, read_tokenizer(tokenizer))
    if has_other:
        return _with_tokenizer(*_format("adapted_model").with_adapters_tokenizer(model, adapter, _may_be_padded(model)))
    if model.tokenizer is not None:
        return _with_tokenizer(model, cast(Tokenizer, model.tokenizer))
    beside = source / WEIGHTS_NAME if source.is_dir() else source
    found = find_tokenizer(beside, model.config.vocab_size, _may_be_padded(model))
    if found is None and name == "meta":
        found = find_tokenizer(source, model.config.vocab_size)  # beside the folder: Llama 2's downloads share one
    if found is None and not _may_be_padded(model):
        found = find_usual_tokenizer(model.config.vocab_size)
    return model if found is None else _with_tokenizer(model, found)


def weight_paths(model: Model) -> list[Path]:
    """The files in which the weights of a model lie that was read; none of one made in memory."""
    path = Path(model.name)
    if path.is_dir():
        return _format("meta" if model.source_format == "Meta" else "huggingface").weight_paths(path)
    return _format("gguf").weight_paths(path) if path.is_file() else []


def _format(name: str) -> Any:
    """A module of this folder, loaded when it is needed: a start waits for one format, not for all."""
    return import_module(f"llamita.formats.{name}")


def _find_model(path: Path) -> tuple[str, Path]:
    """The module that reads what is named, and the file or folder that it shall read."""
    if path.name in MAIN_NAMES or (any(map(path.match, SHARDS)) and (path.parent / CONFIG_NAME).exists()):
        return "huggingface", path.parent
    if path.name == PARAMS_NAME or path.match("consolidated.*.pth"):
        return "meta", path.parent
    if not path.is_dir():
        return _format_of(path), path
    for name, found in (FOLDERS | FILES).items():
        if (path / name).exists():
            return found, path if name in FOLDERS else path / name
    first_of = _format("gguf").weight_paths
    if len(found := [file for file in sorted(path.glob("*.gguf")) if file == first_of(file)[0]]) == 1:
        return "gguf", found[0]
    _refuse_adapter(path)
    expected = " or ".join([*FOLDERS, *FILES, "one *.gguf"])
    raise ModelFileError(
        path, "folder", f"{len(found)} *.gguf" if found else "no model", expected, "name the model file itself"
    )


def _refuse_adapter(folder: Path) -> None:
    """Raise ModelFileError where a folder, in which no model was found, holds an adapter."""
    if (folder / ADAPTER_CONFIG_NAME).exists():
        remedy = f"name its base as the model, with --adapter {folder}, or export both as one model with it"
        raise ModelFileError(folder, "folder", "an adapter", "a model", remedy)


def _format_of(path: Path) -> str:
    """The module that reads a file, by its first bytes; raise ModelFileError where they are those of no model by itself."""
    data = map_file(path)
    first_bytes = data[:4]
    if first_bytes == GGUF_MAGIC:
        return "gguf"
    if first_bytes in (ZIP_MAGIC, OLD_TORCH_MAGIC):
        return "llama2c_checkpoint"
    check_no_pointer(path, data)
    if path.suffix == ".safetensors" or is_safetensors(data):
        _refuse_adapter(path.parent)
        remedy = f"name the folder that holds {CONFIG_NAME} and, as {WEIGHTS_NAME} or in shards, the weights"
        raise ModelFileError(path, "file", "safetensors, which are weights without a config", "a whole model", remedy)
    return "llama2c"


def _with_tokenizer(model: Model, tokenizer: Tokenizer) -> Model:
    """The model with a tokenizer that fits it; what its files do not say of ends of texts, the tokenizer may."""
    if _may_be_padded(model) and tokenizer.vocab_size < model.config.vocab_size:
        from llamita.tokenizer.conversion import padded

        tokenizer = padded(tokenizer, model.config.vocab_size)
    model = replace(model, tokenizer=tokenizer, stop_ids=model.stop_ids or end_ids(tokenizer))
    check_tokenizer_fits(model)
    return model


def _may_be_padded(model: Model) -> bool:
    """Whether a model may have more rows than its tokenizer has tokens; run.c reads as many tokens as the model has rows."""
    return not model.source_format.startswith("llama2.c")
