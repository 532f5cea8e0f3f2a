"""Where documents come from: files, folders and data sets that the user names, to one stream of documents in a fixed order.

The first step of `llamita prepare`, `vocab` and `train`. Finds the files and says what each is; text_files.py and records.py
read them. Everything streams: memory holds a document or a megabyte of it, never a file. Knows no tokenizer.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from llamita.data import records, text_files
from llamita.errors import DataError, one_line

KINDS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}
DATASETS = {"tinystories": "roneneldan/TinyStories"}  # short names of data sets
_DATASET_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?")  # owner/name or owner/name:split
_EXPANSION = {"gz": 3, "parquet": 2}  # bytes of text for one on disk, about

Note = Callable[["Source", str], None]


@dataclass(frozen=True)
class ReadOptions:
    """How files become documents.

    field: the column of the text in JSON, CSV and Parquet; "" takes the likeliest. separator: what ends a document in a text
    file: `file`, `line`, `blank` (a blank line) or a text such as <|endoftext|>; "" looks at the beginning of each file.
    """

    field: str = ""
    separator: str = ""


GUESS = ReadOptions()


@dataclass(frozen=True)
class Source:
    """One file or data set: its name as the user wrote it, its kind, its size and time on disk (0 for a data set)."""

    name: str
    kind: str
    n_bytes: int = 0
    modified_ns: int = 0

    @property
    def is_compressed(self) -> bool:
        """Whether gzip wrote the file."""
        return self.kind != "dataset" and self.name.endswith(".gz")

    @property
    def n_text_bytes(self) -> int:
        """About how many bytes of text it holds, before it is read; 0 where nobody knows."""
        return self.n_bytes * _EXPANSION.get("gz" if self.is_compressed else self.kind, 1)


class Document(NamedTuple):
    """A text without blanks around it, and where it stood: the name of its source and its number there, from 1."""

    text: str
    source: str
    record: int


def find_sources(names: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """Every file that the names stand for: files as given, folders through all their levels in sorted order.

    In folders, hidden files and kinds that nobody reads are left out. A name that is no path may be a data set, owner/name or
    owner/name:split. Raises DataError for what is missing, no regular file or unreadable, and where nothing is left.
    """
    named = [os.fspath(name) for name in names]
    sources = [source for name in named for source in _find(name)]
    if not sources:
        raise DataError(f"{', '.join(named) or 'text'}: found no file of text, expected {' '.join(KINDS)}")
    return sources


def documents(sources: Iterable[Source], options: ReadOptions = GUESS, note: Note | None = None) -> Iterator[Document]:
    """Every document of the sources, in their order; empty ones are left out, very long ones cut at a paragraph or line.

    note is told once per source what was taken for a document. Raises DataError, naming file and place, where reading fails.

    >>> [document.text for document in documents(find_sources(["stories.txt"]))]  # doctest: +SKIP
    """
    for source in sources:
        for number, text in _numbered_texts(source, options, note or _ignore):
            for piece in text_files.cut(text):
                stripped = piece.strip()
                if stripped:
                    yield Document(stripped, source.name, number)


def sample(sources: Sequence[Source], options: ReadOptions, limit_bytes: int, note: Note | None = None) -> Iterator[str]:
    """Documents from all over the sources, evenly, that together hold about limit_bytes at most."""
    total_bytes = sum(source.n_text_bytes for source in sources)
    stride = max(1, -(-total_bytes // limit_bytes))
    left_bytes = limit_bytes
    for i, document in enumerate(documents(sources, options, note)):
        if i % stride == 0:
            left_bytes -= len(document.text.encode("utf-8", "replace"))
            yield document.text
        if left_bytes <= 0:
            return


def _find(name: str) -> Iterator[Source]:
    try:
        status = Path(name).stat()
    except (OSError, ValueError) as error:
        dataset = DATASETS.get(name, name)
        if _DATASET_NAME.fullmatch(dataset) and _kind_of(dataset) is None:
            yield Source(dataset, "dataset")
            return
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            one_line(f"{name}: found {reason}, expected a file, a folder or a data set such as tinystories")
        ) from None
    if stat.S_ISDIR(status.st_mode):
        for path in _walk(Path(name), set()):
            yield _as_source(os.fspath(path), path.stat())
    else:
        yield _as_source(name, status)


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """The files of a folder that have a known kind; a folder reached again through a link is left out."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(one_line(f"{folder}: found {error.strerror}, expected a readable folder")) from None
    for path in paths:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, seen)
        elif path.exists() and _kind_of(path.name):  # a link may point nowhere
            yield path


def _as_source(name: str, status: os.stat_result) -> Source:
    if not stat.S_ISREG(status.st_mode):
        raise DataError(one_line(f"{name}: found a pipe, socket or device, expected a regular file"))
    if not os.access(name, os.R_OK):
        raise DataError(one_line(f"{name}: found a file that you may not read, expected a readable one"))
    return Source(name, _kind_of(name) or "text", status.st_size, status.st_mtime_ns)


def _kind_of(name: str) -> str | None:
    """What the ending of a file name says, or None for an unknown one."""
    return KINDS.get(Path(name.lower().removesuffix(".gz")).suffix)


def _numbered_texts(source: Source, options: ReadOptions, note: Note) -> Iterator[tuple[int, str]]:
    if source.kind == "text":
        separator = options.separator or text_files.detect_separator(source.name)
        if text_files.occurs(source.name, separator):
            note(source, text_files.describe(separator))
        else:
            note(source, f"the separator {separator!r} never occurs: {text_files.describe('file')}")
        return enumerate(text_files.read(source.name, separator), 1)
    return records.read_texts(source.name, source.kind, options.field, lambda line: note(source, line))


def _ignore(source: Source, line: str) -> None:
    """Take a note of nothing."""
