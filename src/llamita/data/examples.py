"""A folder of rendered chats as the trainer reads it: examples, each a row of tokens and which of them are learned.

Three files a side, mapped: the tokens, a byte for each that says whether it is counted, and where each example ends. Sizes,
ids, ends and SHA-256 are checked when the folder is opened. chats.py writes it. Knows no template, no batches and no model.
"""

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np

from llamita.data.chat_manifest import ChatManifest, Side, read_chat_manifest
from llamita.data.split import SIDES
from llamita.errors import DataError, one_line
from llamita.files import map_file, sha256_of

FILES = ("tokens", "counted", "ends")


class Examples:
    """N examples of one side. Of pairs, example 2i is the chosen and 2i + 1 the rejected answer to one prompt.

    n_counted: tokens that are learned; n_bytes: of their text, in UTF-8. lengths: tokens of each example, int64 (N,).
    """

    def __init__(self, side: Side, tokens: np.ndarray, counted: np.ndarray, ends: np.ndarray) -> None:
        self.n_examples, self.n_tokens, self.n_counted, self.n_bytes = (
            side.n_examples, side.n_tokens, side.n_counted, side.n_bytes
        )  # fmt: skip
        self._tokens, self._counted = tokens, counted
        self._starts = np.concatenate([np.zeros(1, np.int64), ends.astype(np.int64)])
        self.lengths = np.diff(self._starts)

    def ids(self, index: int) -> np.ndarray:
        """The tokens of an example: int64 (T,)."""
        return self._tokens[self._starts[index] : self._starts[index + 1]].astype(np.int64)

    def counted(self, index: int) -> np.ndarray:
        """Which of its tokens a model learns to say: bool (T,), false for the first."""
        return self._counted[self._starts[index] : self._starts[index + 1]].astype(bool)


@dataclass(frozen=True)
class ChatData:
    """A folder of rendered chats: its manifest, and the examples of both sides."""

    folder: Path
    manifest: ChatManifest
    train: Examples
    validation: Examples

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that determines the examples."""
        return self.manifest.fingerprint


def open_chats(folder: str | PathLike[str]) -> ChatData:
    """Open a folder that prepare_chats has written; its tokens stay on disk until they are read.

    Raises DataError where the folder has no manifest, or a file does not fit it.
    """
    path = Path(folder)
    manifest = read_chat_manifest(path)
    train, validation = (_open_side(path, name, getattr(manifest, name), manifest) for name in SIDES)
    return ChatData(path, manifest, train, validation)


def _open_side(folder: Path, name: str, side: Side, manifest: ChatManifest) -> Examples:
    dtypes = {"tokens": f"<u{np.dtype(manifest.dtype).itemsize}", "counted": "u1", "ends": "<i8"}
    sizes = {"tokens": side.n_tokens, "counted": side.n_tokens, "ends": side.n_examples}
    tokens, counted, ends = (
        _map(folder / f"{name}.{part}.bin", np.dtype(dtypes[part]), sizes[part], side.sha256.get(part)) for part in FILES
    )
    lengths = np.diff(ends, prepend=0)
    fits = ends[-1] == side.n_tokens and lengths.min() > 0 and counted.max() <= 1 and tokens.max() < manifest.vocab_size
    if not fits or int(counted.sum(dtype=np.int64)) != side.n_counted:
        found = f"{name}: found ends, ids or counts that do not fit each other"
        raise DataError(one_line(f"{folder}: {found}, expected those of {side.n_examples} examples; prepare the chats again"))
    if not side.n_counted:
        raise DataError(one_line(f"{folder}: {name}: found no token to learn, expected answers; look with --show-examples"))
    return Examples(side, tokens, counted, ends)


def _map(path: Path, dtype: np.dtype, length: int, sha256: str | None) -> np.ndarray:
    content = map_file(path)
    if len(content) != length * dtype.itemsize or sha256_of(path) != sha256:
        found = f"{len(content)} bytes" if len(content) != length * dtype.itemsize else "other content"
        expected = f"{length * dtype.itemsize} as the manifest says"
        raise DataError(
            one_line(f"{path}: found {found}, expected {expected}; was a copy interrupted? prepare the chats again")
        )
    return np.frombuffer(content, dtype)
