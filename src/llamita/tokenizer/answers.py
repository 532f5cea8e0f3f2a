"""Which tokens of a chat the assistant says: what fine-tuning counts. Both kinds of templates end here.

A template knows the stretches of its text that a model has to say; here they become tokens. What stands before an answer gets
the very ids that the model will be prompted with, also where a token of the whole text reaches over the border. Knows no
template and no vocabulary.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from llamita.errors import TokenizerError
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.messages import Message

_ANCHORS = ("\n", ".", "a", "0")  # one of them stays a token of its own, whatever follows


class Example(NamedTuple):
    """The ids of a chat, and of each whether a model shall learn to say it."""

    ids: list[int]
    counted: list[bool]


class Run(NamedTuple):
    """A stretch of a text, and whether the assistant says it."""

    text: str
    counted: bool


def answers_of(messages: Sequence[Message]) -> set[int]:
    """The indices of what the assistant says to somebody: a first message answers nothing, no prompt leads to it."""
    return {index for index, message in enumerate(messages) if index and message.get("role") == "assistant"}


def encode_runs(
    tokenizer: Tokenizer, encode: Callable[[str], list[int]], runs: Iterable[Run], end_ids: Collection[int] = ()
) -> Example:
    """The tokens of a text that consists of runs, counted by runs; `encode` gives the ids of a text from its beginning.

    The ids are those of the whole text, unless a token would reach from a prompt into its answer: there the text is cut. A
    token that reaches over the end of an answer is counted. end_ids: special tokens, where each answer ends in one and holds no
    other: that saves time. Raises TokenizerError.
    """
    joined = _joined(runs)
    text = "".join(run.text for run in joined)
    ids, borders, place = encode(text), [0], 0
    cut_place = cut_index = 0  # behind the last cut
    for run, following in pairwise(joined):
        place += len(run.text)
        known_end = next((i for i in range(borders[-1], len(ids)) if ids[i] in end_ids), None) if run.counted else None
        if known_end is not None:
            borders.append(known_end + 1)
            continue
        part = text[cut_place:place]
        before = encode_inside(tokenizer, encode, part) if cut_place else encode(part)
        n_same = _n_same(before, ids, cut_index)
        if n_same == len(before):
            borders.append(cut_index + n_same)
        elif following.counted:
            ids = ids[:cut_index] + before + encode_inside(tokenizer, encode, text[place:])
            cut_place, cut_index = place, cut_index + len(before)
            borders.append(cut_index)
        else:
            borders.append(max(borders[-1], _end_of(tokenizer, before[n_same:], ids, cut_index + n_same)))
    borders.append(len(ids))
    counted: list[bool] = []
    for run, (first, end) in zip(joined, pairwise(borders), strict=True):
        counted += [run.counted] * (end - first)
    return Example(ids, counted)


def encode_inside(tokenizer: Tokenizer, encode: Callable[[str], list[int]], text: str) -> list[int]:
    """The ids of what goes on in the middle of a text: without the space that some vocabularies put before a text."""
    if not tokenizer.adds_space:
        return encode(text)
    for anchor in _ANCHORS:
        head, ids = encode(anchor), encode(anchor + text)
        if ids[: len(head)] == head:
            return ids[len(head) :]
    raise TokenizerError(f"text: found {text[:40]!r} behind a prompt, expected a text that tokens of its own can begin")


def _joined(runs: Iterable[Run]) -> list[Run]:
    """The runs without empty ones, neighbours of one kind as one; at least one run."""
    joined: list[Run] = []
    for run in runs:
        if joined and joined[-1].counted == run.counted:
            joined[-1] = Run(joined[-1].text + run.text, run.counted)
        elif run.text:
            joined.append(run)
    return joined or [Run("", False)]


def _n_same(left: Sequence[int], right: Sequence[int], start: int) -> int:
    """How many ids of `left` stand in `right` from `start` on, too."""
    n = min(len(left), len(right) - start)
    return next((i for i in range(n) if left[i] != right[start + i]), n)


def _end_of(tokenizer: Tokenizer, left: Iterable[int], ids: Collection[int], start: int) -> int:
    """The index in `ids` behind the tokens, from `start` on, that write what those of `left` write."""
    n_bytes = sum(len(tokenizer.piece_bytes(token_id)) for token_id in left)
    for index, token_id in enumerate(list(ids)[start:], start):
        if n_bytes <= 0:
            return index
        n_bytes -= len(tokenizer.piece_bytes(token_id))
    return len(ids)
