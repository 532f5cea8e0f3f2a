"""A Hugging Face folder, written: any Model as config.json, model.safetensors and the files of its tokenizer.

What transformers, vLLM and TGI load, and every training checkpoint. Tensors are converted and written piece by piece. The other
direction is huggingface.py, which says in which order the rows of queries and keys lie there. Knows no other format.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import cast

import numpy as np

from llamita.errors import ModelFileError
from llamita.files import atomic_file, atomic_folder, read_file
from llamita.formats.file_names import CONFIG_NAME, GENERATION_NAME, INDEX_NAME, WEIGHTS_NAME
from llamita.formats.huggingface import (
    huggingface_name,
    rotated_heads,
    weight_paths,
)
from llamita.formats.huggingface_config import TORCH_DTYPES, config_values, generation_values
from llamita.formats.pieces import Progress, pieces
from llamita.formats.safetensors import TENSOR_DTYPES, write_streamed
from llamita.formats.tokenizer_files import HUGGINGFACE_NAMES, LIMIT_BYTES, find_tokenizer, huggingface_files
from llamita.model import Model, tensor_shapes
from llamita.tokenizer import Tokenizer


def write(
    model: Model,
    folder: str | PathLike[str],
    dtype: str = "f32",
    tokenizer_folder: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a model as a Hugging Face folder, all tensors as f32, f16 or bf16.

    A new folder appears whole or not at all. In a folder that is there, each file is replaced whole, the weights first and
    config.json last; other files stay, but for those of another tokenizer and shards of weights. Tokenizer files of
    tokenizer_folder are copied byte for byte, missing ones made from the tokenizer. Raises ModelFileError, TokenizerError,
    ModelError for a broken model.
    """
    if dtype not in TORCH_DTYPES:
        raise ModelFileError(folder, "dtype", dtype, ", ".join(TORCH_DTYPES))
    if tokenizer_folder is not None and model.tokenizer is None:
        found = find_tokenizer(Path(tokenizer_folder) / WEIGHTS_NAME, model.config.vocab_size)
        model = replace(model, tokenizer=found)
    model.validate()
    tokenizer = cast(Tokenizer | None, model.tokenizer)
    files = _tokenizer_contents(model, tokenizer_folder)
    values = config_values(model.config, dtype, tokenizer)
    with atomic_folder(folder) as target:
        shards = _shards(target)
        _write_weights(model, target / WEIGHTS_NAME, dtype, progress)
        other_names = {*HUGGINGFACE_NAMES} - set(files) if files else set()
        for stale in [target / INDEX_NAME, *shards, *(target / name for name in other_names)]:
            stale.unlink(missing_ok=True)
        for name, content in files.items():
            _write_file(target / name, content)
        _write_file(target / GENERATION_NAME, _json_lines(generation_values(tokenizer, model.stop_ids)))
        _write_file(target / CONFIG_NAME, _json_lines(values))


def _shards(folder: Path) -> list[Path]:
    """The shards of the weights that a folder holds now, none where their index is missing or damaged."""
    with suppress(ModelFileError):
        return [path for path in weight_paths(folder) if path.match("*-of-*.safetensors")]
    return []


def _tokenizer_contents(model: Model, tokenizer_folder: str | PathLike[str] | None) -> dict[str, bytes]:
    """Name -> content of the tokenizer's files: copied where they lie in tokenizer_folder, else made."""
    copies = [] if tokenizer_folder is None else [Path(tokenizer_folder) / name for name in HUGGINGFACE_NAMES]
    made: dict[str, bytes] = {}
    if model.tokenizer is not None:
        made = huggingface_files(cast(Tokenizer, model.tokenizer), model.config.context, model.chat_template)
    return made | {path.name: read_file(path, LIMIT_BYTES) for path in copies if path.exists()}


def _write_weights(model: Model, path: Path, dtype: str, progress: Progress | None) -> None:
    code = next(code for code, name in TENSOR_DTYPES.items() if name == dtype)
    shapes = tensor_shapes(model.config)
    names = {huggingface_name(name): name for name in shapes}

    def load(stored_name: str) -> Iterator[np.ndarray]:
        name = names[stored_name]
        head_size = model.config.head_size if rotated_heads(model.config, name) else 0
        try:
            for piece in pieces(model.tensors[name], dtype, unit=head_size or 1):
                yield to_halves(piece.data, head_size) if head_size else piece.data
        except OverflowError as error:
            raise ModelFileError(path, stored_name, error, "less than 65520", "write bf16 or f32") from None

    write_streamed(path, {stored: (code, shapes[name]) for stored, name in names.items()}, load, progress=progress)


def to_halves(rows: np.ndarray, head_size: int) -> np.ndarray:
    """View canonical rows of whole heads (heads * K, D) in Hugging Face's order: (heads, 2, K/2, D)."""
    return rows.reshape(-1, head_size // 2, 2, rows.shape[-1]).swapaxes(1, 2)


def _json_lines(values: dict[str, object]) -> bytes:
    return json.dumps(values, indent=2).encode() + b"\n"


def _write_file(path: Path, content: bytes) -> None:
    with atomic_file(path) as file:
        file.write(content)
