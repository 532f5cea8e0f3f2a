"""Learn a vocabulary of byte pairs from text: sentencepiece's trainer with the options of llama2.c's tinystories.py.

The first stage of the pipeline, called by `llamita vocab`. One option differs: spaces are kept as they are, so that
tokenizer.model gives the ids of tokenizer.bin, which cannot squeeze them. Knows no file.
"""

import io
import os
import re
from collections.abc import Iterable, Iterator

from llamita.errors import TokenizerError, VocabularySizeError
from llamita.tokenizer.sentencepiece import SentencePieceTokenizer, parse_sentencepiece

SAMPLE_BYTES = 100 << 20  # of text to learn from: more changes few pieces, and is held in memory several times over
LINE_CHARACTERS = 1000  # the trainer leaves out lines above 4,192 bytes without a word


def learn(documents: Iterable[str], vocab_size: int, threads: int = 0) -> SentencePieceTokenizer:
    """Learn a tokenizer of vocab_size pieces: unknown, BOS, EOS, 256 bytes, byte pairs, characters.

    documents: all are held in memory; pass a sample of SAMPLE_BYTES at most. threads: 0 takes one per core; the result is the
    same. Raises VocabularySizeError where the text does not allow the size, saying which it allows. Source: llama2.c.

    >>> learn(["a rose is a rose is a rose"], 270).vocab_size
    270
    """
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_lines(documents),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            self_test_sample_size=0,
            input_format="text",
            character_coverage=1.0,
            num_threads=threads or os.cpu_count() or 1,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            byte_fallback=True,
            unk_surface=r" \342\201\207 ",
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=3,  # only what ends the process
        )
    except RuntimeError as error:
        raise _explain(str(error), vocab_size) from None
    return parse_sentencepiece(model.getvalue(), "the learned tokenizer.model")


def _lines(documents: Iterable[str]) -> Iterator[str]:
    """Lines of text without the line ends, which stay bytes; long ones are cut at a space."""
    for document in documents:
        for line in document.split("\n"):
            while len(line) > LINE_CHARACTERS:
                end = line.rfind(" ", 1, LINE_CHARACTERS)
                end = end if end > 0 else LINE_CHARACTERS
                yield line[:end]
                line = line[end:]
            if line.strip():
                yield line


def _explain(message: str, vocab_size: int) -> TokenizerError:
    """What the trainer's message means for the user."""
    too_large = re.search(r"value <= (\d+)", message)
    too_small = re.search(r"required_chars\. \d+ vs (\d+)", message)
    if too_large:
        line = f"vocabulary: found text for at most {too_large[1]} pieces, expected enough for {vocab_size}"
        return VocabularySizeError(line, int(too_large[1]))
    if too_small:
        reason = f"found characters and bytes for at least {too_small[1]} pieces"
        line = f"vocabulary: {reason}, expected them to fit into {vocab_size}; ask for more, or clean the text"
        return VocabularySizeError(line, int(too_small[1]))
    if "sentences_.empty" in message:
        return TokenizerError("vocabulary: found no text, expected some to learn from")
    return TokenizerError(f"vocabulary: the trainer of sentencepiece failed: {message}")
