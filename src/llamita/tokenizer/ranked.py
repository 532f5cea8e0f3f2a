"""A sentencepiece-style tokenizer.json back to pieces with scores, as tokenizer.model, tokenizer.bin and GGUF want them.

The json has a list of pairs, best first, where sentencepiece has a score for each piece. Scores are made from the order, and
the list that they give is compared with the one that is there, but for the order of pairs that make the same piece: with
another list, texts would get other ids, and the vocabulary is refused. Knows no path.
"""

from typing import Any

from llamita.errors import TokenizerError
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.merges import merges_of
from llamita.tokenizer.sentencepiece import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    USER_DEFINED,
    Rules,
    SentencePieceTokenizer,
)

_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPEND = {"type": "Prepend", "prepend": SPACE}


def to_scored(tokenizer: LibraryTokenizer) -> SentencePieceTokenizer:
    """The same vocabulary as sentencepiece has it; raise TokenizerError where its ids do not follow from scores."""
    content = tokenizer.content()
    model = content["model"]
    if tokenizer.is_byte_level or model["type"] != "BPE":
        found = "byte-level pieces" if tokenizer.is_byte_level else "no byte pairs"
        raise TokenizerError(f"tokenizer: found {found}, expected byte pairs as sentencepiece and llama2.c have them")
    ids = model["vocab"] | {added["content"]: added["id"] for added in content["added_tokens"]}
    pieces = sorted(ids, key=ids.__getitem__)
    types = _types(tokenizer, content, pieces)
    rules = Rules(
        model_type=BPE,
        byte_fallback=BYTE in types,
        bos_piece=pieces[tokenizer.bos_id] if tokenizer.bos_id >= 0 else "",
        eos_piece=pieces[tokenizer.eos_id] if tokenizer.eos_id >= 0 else "",
        add_dummy_prefix=_adds_space(content),
        remove_extra_whitespaces=False,
    )
    merges = [tuple(merge) for merge in model["merges"]]
    scored = SentencePieceTokenizer(pieces, _scores(pieces, types, merges), types, rules, tokenizer.adds_bos)
    expected = merges_of(scored)
    if set(merges) != set(expected) or list(map("".join, merges)) != list(map("".join, expected)):
        raise TokenizerError("merges: found an order that no scores of pieces give, expected that of a sentencepiece model")
    return scored.with_padding(tokenizer.vocab_size)


def _types(tokenizer: LibraryTokenizer, content: dict[str, Any], pieces: list[str]) -> list[int]:
    """The type of each piece, as sentencepiece has them."""
    byte_pieces = {f"<0x{byte:02X}>" for byte in range(256)} if content["model"]["byte_fallback"] else set()
    types = [BYTE if piece in byte_pieces else NORMAL for piece in pieces]
    for added in content["added_tokens"]:
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    for token_id in {tokenizer.bos_id, tokenizer.eos_id} - {-1}:
        types[token_id] = CONTROL
    return [UNKNOWN if piece == content["model"]["unk_token"] else kind for piece, kind in zip(pieces, types, strict=True)]


def _scores(pieces: list[str], types: list[int], merges: list[tuple[str, str]]) -> list[float]:
    """A score for each piece: the earlier the list makes it, the higher. Pieces that take turns in the list share one."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        first.setdefault(left + right, rank)
        last[left + right] = rank
    scores = [0.0] * len(pieces)
    score, end = 1.0, -1
    normal = [i for i, kind in enumerate(types) if kind == NORMAL]
    for i in sorted(normal, key=lambda i: first.get(pieces[i], len(merges))):
        if first.get(pieces[i], len(merges)) > end:
            score -= 1.0
        end = max(end, last.get(pieces[i], -1))
        scores[i] = score
    return scores


def _adds_space(content: dict[str, Any]) -> bool:
    """Whether a space is put before a text; raise TokenizerError where more is done to it than sentencepiece does."""
    normalizer, pre_tokenizer = content["normalizer"], content["pre_tokenizer"]
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer]
    if pre_tokenizer is None and steps in ([_REPLACE], [_PREPEND, _REPLACE]):
        return len(steps) == 2
    match pre_tokenizer:
        case {"type": "Metaspace", "replacement": str(replacement), "prepend_scheme": str(scheme), "split": False}:
            if replacement == SPACE and normalizer is None:
                return scheme != "never"
    raise TokenizerError("normalizer or pre_tokenizer: found unusual ones, expected spaces written as " + SPACE)
