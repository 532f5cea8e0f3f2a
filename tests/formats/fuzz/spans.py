"""Damage that knows a layout: a sound file as spans (numbers, texts, items), of which a few are changed.

Lengths and counts that depend on a change are set right again, mostly, so that a reader gets past its first check. Knows no
format: layouts.py finds the spans.
"""

import random
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

NUMBERS = [
    *(0, 1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 31, 32, 33, 63, 64, 127, 128, 255, 256, 1000, 1023, 1024, 1 << 14, (1 << 14) + 1),
    *(65535, 65536, 1 << 20, 1 << 22, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 62) + 1, (1 << 63) - 1),
    *(1 << 63, (1 << 64) - 8, (1 << 64) - 1),
]
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-10, 1e10, 3.4e38, float("inf"), float("-inf"), float("nan")]
TEXTS = [
    *(b"", b" ", b"\0", b"\n", b"a", b"<s>", b"<0x00>", b"<0xGG>", b"..", b"/", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x1b[2J"),
    *(text.encode() for text in ("▁", "Ġ", "😀", "\u2028", "llama", "gpt2", "general.alignment", "0" * 70, "x" * 70_000)),
]
LIE = 0.2  # how often lengths and counts stay wrong


@dataclass(frozen=True, eq=False)
class Span:
    """A part of a file. kind: "number", "text", "item" or "raw".

    code: of a number, how it is written: a struct format or "varint". inside: the numbers that say how long a part is that
    holds this one, the innermost last. counted: the number that says how many such items there are.
    """

    start: int
    end: int
    kind: str
    code: str = ""
    inside: tuple["Span", ...] = ()
    counted: "Span | None" = None


@dataclass
class Layout:
    """A sound file, or the part of it that is damaged, and its spans; `add` finds the place behind the last one."""

    data: bytes
    spans: list[Span] = field(default_factory=list)
    at: int = 0

    def add(self, kind: str, n_bytes: int, code: str = "", inside: tuple[Span, ...] = (), counted: Span | None = None) -> Span:
        span = Span(self.at, self.at + n_bytes, kind, code, inside, counted)
        self.at = span.end
        self.spans.append(span)
        return span

    def number(self, code: str, inside: tuple[Span, ...] = ()) -> tuple[Span, int]:
        """The number here, and what it says."""
        n_bytes = varint_bytes(self.data, self.at) if code == "varint" else struct.calcsize(code)
        span = self.add("number", n_bytes, code, inside)
        return span, self.value(span)

    def of(self, span: Span) -> bytes:
        return self.data[span.start : span.end]

    def value(self, span: Span) -> int:
        """What a number says; 0 of a float."""
        if span.code == "varint":
            return sum((byte & 0x7F) << 7 * i for i, byte in enumerate(self.of(span)))
        value = struct.unpack(span.code, self.of(span))[0]
        return int(value) if isinstance(value, int) else 0

    def numbers(self, *codes: str) -> list[int]:
        """Several numbers, one behind the other, and what they say."""
        return [self.number(code)[1] for code in codes]

    def text(self, code: str, inside: tuple[Span, ...] = ()) -> tuple[Span, Span]:
        """The length and the text here."""
        length, n_bytes = self.number(code, inside)
        return length, self.add("text", n_bytes, inside=(*inside, length))

    def item(self, start: int, inside: tuple[Span, ...] = (), counted: Span | None = None) -> None:
        """Everything from `start` to here is one of several items."""
        self.spans.append(Span(start, self.at, "item", "", inside, counted))


class Edit(NamedTuple):
    """What stands in the place of a span; n_more_items: than before, where the span was an item."""

    new: bytes
    n_more_items: int = 0


def damaged(layout: Layout, rng: random.Random) -> bytes:
    """The file with one to three spans changed."""
    by_kind: dict[str, list[Span]] = defaultdict(list)
    for span in layout.spans:
        by_kind[span.kind].append(span)
    kinds = sorted(by_kind)
    edits: dict[Span, Edit] = {}
    for _ in range(rng.choice((1, 1, 2, 3))):
        span = rng.choice(by_kind[rng.choice(kinds)])
        if not any(span.start < other.end and other.start < span.end for other in edits):
            edits[span] = _changed(layout, span, rng, by_kind)
    if rng.random() >= LIE:
        _set_lengths_right(layout, edits)
    return _applied(layout.data, edits)


def written(value: int | float, code: str) -> bytes:
    """A number as its code writes it, wrapped to its width."""
    if code == "varint":
        value, data = int(value) & (1 << 64) - 1, bytearray()
        while value > 0x7F:
            data.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*data, value])
    if code[-1] in "efd":
        try:
            return struct.pack(code, value)
        except OverflowError:
            return struct.pack(code, float("inf"))
    n_bytes = struct.calcsize(code)
    return (int(value) & (1 << 8 * n_bytes) - 1).to_bytes(n_bytes, "big" if code[0] == ">" else "little")


def varint_bytes(data: bytes, at: int) -> int:
    """How many bytes the varint here has."""
    return next(i for i in range(1, 11) if data[at + i - 1] < 0x80)


def damaged_bytes(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Damage that knows nothing: a flipped bit, a cut, bytes too many or too few, the end of another file."""
    if not data:
        return rng.randbytes(8)
    place = rng.randrange(len(data))
    match rng.randrange(6):
        case 0:
            return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        case 1:
            return data[:place]
        case 2:
            return data[:place] + rng.randbytes(rng.randint(1, 8)) + data[place:]
        case 3:
            return data[:place] + data[place + rng.randint(1, 8) :]
        case 4:
            return data[:place] + written(rng.choice(NUMBERS), "<I") + data[place + 4 :]
    return data[:place] + other[rng.randrange(len(other) + 1) :]


def _changed(layout: Layout, span: Span, rng: random.Random, by_kind: dict[str, list[Span]]) -> Edit:
    """What shall stand in the place of a span."""
    old, other = layout.of(span), layout.of(like := rng.choice(by_kind[span.kind]))
    if span.kind == "number":
        if span.code[-1] in "efd":
            return Edit(written(rng.choice(FLOATS), span.code))
        values = (rng.choice(NUMBERS), rng.choice(NUMBERS), layout.value(span) + rng.choice((-1, 1)), layout.value(like))
        return Edit(written(rng.choice(values), span.code))
    if span.kind == "text":
        return Edit(rng.choice((rng.choice(TEXTS), other, old[:-1], old + b"x", old * 2)))
    if span.kind == "item":
        items = rng.choice(([], [old, old], [other], [other, old], [old] * 3))
        return Edit(b"".join(items), len(items) - 1)
    return Edit(damaged_bytes(old, rng, other))


def _set_lengths_right(layout: Layout, edits: dict[Span, Edit]) -> None:
    """Edit the lengths and counts around what was edited, from the inside out, unless they were edited themselves."""
    growth: dict[Span, int] = defaultdict(int)
    for span, edit in edits.items():
        for length in span.inside:
            growth[length] += len(edit.new) - (span.end - span.start)
        if span.counted is not None:
            growth[span.counted] += edit.n_more_items
    for number in sorted(growth, key=lambda span: -len(span.inside)):
        if any(span.start <= number.start < span.end for span in edits):
            continue
        edits[number] = edit = Edit(written(layout.value(number) + growth[number], number.code))
        for outer in number.inside:
            growth[outer] += len(edit.new) - (number.end - number.start)


def _applied(data: bytes, edits: dict[Span, Edit]) -> bytes:
    parts, place = [], 0
    for span in sorted(edits, key=lambda span: span.start):
        parts += [data[place : span.start], edits[span].new]
        place = span.end
    return b"".join([*parts, data[place:]])
