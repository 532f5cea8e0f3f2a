"""Where an export goes: the format that a path asks for, what must not be overwritten, and the tokenizer beside a model file.

Stands between a command and the writers. Knows names of files, and of their content only whether it is the same.
"""

import os
import re
from collections.abc import Collection
from fnmatch import fnmatch
from os import PathLike
from pathlib import Path
from typing import Literal

from llamita.errors import ModelFileError, SettingError, one_line
from llamita.files import atomic_file, read_file
from llamita.formats import weight_paths
from llamita.formats.adapter import adapter_paths
from llamita.formats.tokenizer_files import LIMIT_BYTES, USUAL_NAME, find_tokenizer, tokenizer_paths
from llamita.model import Model
from llamita.tokenizer import Tokenizer

_FORMAT_OF_ENDING = {".bin": "llama2c-v0", ".gguf": "gguf"}
_FOLDER_FILES = (  # what a folder that an export may write into holds, beside hidden files
    "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab.json",
    "merges.txt", "added_tokens.json", "special_tokens_map.json", "chat_template.*", "README.md", "LICENSE*", "USE_POLICY.md",
)  # fmt: skip
_MODEL_FILES = (*_FOLDER_FILES, "pytorch_model*", "params.json", "consolidated.*.pth")


def format_of(path: str | PathLike[str], dtype: str | None = None) -> str:
    """The format that a name asks for: NAME.bin llama2.c's v0, or v2 as q8_0, NAME.gguf GGUF, a folder safetensors.

    Raises SettingError for another ending.
    """
    ending = Path(path).suffix
    if Path(path).is_dir() or str(path).endswith(("/", os.sep)) or not re.fullmatch(r"\.[a-zA-Z]+", ending):
        return "safetensors"
    to = _FORMAT_OF_ENDING.get(ending)
    if to is None:
        remedy = "name a folder" if ending == ".safetensors" else "say which format with --to"
        raise SettingError(one_line(f"{path}: found the ending {ending}, expected NAME.bin, NAME.gguf or a folder; {remedy}"))
    return "llama2c-v2" if to == "llama2c-v0" and dtype == "q8_0" else to


def source_paths(model: Model, adapter: str | PathLike[str] | None = None) -> list[Path]:
    """The files besides its weights that a model, and an adapter of it, were read from: config, tokenizer and the like.

    Files of a model's folder that go with it count, read or not, and so does ./tokenizer.bin for a model of llama2.c's that has
    no other.
    """
    folder = Path(model.name)
    found = [path for weights in weight_paths(model)[:1] for path in tokenizer_paths(weights)]
    if folder.is_dir():
        found += [path for path in folder.iterdir() if any(fnmatch(path.name, pattern) for pattern in _MODEL_FILES)]
    if model.source_format == "Meta":
        found += tokenizer_paths(folder)  # where Llama 2's downloads have it
    if model.source_format.startswith("llama2.c") and not _has_tokenizer_beside(model):
        found.append(Path(USUAL_NAME))
    if adapter is not None:
        found += [path for own in adapter_paths(adapter) for path in (own, *tokenizer_paths(own))]
    return found


def _has_tokenizer_beside(model: Model) -> bool:
    """Whether a tokenizer of the model's size lies beside its weights, so that none was looked for elsewhere."""
    try:
        return any(find_tokenizer(path, model.config.vocab_size) for path in weight_paths(model)[:1])
    except ModelFileError:  # several fit: one was named
        return True


def check_target(
    path: str | PathLike[str], to: str, weights: Collection[Path], others: Collection[str | PathLike[str]] = ()
) -> None:
    """Raise ModelFileError where writing to a path would destroy a file that is read, or mix with a folder of other things.

    weights: those of the model; others: whatever else is read. A folder that holds one of either is no target.
    """
    path = Path(path)
    if not path.exists():
        return
    remedy = "an export replaces what it writes over"
    for source in filter(Path.exists, map(Path, (*weights, *others))):
        if path.samefile(source) or path.samefile(source.parent):
            found = "the model itself" if source in weights else f"{source.name}, which must stay"
            raise ModelFileError(path, "target", found, "another name", remedy)
    if path.is_dir() != (to == "safetensors"):
        found, expected = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
        raise ModelFileError(path, "target", found, f"{expected}, or a new name, for {to}")
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
        other = [name for name in names if not any(fnmatch(name, pattern) for pattern in _FOLDER_FILES)]
        if other:
            expected = "a new name, an empty folder or one of a Hugging Face model"
            raise ModelFileError(path, "target", f"a folder with {other[0]}", expected)


def write_tokenizer_beside(
    tokenizer: Tokenizer, model_path: str | PathLike[str]
) -> tuple[Path, Literal["written", "there already", "another"]]:
    """Write the tokenizer.bin that llama2.c's run wants beside a model, unless there is one, and return what was found.

    Raises TokenizerError for a vocabulary that such a file cannot hold.
    """
    from llamita.tokenizer.conversion import to_llama2c
    from llamita.tokenizer.llama2c import serialize_tokenizer_bin

    content = serialize_tokenizer_bin(to_llama2c(tokenizer))
    path = Path(model_path).with_name("tokenizer.bin")
    if path.exists():
        return path, "there already" if read_file(path, LIMIT_BYTES) == content else "another"
    with atomic_file(path) as file:
        file.write(content)
    return path, "written"
