"""Documents as numbers: the ids of each text, and where in the text each stands, to the kilobyte.

The first step of `llamita score`: texts come in, windows.py cuts what goes out. Each kilobyte of a document is a row, for which
losses are summed up later, so that what two models lose can be compared piece by piece although their vocabularies differ.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from llamita.data.encode import DocumentEncoder
from llamita.tokenizer import Tokenizer

ROW_BYTES = 1024


class EncodedDocument(NamedTuple):
    """One text: ids int64 (T,), BOS not among them, and the row of each, int64 (T,). T is not 0."""

    ids: np.ndarray
    rows: np.ndarray


class Rows:
    """What is known of the rows before a model has read them: of which document each is, and its bytes of counted text."""

    def __init__(self) -> None:
        self.documents: list[int] = []
        self.n_bytes: list[int] = []

    def add(self, n_bytes: int) -> int:
        """Add the rows of the next document and return the first."""
        first, document = len(self.documents), self.documents[-1] + 1 if self.documents else 0
        sizes = [ROW_BYTES] * (n_bytes // ROW_BYTES) + [n_bytes % ROW_BYTES] * bool(n_bytes % ROW_BYTES)
        self.n_bytes += sizes
        self.documents += [document] * len(sizes)
        return first


class TextEncoder:
    """Encode texts with one tokenizer, and note in `rows` what they consist of."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.rows = Rows()
        self.digest = hashlib.blake2b(digest_size=16)  # of all ids: equal for equal tokens
        self._tokenizer = tokenizer
        self._fast = DocumentEncoder(tokenizer) if tokenizer.bos_id >= 0 else None
        self._token_bytes = np.array([len(tokenizer.piece_bytes(i)) for i in range(tokenizer.vocab_size)])

    def encode(self, texts: Iterable[str], counts_first: Callable[[int], bool]) -> Iterator[EncodedDocument]:
        """Yield the texts that have tokens, numbered from 0. counts_first: whether the first token of a text will be counted.

        Raises TokenizerError for a text that is no Unicode.
        """
        n_documents = 0
        for text in texts:
            ids = self._ids(text)
            if not len(ids):
                continue
            self.digest.update(ids.tobytes())
            first = self.rows.add(len(text.encode()))
            if not counts_first(n_documents):
                self.rows.n_bytes[first] -= self._text_bytes_of_first(int(ids[0]))
            n_documents += 1
            yield EncodedDocument(ids, self._rows_of(ids, first))

    def n_bytes_of(self, ids: np.ndarray) -> int:
        """Bytes of text in some tokens."""
        return int(self._token_bytes[ids].sum())

    def _ids(self, text: str) -> np.ndarray:
        if self._fast:
            return self._fast.encode([text])[1:].astype(np.int64)
        return np.array(self._tokenizer.encode(text), np.int64)

    def _text_bytes_of_first(self, token_id: int) -> int:
        """What a text's first token holds of the text: not the space that encoding puts before it."""
        piece = self._tokenizer.piece_bytes(token_id)
        return len(piece) - (self._tokenizer.adds_space and piece.startswith(b" "))

    def _rows_of(self, ids: np.ndarray, first: int) -> np.ndarray:
        """int64 (T,): the row that each token of the newest document begins in."""
        starts = np.cumsum(self._token_bytes[ids]) - self._token_bytes[ids]
        return first + np.minimum(starts // ROW_BYTES, len(self.rows.documents) - 1 - first)
