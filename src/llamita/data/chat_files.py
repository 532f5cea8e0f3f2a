"""Files of chats to chats, one after the other: whatever holds records (records.py), in any shape (chat_records.py).

What a file holds is found out from its first record, and told. A broken line, or a record that is no chat, is given to whoever
reads with its place in the file. Knows no template and no tokenizer.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from llamita.data.chat_options import ChatOptions
from llamita.data.chat_records import BadChatError, Chat, read_chats, shape_of
from llamita.data.records import read_records
from llamita.data.sources import KINDS, Note, Source, find_sources
from llamita.data.text_files import open_bytes
from llamita.errors import DataError, one_line

_HEAD_BYTES = 1 << 20  # of a first line that is looked at


class Read(NamedTuple):
    """What a record held: the chat, or of pairs the chosen and the rejected one; place: its file and line."""

    place: str
    chats: tuple[Chat, ...]


OnBad = Callable[[BadChatError], None]


def find_chat_files(names: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """Every file and data set of records that the names stand for; raise DataError for text that holds none."""
    sources = find_sources(names)
    found = [source for source in sources if source.kind != "text"]
    given = {os.fspath(name) for name in names}
    texts = [source.name for source in sources if source.kind == "text" and source.name in given]
    if texts or not found:
        expected = " ".join(ending for ending, kind in KINDS.items() if kind != "text")
        raise DataError(one_line(f"{(texts or [*given])[0]}: found no file of chats, expected {expected}"))
    return found


def kind_of(sources: Sequence[Source], options: ChatOptions) -> str:
    """What the first record that is anything holds: "pairs" of a chosen and a rejected answer, or "chats"."""
    for source in sources:
        for _, record in read_records(source.name, _layout_of(source), lambda *_: None):
            with suppress(BadChatError):
                return "pairs" if (options.shape or shape_of(record, options)) == "pairs" else "chats"
    return "chats"


def read_chat_files(sources: Sequence[Source], options: ChatOptions, on_bad: OnBad, note: Note) -> Iterator[Read]:
    """The chats of the sources, in their order. note is told once per source what its records are.

    on_bad gets what is broken or no chat, with its place, and may raise it. Raises DataError for what cannot be read at all.
    """
    for source in sources:
        yield from _read(source, options, on_bad, note)


def _read(source: Source, options: ChatOptions, on_bad: OnBad, note: Note) -> Iterator[Read]:
    kind = _layout_of(source)
    unit = "line" if kind == "jsonl" else "record"
    shape = ""

    def on_broken(_: int, error: DataError) -> None:
        on_bad(BadChatError("broken line", str(error)))

    for number, record in read_records(source.name, kind, on_broken):
        place = f"{source.name}: {unit} {number}"
        try:
            if not shape:
                shape = options.shape or shape_of(record, options)
                _check_kind(source.name, shape, options.kind)
                note(source, f"the shape is {shape}" + ("" if options.shape else ", by the first record"))
            chats = read_chats(record, shape, options)
        except BadChatError as error:
            on_bad(BadChatError(error.reason, one_line(f"{place}: {error}")))
            continue
        yield Read(place, chats)


def _check_kind(name: str, shape: str, kind: str) -> None:
    if (shape == "pairs") != (kind == "pairs"):
        found, expected = ("pairs of answers", "chats") if shape == "pairs" else (f"chats ({shape})", "chosen and rejected")
        raise DataError(one_line(f"{name}: found {found}, expected {expected}; preference tuning needs pairs, else chats"))


def _layout_of(source: Source) -> str:
    """The kind of a source; a .json of lines is one of JSON lines, and a .jsonl that is one list is JSON."""
    if source.kind not in ("json", "jsonl"):
        return source.kind
    with open_bytes(source.name) as file:
        line = file.readline(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").strip()
        follows = file.read(1)
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return "json" if line.startswith(b"[") else source.kind
    is_chat = (
        isinstance(first, list) and bool(first) and isinstance(first[0], dict) and bool({"role", "from"} & first[0].keys())
    )
    if isinstance(first, dict) or (is_chat and follows):
        return "jsonl"
    return "json" if isinstance(first, list) else source.kind
