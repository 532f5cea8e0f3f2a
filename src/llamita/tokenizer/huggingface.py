"""tokenizer.json, written: our vocabularies as the `tokenizers` library of Hugging Face loads them, with the same ids.

One that came from such a file is written as it came. library.py is the other direction. Knows no path. Source: transformers'
SentencePieceExtractor; tokenizers' serialization of Tokenizer.
"""

import json

from llamita.tokenizer import Tokenizer
from llamita.tokenizer.conversion import to_sentencepiece
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.library_content import bos_template
from llamita.tokenizer.merges import check_merges_alone, merges_of
from llamita.tokenizer.sentencepiece import CONTROL, SPACE, UNKNOWN, SentencePieceTokenizer


def serialize_tokenizer_json(tokenizer: Tokenizer) -> bytes:
    """The content of the tokenizer.json that gives the ids of this tokenizer, except where a text spells a special token.

    The library takes `<s>` in a text for the token; sentencepiece reads four characters. Raises TokenizerError for a vocabulary
    whose ids a list of pairs cannot give.
    """
    if isinstance(tokenizer, LibraryTokenizer):
        return tokenizer.source or _dumped(tokenizer.content())
    source = to_sentencepiece(tokenizer)
    check_merges_alone(source)
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(source),
        "normalizer": _normalizer(source),
        "pre_tokenizer": None,
        "post_processor": bos_template(source.rules.bos_piece, source.bos_id) if source.adds_bos else None,
        "decoder": _decoder(source),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": source.pieces[source.types.index(UNKNOWN)],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": source.rules.byte_fallback,
            "ignore_merges": False,
            "vocab": {piece: token_id for token_id, piece in enumerate(source.pieces)},
            "merges": merges_of(source),
        },
    }
    return _dumped(content)


def _dumped(content: dict[str, object]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _added_tokens(tokenizer: SentencePieceTokenizer) -> list[dict[str, object]]:
    """The special tokens, which a text may spell and decoding may skip."""
    flags: dict[str, object] = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    kinds = enumerate(zip(tokenizer.pieces, tokenizer.types, strict=True))
    return [{"id": i, "content": piece, **flags} for i, (piece, kind) in kinds if kind in (UNKNOWN, CONTROL)]


def _normalizer(tokenizer: SentencePieceTokenizer) -> dict[str, object]:
    """Spaces as pieces write them, in sentencepiece's order of steps."""
    steps: list[dict[str, object]] = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    if tokenizer.rules.add_dummy_prefix:
        steps.insert(0, {"type": "Prepend", "prepend": SPACE})
    if tokenizer.rules.remove_extra_whitespaces:
        leading, inner = [_replace_regex(r"\A +", ""), _replace_regex(" {2,}", " ")]
        steps = [leading, inner, *steps, _replace_regex(SPACE + r"+\z", "")]
    return {"type": "Sequence", "normalizers": steps}


def _replace_regex(pattern: str, content: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _decoder(tokenizer: SentencePieceTokenizer) -> dict[str, object]:
    replace = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    steps = [replace, {"type": "ByteFallback"}, {"type": "Fuse"}]
    if tokenizer.rules.add_dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}
