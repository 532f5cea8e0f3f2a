"""Windows: what a model reads of a text at a time, and which tokens are counted there. Every token of a text counts once.

Documents come in encoded (documents.py), windows go out to losses.py. Three ways are in use, and each gives other numbers:

    documents   each document by itself, behind BOS, as it is told; what does not fit goes on in windows that begin with BOS
    stream      all documents one behind the other, cut into pieces of one context, as llama2.c validates
    strided     the same stream, windows that overlap, so that no token is foretold from little, as Hugging Face's guide does

Knows no model and no text.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from llamita.errors import SettingError
from llamita.judge.documents import EncodedDocument

Kind = Literal["documents", "stream", "strided"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Window(NamedTuple):
    """ids int64 (T,): the model reads all but the last. The last n of them are counted, n = len(rows); rows int64 (n,) says
    into which row of the losses each of those goes."""

    ids: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Windowing:
    """How a text becomes windows, each of which begins `stride` tokens behind the one before.

    context: tokens that are read at once at most; of a strided window the last of these is only foretold, as in the guide.
    bos_id: what begins every document, None for nothing. Where there is one, `stream` and `strided` count it too: it says that
    the document before has ended.
    """

    kind: Kind
    context: int
    stride: int
    bos_id: int | None

    @classmethod
    def choose(cls, kind: Kind, context: int, stride: int | None, bos_id: int | None) -> "Windowing":
        """The windowing of a kind; stride is half a context where None is given. Raises SettingError for one that cannot be."""
        if kind == "stream" and stride is not None:
            raise SettingError("stride: found it with windows of a stream, expected none: they do not overlap; take strided")
        stride = context if kind == "stream" else max(context // 2, 1) if stride is None else stride
        chosen = cls(kind, context, stride, bos_id)
        if not 1 <= stride <= chosen.n_read:
            expected = f"1 to {chosen.n_read}, or tokens of a context of {context} would be left out"
            raise SettingError(f"stride: found {stride}, expected {expected}")
        return chosen

    @property
    def n_read(self) -> int:
        """Tokens that the model reads of a window, at most."""
        return self.context - 1 if self.kind == "strided" else self.context

    def describe(self) -> str:
        """The windowing in words, for a reader who has to compare numbers."""
        begin = "behind BOS" if self.bos_id is not None else "without BOS"
        if self.kind == "documents":
            again = ", which begin with BOS too" if self.bos_id is not None else ""
            return (
                f"each document by itself, {begin}; one longer than {self.context} tokens in windows of that size{again} and "
                f"overlap, {self.stride} tokens further each"
            )
        joined = "with BOS before each" if self.bos_id is not None else "with nothing between"
        if self.kind == "stream":
            return f"the documents one behind the other, {joined}, cut every {self.context} tokens"
        return (
            f"the documents one behind the other, {joined}, in windows of {self.context} tokens that overlap, "
            f"{self.stride} tokens further each"
        )

    def counts_first(self, document: int) -> bool:
        """Whether the first token of a document, numbered from 0, has something before it, and so is counted."""
        return self.bos_id is not None or (self.kind != "documents" and document > 0)

    def windows(self, documents: Iterable[EncodedDocument]) -> Iterator[Window]:
        """The windows of documents, in order; holds a document and a context at most."""
        return self._by_document(documents) if self.kind == "documents" else self._by_stream(documents)

    def _by_document(self, documents: Iterable[EncodedDocument]) -> Iterator[Window]:
        for document in documents:
            ids, rows = document.ids, document.rows
            if self.bos_id is not None:
                ids, rows = np.concatenate([[self.bos_id], ids]), np.concatenate([rows[:1], rows])
            for start, counted, end in _spans(len(ids), self.n_read, self.stride):
                window = ids[start:end]
                if start and self.bos_id is not None:
                    window = np.concatenate([[self.bos_id], window[1:]])
                yield Window(window, rows[counted:end])

    def _by_stream(self, documents: Iterable[EncodedDocument]) -> Iterator[Window]:
        ids, rows, n_counted = np.empty(0, np.int64), np.empty(0, np.int64), 1  # what is held, and how much of it is done
        last_row = 0
        for document in documents:
            if self.bos_id is not None:  # counted where the document before ended
                ids, rows = np.append(ids, self.bos_id), np.append(rows, last_row)
            ids, rows, last_row = np.concatenate([ids, document.ids]), np.concatenate([rows, document.rows]), document.rows[-1]
            start = 0
            while start + self.n_read < len(ids):
                end = start + self.n_read + 1
                yield Window(ids[start:end], rows[n_counted:end])
                start, n_counted = start + self.stride, end
            ids, rows, n_counted = ids[start:], rows[start:], n_counted - start
        if n_counted < len(ids):
            yield Window(ids, rows[n_counted:])


def _spans(n_ids: int, n_read: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(start, counted, end) of each window: it reads ids start to end - 2, and counts ids counted to end - 1."""
    start, counted = 0, 1
    while counted < n_ids:
        end = min(start + n_read + 1, n_ids)
        yield start, counted, end
        start, counted = start + stride, end
