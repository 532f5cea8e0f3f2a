"""Many documents to token ids at once: BOS and the ids of each text, equal to tokenizer.encode(text, bos=True).

The fast path remembers words. In vocabularies such as llama2.c's no piece reaches over the beginning of a word, so a text is
cut there and the ids of each word are looked up, as bytes that only need to be joined. Whether that holds is read from the
pieces; where it does not, each text is encoded whole. Knows no file.
"""

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from llamita.tokenizer import Tokenizer
from llamita.tokenizer.llama2c import Llama2cTokenizer
from llamita.tokenizer.sentencepiece import BPE, BYTE, CONTROL, SPACE, UNKNOWN, SentencePieceTokenizer

_KEYS_AT_ONCE = 1 << 13  # so few words stay in the cache of a core between being cut and being looked up
_CACHED_WORDS = 1 << 20  # then they are forgotten; English has far fewer in use


def token_dtype(vocab_size: int) -> np.dtype:
    """The narrowest of uint16 and uint32, little-endian, that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class DocumentEncoder:
    """Encode documents with one tokenizer, remembering its words from call to call."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._dtype = token_dtype(tokenizer.vocab_size)
        rules = word_rules(tokenizer)
        self._words = _Words(tokenizer, rules, self._dtype) if rules else None

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """The ids of all texts one after the other, each behind a BOS; uint16 or uint32 (T,), read-only.

        Raises TokenizerError for a text that is no Unicode and for a vocabulary without BOS.
        """
        if self._words is None:
            ids = [self._tokenizer.encode(text, bos=True) for text in texts]
            return np.fromiter(chain.from_iterable(ids), self._dtype)
        parts: list[bytes] = []
        keys: list[_Key] = []
        for text in texts:
            keys.append(None)
            keys += self._words.rules.cut(text)
            if len(keys) >= _KEYS_AT_ONCE:
                parts.append(b"".join(map(self._words.__getitem__, keys)))
                keys = []
                if len(self._words) > _CACHED_WORDS:
                    self._words.clear()
        parts.append(b"".join(map(self._words.__getitem__, keys)))
        return np.frombuffer(b"".join(parts), self._dtype)


@dataclass(frozen=True)
class WordRules:
    """How one vocabulary lets a text be cut into words.

    space_id: the piece of a single space; cuts_lines: whether no piece reaches over the beginning of a line;
    squeezes: whether runs of spaces count as one; escapes_space: whether U+2581 in a text means a space.
    """

    space_id: int
    cuts_lines: bool
    squeezes: bool
    escapes_space: bool

    def cut(self, text: str) -> "Sequence[_Key]":
        """The words of a text, behind the space that encoding adds, each without its leading space.

        "\\nword" is a word at the beginning of a line, which has none; "" is a space alone; (text,) is a text not to be cut.
        """
        if not text:
            return ()
        if self.escapes_space and SPACE in text:
            return ((text,),)
        if self.squeezes:
            text = re.sub("  +", " ", text).strip(" ")
            if not text:
                return ()
        if text[0] != " " and "  " not in text:
            return (text.replace("\n", " \n") if self.cuts_lines else text).split(" ")
        pattern = r"\n[^ \n]*| +[^ \n]*" if self.cuts_lines else r" +[^ ]*"
        return [word.removeprefix(" ") for word in re.findall(pattern, " " + text)]


_Key = str | tuple[str] | None  # a word, a whole text, BOS


class _Words(dict[_Key, bytes]):
    """The ids of each word that came, as bytes: joined, they are the ids of a text."""

    def __init__(self, tokenizer: Tokenizer, rules: WordRules, dtype: np.dtype) -> None:
        super().__init__()
        self.rules = rules
        self._tokenizer = tokenizer
        self._dtype = dtype

    def __missing__(self, key: _Key) -> bytes:
        ids = self[key] = np.array(self._ids_of(key), self._dtype).tobytes()
        return ids

    def _ids_of(self, key: _Key) -> list[int]:
        if key is None:
            return self._tokenizer.encode("", bos=True)
        if isinstance(key, tuple):
            return self._tokenizer.encode(key[0])
        if not key:
            return [self.rules.space_id]
        ids = self._tokenizer.encode(key)
        return ids[1:] if self.rules.cuts_lines and key[0] == "\n" else ids  # without the space that encode puts in front


def word_rules(tokenizer: Tokenizer) -> WordRules | None:
    """How texts may be cut for this tokenizer, or None where they may not: other kinds, or pieces that cross words."""
    if not isinstance(tokenizer, Llama2cTokenizer | SentencePieceTokenizer) or not tokenizer.adds_space:
        return None
    squeezes = escapes_space = False
    if isinstance(tokenizer, Llama2cTokenizer):
        ids = dict(zip(reversed(tokenizer.pieces), range(tokenizer.vocab_size - 1, -1, -1), strict=True))
        pieces = {piece.decode("utf-8", "replace"): token_id for piece, token_id in ids.items()}
    else:
        rules = tokenizer.rules
        if rules.model_type != BPE or rules.charsmap or rules.whitespace_as_suffix or not rules.escape_whitespaces:
            return None
        entries = enumerate(zip(tokenizer.pieces, tokenizer.types, strict=True))
        pieces = {piece.replace(SPACE, " "): i for i, (piece, kind) in entries if kind not in (UNKNOWN, CONTROL, BYTE)}
        squeezes, escapes_space = rules.remove_extra_whitespaces, True
    if " " not in pieces or any(re.search("[^ ] ", piece) for piece in pieces):
        return None
    cuts_lines = not any("\n" in piece[1:] and _can_be_merged(piece, pieces) for piece in pieces)
    return WordRules(pieces[" "], cuts_lines, squeezes, escapes_space)


def _can_be_merged(piece: str, pieces: Container[str]) -> bool:
    """Whether two other pieces make this one; those that run.c writes for BOS and EOS hold line ends, but never come about."""
    return any(piece[:i] in pieces and piece[i:] in pieces for i in range(1, len(piece)))
