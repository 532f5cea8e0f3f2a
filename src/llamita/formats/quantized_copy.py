"""A model quantized on opening: the result is a GGUF file in the cache folder, made the first time and mapped afterwards.

Nothing of the user's is touched, and everything can be made again: the copies used least lately go when they become too many.
Knows no engine.
"""

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from llamita import __version__
from llamita.cache import announce, cache_folder, why_no_folder
from llamita.errors import LlamitaError, SettingError, one_line
from llamita.formats import gguf, gguf_writer
from llamita.model import Model, with_dtype
from llamita.quant import Q4_GROUP

DTYPES = ("q8_0", "q4_0")
LIMIT_BYTES = 20 << 30  # of all copies together; the newest may take more
_SHOWN_CHARACTERS = 40  # of a model's name in that of its copy: enough for people, and short enough for every file system


def quantized(model: Model, dtype: str, paths: list[Path], adapter: str = "") -> Model:
    """The model with its matrices as q8_0 (groups of 32) or q4_0, norms as they are; rows that 32 does not divide become f16.

    paths: the files that its weights lie in; without one, and where no cache folder can be written, the weights are converted
    in memory. adapter: a number of the adapter that was applied to them. A model that is of this dtype is returned itself.
    Raises SettingError for another dtype.
    """
    if dtype not in DTYPES:
        raise SettingError(f"dtype: found {dtype}, expected {' or '.join(DTYPES)}")
    if all(tensor.dtype == dtype for tensor in model.tensors.values() if len(tensor.shape) == 2):
        return model
    folder = cache_folder() if paths else None
    if folder is None:
        if paths:
            announce(f"llamita: the copy cannot be kept: {why_no_folder()}")
        return with_dtype(model, dtype, Q4_GROUP)
    path = folder / "models" / copy_name(paths[0].stem, dtype, fingerprint(paths, adapter))
    tensors = _stored(model, path)
    if tensors is None:
        announce(f"llamita: quantizing {one_line(model.name)} to {dtype}; this happens once ...")
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            gguf_writer.write(replace(model, tokenizer=None, chat_template="", stop_ids=()), path, dtype)
        except (OSError, LlamitaError) as error:
            announce(f"llamita: the copy could not be kept: {error}")
            return with_dtype(model, dtype, Q4_GROUP)
        forget_oldest(path.parent, LIMIT_BYTES)
        tensors = _stored(model, path)
    return with_dtype(model, dtype, Q4_GROUP) if tensors is None else replace(model, tensors=tensors)


def copy_name(stem: str, dtype: str, number: str) -> str:
    """What a copy is called: the number decides, the model's name is for people, without what file systems refuse."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', stem)[:_SHOWN_CHARACTERS]}-{dtype}-{number}.gguf"


def fingerprint(paths: list[Path], adapter: str = "") -> str:
    """What a copy depends on: where the files lie, their sizes and times of change, the content of an adapter, this version."""
    digest = hashlib.sha256((__version__ + adapter).encode())
    for path in paths:
        status = path.stat()
        digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def forget_oldest(folder: Path, limit_bytes: int) -> None:
    """Delete the copies that were not used for the longest time, but never the newest, until limit_bytes hold the others."""
    found = []
    for path in folder.glob("*.gguf"):
        with suppress(OSError):  # another process deletes as well
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    total = 0
    for i, (_, n_bytes, path) in enumerate(sorted(found, reverse=True)):
        total += n_bytes
        if i and total > limit_bytes:
            with suppress(OSError):
                path.unlink()


def _stored(model: Model, path: Path) -> dict | None:
    """The tensors of a copy that is there, whole and of this model's shape, which counts as used now; else None."""
    try:
        tensors = gguf.read(path, vocabulary=False).tensors
        replace(model, tensors=tensors).validate()
        os.utime(path)
    except (OSError, LlamitaError):
        return None
    return tensors
