"""llama2.c's tokenizer.bin: pieces with scores, and the byte-pair merging that run.c does with them.

The same ids as run.c, by another way: run.c looks at every pair again after each merge, here a heap knows the best pair and a
text is cut where no piece can reach across. Parsing builds no dictionary: decoding does not need it. The file has no place for
special tokens but three; others are pieces that run.c never merges, which only we take for special. Knows no model, no path;
the number of entries is where the file ends. Source: run.c and tokenizer.py of llama2.c.
"""

import math
import re
import struct
from collections.abc import Iterable, Mapping
from functools import cached_property
from os import PathLike

from llamita.errors import ModelFileError, TokenizerError
from llamita.tokenizer.decoder import decode
from llamita.tokenizer.marks import encode_marked
from llamita.tokenizer.merging import LOWEST_SCORE, Merger

MAX_PIECES = 1 << 22  # no real vocabulary comes near
UNK_ID, BOS_ID, EOS_ID = 0, 1, 2  # run.c knows no others
BOS_PIECE, EOS_PIECE = b"\n<s>\n", b"\n</s>\n"  # what tokenizer.py writes in place of <s> and </s>
BYTE_PIECE = re.compile(rb"<0x([0-9A-Fa-f]{2})>")
PADDING_PIECE = b"[PAD%d]"

_SPECIAL_TOKENS = {"<unk>": UNK_ID, "<s>": BOS_ID, "</s>": EOS_ID}


class Llama2cTokenizer:
    """The pieces of a tokenizer.bin, in UTF-8 with plain spaces, and their scores: the higher, the earlier a pair is merged."""

    bos_id = BOS_ID
    eos_id = EOS_ID
    adds_space = True
    adds_bos = True

    def __init__(self, pieces: list[bytes], scores: list[float]) -> None:
        if len(pieces) != len(scores):
            raise ValueError(f"{len(pieces)} pieces, {len(scores)} scores")
        if len(pieces) <= EOS_ID:
            raise TokenizerError(f"vocabulary: found {len(pieces)} pieces, expected at least 3 (unknown, BOS, EOS)")
        self.pieces = pieces
        self.scores = scores

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return len(self.pieces)

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Unknown, BOS and EOS, and the pieces that run.c never merges: the marks of a chat, but not padding."""
        return self._special_tokens

    @cached_property
    def _special_tokens(self) -> Mapping[str, int]:
        never_merged = [i for i, score in enumerate(self.scores) if score <= LOWEST_SCORE and i > EOS_ID]
        marks = {self.pieces[i]: i for i in never_merged if self.pieces[i] != PADDING_PIECE % i}
        return _SPECIAL_TOKENS | {mark.decode("utf-8", "replace"): token_id for mark, token_id in marks.items()}

    def encode(self, text: str, bos: bool = False, eos: bool = False) -> list[int]:
        """The ids of a text, equal to run.c's; raise TokenizerError where the text is no Unicode.

        >>> Llama2cTokenizer([b"<unk>", BOS_PIECE, EOS_PIECE, b" ", b"a", b" a"], [0, 0, 0, -1, -2, -3]).encode("a", bos=True)
        [1, 5]
        """
        ids = [BOS_ID] if bos else []
        if text:
            ids += self._merger.merge(check_unicode(" " + text))
        if eos:
            ids.append(EOS_ID)
        return ids

    def encode_marked(self, text: str) -> list[int]:
        """The ids of a text in which special tokens are written out; see Tokenizer.encode_marked."""
        return encode_marked(self, text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; see Tokenizer.decode."""
        return decode(self, ids)

    def piece_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text; raise TokenizerError for an id outside the vocabulary."""
        if not 0 <= token_id < len(self.pieces):
            raise TokenizerError(f"token id: found {token_id}, expected 0 to {len(self.pieces) - 1}")
        if token_id <= EOS_ID or (self.scores[token_id] <= LOWEST_SCORE and token_id in self._special_ids):
            return b""
        piece = self.pieces[token_id]
        byte = BYTE_PIECE.fullmatch(piece)
        return bytes.fromhex(byte[1].decode()) if byte else piece

    @cached_property
    def _special_ids(self) -> set[int]:
        return set(self._special_tokens.values())

    @cached_property
    def _merger(self) -> Merger:
        return Merger(self.pieces, self.scores)


def parse_tokenizer_bin(data: bytes, path: str | PathLike[str]) -> Llama2cTokenizer:
    """Parse the content of a tokenizer.bin; path is for messages. Raises ModelFileError where an entry does not fit."""
    if len(data) < 4:
        raise ModelFileError(path, "file size", f"{len(data)} bytes", "a tokenizer.bin of at least 4")
    max_piece_bytes = struct.unpack_from("<I", data)[0]
    read_entry = struct.Struct("<fI").unpack_from
    pieces: list[bytes] = []
    scores: list[float] = []
    position, n_bytes = 4, len(data)
    while position < n_bytes:  # start-up of `run` waits for this loop
        if position + 8 > n_bytes:
            raise ModelFileError(path, f"entry {len(pieces)}", f"{n_bytes - position} bytes", "a score and a length (8 bytes)")
        score, piece_bytes = read_entry(data, position)
        position += 8
        end = position + piece_bytes
        if piece_bytes > max_piece_bytes or end > n_bytes:
            expected = f"at most {min(max_piece_bytes, n_bytes - position)}"
            raise ModelFileError(path, f"length of entry {len(pieces)}", piece_bytes, expected)
        pieces.append(data[position:end])
        scores.append(score)
        position = end
    if not EOS_ID < len(pieces) <= MAX_PIECES:
        raise ModelFileError(path, "entries", len(pieces), f"3 to {MAX_PIECES}")
    if not math.isfinite(sum(scores)):
        raise ModelFileError(path, "scores", "infinity or not a number", "finite numbers")
    return Llama2cTokenizer(pieces, scores)


def serialize_tokenizer_bin(tokenizer: Llama2cTokenizer) -> bytes:
    """The content of the tokenizer.bin that holds these pieces and scores."""
    parts = [struct.pack("<I", max(map(len, tokenizer.pieces)))]
    for piece, score in zip(tokenizer.pieces, tokenizer.scores, strict=True):
        parts += (struct.pack("<fI", score, len(piece)), piece)
    return b"".join(parts)


def check_unicode(text: str) -> str:
    """Return the text; raise TokenizerError where it holds half a surrogate pair, as command lines that are no UTF-8 do."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(f"text: found {text[error.start]!r} at character {error.start}, expected valid Unicode") from None
    return text
