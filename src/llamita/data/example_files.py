"""The files of a folder of rendered chats, written: examples as they come, then divided into the two sides.

As examples come they go to one file; of each only its length, two digests and a few counts stay in memory. When all are there,
duplicates are left out and the lot decides which side each goes to. examples.py reads the result. Knows no text.
"""

from array import array
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from hashlib import blake2b, sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llamita.data.chat_manifest import Side
from llamita.data.split import SIDES
from llamita.errors import DataError
from llamita.files import atomic_file, map_file
from llamita.tokenizer.answers import Example


class Divided(NamedTuple):
    """Both sides, how many duplicates were left out, and whether units of one lot had to go to different sides."""

    sides: dict[str, Side]
    n_duplicates: int
    split_lots: bool


class Spool:
    """Where units (an example, or the two of a pair) wait for their side; use it in a with statement.

    n_bytes_of_id: UTF-8 bytes of each token, int (V,), for counting what is learned.
    """

    def __init__(self, folder: Path, dtype: np.dtype, n_bytes_of_id: np.ndarray) -> None:
        self._folder, self._dtype, self._n_bytes_of_id = folder, dtype, n_bytes_of_id
        self._n_examples_of_unit = array("q")
        self._lengths, self._n_counted, self._n_bytes = array("q"), array("q"), array("q")
        self._digests = bytearray()  # two of 8 bytes a unit: of its examples, and of what decides the lot
        self._stack = ExitStack()

    def __enter__(self) -> "Spool":
        self._tokens, self._counted = (self._stack.enter_context(self._path(part).open("wb")) for part in ("tokens", "counted"))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return len(self._n_examples_of_unit)

    def add(self, unit: Sequence[Example], lot: str) -> None:
        """Take the examples of a unit; lot: the text that decides its side, the same for units that belong together."""
        digest = blake2b(digest_size=8)
        for ids, counted in unit:
            tokens, flags = np.array(ids, self._dtype), np.array(counted, np.uint8)
            digest.update(tokens.tobytes() + flags.tobytes() + b"\0")
            self._tokens.write(tokens.tobytes())
            self._counted.write(flags.tobytes())
            self._lengths.append(len(ids))
            self._n_counted.append(int(flags.sum()))
            self._n_bytes.append(int(self._n_bytes_of_id[tokens[flags > 0]].sum()))
        self._n_examples_of_unit.append(len(unit))
        self._digests += digest.digest() + blake2b(lot.encode("utf-8"), digest_size=8).digest()

    def divide(self, share: float, n_given: int = 0) -> Divided:
        """Write the files of both sides; share: of the units that validate, at least one and not all.

        n_given: so many units, the first, validate instead; what stands among them is not learned. Raises DataError for fewer
        than two different units, and where nothing would be left to learn.
        """
        self._tokens.flush()
        self._counted.flush()
        digests = np.frombuffer(bytes(self._digests), "<u8").reshape(-1, 2)
        kept = np.sort(np.unique(digests[:, 0], return_index=True)[1])
        if len(kept) < 2:
            raise DataError(f"chats: found {len(kept)} different ones, expected at least 2: one to learn, one to measure on")
        validates, split_lots = (kept < n_given, False) if n_given else draw(digests[kept], share)
        if validates.all():
            raise DataError("chats: found all of those to learn among those that validate, expected others")
        sides = {side: self._write(side, kept[validates == (side == "validation")]) for side in SIDES}
        return Divided(sides, len(digests) - len(kept), split_lots)

    def _path(self, part: str) -> Path:
        return self._folder / f"spool.{part}.bin"

    def _write(self, side: str, units: np.ndarray) -> Side:
        """The files of a side: the examples of its units, in their order."""
        n_of_unit = np.array(self._n_examples_of_unit)
        first_of_unit, n = np.cumsum(n_of_unit) - n_of_unit, n_of_unit[units]
        examples = np.repeat(first_of_unit[units] - (np.cumsum(n) - n), n) + np.arange(n.sum())
        lengths, n_counted, n_bytes = (np.array(column)[examples] for column in (self._lengths, self._n_counted, self._n_bytes))
        all_ends = np.cumsum(np.array(self._lengths))
        spans = list(zip((all_ends[examples] - lengths).tolist(), all_ends[examples].tolist(), strict=True))
        ends = np.cumsum(lengths).astype("<i8")
        files = {
            "tokens": _rows(self._path("tokens"), self._dtype, spans),
            "counted": _rows(self._path("counted"), np.dtype("u1"), spans),
            "ends": [ends],
        }
        digests = {part: _write_file(self._folder.parent / f"{side}.{part}.bin", rows) for part, rows in files.items()}
        return Side(len(examples), int(lengths.sum()), int(n_counted.sum()), int(n_bytes.sum()), digests)


def draw(digests: np.ndarray, share: float) -> tuple[np.ndarray, bool]:
    """Which of N >= 2 units validate, bool (N,), and whether units of one lot had to be divided. digests: uint64 (N, 2).

    About share * N of them, at least one, never all. Units of one lot (digests[:, 1]) stay together where some lots fit.
    """
    n = len(digests)
    n_wanted = min(max(1, round(share * n)), n - 1)
    lots, lot_of_unit, sizes = np.unique(digests[:, 1], return_inverse=True, return_counts=True)
    chosen, n_left = np.zeros(len(lots), bool), n_wanted
    for lot in range(len(lots)):  # in the order of digests, which is a drawing
        if sizes[lot] <= n_left:
            chosen[lot] = True
            n_left -= int(sizes[lot])
    if chosen.any():
        return chosen[lot_of_unit], False
    validates = np.zeros(n, bool)
    validates[np.argsort(digests[:, 0], kind="stable")[:n_wanted]] = True
    return validates, True


def _rows(path: Path, dtype: np.dtype, spans: Iterable[tuple[int, int]]) -> Iterable[np.ndarray]:
    values = np.frombuffer(map_file(path), dtype)
    return (values[first:end] for first, end in spans)


def _write_file(path: Path, rows: Iterable[np.ndarray]) -> str:
    """Write rows one behind the other; the SHA-256 of the file."""
    digest = sha256()
    with atomic_file(path) as file:
        for row in rows:
            content = row.tobytes()
            digest.update(content)
            file.write(content)
    return digest.hexdigest()
