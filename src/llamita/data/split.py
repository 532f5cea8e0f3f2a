"""Documents to batches of training and of validation text, without duplicates: the second step of `llamita prepare`.

Which text validates is drawn by lot from the digest of the text itself, so that it depends on no order, and a text never stands
on both sides. Knows no tokenizer and no file.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from llamita.data.digests import DigestSet, digest_texts
from llamita.data.sources import Document
from llamita.data.text_files import border
from llamita.errors import DataError, one_line

BATCH_BYTES = 8 << 20  # of text in a batch: half a second of work, and what a restart may lose
SHARE = 0.01  # of the text that validates
LEAST_BYTES = 256 << 10  # of a small text, for a loss that is not all noise
LARGEST_SHARE = 0.1  # but never more of it than this
MOST_BYTES = 4 << 20  # of a large one: more would only take time
_DIGESTED_BYTES = 1 << 20

Side = Literal["train", "validation"]
SIDES: tuple[Side, ...] = ("train", "validation")


@dataclass
class Batch:
    """Documents of one side, encoded together. n_bytes: of their text in UTF-8; digests: those of the texts, joined."""

    side: Side
    documents: list[Document] = field(default_factory=list)
    n_bytes: int = 0
    digests: bytearray = field(default_factory=bytearray)

    def add(self, document: Document, n_bytes: int, digest: bytes) -> None:
        """Append a document with the size and the digest of its text."""
        self.documents.append(document)
        self.n_bytes += n_bytes
        self.digests += digest


def validation_bytes(n_text_bytes: int) -> int:
    """How much of a text of about this size shall validate; of a text of unknown size (0), the most."""
    if not n_text_bytes:
        return MOST_BYTES
    wanted = max(SHARE * n_text_bytes, min(LARGEST_SHARE * n_text_bytes, LEAST_BYTES))
    return max(1, round(min(wanted, MOST_BYTES)))


class Splitter:
    """Sort documents into batches, and count what is left out.

    n_text_bytes: about the size of the training text, 0 where unknown; it decides the share that validates.
    n_duplicates: documents left out; n_shared: training documents that given validation text holds too.
    """

    def __init__(self, n_text_bytes: int) -> None:
        self.n_duplicates = self.n_shared = 0
        self._wanted_bytes = validation_bytes(n_text_bytes)
        self._share = min(LARGEST_SHARE, self._wanted_bytes / n_text_bytes) if n_text_bytes else SHARE
        self._given = DigestSet()  # validation text that the user named
        self._seen = DigestSet()

    def batches_of(self, side: Side, documents: Iterable[Document]) -> Iterator[Batch]:
        """Batches of one side only: the user has named both."""
        batch = Batch(side)
        seen = self._given if side == "validation" else self._seen
        for document, n_bytes, digests in self._new(documents, seen):
            if batch.n_bytes >= BATCH_BYTES:
                yield batch
                batch = Batch(side)
            batch.add(document, n_bytes, digests.tobytes())
        if batch.documents:
            yield batch

    def batches(self, documents: Iterable[Document]) -> Iterator[Batch]:
        """Batches of both sides, drawn by lot; where it falls on none or all, the end of the text validates.

        Raises DataError where there is too little text to be divided.
        """
        threshold = np.uint64(self._share * 2**64)
        pending: dict[Side, Batch] = {"train": Batch("train"), "validation": Batch("validation")}
        for document, n_bytes, digests in self._new(documents, self._seen):
            validates = digests[1] < threshold and n_bytes <= self._wanted_bytes
            side = "validation" if validates else "train"
            if pending[side].n_bytes >= BATCH_BYTES:
                yield pending[side]
                pending[side] = Batch(side)
            pending[side].add(document, n_bytes, digests.tobytes())
        train, validation = pending["train"].documents, pending["validation"].documents
        if bool(train) != bool(validation):
            pending = _divide(train or validation, self._wanted_bytes)
        yield from (batch for batch in pending.values() if batch.documents)

    def _new(self, documents: Iterable[Document], seen: DigestSet) -> Iterator[tuple[Document, int, np.ndarray]]:
        """Each document whose text comes for the first time, with its UTF-8 bytes and its digests, uint64 (2,)."""
        for group in _groups(documents):
            texts = [_utf8(document) for document in group]
            digests = digest_texts(texts)
            is_new = seen.add(digests[:, 0])
            self.n_duplicates += len(group) - int(is_new.sum())
            if seen is self._seen:
                self.n_shared += int(self._given.contains(digests[is_new, 0]).sum())
            for i in np.flatnonzero(is_new).tolist():
                yield group[i], len(texts[i]), digests[i]


def _groups(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents in lists of about a megabyte."""
    group, n_characters = [], 0
    for document in documents:
        group.append(document)
        n_characters += len(document.text) + 1
        if n_characters >= _DIGESTED_BYTES:
            yield group
            group, n_characters = [], 0
    if group:
        yield group


def _utf8(document: Document) -> bytes:
    try:
        return document.text.encode("utf-8")
    except UnicodeEncodeError as error:
        found = document.text[error.start]
        place = f"{document.source}: record {document.record}, character {error.start}"
        raise DataError(one_line(f"{place}: found {found!r}, half a surrogate pair, expected valid Unicode")) from None


def _divide(documents: Sequence[Document], wanted_bytes: int) -> dict[Side, Batch]:
    """Cut the last wanted_bytes, about, from a text of few documents, at a paragraph, line, sentence or word."""
    kept = list(documents)
    tail: list[Document] = []
    left_bytes = wanted_bytes
    while kept and left_bytes > 0:
        last = kept.pop()
        n_bytes = len(_utf8(last))
        if n_bytes > left_bytes or not kept:
            end = border(last.text, max(1, round(len(last.text) * (1 - min(0.5, left_bytes / n_bytes)))))
            head, rest = last.text[:end].strip(), last.text[end:].strip()
            kept += [last._replace(text=head)] if head else []
            tail += [last._replace(text=rest)] if rest else []
            break
        tail.append(last)
        left_bytes -= n_bytes
    if not kept or not tail:
        raise DataError("text: found too little to be divided, expected some for training and some for validation")
    sides: dict[Side, Batch] = {"train": Batch("train"), "validation": Batch("validation")}
    for batch, its_documents in ((sides["train"], kept), (sides["validation"], reversed(tail))):
        for document in its_documents:
            data = _utf8(document)
            batch.add(document, len(data), digest_texts([data]).tobytes())
    return sides
