"""Many documents to token ids at once: BOS and the ids of each text, equal to tokenizer.encode(text, bos=True).

The fast path remembers words. In vocabularies such as llama2.c's no piece reaches over the beginning of a word, so a text is
cut there and the ids of each word are looked up: a dictionary gives the number of a word, numpy gathers the ids. Whether that
holds is read from the pieces; where it does not, each text is encoded whole. Knows no file.
"""

import re
from array import array
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from llamita.tokenizer import Tokenizer
from llamita.tokenizer.llama2c import Llama2cTokenizer
from llamita.tokenizer.sentencepiece import BPE, BYTE, CONTROL, SPACE, UNKNOWN, SentencePieceTokenizer

_KEYS_PER_GATHER = 1 << 13  # arrays of this length stay in the cache of a core
_CACHED_IDS = 1 << 22  # then the words are forgotten; English has far fewer in use


def token_dtype(vocab_size: int) -> np.dtype:
    """The narrowest of uint16 and uint32, little-endian, that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class DocumentEncoder:
    """Encode documents with one tokenizer, remembering its words from call to call."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._rules = word_rules(tokenizer)
        self._words = _Words(tokenizer, self._rules) if self._rules else None

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """The ids of all texts one after the other, each behind a BOS; uint16 or uint32 (T,).

        Raises TokenizerError for a text that is no Unicode and for a vocabulary without BOS.
        """
        if self._words is None or self._rules is None:
            ids = [np.array(self._tokenizer.encode(text, bos=True), self._dtype) for text in texts]
            return np.concatenate(ids or [np.empty(0, self._dtype)])
        parts: list[np.ndarray] = []
        keys: list[_Key] = []
        for text in texts:
            keys.append(None)
            keys += self._rules.cut(text)
            if len(keys) >= _KEYS_PER_GATHER:
                parts.append(self._gather(self._words, keys))
                keys = []
                if len(self._words.ids) > _CACHED_IDS:
                    self._words = _Words(self._tokenizer, self._rules)
        return np.concatenate([*parts, self._gather(self._words, keys)])

    def _gather(self, words: "_Words", keys: "Sequence[_Key]") -> np.ndarray:
        """The ids of words, one word after the other."""
        numbers = np.fromiter(map(words.__getitem__, keys), np.int64, len(keys))
        starts = np.frombuffer(words.starts, np.int64)
        firsts = starts[numbers]
        counts = starts[numbers + 1] - firsts
        ends = np.cumsum(counts)
        positions = np.repeat(firsts - ends + counts, counts)  # where a word's ids lie, less where they go
        positions += np.arange(len(positions))
        return np.frombuffer(words.ids, np.uint32)[positions].astype(self._dtype)


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


class _Words(dict[_Key, int]):
    """Words by number, counted as they come; the ids of word n are ids[starts[n] : starts[n + 1]]."""

    def __init__(self, tokenizer: Tokenizer, rules: WordRules) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._rules = rules
        self.starts = array("q", [0])
        self.ids = array("I")

    def __missing__(self, key: _Key) -> int:
        self.ids.extend(self._ids_of(key))
        self.starts.append(len(self.ids))
        number = self[key] = len(self.starts) - 2
        return number

    def _ids_of(self, key: _Key) -> list[int]:
        if key is None:
            return self._tokenizer.encode("", bos=True)
        if isinstance(key, tuple):
            return self._tokenizer.encode(key[0])
        if not key:
            return [self._rules.space_id]
        ids = self._tokenizer.encode(key)
        return ids[1:] if self._rules.cuts_lines and key[0] == "\n" else ids  # without the space that encode puts in front


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
