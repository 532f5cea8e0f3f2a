"""Llama 3's tokenizer.model: tiktoken's text file, a line for each token: its bytes in base64, and its rank.

The file holds neither the rule by which texts are cut nor the special tokens: both stand in Meta's code, and here. tiktoken
merges the pair whose bytes have the lowest rank; the library wants pairs, so each token brings all pairs that make it, in the
order of ranks. Knows no path. Source: tokenizer.py of github.com/meta-llama/llama-models; TikTokenConverter of transformers.
"""

import base64
import binascii
import io
import re
from os import PathLike

from llamita.errors import ModelFileError, TokenizerError
from llamita.tokenizer.byte_level import IGNORE_MERGES, added_token, byte_of_character, content_of
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.llama2c import MAX_PIECES

_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) ([0-9]{1,7})\r?")
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
_N_SPECIAL = 256
_SPECIAL = (
    BOS, EOS, "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|step_id|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>", "<|image|>",
)  # fmt: skip
_LONGEST_BYTES = 1024  # looking for the pairs of a token takes the square of its length; Llama 3's longest has 128


def is_tiktoken(data: bytes) -> bool:
    """Whether the first line is one of such a file."""
    return _LINE.fullmatch(data[: 4 * _LONGEST_BYTES].split(b"\n")[0]) is not None


def parse_tiktoken(data: bytes, path: str | PathLike[str]) -> LibraryTokenizer:
    """Parse the content of Llama 3's tokenizer.model; path is for messages. Raises ModelFileError for anything else."""
    characters = {byte: character for character, byte in byte_of_character().items()}
    table = "".join(characters[byte] for byte in range(256))
    pieces: list[str] = []
    for number, line in enumerate(io.BytesIO(data)):  # not split: millions of empty lines would be a list of them
        match = _LINE.fullmatch(line.removesuffix(b"\n")) if len(line) < 2 * _LONGEST_BYTES else None
        token = _decoded(match[1]) if match else b""
        if not match or int(match[2]) != number or not 0 < len(token) <= _LONGEST_BYTES or number >= MAX_PIECES:
            raise ModelFileError(path, f"line {number + 1}", repr(line[:40]), f"a token in base64 and the rank {number}")
        pieces.append(token.decode("latin-1").translate(table))
    if missing := sorted(set(table) - set(pieces)):
        found = f"no token for {len(missing)} bytes, such as {byte_of_character()[missing[0]]}"
        raise ModelFileError(path, "content", found, "one for each byte")
    try:
        return build_tiktoken(pieces)
    except TokenizerError as error:
        raise ModelFileError(path, "content", error, "a tiktoken vocabulary") from None


def build_tiktoken(pieces: list[str]) -> LibraryTokenizer:
    """The tokenizer of pieces in the order of ranks, written as byte_level writes bytes; Meta's special tokens follow them."""
    ids = dict(zip(pieces, range(len(pieces)), strict=True))
    merges = [pair for piece in pieces if len(piece) > 1 for pair in _pairs(piece, ids)]
    reserved = (f"<|reserved_special_token_{2 + i}|>" for i in range(_N_SPECIAL - len(_SPECIAL)))
    special = [added_token(len(pieces) + i, text, is_special=True) for i, text in enumerate((*_SPECIAL, *reserved))]
    tokenizer = LibraryTokenizer(content_of(ids, merges, special, IGNORE_MERGES))
    return tokenizer.with_ends(tokenizer.token_id(BOS), tokenizer.token_id(EOS), adds_bos=True)


def _pairs(piece: str, ids: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs of pieces that make this one; the one of the lowest ranks first."""
    pairs = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in ids and piece[i:] in ids]
    return sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]])) if len(pairs) > 1 else pairs


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
