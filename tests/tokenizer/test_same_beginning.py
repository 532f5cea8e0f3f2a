"""Two spellings of one text are recognised as far as they agree, to the byte and to the special token."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.same_beginning import same_beginning
from small_vocabularies import MARKS, byte_level

TOKENIZER = LibraryTokenizer(byte_level())
N_PIECES = TOKENIZER.n_tokens - len(MARKS)
MARK, OTHER = N_PIECES, N_PIECES + 1
BYTE_IDS = {TOKENIZER.piece_bytes(i)[0]: i for i in range(256)}  # single bytes come first


def written(ids: list[int]) -> list[bytes | int]:
    """What ids write: single bytes, and special tokens."""
    return [part for i in ids for part in ([i] if i >= N_PIECES else [bytes([b]) for b in TOKENIZER.piece_bytes(i)])]


def by_bytes(token_id: int) -> list[int]:
    """A token as one token for each of its bytes; a special token as itself."""
    return [token_id] if token_id >= N_PIECES else [BYTE_IDS[byte] for byte in TOKENIZER.piece_bytes(token_id)]


def spelled(text: str) -> list[int]:
    """The ids of a text, one for each byte."""
    return [BYTE_IDS[byte] for byte in text.encode()]


def test_another_spelling_of_the_same_text_is_the_same():
    text = "Once upon a time there was a girl"
    ours, bytewise = TOKENIZER.encode(text), spelled(text)
    assert len(ours) < len(bytewise)
    assert same_beginning(TOKENIZER, ours, bytewise) == (len(ours), len(bytewise))
    assert same_beginning(TOKENIZER, [*bytewise, MARK, *ours], [*ours, MARK, *bytewise]) == (
        len(bytewise) + 1 + len(ours),
        len(ours) + 1 + len(bytewise),
    )


def test_it_ends_at_another_special_token():
    text = TOKENIZER.encode("Hello")
    assert same_beginning(TOKENIZER, [*text, MARK], [*text, OTHER]) == (len(text), len(text))
    assert same_beginning(TOKENIZER, [*text, MARK], [*text, *text]) == (len(text), len(text))


def test_it_ends_where_both_have_a_whole_token():
    whole, bytewise = TOKENIZER.encode(" the"), spelled(" th")
    assert len(whole) == 1
    assert same_beginning(TOKENIZER, whole, bytewise) == (0, 0)


IDS = st.lists(st.integers(0, TOKENIZER.n_tokens - 1), max_size=12)


@settings(max_examples=200)
@given(common=IDS, left=IDS, right=IDS, splits=st.booleans())
def test_it_is_the_longest_beginning_that_both_write(common: list[int], left: list[int], right: list[int], splits: bool):
    first = [j for i in common for j in (by_bytes(i) if splits else [i])] + left
    second = common + right
    n, m = same_beginning(TOKENIZER, first, second)
    assert written(first[:n]) == written(second[:m])
    ends = {len(written(first[:i])) for i in range(len(first) + 1)} & {len(written(second[:i])) for i in range(len(second) + 1)}
    agreeing = [end for end in ends if written(first)[:end] == written(second)[:end]]
    assert len(written(first[:n])) == max(agreeing)
