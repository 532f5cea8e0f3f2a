"""A prepared folder as the trainer reads it: windows of tokens from anywhere, out of memory-mapped shards.

Shards are checked against the manifest when the folder is opened: their sizes all, their ids at both ends. Knows no batches, no
order and no model: train/ decides where a window starts.
"""

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np

from llamita.data.manifest import Manifest, Split, read_manifest
from llamita.errors import DataError, one_line
from llamita.files import map_file, sha256_of

_CHECKED_TOKENS = 1 << 14  # at each end of a shard


class TokenStream:
    """The tokens of one split, T in all, as one circle: behind the last token comes the first."""

    def __init__(self, split: Split, shards: list[np.ndarray]) -> None:
        self.n_tokens = split.n_tokens
        self.n_documents = split.n_documents
        self.n_bytes = split.n_bytes
        self._shards = shards
        self._starts = np.cumsum([0, *map(len, shards)])

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Read the tokens starts[b] to starts[b] + length - 1 of each window b, around the circle: int64 (B, length).

        starts: int64 (B,), any numbers; they count around the circle too.
        """
        result = np.empty((len(starts), length), np.int64)
        positions = np.asarray(starts, np.int64) % self.n_tokens
        numbers = np.searchsorted(self._starts, positions, side="right") - 1
        firsts = positions - self._starts[numbers]
        for row, number, first in zip(result, numbers.tolist(), firsts.tolist(), strict=True):
            tokens = self._shards[number][first : first + length]
            row[: len(tokens)] = tokens
            n_done = len(tokens)
            while n_done < length:  # over the end of a shard
                number = (number + 1) % len(self._shards)
                tokens = self._shards[number][: length - n_done]
                row[n_done : n_done + len(tokens)] = tokens
                n_done += len(tokens)
        return result


@dataclass(frozen=True)
class Dataset:
    """A prepared folder: its manifest, and the tokens of both splits."""

    folder: Path
    manifest: Manifest
    train: TokenStream
    validation: TokenStream

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that determines the tokens; see Manifest.fingerprint."""
        return self.manifest.fingerprint


def open_dataset(folder: str | PathLike[str]) -> Dataset:
    """Open a folder that `llamita prepare` has written; its tokens stay on disk until they are read.

    Raises DataError where the folder has no manifest or a shard does not fit it, ModelFileError where a file cannot be read.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    train, validation = (
        TokenStream(split, map_shards(path, split, manifest.dtype, manifest.vocab_size))
        for split in (manifest.train, manifest.validation)
    )
    return Dataset(path, manifest, train, validation)


def check_shards(dataset: Dataset) -> None:
    """Raise DataError where a shard's content is not what the manifest says: reads all of it, at the disk's speed."""
    for split in (dataset.manifest.train, dataset.manifest.validation):
        for shard in split.shards:
            found = sha256_of(dataset.folder / shard.name)
            if found != shard.sha256:
                line = f"sha256: found {found[:12]}, expected {shard.sha256[:12]}; the file was changed: prepare the text again"
                raise DataError(one_line(f"{dataset.folder / shard.name}: {line}"))


def map_shards(folder: Path, split: Split, dtype_name: str, vocab_size: int) -> list[np.ndarray]:
    """Map the shards of one split: uint16 or uint32 (T,) each. Raises DataError for one of wrong size or with wrong ids."""
    if dtype_name not in ("uint16", "uint32"):
        raise DataError(one_line(f"{folder}: manifest: found dtype {dtype_name}, expected uint16 or uint32"))
    dtype = np.dtype(dtype_name).newbyteorder("<")
    if not split.shards or sum(shard.n_tokens for shard in split.shards) != split.n_tokens:
        raise DataError(one_line(f"{folder}: manifest: found shards of other sizes in all, expected {split.n_tokens} tokens"))
    shards = []
    for shard in split.shards:
        if Path(shard.name).name != shard.name:
            raise DataError(one_line(f"{folder}: manifest: found the shard {shard.name}, expected a file of this folder"))
        content = map_file(folder / shard.name)
        if len(content) != shard.n_tokens * dtype.itemsize:
            found = f"{len(content)} bytes, expected {shard.n_tokens * dtype.itemsize}"
            raise DataError(one_line(f"{folder / shard.name}: found {found}; was a copy interrupted? prepare the text again"))
        tokens = np.frombuffer(content, dtype)
        largest = max(tokens[:_CHECKED_TOKENS].max(), tokens[-_CHECKED_TOKENS:].max())
        if largest >= vocab_size:
            expected = f"ids below {vocab_size}"
            raise DataError(
                one_line(f"{folder / shard.name}: found token {largest}, expected {expected}; prepare the text again")
            )
        shards.append(tokens)
    return shards
