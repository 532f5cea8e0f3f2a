"""Pieces with scores as a list of pairs: what the `tokenizers` library merges by, where sentencepiece has scores.

The list is every pair that makes a piece, best score first. Where that cannot give the same ids the vocabulary is refused.
Knows neither file nor library; ranked.py is the other direction. Source: transformers' SentencePieceExtractor.
"""

from llamita.errors import TokenizerError
from llamita.tokenizer.sentencepiece import BPE, NORMAL, UNUSED, USER_DEFINED, SentencePieceTokenizer

MAX_PIECE_CHARACTERS = 1024  # looking for the pairs of a piece takes the square of its length


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
