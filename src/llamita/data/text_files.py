"""Plain text files as documents: UTF-8, perhaps gzipped, cut where a marker, a line or a blank line ends a document.

Reads a megabyte at a time, so that a file may be larger than memory. Knows nothing of records (records.py) and of folders.
"""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from llamita.errors import DataError, one_line

LONGEST = 1 << 20  # characters of a document; longer ones are cut
MARKERS = ("<|endoftext|>", "<|end_of_text|>", "</s>")
CHUNK = 1 << 20  # characters read at once
_HEAD = 1 << 16  # characters that are looked at to guess the separator
_LONG_LINE = 200  # characters of a line, on average, where a line is a whole document
_PATTERNS = {"line": "\n", "blank": r"\n[ \t]*\n"}


def read(path: str, separator: str) -> Iterator[str]:
    """The documents of a text file, in order; raise DataError for bytes that are no UTF-8, naming their place."""
    pattern = re.compile(_PATTERNS.get(separator) or re.escape(separator))
    rest = ""
    with open_text(path) as stream:
        while chunk := stream.read(CHUNK):
            rest += chunk
            if separator != "file":
                *whole, rest = pattern.split(rest)
                yield from whole
            while len(rest) > LONGEST + CHUNK:  # far enough from the end, where a marker may have begun
                end = border(rest, LONGEST)
                yield rest[:end]
                rest = rest[end:]
    yield rest


def detect_separator(path: str) -> str:
    """What ends a document, from the beginning of a file: a marker, `line` where lines are long and none is blank, `file`."""
    with open_text(path) as stream:
        head = stream.read(_HEAD)
    found = max(MARKERS, key=head.count)
    if found in head:
        return found
    lines = head.rstrip("\n").split("\n")
    if len(lines) >= 8 and all(lines) and len(head) / len(lines) >= _LONG_LINE:
        return "line"
    return "file"


def occurs(path: str, separator: str) -> bool:
    """Whether a separator stands in a text file; the names `file`, `line` and `blank` need not."""
    if separator == "file" or separator in _PATTERNS:
        return True
    tail = ""  # of what was read before, where a marker may have begun
    with open_text(path) as stream:
        while chunk := stream.read(CHUNK):
            if separator in tail + chunk:
                return True
            tail = (tail + chunk)[-len(separator) :]
    return False


def describe(separator: str) -> str:
    """A separator in words."""
    return {
        "file": "the file is one document, cut where it is longer than a megabyte",
        "line": "each line is a document",
        "blank": "a blank line ends a document",
    }.get(separator, f"{separator} ends a document")


def cut(text: str) -> Iterator[str]:
    """A text in pieces of at most LONGEST characters, cut at a paragraph, a line, a sentence or a word, the best of these."""
    while len(text) > LONGEST:
        end = border(text, LONGEST)
        yield text[:end]
        text = text[end:]
    yield text


def border(text: str, limit: int) -> int:
    """The last good place for a cut in the second half of the first limit characters, or limit where there is none."""
    for mark in ("\n\n", "\n", ". ", " "):
        place = text.rfind(mark, limit // 2, limit)
        if place >= 0:
            return place + len(mark)
    return limit


@contextmanager
def open_text(path: str, newline: str | None = None) -> Iterator[TextIO]:
    """Open a UTF-8 file, with or without byte order mark; newline as open() has it. Errors become DataError."""
    with open_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline=newline) as stream:
        yield stream


@contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """Open a file, unpacking it where its name ends in .gz. Errors while it is read become DataError."""
    try:
        with _open(path) as file:
            yield file
    except UnicodeDecodeError:
        raise DataError(one_line(f"{path}: byte {_first_wrong_byte(path)}: found no UTF-8, expected text in UTF-8")) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(one_line(f"{path}: found a broken gzip file ({error}), expected a whole one")) from None
    except OSError as error:
        raise DataError(one_line(f"{path}: found {error.strerror or error}, expected a readable file")) from None


def _open(path: str) -> BinaryIO:
    return gzip.open(path) if path.endswith(".gz") else Path(path).open("rb")  # pyright: ignore[reportReturnType]


def _first_wrong_byte(path: str) -> int:
    """The place, counted from 0 and after unpacking, of the first byte that belongs to no character."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    n_bytes = 0
    with _open(path) as file:
        while True:
            chunk = file.read(1 << 20)
            n_pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                return n_bytes - n_pending + error.start
            if not chunk:
                return n_bytes
            n_bytes += len(chunk)
