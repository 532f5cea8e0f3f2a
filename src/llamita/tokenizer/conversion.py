"""From one kind of tokenizer to another: tokenizer.bin from tokenizer.model and back, and padding for a model with more rows.

A tokenizer.bin knows only byte-pair pieces with scores, and that ids 0, 1 and 2 are unknown, BOS and EOS: other vocabularies
are refused. Other control pieces get a score at which run.c never merges them, by which our reader knows them again. Knows no
path; formats/ reads and writes the files.
"""

from llamita.errors import TokenizerError
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.llama2c import BOS_ID, BOS_PIECE, EOS_ID, EOS_PIECE, PADDING_PIECE, UNK_ID, Llama2cTokenizer
from llamita.tokenizer.merging import LOWEST_SCORE
from llamita.tokenizer.ranked import to_scored
from llamita.tokenizer.sentencepiece import BPE, BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, Rules, SentencePieceTokenizer

_LEAST_SHARE = 0.9  # of a model's rows that a tokenizer of its own stands for; real ones are padded by 3 % at most


def to_llama2c(tokenizer: Tokenizer) -> Llama2cTokenizer:
    """The same vocabulary for a tokenizer.bin; raise TokenizerError where that file cannot hold it.

    A sentencepiece model that squeezes or normalizes text loses that: run.c encodes what it is given.
    """
    if isinstance(tokenizer, Llama2cTokenizer):
        return tokenizer
    source = to_sentencepiece(tokenizer)
    if source.rules.model_type != BPE:
        raise TokenizerError("tokenizer: found a vocabulary without byte pairs, expected one that run.c can merge (BPE)")
    ids = (source.types.index(UNKNOWN), source.bos_id, source.eos_id)
    if ids != (UNK_ID, BOS_ID, EOS_ID):
        raise TokenizerError(f"ids of unknown, BOS and EOS: found {ids}, expected {(UNK_ID, BOS_ID, EOS_ID)} as run.c has them")
    pieces = [piece.replace(SPACE, " ").encode("utf-8") for piece in source.pieces]
    pieces[BOS_ID], pieces[EOS_ID] = BOS_PIECE, EOS_PIECE
    padding = [PADDING_PIECE % token_id for token_id in range(len(pieces), source.vocab_size)]
    typed = enumerate(zip(source.scores, source.types, strict=True))
    scores = [LOWEST_SCORE if kind == CONTROL and token_id > EOS_ID else score for token_id, (score, kind) in typed]
    return Llama2cTokenizer(pieces + padding, scores + [LOWEST_SCORE] * len(padding))


def to_sentencepiece(tokenizer: Tokenizer) -> SentencePieceTokenizer:
    """The same vocabulary for a tokenizer.model; raise TokenizerError where sentencepiece cannot hold it."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        return tokenizer
    if isinstance(tokenizer, LibraryTokenizer):
        return to_scored(tokenizer)
    if not isinstance(tokenizer, Llama2cTokenizer):
        raise TokenizerError(f"tokenizer: found {type(tokenizer).__name__}, expected one of sentencepiece or llama2.c")
    rules = Rules(model_type=BPE, byte_fallback=True, remove_extra_whitespaces=False)
    byte_pieces = {b"<0x%02X>" % byte for byte in range(256)}
    if not byte_pieces <= set(tokenizer.pieces):
        byte_pieces, rules = set(), Rules(model_type=BPE, remove_extra_whitespaces=False)
    types = [BYTE if piece in byte_pieces else NORMAL for piece in tokenizer.pieces]
    for token_id in tokenizer.special_tokens.values():
        types[token_id] = CONTROL
    types[UNK_ID] = UNKNOWN
    try:
        pieces = [piece.decode("utf-8").replace(" ", SPACE) for piece in tokenizer.pieces]
    except UnicodeDecodeError as error:
        raise TokenizerError(f"piece: found bytes {error.object!r}, expected UTF-8") from None
    pieces[BOS_ID], pieces[EOS_ID] = rules.bos_piece, rules.eos_piece
    return SentencePieceTokenizer(pieces, tokenizer.scores, types, rules)


def padded(tokenizer: Tokenizer, vocab_size: int) -> Tokenizer:
    """The tokenizer with an id for each row of its model, where some rows were added to make their number round.

    It comes back as it is where it fits, where it has too many tokens, or so few that it must be another model's.
    """
    is_padded = _LEAST_SHARE * vocab_size <= tokenizer.vocab_size < vocab_size
    if is_padded and isinstance(tokenizer, LibraryTokenizer | SentencePieceTokenizer):
        return tokenizer.with_padding(vocab_size)
    return tokenizer
