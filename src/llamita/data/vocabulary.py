"""A vocabulary from the user's text: a sample of it to tokenizer/learn.py, the result to files, a report of how well it fits.

What `llamita vocab` does, and `llamita train` where no tokenizer is named. Reads through sources.py.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from llamita.data.out_folder import check_no_model
from llamita.data.progress import Progress
from llamita.data.sources import GUESS, ReadOptions, find_sources, sample
from llamita.data.tokenizer_copy import NAMES
from llamita.errors import DataError, one_line
from llamita.formats import read_tokenizer, write_tokenizer
from llamita.tokenizer.learn import SAMPLE_BYTES, learn
from llamita.tokenizer.report import TokenizerReport, measure_tokenizer
from llamita.tokenizer.sentencepiece import SentencePieceTokenizer

_REPORTED_BYTES = 4 << 20


def learn_vocabulary(
    names: Sequence[str | os.PathLike[str]],
    vocab_size: int,
    out: str | os.PathLike[str],
    options: ReadOptions = GUESS,
    progress: Progress | None = None,
) -> SentencePieceTokenizer:
    """Learn a tokenizer from files, folders and data sets, and write it as tokenizer.model, .bin and .json into a folder.

    Raises DataError for text that cannot be read, TokenizerError where there is too little of it for vocab_size pieces.
    """
    progress, folder = progress or Progress(), Path(out)
    check_no_model(folder)
    told = progress.say
    texts = list(sample(find_sources(names), options, SAMPLE_BYTES, lambda source, line: told(f"{source.name}: {line}")))
    progress.say(f"learning {vocab_size:,} pieces from {sum(map(len, texts)) / 1e6:,.1f} million characters")
    tokenizer = learn(texts, vocab_size)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(one_line(f"{folder}: found {error.strerror}, expected a folder where you may write")) from None
    for name in NAMES:
        write_tokenizer(tokenizer, folder / name)
    return tokenizer


def report_vocabularies(
    names: Sequence[str | os.PathLike[str]],
    tokenizer_paths: Iterable[str | os.PathLike[str]],
    options: ReadOptions = GUESS,
) -> dict[str, TokenizerReport]:
    """How well each tokenizer fits a sample of the text, by its path."""
    tokenizers = {os.fspath(path): read_tokenizer(path) for path in tokenizer_paths}
    texts = list(sample(find_sources(names), options, _REPORTED_BYTES))
    return {path: measure_tokenizer(tokenizer, texts) for path, tokenizer in tokenizers.items()}
