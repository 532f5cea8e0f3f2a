"""Special tokens around a text, and written out in one as chat templates do. Knows no vocabulary: it asks the tokenizer."""

import re
from collections.abc import Iterable
from itertools import groupby

from llamita.errors import TokenizerError
from llamita.tokenizer import Tokenizer

# How the end of a text, of a turn or of a message is spelled, as files of models often name EOS only; the list is llama.cpp's,
# as far as Llamas go
END_TEXTS = (
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|end_of_turn|>", "<end_of_turn>", "<EOT>", "<|end_of_text|>",
    "<|endoftext|>",
)  # fmt: skip


def end_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The special tokens that end a text, by their spelling; () where none is spelled so."""
    special_tokens = tokenizer.special_tokens
    return tuple(special_tokens[text] for text in END_TEXTS if text in special_tokens)


def enclose(tokenizer: Tokenizer, ids: list[int], bos: bool, eos: bool) -> list[int]:
    """The ids behind BOS, before EOS, as far as wanted; raise TokenizerError where the vocabulary has none."""
    for wanted, name, token_id in ((bos, "BOS", tokenizer.bos_id), (eos, "EOS", tokenizer.eos_id)):
        if wanted and token_id < 0:
            raise TokenizerError(f"{name}: found none in this vocabulary, expected one; encode without it")
    return [tokenizer.bos_id] * bos + ids + [tokenizer.eos_id] * eos


def encode_marked(tokenizer: Tokenizer, text: str, left_out: str = "") -> list[int]:
    """The ids of a text; see Tokenizer.encode_marked. What stands between special tokens is encoded as a text of its own.

    So a space is added behind each special token where the tokenizer adds one, as in llama.cpp. Of special tokens that begin
    alike the longest counts. left_out: a character that is no part of the text, but keeps a special token from being one.
    """
    special_tokens = tokenizer.special_tokens
    if not special_tokens:
        return tokenizer.encode(text.replace(left_out, ""))
    marks = "|".join(re.escape(mark) for mark in sorted(special_tokens, key=len, reverse=True))
    ids: list[int] = []
    for part in re.split(f"({marks})", text):
        ids += [special_tokens[part]] if part in special_tokens else tokenizer.encode(part.replace(left_out, ""))
    return ids


def decode_marked(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """The text of ids with special tokens written out: what encode_marked makes these ids of."""
    spelling = {token_id: text for text, token_id in tokenizer.special_tokens.items()}
    texts = list[str]()
    for is_special, group in groupby(ids, spelling.__contains__):
        stretch = list(group)
        texts.append("".join(spelling[token_id] for token_id in stretch) if is_special else tokenizer.decode(stretch))
    return "".join(texts)
