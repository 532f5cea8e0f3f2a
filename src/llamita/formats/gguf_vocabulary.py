"""The vocabulary inside a GGUF file to a tokenizer and back.

There are two kinds, by ggml's names: "llama", which is sentencepiece's byte pairs with scores, and "gpt2", byte-level BPE.
Stands between the metadata of the file, as plain Python values, and tokenizer/. Knows no byte of the container. Source:
llama.cpp's llama-vocab.cpp and its conversion scripts.
"""

from collections.abc import Mapping
from os import PathLike
from typing import TypeVar

from llamita.errors import ModelFileError, TokenizerError
from llamita.formats.json_text import shown
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.byte_level import ADDS_BOS, NAMES, RULE_OF, added_token, content_of, rule_of
from llamita.tokenizer.conversion import to_sentencepiece
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.sentencepiece import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Rules,
    SentencePieceTokenizer,
)

PREFIX = "tokenizer.ggml."
PADDING_SCORE = -10000.0  # what llama.cpp's conversion gives to ids without a token

_T = TypeVar("_T")


def read_vocabulary(metadata: Mapping[str, object], path: str | PathLike[str]) -> Tokenizer | None:
    """The tokenizer that the metadata of a GGUF file holds, None where it holds none; path is for messages.

    It has as many tokens as the file lists. Raises ModelFileError for a kind that llamita does not know and what is broken.
    """
    kind = metadata.get(f"{PREFIX}model", "none")
    if kind in ("none", "no_vocab"):
        return None
    readers = {"llama": _read_sentencepiece, "gpt2": _read_byte_level}
    if not isinstance(kind, str) or kind not in readers:
        raise ModelFileError(path, f"{PREFIX}model", shown(kind), " or ".join(readers), "name a tokenizer with -z")
    try:
        return readers[kind](metadata, path)
    except TokenizerError as error:
        raise ModelFileError(path, f"{PREFIX}tokens", error, "a vocabulary that works") from None


def vocabulary_metadata(tokenizer: Tokenizer, vocab_size: int) -> dict[str, object]:
    """The metadata of a GGUF file that holds this tokenizer, filled up to vocab_size tokens as llama.cpp's scripts do it.

    A bool is BOOL, an int UINT32; of lists, int is INT32 and float FLOAT32. Raises TokenizerError for a vocabulary to which
    llama.cpp would give other ids.
    """
    if isinstance(tokenizer, LibraryTokenizer) and tokenizer.is_byte_level:
        values = _byte_level_values(tokenizer, vocab_size)
    else:
        values = _sentencepiece_values(to_sentencepiece(tokenizer), vocab_size)
    values |= {"add_bos_token": tokenizer.adds_bos, "add_eos_token": False}
    for name, token_id in (("bos", tokenizer.bos_id), ("eos", tokenizer.eos_id)):
        if token_id >= 0:
            values[f"{name}_token_id"] = token_id
    return {f"{PREFIX}{name}": value for name, value in values.items()}


def _read_sentencepiece(metadata: Mapping[str, object], path: str | PathLike[str]) -> SentencePieceTokenizer:
    pieces = _list(metadata, "tokens", str, path)
    scores = _list(metadata, "scores", float, path, len(pieces))
    types = _token_types(metadata, pieces, path)
    unknown_id = _special_id(metadata, "unknown", len(pieces), default=0)
    if UNKNOWN not in types and 0 <= unknown_id < len(types):
        types[unknown_id] = UNKNOWN
    for name in ("bos", "eos"):
        token_id = _special_id(metadata, name, len(pieces))
        if token_id >= 0 and types[token_id] not in (UNKNOWN, BYTE):
            types[token_id] = CONTROL
    pieces = [piece.replace(" ", SPACE) if kind == USER_DEFINED else piece for piece, kind in zip(pieces, types, strict=True)]
    special = {}
    for name, default in (("bos", 1), ("eos", 2), ("padding", -1)):
        token_id = _special_id(metadata, name, len(pieces), default)
        special[name] = pieces[token_id] if token_id >= 0 else ""
    rules = Rules(
        model_type=BPE,
        byte_fallback=BYTE in types,
        bos_piece=special["bos"],
        eos_piece=special["eos"],
        pad_piece=special["padding"],
        add_dummy_prefix=_flag(metadata, "add_space_prefix", True, path),
        remove_extra_whitespaces=_flag(metadata, "remove_extra_whitespaces", False, path),
    )
    return SentencePieceTokenizer(pieces, scores, types, rules, adds_bos=_flag(metadata, "add_bos_token", True, path))


def _sentencepiece_values(tokenizer: SentencePieceTokenizer, vocab_size: int) -> dict[str, object]:
    rules = tokenizer.rules
    if rules.model_type != BPE:
        raise TokenizerError("vocabulary: found one without byte pairs, expected one of BPE, as llama.cpp merges")
    if rules.charsmap or rules.whitespace_as_suffix or not rules.escape_whitespaces:
        raise TokenizerError("rules: found a text that is normalized first, expected the identity, as llama.cpp takes it")
    padding = range(len(tokenizer.pieces), vocab_size)
    values: dict[str, object] = {
        "model": "llama",
        "pre": "default",
        "tokens": [*tokenizer.pieces, *map(_padding_piece, padding)],
        "scores": [*tokenizer.scores, *(PADDING_SCORE for _ in padding)],
        "token_type": [*tokenizer.types, *(UNUSED for _ in padding)],
        "unknown_token_id": tokenizer.types.index(UNKNOWN),
        "add_space_prefix": tokenizer.adds_space,
    }
    if rules.remove_extra_whitespaces:
        values["remove_extra_whitespaces"] = True  # which llama.cpp passes over here: it keeps every space
    return values


def _read_byte_level(metadata: Mapping[str, object], path: str | PathLike[str]) -> LibraryTokenizer:
    """A byte-level vocabulary. Behind the last piece, special tokens stand by themselves and unused ones are padding."""
    name = metadata.get(f"{PREFIX}pre")
    rule = RULE_OF.get(name) if isinstance(name, str) else None
    if rule is None:
        raise ModelFileError(path, f"{PREFIX}pre", shown(name), ", ".join(NAMES), "llamita cuts texts in no other way")
    pieces = _list(metadata, "tokens", str, path)
    types = _token_types(metadata, pieces, path)
    merges = _list(metadata, "merges", str, path)
    n_tokens = max((i + 1 for i, kind in enumerate(types) if kind != UNUSED), default=0)
    n_pieces = max((i + 1 for i, kind in enumerate(types) if kind in (NORMAL, BYTE)), default=0)
    ids = dict(zip(pieces[:n_pieces], range(n_pieces), strict=True))
    added = [
        added_token(i, pieces[i], is_special=types[i] != USER_DEFINED)
        for i in range(n_tokens)
        if types[i] in (CONTROL, UNKNOWN, USER_DEFINED) or (types[i] == UNUSED and i >= n_pieces)
    ]
    tokenizer = LibraryTokenizer(content_of(ids, merges, added, rule))
    if len(ids) != n_pieces:
        raise TokenizerError("found a token twice, expected different ones")
    bos_id, eos_id = (_special_id(metadata, name, n_tokens) for name in ("bos", "eos"))
    adds_bos = _flag(metadata, "add_bos_token", rule == ADDS_BOS, path)
    return tokenizer.with_ends(bos_id, eos_id, adds_bos).with_padding(len(pieces))


def _byte_level_values(tokenizer: LibraryTokenizer, vocab_size: int) -> dict[str, object]:
    content = tokenizer.content()
    rule = rule_of(content)
    if rule is None or content.get("normalizer") is not None:
        raise TokenizerError(f"pre_tokenizer or normalizer: found unusual ones, expected those of {', '.join(NAMES)}")
    padding = range(tokenizer.n_tokens, vocab_size)
    pieces = {token_id: piece for piece, token_id in content["model"]["vocab"].items()}
    types = [NORMAL] * tokenizer.n_tokens + [UNUSED for _ in padding]
    for added in content["added_tokens"]:
        pieces[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    for token_id in {tokenizer.bos_id, tokenizer.eos_id} - {-1}:
        types[token_id] = CONTROL
    return {
        "model": "gpt2",
        "pre": rule,
        "tokens": [*(pieces[i] for i in range(tokenizer.n_tokens)), *map(_padding_piece, padding)],
        "token_type": types,
        "merges": [" ".join(pair) for pair in content["model"]["merges"]],
    }


def _padding_piece(token_id: int) -> str:
    """What llama.cpp's conversion calls an id without a token."""
    return f"[PAD{token_id}]"


def _token_types(metadata: Mapping[str, object], pieces: list[str], path: str | PathLike[str]) -> list[int]:
    """The type of each token; where the file has none, bytes are known by their spelling."""
    if f"{PREFIX}token_type" in metadata:
        return list(_list(metadata, "token_type", int, path, len(pieces)))
    byte_pieces = {f"<0x{byte:02X}>" for byte in range(256)}
    has_bytes = byte_pieces <= set(pieces)
    return [BYTE if has_bytes and piece in byte_pieces else NORMAL for piece in pieces]


def _special_id(metadata: Mapping[str, object], name: str, n_tokens: int, default: int = -1) -> int:
    """The id of a special token; the default, where it is one, for none and for one outside the vocabulary."""
    token_id = metadata.get(f"{PREFIX}{name}_token_id")
    if type(token_id) is not int or not 0 <= token_id < n_tokens:  # files write -1 as 4294967295
        token_id = default
    return token_id if token_id < n_tokens else -1


def _flag(metadata: Mapping[str, object], name: str, default: bool, path: str | PathLike[str]) -> bool:
    value = metadata.get(f"{PREFIX}{name}", default)
    if not isinstance(value, bool):
        raise ModelFileError(path, f"{PREFIX}{name}", shown(value), "true or false")
    return value


def _list(metadata: Mapping[str, object], name: str, kind: type[_T], path: str | PathLike[str], length: int = -1) -> list[_T]:
    """A list of the metadata whose values are all of one kind, and as many as tokens."""
    values = metadata.get(f"{PREFIX}{name}")
    if not isinstance(values, list) or not values or (length >= 0 and len(values) != length):
        found = f"{len(values)} of them" if isinstance(values, list) else shown(values)
        expected = f"{length} of them" if length >= 0 else "a list"
        raise ModelFileError(path, f"{PREFIX}{name}", found, expected)
    if set(map(type, values)) != {kind}:
        found = next(value for value in values if type(value) is not kind)
        raise ModelFileError(path, f"{PREFIX}{name}", shown(found), f"values of type {kind.__name__}")
    return values
