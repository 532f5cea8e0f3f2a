"""Tokens as a reader sees them: with special tokens spelled out, in stretches of one kind. Knows no vocabulary, asks it."""

from collections.abc import Sequence
from itertools import groupby

from llamita.tokenizer import Tokenizer


def spelled(tokenizer: Tokenizer, ids: Sequence[int], counted: Sequence[bool]) -> list[tuple[str, bool]]:
    """The text of ids with special tokens spelled out, in stretches that are counted and that are not."""
    spelling = {token_id: text.encode("utf-8") for text, token_id in tokenizer.special_tokens.items()}
    stretches: list[tuple[str, bool]] = []
    for flag, group in groupby(zip(ids, counted, strict=True), key=lambda pair: bool(pair[1])):
        data = b"".join(tokenizer.piece_bytes(token_id) or spelling.get(token_id, b"") for token_id, _ in group)
        stretches.append((data.decode("utf-8", "replace"), flag))
    if stretches and tokenizer.adds_space and stretches[0][0].startswith(" "):
        stretches[0] = (stretches[0][0][1:], stretches[0][1])
    return stretches
