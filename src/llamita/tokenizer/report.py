"""How well a tokenizer fits a text: tokens spent on it, bytes fallen back to, pieces never used. Knows no file.

`llamita vocab` prints it, beside another tokenizer's where one is named.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from llamita.tokenizer import Tokenizer

_N_LONGEST = 10


@dataclass(frozen=True)
class TokenizerReport:
    """The quality of a vocabulary on a text.

    n_bytes: of the text in UTF-8; n_words: between blanks. byte_share: tokens that are single bytes of characters (or of line
    ends) the vocabulary lacks, of all. n_unused: pieces that the text never needed, apart from special tokens and bytes.
    longest_pieces: the longest that the text needed.
    """

    vocab_size: int
    n_bytes: int
    n_words: int
    n_tokens: int
    byte_share: float
    n_unused: int
    longest_pieces: tuple[str, ...]

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text that a token stands for: the more, the shorter the text for a model."""
        return self.n_bytes / max(1, self.n_tokens)

    @property
    def tokens_per_word(self) -> float:
        """Tokens for a word, blanks and punctuation included."""
        return self.n_tokens / max(1, self.n_words)

    def to_dict(self) -> dict:
        """The report as plain values."""
        return vars(self) | {"bytes_per_token": self.bytes_per_token, "tokens_per_word": self.tokens_per_word}


def measure_tokenizer(tokenizer: Tokenizer, texts: Iterable[str]) -> TokenizerReport:
    """Encode texts and count; raise TokenizerError for a text that is no Unicode."""
    counts: Counter[int] = Counter()
    n_bytes = n_words = 0
    for text in texts:
        counts.update(tokenizer.encode(text))
        n_bytes += len(text.encode("utf-8"))
        n_words += len(text.split())
    byte_ids = _byte_ids(tokenizer)
    pieces = {i: tokenizer.piece_bytes(i) for i in range(tokenizer.vocab_size)}
    n_tokens = counts.total()
    longest = sorted(counts.keys() - byte_ids, key=lambda i: (-len(pieces[i]), i))[:_N_LONGEST]
    return TokenizerReport(
        vocab_size=tokenizer.vocab_size,
        n_bytes=n_bytes,
        n_words=n_words,
        n_tokens=n_tokens,
        byte_share=sum(counts[i] for i in byte_ids) / max(1, n_tokens),
        n_unused=sum(1 for i, piece in pieces.items() if piece and i not in byte_ids and i not in counts),
        longest_pieces=tuple(pieces[i].decode("utf-8", "replace") for i in longest),
    )


def _byte_ids(tokenizer: Tokenizer) -> set[int]:
    """The 256 pieces that stand for bytes: of two pieces with the same single byte the first, which is no character."""
    first: dict[bytes, int] = {}
    for i in range(tokenizer.vocab_size):
        piece = tokenizer.piece_bytes(i)
        if len(piece) == 1:
            first.setdefault(piece, i)
    return set(first.values()) if len(first) == 256 else set()
