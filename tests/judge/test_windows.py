"""Windows: every token is counted once, behind exactly as many others as the windowing says."""

from itertools import chain

import numpy as np
import pytest

from llamita.errors import SettingError
from llamita.judge.documents import EncodedDocument
from llamita.judge.windows import KINDS, Kind, Window, Windowing

BOS = 1
LENGTHS = (5, 1, 23, 2, 40, 11)


def documents(lengths: tuple[int, ...] = LENGTHS) -> list[EncodedDocument]:
    """Documents whose ids say where they stand: 100, 101, ... through all of them; one row each."""
    starts = np.cumsum([0, *lengths])
    return [
        EncodedDocument(np.arange(100 + first, 100 + first + n), np.full(n, row))
        for row, (first, n) in enumerate(zip(starts.tolist(), lengths, strict=False))
    ]


def counted(windowing: Windowing, lengths: tuple[int, ...] = LENGTHS) -> list[tuple[int, list[int], int]]:
    """(token, what the model has read before it, row) of every counted token, in order."""
    found = []
    for window in windowing.windows(documents(lengths)):
        n = len(window.rows)
        for i, row in zip(range(len(window.ids) - n, len(window.ids)), window.rows.tolist(), strict=True):
            found.append((int(window.ids[i]), window.ids[:i].tolist(), row))
    return found


def n_behind(place: int, n_read: int, stride: int) -> int:
    """How many tokens stand before a place in its window: the first window that reaches it, by the definition."""
    return place if place <= n_read else place - -(-(place - n_read) // stride) * stride


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bos_id", [BOS, None])
@pytest.mark.parametrize(("context", "stride"), [(8, 3), (8, 7), (2, 1), (64, 32), (200, 1)])
def test_every_token_is_counted_once_behind_what_the_definition_says(kind: Kind, bos_id: int | None, context: int, stride: int):
    windowing = Windowing.choose(kind, context, None if kind == "stream" else stride, bos_id)
    stride = context if kind == "stream" else stride
    n_read = context - 1 if kind == "strided" else context
    begin = [] if bos_id is None else [bos_id]
    sequences = [[*begin, *document.ids.tolist()] for document in documents()]
    owners = [[max(row - 1, 0)] * len(begin) + document.rows.tolist() for row, document in enumerate(documents())]
    if kind != "documents":
        sequences, owners = [list(chain(*sequences))], [list(chain(*owners))]
    expected = []
    for sequence, rows in zip(sequences, owners, strict=True):
        for place in range(1, len(sequence)):
            behind = sequence[place - n_behind(place, n_read, stride) : place]
            if kind == "documents" and begin:
                behind[0] = BOS
            expected.append((sequence[place], behind, rows[place]))
    assert counted(windowing) == expected


def test_a_stream_is_llama2cs_windows():
    ids = [BOS, *range(100, 133)]
    windows = [
        (w.ids[:-1].tolist(), w.ids[1:].tolist()) for w in Windowing.choose("stream", 8, None, BOS).windows(documents((33,)))
    ]
    assert windows[:4] == [(ids[i * 8 : i * 8 + 8], ids[i * 8 + 1 : i * 8 + 9]) for i in range(4)]  # Task.iter_batches
    assert windows[4:] == [([131], [132])]  # which llama2.c leaves out


def test_strided_windows_are_those_of_hugging_faces_guide():
    ids, length, stride = list(range(100, 133)), 8, 3
    expected, previous_end = [], 0
    for begin in range(0, len(ids), stride):
        end = min(begin + length, len(ids))
        expected.append((ids[begin:end], (end - previous_end) - (begin == 0)))  # shifting the labels costs the first one
        previous_end = end
        if end == len(ids):
            break
    windows = Windowing.choose("strided", length, stride, None).windows(documents((33,)))
    assert [(w.ids.tolist(), len(w.rows)) for w in windows] == expected


def test_bos_in_a_stream_is_counted_where_the_document_before_it_ended():
    found = counted(Windowing.choose("stream", 100, None, BOS))
    assert [(token, row) for token, _, row in found if token == BOS] == [(BOS, row) for row in range(len(LENGTHS) - 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_without_bos_what_has_nothing_before_it_is_not_counted(kind: Kind):
    windowing = Windowing.choose(kind, 16, None, None)
    tokens = {token for token, _, _ in counted(windowing)}
    for number, document in enumerate(documents()):
        assert (int(document.ids[0]) in tokens) == windowing.counts_first(number)


def test_a_text_of_no_documents_has_no_windows():
    assert [list[Window](Windowing.choose(kind, 8, None, BOS).windows([])) for kind in KINDS] == [[], [], []]


@pytest.mark.parametrize(
    ("kind", "context", "stride", "found"),
    [("stream", 8, 4, "stride: found it with windows of a stream"), ("documents", 8, 9, "stride: found 9, expected 1 to 8"),
     ("strided", 8, 8, "stride: found 8, expected 1 to 7"), ("strided", 1, None, "stride: found 1, expected 1 to 0"),
     ("documents", 8, 0, "stride: found 0")],
)  # fmt: skip
def test_a_stride_that_would_leave_tokens_out_is_refused(kind: Kind, context: int, stride: int | None, found: str):
    with pytest.raises(SettingError, match=found):
        Windowing.choose(kind, context, stride, BOS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_description_names_what_a_reader_has_to_know(kind: Kind):
    stated = Windowing.choose(kind, 48, None, BOS).describe()
    assert "48 tokens" in stated
    assert "BOS" in stated
    assert "BOS" not in Windowing.choose(kind, 48, None, None).describe().replace("without BOS", "")
