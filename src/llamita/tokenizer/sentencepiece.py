"""sentencepiece's tokenizer.model: our own reader and writer of the file, and encoding through the sentencepiece library.

The file is a protobuf message; a hostile one must not reach the C++ library, so it gets a message written anew from what was
parsed and checked here. The library is imported at the first encode: decoding and inspecting do without. Knows no model and no
path. Source: sentencepiece_model.proto.
"""

import math
import re
import struct
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, fields
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING

from llamita.errors import ModelFileError, TokenizerError
from llamita.tokenizer.charsmap import check_charsmap
from llamita.tokenizer.decoder import decode
from llamita.tokenizer.llama2c import BYTE_PIECE, MAX_PIECES, check_unicode
from llamita.tokenizer.marks import enclose, encode_marked
from llamita.tokenizer.protobuf import BYTES, FIXED32, VARINT, ProtobufError, Value, field, read_fields

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # ModelProto.SentencePiece.Type
UNIGRAM, BPE = 1, 2  # TrainerSpec.ModelType
SPACE = "\u2581"  # how a piece writes a space
MAX_PIECE_BYTES = (1 << 16) - 1

# text with its length, score, perhaps a type of one byte
_USUAL_PIECE = re.compile(rb"\x0a([\x00-\x7f])(.*)\x15(.{4})(?:\x18([\x00-\x7f]))?", re.DOTALL).fullmatch

# (submessage of ModelProto, field number) -> field of Rules
_RULE_FIELDS = {
    (2, 3): "model_type",
    (2, 24): "whitespace_as_suffix",
    (2, 35): "byte_fallback",
    (2, 45): "unk_piece",
    (2, 46): "bos_piece",
    (2, 47): "eos_piece",
    (2, 48): "pad_piece",
    (3, 1): "normalizer",
    (3, 2): "charsmap",
    (3, 3): "add_dummy_prefix",
    (3, 4): "remove_extra_whitespaces",
    (3, 5): "escape_whitespaces",
}


@dataclass(frozen=True)
class Rules:
    """What decides ids besides the pieces; the defaults are those of sentencepiece_model.proto."""

    model_type: int = UNIGRAM
    whitespace_as_suffix: bool = False
    byte_fallback: bool = False
    unk_piece: str = "<unk>"
    bos_piece: str = "<s>"
    eos_piece: str = "</s>"
    pad_piece: str = "<pad>"
    normalizer: str = "identity"
    charsmap: bytes = b""  # compiled table of character replacements; empty for the identity
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True


class SentencePieceTokenizer:
    """Pieces, scores and types (NORMAL, CONTROL, BYTE, ...) by id, and the rules; raises TokenizerError unless they fit.

    adds_bos: as in Tokenizer; a tokenizer.model does not say it. with_padding gives a copy for a model with more rows.
    """

    n_padding = 0  # ids behind the last piece, to which a model has rows but no text belongs

    def __init__(self, pieces: list[str], scores: list[float], types: list[int], rules: Rules, adds_bos: bool = True) -> None:
        _check(pieces, scores, types, rules)
        self.pieces = pieces
        self.scores = scores
        self.types = types
        self.rules = rules
        self.adds_space = rules.add_dummy_prefix
        self.bos_id = self._control_id(rules.bos_piece)
        self.eos_id = self._control_id(rules.eos_piece)
        self.adds_bos = adds_bos and self.bos_id >= 0

    @property
    def vocab_size(self) -> int:
        """Number of pieces, and of ids of padding."""
        return len(self.pieces) + self.n_padding

    def with_padding(self, vocab_size: int) -> "SentencePieceTokenizer":
        """The tokenizer for a model with so many rows, the last of which stand for no piece."""
        changed = copy(self)
        changed.n_padding = vocab_size - len(self.pieces)
        return changed

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """The control pieces and the unknown one."""
        return self._special_tokens

    @cached_property
    def _special_tokens(self) -> Mapping[str, int]:
        return {self.pieces[i]: i for i, kind in enumerate(self.types) if kind in (UNKNOWN, CONTROL)}

    def encode(self, text: str, bos: bool = False, eos: bool = False) -> list[int]:
        """The ids of a text as the sentencepiece library gives them; raise TokenizerError for a BOS or EOS that is missing."""
        return enclose(self, list(self._processor.encode(check_unicode(text))), bos, eos)

    def encode_marked(self, text: str) -> list[int]:
        """The ids of a text in which control pieces are written out; see Tokenizer.encode_marked."""
        return encode_marked(self, text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; see Tokenizer.decode."""
        return decode(self, ids)

    def piece_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text; raise TokenizerError for an id outside the vocabulary."""
        if not 0 <= token_id < self.vocab_size:
            raise TokenizerError(f"token id: found {token_id}, expected 0 to {self.vocab_size - 1}")
        if token_id >= len(self.pieces):
            return b""
        piece, kind = self.pieces[token_id], self.types[token_id]
        if kind in (UNKNOWN, CONTROL):
            return b""
        return bytes.fromhex(piece[3:5]) if kind == BYTE else piece.replace(SPACE, " ").encode("utf-8")

    def _control_id(self, piece: str) -> int:
        token_id = self.pieces.index(piece) if piece in self.pieces else -1
        return token_id if token_id >= 0 and self.types[token_id] == CONTROL else -1

    @cached_property
    def _processor(self) -> "SentencePieceProcessor":
        from sentencepiece import SentencePieceProcessor

        try:
            return SentencePieceProcessor(model_proto=serialize_sentencepiece(self))
        except (RuntimeError, OSError, ValueError) as error:
            raise TokenizerError(f"sentencepiece refuses this vocabulary: {error}") from None


def parse_sentencepiece(data: bytes, path: str | PathLike[str]) -> SentencePieceTokenizer:
    """Parse the content of a tokenizer.model; path is for messages. Raises ModelFileError for anything else."""
    pieces: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    rules: dict[str, object] = {}
    try:
        for number, wire, value in read_fields(data):
            if number == 1 and isinstance(value, bytes):
                piece, score, kind = _parse_piece(value)
                if not piece or len(pieces) == MAX_PIECES:
                    raise ProtobufError("a piece without text" if not piece else f"more than {MAX_PIECES} pieces")
                pieces.append(piece)
                scores.append(score)
                types.append(kind)
            elif number in (2, 3) and wire == BYTES and isinstance(value, bytes):
                rules |= _parse_rules(number, value)
        return SentencePieceTokenizer(pieces, scores, types, Rules(**rules))  # pyright: ignore[reportArgumentType]
    except (ProtobufError, UnicodeDecodeError) as error:
        raise ModelFileError(path, f"content behind piece {len(pieces)}", error, "a sentencepiece model") from None
    except TokenizerError as error:
        raise ModelFileError(path, "content", error, "a sentencepiece model") from None


def serialize_sentencepiece(tokenizer: SentencePieceTokenizer) -> bytes:
    """The content of a tokenizer.model that the sentencepiece library loads, with the same ids."""
    parts = []
    for piece, score, kind in zip(tokenizer.pieces, tokenizer.scores, tokenizer.types, strict=True):
        parts.append(field(1, field(1, piece) + field(2, float(score)) + (field(3, kind) if kind != NORMAL else b"")))
    specs: dict[int, list[bytes]] = {2: [], 3: []}
    for (number, inner), name in _RULE_FIELDS.items():
        specs[number].append(field(inner, getattr(tokenizer.rules, name)))
    specs[2].append(field(4, len(tokenizer.pieces)))
    ids = (tokenizer.types.index(UNKNOWN), tokenizer.bos_id, tokenizer.eos_id, tokenizer._control_id(tokenizer.rules.pad_piece))
    specs[2] += [field(40 + i, token_id) for i, token_id in enumerate(ids)]
    return b"".join([*parts, field(2, b"".join(specs[2])), field(3, b"".join(specs[3]))])


def _parse_piece(data: bytes) -> tuple[str, float, int]:
    usual = _USUAL_PIECE(data)
    if usual and len(usual[2]) == usual[1][0]:  # as sentencepiece writes it; a big vocabulary has thousands
        return usual[2].decode("utf-8"), struct.unpack("<f", usual[3])[0], usual[4][0] if usual[4] else NORMAL
    piece, score, kind = "", 0.0, NORMAL
    for number, wire, value in read_fields(data):
        if number == 1 and isinstance(value, bytes):
            piece = _decode(value)
        elif number == 2 and wire == FIXED32 and isinstance(value, bytes):
            score = struct.unpack("<f", value)[0]
        elif number == 3 and isinstance(value, int):
            kind = value
    return piece, score, kind


def _parse_rules(message: int, data: bytes) -> dict[str, object]:
    kinds = {field.name: field.type for field in fields(Rules)}
    rules: dict[str, object] = {}
    for number, wire, value in read_fields(data):
        name = _RULE_FIELDS.get((message, number))
        if name is None:
            continue
        kind = kinds[name]
        if (wire == VARINT) != (kind in (int, bool)):
            raise ProtobufError(f"wire type {wire} in field {name}")
        rules[name] = _convert(value, kind)
    return rules


def _convert(value: Value, kind: object) -> object:
    if isinstance(value, int):
        return bool(value) if kind is bool else value
    return _decode(value) if kind is str else value


def _decode(data: bytes) -> str:
    """A text of a sensible length: one wide character makes a text four times as long in memory."""
    if len(data) > MAX_PIECE_BYTES:
        raise ProtobufError(f"a text of {len(data)} bytes")
    return data.decode("utf-8")


def _check(pieces: list[str], scores: list[float], types: list[int], rules: Rules) -> None:
    """Raise TokenizerError for whatever the library would stumble over, or worse."""
    if not 1 <= len(pieces) <= MAX_PIECES or not len(pieces) == len(scores) == len(types):
        raise TokenizerError(f"pieces: found {len(pieces)}, {len(scores)} scores, {len(types)} types, expected as many of each")
    if types.count(UNKNOWN) != 1:
        raise TokenizerError(f"unknown piece: found {types.count(UNKNOWN)}, expected exactly 1")
    if not set(types) <= {NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE}:
        raise TokenizerError(f"piece types: found {max(types)}, expected 1 to 6")
    if len(set(pieces)) != len(pieces) or "" in pieces:
        raise TokenizerError("pieces: found an empty one or one twice, expected different texts")
    if not math.isfinite(sum(scores)):
        raise TokenizerError("scores: found infinity or not a number, expected finite numbers")
    n_bytes = types.count(BYTE)
    if n_bytes != (256 if rules.byte_fallback else 0):
        raise TokenizerError(f"byte pieces: found {n_bytes}, expected {256 if rules.byte_fallback else 0}")
    for piece in [piece for piece, kind in zip(pieces, types, strict=True) if kind == BYTE]:
        if not BYTE_PIECE.fullmatch(piece.encode("utf-8")):
            raise TokenizerError(f"byte piece: found {piece}, expected <0x00> to <0xFF>")
    if rules.model_type not in (1, 2, 3, 4):
        raise TokenizerError(f"model type: found {rules.model_type}, expected 1 (unigram), 2 (BPE), 3 (word) or 4 (characters)")
    check_charsmap(rules.charsmap)
