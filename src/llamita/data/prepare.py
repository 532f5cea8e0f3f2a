"""`llamita prepare`: documents to token shards, on all cores, going on where an earlier run stopped.

Batches of documents are encoded into parts, each a file named by what it was made from; at the end the parts are joined into
shards and the manifest is written last. The result is the same to the byte whatever the number of workers and however often the
work was interrupted. Reads through sources.py and split.py, encodes through workers.py; shards.py opens the result.
"""

import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path

from llamita.data.encode import token_dtype
from llamita.data.manifest import MANIFEST_NAME, Manifest, Overlap, Recipe, Shard, Split, read_manifest, write_manifest
from llamita.data.out_folder import check_no_model
from llamita.data.overlap import RUN_TOKENS, measure_overlap
from llamita.data.progress import Progress
from llamita.data.shards import map_shards, open_dataset
from llamita.data.sources import GUESS, Document, ReadOptions, Source, documents, find_sources
from llamita.data.split import SIDES, Batch, Side, Splitter
from llamita.data.tokenizer_copy import copy_tokenizer, find_tokenizer
from llamita.data.workers import Team, part_name, wait_for
from llamita.errors import DataError, one_line
from llamita.files import atomic_file, sha256_of
from llamita.processor import available_cores
from llamita.tokenizer import Tokenizer

PARTS_NAME = ".parts"
_SHARD_BYTES = 256 << 20
_BYTES_PER_WORKER = 16 << 20  # of text; for less, starting a process takes longer than the work


@dataclass(frozen=True)
class PrepareOptions:
    """How to prepare.

    read: how files become documents. validation: names of sources that validate; without any, the lot is drawn over the text.
    workers: processes that encode; 0: one per core, where the text is worth it.
    """

    read: ReadOptions = GUESS
    validation: tuple[str, ...] = ()
    workers: int = 0


DEFAULTS = PrepareOptions()


@dataclass(frozen=True)
class _Job:
    """What is known before any text is read; tokenizer_path is the copy in the folder."""

    folder: Path
    sources: list[Source]
    validation: list[Source]
    read: ReadOptions
    recipe: Recipe
    tokenizer: Tokenizer
    tokenizer_path: Path

    @property
    def n_text_bytes(self) -> int:
        """About how much text there is, 0 where nobody knows."""
        sources = [*self.sources, *self.validation]
        return 0 if any(source.kind == "dataset" for source in sources) else sum(source.n_text_bytes for source in sources)


@dataclass(frozen=True)
class _Part:
    """A batch on its way: its file, and what of it the manifest needs."""

    side: Side
    path: Path
    n_documents: int
    n_bytes: int
    ends: tuple[Document, Document]  # the first and the last document


@dataclass
class _Facts:
    """What is known only when all text was read; parts in the order of their text."""

    detected: dict[str, str] = field(default_factory=dict)
    parts: list[_Part] = field(default_factory=list)
    n_reused: int = 0
    text_sha256: str = ""


def prepare(
    names: Sequence[str | os.PathLike[str]],
    tokenizer_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: PrepareOptions = DEFAULTS,
    progress: Progress | None = None,
) -> Manifest:
    """Encode the documents of files, folders and data sets into a folder of token shards, and return its manifest.

    tokenizer_path: a file, or a folder with one. A folder that is finished and was made from the same files is left as it is.
    Raises DataError for text that cannot be read or encoded and for a folder that holds something else, ModelFileError for a
    broken tokenizer or a disk without room.

    >>> prepare(["stories.txt"], "tokenizer.model", "tokens").train.n_tokens  # doctest: +SKIP
    """
    progress = progress or Progress()
    folder = Path(out)
    named_tokenizer = find_tokenizer(tokenizer_path)
    sources = find_sources(names)
    validation = find_sources(options.validation) if options.validation else []
    _check_apart(folder, [*names, *options.validation])
    check_no_model(folder)
    recipe = Recipe(
        tokenizer_sha256=sha256_of(named_tokenizer),
        sources=tuple(map(asdict, sources)),
        validation_sources=tuple(map(asdict, validation)),
        field=options.read.field,
        separator=options.read.separator,
    )
    finished = _finished(folder, recipe)
    if finished:
        progress.say(f"{folder}: prepared already")
        return finished
    _make(folder / PARTS_NAME)
    copied_path, tokenizer = copy_tokenizer(named_tokenizer, folder)
    job = _Job(folder, sources, validation, options.read, recipe, tokenizer, copied_path)
    splitter = Splitter(job.n_text_bytes)
    facts = _encode(job, splitter, _n_workers(options.workers, job.n_text_bytes), progress)
    manifest = _assemble(job, facts, splitter)
    write_manifest(manifest, folder)
    shutil.rmtree(folder / PARTS_NAME, ignore_errors=True)
    return manifest


def _encode(job: _Job, splitter: Splitter, n_workers: int, progress: Progress) -> _Facts:
    """Have every batch encoded that no earlier run has."""
    facts = _Facts()

    def note(source: Source, line: str) -> None:
        if line not in facts.detected.values():
            progress.say(f"{source.name}: {line}")
        facts.detected[source.name] = line

    texts = documents(job.sources, job.read, note)
    if job.validation:
        given = documents(job.validation, job.read, note)
        batches = chain(splitter.batches_of("validation", given), splitter.batches_of("train", texts))
    else:
        batches = splitter.batches(texts)
    with Team(job.tokenizer_path, n_workers) as team:
        for done_bytes in _run(batches, team, job, facts):
            progress.update(done_bytes, job.n_text_bytes)
    if facts.n_reused:
        progress.say(f"{facts.n_reused} of {len(facts.parts)} parts were there from an earlier run")
    sides = {part.side for part in facts.parts}
    for side, sources in (("train", job.sources), ("validation", job.validation or job.sources)):
        if side not in sides:
            names = ", ".join(source.name for source in sources[:3])
            raise DataError(one_line(f"{names}: found no documents for {side}, expected text"))
    return facts


def _run(batches: Iterator[Batch], team: Team, job: _Job, facts: _Facts) -> Iterator[int]:
    """Encode batches, a few at a time, note the parts in facts, and yield the bytes of text done so far."""
    running: deque[tuple[_Part, Future[None] | None]] = deque()
    all_digests = sha256()
    done_bytes = 0
    for batch in chain(batches, [None]):
        if batch:
            all_digests.update(batch.side.encode() + batch.digests)
            path = job.folder / PARTS_NAME / part_name(batch, job.recipe.tokenizer_sha256)
            ends = batch.documents[0], batch.documents[-1]
            part = _Part(batch.side, path, len(batch.documents), batch.n_bytes, ends)
            is_there = path.exists()
            facts.parts.append(part)
            facts.n_reused += is_there
            running.append((part, None if is_there else team.submit(batch, path)))
        while running and (batch is None or len(running) > team.n_workers + 1):
            part, work = running.popleft()
            if work:
                wait_for(work, part.ends)
            done_bytes += part.n_bytes
            yield done_bytes
    facts.text_sha256 = all_digests.hexdigest()


def _assemble(job: _Job, facts: _Facts, splitter: Splitter) -> Manifest:
    """Join the parts into shards and measure what the two sides share."""
    dtype, vocab_size = token_dtype(job.tokenizer.vocab_size), job.tokenizer.vocab_size
    splits = {side: _join(job.folder, side, facts.parts, dtype.itemsize) for side in SIDES}
    kept = {shard.name for split in splits.values() for shard in split.shards}
    for stale in [path for side in SIDES for path in job.folder.glob(f"{side}-?????.bin") if path.name not in kept]:
        stale.unlink()  # of an earlier run with more text that never came to its manifest
    run_share, n_runs = measure_overlap(*[map_shards(job.folder, splits[side], dtype.name, vocab_size) for side in SIDES])
    return Manifest(
        dtype=dtype.name,
        vocab_size=vocab_size,
        bos_id=job.tokenizer.bos_id,
        eos_id=job.tokenizer.eos_id,
        tokenizer=job.tokenizer_path.name,
        text_sha256=facts.text_sha256,
        train=splits["train"],
        validation=splits["validation"],
        n_duplicates=splitter.n_duplicates,
        overlap=Overlap(splitter.n_shared, run_share, n_runs, RUN_TOKENS),
        detected=facts.detected,
        recipe=job.recipe,
    )


def _join(folder: Path, side: Side, parts: Sequence[_Part], token_bytes: int) -> Split:
    """The parts of one side as shards of about _SHARD_BYTES."""
    mine = [part for part in parts if part.side == side]
    groups: list[list[Path]] = []
    room_bytes = 0
    for part in mine:
        if room_bytes <= 0:
            groups.append([])
            room_bytes = _SHARD_BYTES
        groups[-1].append(part.path)
        room_bytes -= part.path.stat().st_size
    shards = [_write_shard(folder / f"{side}-{i:05}.bin", paths, token_bytes) for i, paths in enumerate(groups)]
    n_tokens = sum(shard.n_tokens for shard in shards)
    return Split(sum(part.n_documents for part in mine), n_tokens, sum(part.n_bytes for part in mine), tuple(shards))


def _write_shard(path: Path, parts: Sequence[Path], token_bytes: int) -> Shard:
    digest, n_bytes = sha256(), 0
    with atomic_file(path) as file:
        for part in parts:
            content = part.read_bytes()
            digest.update(content)
            n_bytes += file.write(content)
    return Shard(path.name, n_bytes // token_bytes, digest.hexdigest())


def _finished(folder: Path, recipe: Recipe) -> Manifest | None:
    """The manifest of a folder that this recipe was followed in; None for a folder without; DataError for another's."""
    if not (folder / MANIFEST_NAME).exists():
        return None
    if read_manifest(folder).recipe != recipe:
        reason = "found tokens of other text, another tokenizer or other settings, expected an unused folder"
        raise DataError(one_line(f"{folder}: {reason}; name another one or remove it"))
    return open_dataset(folder).manifest


def _check_apart(folder: Path, names: Sequence[str | os.PathLike[str]]) -> None:
    """Raise DataError where the result would lie among its own sources, to be read as text by the next run."""
    for name in names:
        if Path(name).is_dir() and folder.resolve().is_relative_to(Path(name).resolve()):
            raise DataError(one_line(f"{folder}: found inside {os.fspath(name)}, expected a folder apart from the text"))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(one_line(f"{folder.parent}: found {error.strerror}, expected a folder where you may write")) from None


def _n_workers(wanted: int, total_bytes: int) -> int:
    """As many processes as asked for, or one per core where the text is worth it."""
    if wanted:
        return wanted
    n_cores = available_cores()
    return max(1, min(n_cores, -(-total_bytes // _BYTES_PER_WORKER) if total_bytes else n_cores))
