"""The content of a tokenizer.json, checked before the library gets it, and what it says of the way back from ids to text.

The library panics, with a page on stderr, at some of what is broken, and takes ids with holes. Its own messages are good for
the parts that are small (normalizer, pre_tokenizer, decoder), which it parses itself. Knows no file and no library.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llamita.errors import TokenizerError
from llamita.tokenizer.charsmap import check_charsmap
from llamita.tokenizer.llama2c import MAX_PIECES
from llamita.tokenizer.sentencepiece import SPACE

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
# Field -> the name of its list in a sequence, and the steps that are known to be sound
_KINDS = {
    "normalizer": ("normalizers", {"Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Precompiled", "Prepend", "Replace", "Strip"}),
    "pre_tokenizer": ("pretokenizers", {"ByteLevel", "Digits", "Metaspace", "Punctuation", "Split", "WhitespaceSplit"}),
}
_MAX_SHOWN = 40
_MAX_DEPTH = 8
_MAX_SCORE = 1e30


@dataclass(frozen=True)
class Decoding:
    """How a piece becomes bytes.

    is_byte_level: its characters are bytes; else spaces are written as U+2581. has_byte_pieces: <0x0A> is a byte.
    strips_space: the first space of a text was added when it was encoded.
    """

    is_byte_level: bool
    has_byte_pieces: bool = False
    strips_space: bool = False


def check_content(content: Mapping[str, Any]) -> None:
    """Raise TokenizerError unless model, ids and added tokens of a tokenizer.json are well formed; of merges see pairs_of."""
    model = content.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind not in ("BPE", "Unigram"):
        raise TokenizerError(f"model: found {_shown(kind)}, expected BPE or Unigram")
    ids = _check_bpe(model) if kind == "BPE" else _check_unigram(model)
    added = content.get("added_tokens")
    if not isinstance(added, list):
        raise TokenizerError(f"added_tokens: found {_shown(added)}, expected a list")
    for token in added:
        is_token = isinstance(token, dict) and type(token.get("id")) is int and isinstance(token.get("content"), str)
        if not is_token or not token["content"] or not all(isinstance(token.get(flag), bool) for flag in _FLAGS):
            raise TokenizerError(f"added token: found {_shown(token)}, expected id, content, {', '.join(_FLAGS)}")
        if ids.setdefault(token["content"], token["id"]) != token["id"]:
            raise TokenizerError(f"added token: found {_shown(token['content'])} with two ids, expected one")
    if sorted(ids.values()) != list(range(len(ids))) or not 0 < len(ids) <= MAX_PIECES:
        highest = max(ids.values(), default=-1)
        raise TokenizerError(f"ids: found {len(ids)} tokens and {highest} as the highest id, expected each from 0 on once")
    for field, (inner, kinds) in _KINDS.items():
        for step in _steps(content.get(field), inner):
            if not isinstance(step.get("type"), str) or step["type"] not in kinds:
                raise TokenizerError(f"{field}: found {_shown(step.get('type'))}, expected {', '.join(sorted(kinds))}")
            if step["type"] == "Precompiled":
                _check_precompiled(step.get("precompiled_charsmap"))


def pairs_of(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges of byte pairs in order, in either way of writing them; raise TokenizerError unless each makes a piece."""
    pieces, merges = model["vocab"], model.get("merges")
    if not isinstance(merges, list):
        raise TokenizerError(f"merges: found {_shown(merges)}, expected a list of pairs")
    pairs: list[tuple[str, str]] = []
    for merge in merges:  # hundreds of thousands, for which a start waits
        try:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            is_known = left in pieces and right in pieces and left + right in pieces
        except (TypeError, ValueError):
            is_known, left, right = False, "", ""
        if not is_known:
            raise TokenizerError(f"merge: found {_shown(merge)}, expected two pieces that make a third")
        pairs.append((left, right))
    return pairs


def decoding_of(content: Mapping[str, Any]) -> Decoding:
    """How the pieces of a tokenizer.json become bytes; raise TokenizerError for a way that llamita does not know."""
    steps = list(_steps(content.get("decoder"), "decoders"))
    if not steps and any(step.get("type") == "ByteLevel" for step in _steps(content.get("pre_tokenizer"), "pretokenizers")):
        return Decoding(is_byte_level=True)
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return Decoding(is_byte_level=True)
    strips_space = False
    for step in steps:
        match step:
            case {"type": "Replace", "pattern": {"String": str(pattern)}, "content": " "} if pattern == SPACE:
                pass
            case {"type": "ByteFallback" | "Fuse"}:
                pass
            case {"type": "Strip", "content": " ", "start": 0 | 1 as start, "stop": 0}:
                strips_space = start == 1
            case {"type": "Metaspace", "replacement": str(replacement)} if replacement == SPACE:
                strips_space = step.get("add_prefix_space", True) and step.get("prepend_scheme", "always") != "never"
            case _:
                raise TokenizerError(f"decoder: found {_shown(step)}, expected ByteLevel, or spaces written as {SPACE}")
    if not steps or not {"Replace", "Metaspace"} & {*kinds}:
        raise TokenizerError("decoder: found none, expected ByteLevel, or spaces written as " + SPACE)
    return Decoding(is_byte_level=False, has_byte_pieces="ByteFallback" in kinds, strips_space=strips_space)


def template_ends(content: Mapping[str, Any]) -> tuple[str, str]:
    """The special tokens that the post-processor of a tokenizer.json puts before and behind each text, "" for none."""
    for step in _steps(content.get("post_processor"), "processors"):
        pieces = step.get("single")
        if step.get("type") == "TemplateProcessing" and isinstance(pieces, list) and pieces:
            first, last = (piece.get("SpecialToken") if isinstance(piece, dict) else None for piece in (pieces[0], pieces[-1]))
            texts = [mark.get("id") if isinstance(mark, dict) else None for mark in (first, last)]
            return texts[0] if isinstance(texts[0], str) else "", texts[1] if isinstance(texts[1], str) else ""
    return "", ""


def bos_template(bos: str, bos_id: int) -> dict[str, object]:
    """The post-processor that puts BOS before each text, and before the second of a pair."""
    mark = [{"SpecialToken": {"id": bos, "type_id": i}} for i in range(2)]
    text = [{"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB")]
    return {
        "type": "TemplateProcessing",
        "single": [mark[0], text[0]],
        "pair": [mark[0], text[0], mark[1], text[1]],
        "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
    }


def _check_bpe(model: dict[str, Any]) -> dict[str, int]:
    """Check byte pairs; return the ids of the pieces."""
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not set(map(type, vocabulary.values())) <= {int}:
        raise TokenizerError("vocab: found something else, expected an object of ids")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(name):
            raise TokenizerError(f"{name}: found {_shown(model[name])}, expected none")
    _check_flags(model, "fuse_unk", "byte_fallback", "ignore_merges")
    unknown = model.get("unk_token")
    if unknown is not None and not (isinstance(unknown, str) and unknown in vocabulary):
        raise TokenizerError(f"unk_token: found {_shown(unknown)}, expected a piece")
    return dict(vocabulary)


def _check_unigram(model: dict[str, Any]) -> dict[str, int]:
    """Check pieces with scores; return the ids of the pieces."""
    vocabulary, unknown_id = model.get("vocab"), model.get("unk_id")
    if not isinstance(vocabulary, list):
        raise TokenizerError("vocab: found something else, expected a list of pieces")
    for entry in vocabulary:
        is_entry = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
        if not is_entry or type(entry[1]) not in (int, float) or not abs(entry[1]) < _MAX_SCORE:
            raise TokenizerError(f"vocab: found {_shown(entry)}, expected a piece and its score")
    _check_flags(model, "byte_fallback")
    if unknown_id is not None and (type(unknown_id) is not int or not 0 <= unknown_id < len(vocabulary)):
        raise TokenizerError(f"unk_id: found {_shown(unknown_id)}, expected that of a piece")
    ids = {piece: token_id for token_id, (piece, _) in enumerate(vocabulary)}
    if len(ids) != len(vocabulary):
        raise TokenizerError("vocab: found a piece twice, expected different ones")
    return ids


def _check_flags(model: dict[str, Any], *names: str) -> None:
    for name in names:
        if not isinstance(model.get(name, False), bool):
            raise TokenizerError(f"{name}: found {_shown(model[name])}, expected true or false")


def _check_precompiled(text: object) -> None:
    try:
        table = base64.b64decode(text if isinstance(text, str) else "?", validate=True)
    except ValueError:  # binascii's own, or a character that is not ASCII
        table = b"?"
    if not table or base64.b64encode(table).decode() != text:  # the library panics at padding that Python passes over
        raise TokenizerError(f"precompiled_charsmap: found {_shown(text)}, expected base64")
    check_charsmap(table)


def _steps(step: object, name: str, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer and the like, those of sequences one after the other; name: of the list in a sequence."""
    if step is None:
        return
    if not isinstance(step, dict) or depth > _MAX_DEPTH:
        raise TokenizerError(f"{name}: found {_shown(step)}, expected an object")
    if step.get("type") != "Sequence":
        yield step
        return
    steps = step.get(name)
    for inner in steps if isinstance(steps, list) else [steps]:
        yield from _steps(inner, name, depth + 1)


def _shown(value: object) -> str:
    """A value as it may stand in a message."""
    if isinstance(value, str | list | dict) and len(value) > _MAX_SHOWN:
        value = str(value[:_MAX_SHOWN]) + "..." if isinstance(value, str) else f"{len(value)} values"
    text = repr(value)
    return text if len(text) <= 2 * _MAX_SHOWN else f"{text[: 2 * _MAX_SHOWN]}..."
