"""How far two lists of ids write the same text: so a model's own words need not be read again when they come back as text.

A model may spell a word in other tokens than its tokenizer would. Knows no vocabulary: it asks for the bytes of pieces.
"""

from collections.abc import Sequence

from llamita.tokenizer import Tokenizer


def same_beginning(tokenizer: Tokenizer, left: Sequence[int], right: Sequence[int]) -> tuple[int, int]:
    """(n, m), as large as can be, for which left[:n] and right[:m] write the same bytes and the same special tokens.

    >>> same_beginning(tokenizer, [id_of["ab"], id_of["c"]], [id_of["a"], id_of["b"], id_of["d"]])  # doctest: +SKIP
    (1, 2)
    """
    i = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    j = i
    same = (i, j)
    ahead, behind = b"", b""  # what left, or right, has written and the other has not yet
    while True:
        if not ahead and not behind:
            same = (i, j)
        if not ahead:
            if i == len(left):
                return same
            ahead, i = tokenizer.piece_bytes(left[i]), i + 1
        if not behind:
            if j == len(right):
                return same
            behind, j = tokenizer.piece_bytes(right[j]), j + 1
        if not ahead or not behind:  # a special token on one side, or on both
            if ahead or behind or left[i - 1] != right[j - 1]:
                return same
            continue
        n = min(len(ahead), len(behind))
        if ahead[:n] != behind[:n]:
            return same
        ahead, behind = ahead[n:], behind[n:]
