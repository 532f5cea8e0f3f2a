"""The spans of sound files: llama2.c's models and tokenizers, GGUF, protobuf, zip files, pickles, tiktoken's lines.

Each function walks over a file that is known to be sound, so it checks nothing. Shares no code with the readers.
"""

import pickletools
import zipfile
from io import BytesIO

from fuzz.spans import Layout, Span

import gguf_bytes as hand

_PROTOBUF_MESSAGES = (1, 2, 3)  # fields of sentencepiece's ModelProto that hold messages


def llama2c_model(data: bytes) -> Layout:
    layout = Layout(data)
    if data[:4] != b"24ka":
        layout.numbers(*["<i"] * 7)
    else:
        version = layout.numbers("<I", "<i")[1]
        layout.numbers(*["<i"] * 7, "<B", *(["<i"] if version == 2 else []))
        layout.add("raw", 256 - layout.at)
    layout.add("raw", len(data) - layout.at)
    return layout


def llama2c_tokenizer(data: bytes) -> Layout:
    layout = Layout(data)
    layout.number("<I")
    while layout.at < len(data):
        start = layout.at
        layout.number("<f")
        layout.text("<I")
        layout.item(start)
    return layout


def gguf_header(data: bytes) -> Layout:
    """The header of a GGUF file without the padding behind it."""
    layout = Layout(data)
    layout.add("raw", 4)
    layout.number("<I")
    (n_tensors, n_records), (n_keys, n_entries) = layout.number("<Q"), layout.number("<Q")
    for _ in range(n_entries):
        start = layout.at
        layout.text("<Q")
        kind = layout.number("<I")[1]
        if kind == hand.ARRAY:
            kind = layout.number("<I")[1]
            count, n_items = layout.number("<Q")
            for _ in range(n_items):
                at = layout.at
                _gguf_value(layout, kind)
                layout.item(at, counted=count)
        else:
            _gguf_value(layout, kind)
        layout.item(start, counted=n_keys)
    for _ in range(n_records):
        start = layout.at
        layout.text("<Q")
        n_axes, n = layout.number("<I")
        for _ in range(n):
            at = layout.at
            layout.number("<Q")
            layout.item(at, counted=n_axes)
        layout.numbers("<I", "<Q")
        layout.item(start, counted=n_tensors)
    return Layout(data[: layout.at], layout.spans)


def sentencepiece_model(data: bytes) -> Layout:
    layout = Layout(data)
    _message(layout, len(data), _PROTOBUF_MESSAGES, ())
    return layout


def pickle(data: bytes) -> Layout:
    """Each opcode is an item; its argument is a number or a text."""
    layout = Layout(data)
    opcodes = [(opcode, place) for opcode, _, place in pickletools.genops(data) if place is not None]
    ends = [place for _, place in opcodes[1:]] + [len(data)]
    for (opcode, start), end in zip(opcodes, ends, strict=True):
        layout.at = start + 1
        if opcode.name == "BINUNICODE":
            layout.text("<I")
        elif opcode.name in ("BININT", "BININT1", "BININT2", "BINPUT", "BINGET", "PROTO"):
            layout.number({4: "<i", 2: "<H", 1: "<B"}[end - layout.at])
        elif opcode.name == "BINFLOAT":
            layout.number(">d")
        elif opcode.name == "GLOBAL":
            layout.add("text", end - 1 - layout.at)
        layout.at = end
        layout.item(start)
    return layout


def zip_file(data: bytes) -> Layout:
    """The headers of the members, the directory and its end."""
    layout = Layout(data)
    with zipfile.ZipFile(BytesIO(data)) as archive:
        places = [info.header_offset for info in archive.infolist()]
        begin = archive.start_dir
    for place in places:
        layout.at = place + 4
        n_name = layout.numbers(*["<H"] * 5, *["<I"] * 3, *["<H"] * 2)[8]
        layout.add("text", n_name)
    layout.at = begin
    for _ in places:
        start = layout.at
        layout.at += 4
        n_name, n_extra = layout.numbers(*["<H"] * 6, *["<I"] * 3, *["<H"] * 5, *["<I"] * 2)[9:11]
        layout.add("text", n_name)
        layout.at += n_extra
        layout.item(start)
    layout.at += 4
    layout.numbers(*["<H"] * 4, *["<I"] * 2, "<H")
    layout.spans.append(Span(begin, len(data), "raw"))
    return layout


def tiktoken(data: bytes) -> Layout:
    layout = Layout(data)
    for line in data.splitlines(keepends=True):
        start = layout.at
        token = line.index(b" ")
        layout.add("text", token)
        layout.at += 1
        layout.add("text", len(line) - token - 2)
        layout.at += 1
        layout.item(start)
    return layout


def _gguf_value(layout: Layout, kind: int) -> None:
    if kind == hand.STRING:
        layout.text("<Q")
    else:
        layout.number("<" + hand.FORMATS[kind].replace("?", "B"))


def _message(layout: Layout, end: int, messages: tuple[int, ...], inside: tuple[Span, ...]) -> None:
    while layout.at < end:
        start = layout.at
        tag = layout.number("varint", inside)[1]
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            layout.number("varint", inside)
        elif wire == 5:
            layout.number("<f", inside)
        elif field in messages:
            length, n_bytes = layout.number("varint", inside)
            _message(layout, layout.at + n_bytes, (), (*inside, length))
        else:
            layout.text("varint", inside)
        layout.item(start, inside)
