"""Special tokens added to a vocabulary, as the marks of a chat template that a model is to learn.

The new ones get the ids behind the last token, those of rows to spare first. They are special: no text spells them, decoding
leaves them out, and every file that a tokenizer is written to keeps them so. Knows no file and no weights.
"""

import json
from collections.abc import Sequence

from llamita.errors import TokenizerError
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.byte_level import added_token
from llamita.tokenizer.conversion import to_sentencepiece
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.named_templates import TEMPLATES
from llamita.tokenizer.sentencepiece import CONTROL, UNKNOWN, SentencePieceTokenizer

LONGEST_CHARACTERS = 64


def missing_marks(template_name: str, tokenizer: Tokenizer) -> list[str]:
    """The marks that should be special tokens for a named template, and are none here; those of llama2 and zephyr are text."""
    template = TEMPLATES[template_name]
    return [mark for mark in (template.marks if template.turn_end else ()) if mark not in tokenizer.special_tokens]


def n_tokens(tokenizer: Tokenizer) -> int:
    """How many tokens a vocabulary has, rows to spare left out."""
    return tokenizer.vocab_size - getattr(tokenizer, "n_padding", 0)


def with_special_tokens(tokenizer: Tokenizer, marks: Sequence[str]) -> Tokenizer:
    """The tokenizer with marks as special tokens, those that it has already left as they are.

    A mark that is a token but not a special one keeps its id. A tokenizer.bin of llama2.c becomes its like of sentencepiece.
    Raises TokenizerError for a mark that no vocabulary could hold.

    >>> with_special_tokens(tokenizer, ["<|im_start|>"]).encode_marked("<|im_start|>")  # doctest: +SKIP
    [32000]
    """
    for mark in marks:
        if not 2 <= len(mark) <= LONGEST_CHARACTERS or not mark.isprintable() or " " in mark:
            expected = f"2 to {LONGEST_CHARACTERS} characters without blanks"
            raise TokenizerError(f"special token: found {mark!r}, expected {expected}")
    wanted = [mark for mark in dict.fromkeys(marks) if mark not in tokenizer.special_tokens]
    if not wanted:
        return tokenizer
    if isinstance(tokenizer, LibraryTokenizer):
        return _with_added(tokenizer, wanted)
    return _with_control(to_sentencepiece(tokenizer), wanted)


def _with_added(tokenizer: LibraryTokenizer, marks: list[str]) -> LibraryTokenizer:
    content = json.loads(tokenizer.source) if tokenizer.source else tokenizer.content()
    added = {entry["content"]: entry for entry in content["added_tokens"]}
    next_id = tokenizer.n_tokens
    for mark in marks:
        token_id = tokenizer.token_id(mark)
        if mark in added:
            added[mark]["special"] = True
            continue
        added[mark] = added_token(next_id if token_id < 0 else token_id, mark, is_special=True)
        next_id += token_id < 0
    content["added_tokens"] = sorted(added.values(), key=lambda entry: entry["id"])
    changed = LibraryTokenizer(content).with_ends(tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos)
    if tokenizer.source:
        changed.source = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return changed.with_padding(max(tokenizer.vocab_size, changed.n_tokens))


def _with_control(tokenizer: SentencePieceTokenizer, marks: list[str]) -> SentencePieceTokenizer:
    pieces, scores, types = list(tokenizer.pieces), list(tokenizer.scores), list(tokenizer.types)
    for mark in marks:
        if mark in pieces:
            index = pieces.index(mark)
            types[index] = CONTROL if types[index] != UNKNOWN else UNKNOWN
            continue
        pieces.append(mark)
        scores.append(0.0)
        types.append(CONTROL)
    changed = SentencePieceTokenizer(pieces, scores, types, tokenizer.rules, tokenizer.adds_bos)
    return changed.with_padding(max(tokenizer.vocab_size, len(pieces)))
