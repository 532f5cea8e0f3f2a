"""tokenizer.json: our byte-pair vocabularies as the `tokenizers` library of Hugging Face loads them, with the same ids.

That library merges by a list of pairs, sentencepiece by the score of the merged piece: the list is every pair that makes a
piece, best score first. Where that cannot give the same ids the vocabulary is refused. Reading comes later. Knows no path.
Source: transformers' SentencePieceExtractor; tokenizers' serialization of Tokenizer.
"""

import json

from llamita.errors import TokenizerError
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.conversion import to_sentencepiece
from llamita.tokenizer.library_content import bos_template
from llamita.tokenizer.sentencepiece import BPE, CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, USER_DEFINED, SentencePieceTokenizer

MAX_PIECE_CHARACTERS = 1024  # looking for the pairs of a piece takes the square of its length


def serialize_tokenizer_json(tokenizer: Tokenizer) -> bytes:
    """The content of the tokenizer.json that gives the ids of this tokenizer, except where a text spells a special token.

    The library takes `<s>` in a text for the token; sentencepiece reads four characters. Raises TokenizerError for a vocabulary
    whose ids a list of pairs cannot give.
    """
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
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def check_merges_alone(tokenizer: SentencePieceTokenizer) -> None:
    """Raise TokenizerError unless ids follow from merging alone: no unusual rule or piece, each character a piece."""
    rules = tokenizer.rules
    if rules.model_type != BPE:
        raise TokenizerError("vocabulary: found one without byte pairs, expected one of BPE")
    if rules.charsmap or rules.whitespace_as_suffix or not rules.escape_whitespaces:
        raise TokenizerError("rules: found a text that is normalized first, expected the identity")
    for name, kind in (("a user-defined", USER_DEFINED), ("an unused", UNUSED)):
        if kind in tokenizer.types:
            piece = tokenizer.pieces[tokenizer.types.index(kind)]
            raise TokenizerError(f"piece {piece}: found {name} one, expected pieces that merging makes")
    normal = {piece for piece, kind in zip(tokenizer.pieces, tokenizer.types, strict=True) if kind == NORMAL}
    for piece in normal:
        if len(piece) > MAX_PIECE_CHARACTERS:
            raise TokenizerError(f"piece: found {len(piece)} characters, expected at most {MAX_PIECE_CHARACTERS}")
        if not normal.issuperset(piece):
            missing = next(character for character in piece if character not in normal)
            raise TokenizerError(f"piece {piece}: found no piece for its character {missing!r}, expected one")


def merges_of(tokenizer: SentencePieceTokenizer) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a piece: the best score first, of equal scores the longest parts, left before right.

    Raises TokenizerError where pieces that merging makes have equal scores: sentencepiece takes the leftmost in the text then.
    Runs of one character may have them, as Llama 2's spaces do: there the order gives the same.
    """
    scored = zip(tokenizer.pieces, tokenizer.scores, tokenizer.types, strict=True)
    scores = {piece: score for piece, score, kind in scored if kind == NORMAL}
    ranked: list[tuple[float, int, int, str]] = []
    of_score: dict[float, str] = {}
    for piece, score in scores.items():
        cuts = [i for i in range(1, len(piece)) if piece[:i] in scores and piece[i:] in scores]
        ranked += [(-score, -i, i - len(piece), piece) for i in cuts]
        other = of_score.setdefault(score, piece) if cuts else piece
        if len(set(other + piece)) > 1 and other != piece:
            raise TokenizerError(f"scores: found {score:g} for both {other} and {piece}, expected different ones")
    return [(piece[:-cut], piece[-cut:]) for _, cut, _, piece in sorted(ranked, key=lambda item: item[:3])]


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
