"""Special tokens written out in a text, as chat templates write them. Knows no vocabulary: it asks the tokenizer."""

import re

from llamita.tokenizer import Tokenizer


def encode_marked(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text; see Tokenizer.encode_marked. What stands between special tokens is encoded as a text of its own.

    So a space is added behind each special token where the tokenizer adds one, as in llama.cpp. Of special tokens that begin
    alike the longest counts.
    """
    special_tokens = tokenizer.special_tokens
    if not special_tokens:
        return tokenizer.encode(text)
    marks = "|".join(re.escape(mark) for mark in sorted(special_tokens, key=len, reverse=True))
    ids: list[int] = []
    for part in re.split(f"({marks})", text):
        ids += [special_tokens[part]] if part in special_tokens else tokenizer.encode(part)
    return ids
