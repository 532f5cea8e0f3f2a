"""The processes that encode: a batch of documents in, a file of tokens out. One process encodes by itself.

A part is named by everything that determines it, so one that exists is finished, whatever run wrote it: that is how preparing
goes on after an interruption. Workers import no torch, ignore Ctrl-C (the parent decides) and end when the parent is gone.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from llamita.data.encode import DocumentEncoder
from llamita.data.manifest import VERSION
from llamita.data.sources import Document
from llamita.data.split import Batch
from llamita.errors import DataError, one_line
from llamita.files import atomic_file
from llamita.formats import read_tokenizer

_encoder: DocumentEncoder | None = None  # of a worker process


def part_name(batch: Batch, tokenizer_sha256: str) -> str:
    """The file name of a batch's tokens."""
    return sha256(f"{VERSION} {tokenizer_sha256} ".encode() + batch.digests).hexdigest()[:32] + ".bin"


class Team:
    """Encoders for batches: worker processes, or this process where n_workers is 1. Use it in a with statement."""

    def __init__(self, tokenizer_path: Path, n_workers: int) -> None:
        self.n_workers = n_workers
        self._tokenizer_path = tokenizer_path
        self._own: DocumentEncoder | None = None
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Team":
        if self.n_workers > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.n_workers, context, _start_worker, (self._tokenizer_path,))
            with _interrupts_held():  # workers inherit that, and would otherwise complain of one before they are ready
                for _ in range(self.n_workers):
                    self._pool.submit(os.getpid)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, batch: Batch, path: Path) -> "Future[None]":
        """Encode a batch into a file, now or soon."""
        if self._pool:
            try:
                return self._pool.submit(_work, batch.documents, path)
            except BrokenProcessPool:
                raise DataError(_died(batch.documents)) from None
        if self._own is None:
            self._own = DocumentEncoder(read_tokenizer(self._tokenizer_path))
        encode_part(self._own, batch.documents, path)
        done: Future[None] = Future()
        done.set_result(None)
        return done


def wait_for(work: "Future[None]", documents: Sequence[Document]) -> None:
    """Wait until a batch is encoded; raise DataError where its worker failed or died."""
    try:
        work.result()
    except BrokenProcessPool:
        raise DataError(_died(documents)) from None


def encode_part(encoder: DocumentEncoder, documents: Sequence[Document], path: Path) -> None:
    """Write the tokens of documents; raise DataError naming the document where one cannot be encoded."""
    try:
        tokens = encoder.encode([document.text for document in documents])
    except Exception as error:  # whatever the reason, the user shall know which document it was
        raise DataError(one_line(f"{_culprit(encoder, documents)}: cannot be encoded: {error!r}")) from error
    with atomic_file(path) as file:
        file.write(tokens.tobytes())


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait; Windows cannot, and there it reaches workers that start."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(tokenizer_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    global _encoder
    _encoder = DocumentEncoder(read_tokenizer(tokenizer_path))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(documents: Sequence[Document], path: Path) -> None:
    assert _encoder is not None
    try:
        encode_part(_encoder, documents, path)
    except Exception as error:
        raise DataError(str(error)) from None  # an exception of one argument survives the way to the parent


def _culprit(encoder: DocumentEncoder, documents: Sequence[Document]) -> str:
    """The place of the first document that cannot be encoded alone, or of all where each can."""
    for document in documents:
        try:
            encoder.encode([document.text])
        except Exception:
            return f"{document.source}: record {document.record}"
    return _place(documents)


def _place(documents: Sequence[Document]) -> str:
    first, last = documents[0], documents[-1]
    return f"{first.source}: record {first.record} to {last.source}: record {last.record}"


def _died(documents: Sequence[Document]) -> str:
    reason = "a worker process died, perhaps for want of memory; run the command again to go on, with fewer --workers"
    return one_line(f"{_place(documents)}: {reason}")
