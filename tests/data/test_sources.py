"""Files, folders and data sets to documents: what is found, in which order, and what is refused with one line."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from llamita.data import text_files
from llamita.data.sources import GUESS, ReadOptions, documents, find_sources, sample
from llamita.errors import DataError


def texts_of(*names, options: ReadOptions = GUESS) -> list[str]:
    return [document.text for document in documents(find_sources(names), options)]


def detected(path: Path, options: ReadOptions = GUESS) -> list[str]:
    lines: list[str] = []
    list(documents(find_sources([path]), options, lambda _, line: lines.append(line)))
    return lines


def refused(*names, options: ReadOptions = GUESS) -> str:
    with pytest.raises(DataError) as caught:
        texts_of(*names, options=options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_read_through_all_levels_in_sorted_order(tmp_path: Path):
    for name in ("b.txt", "a/z.md", "a/deep/er/x.text", "c.txt.gz", ".hidden.txt", ".git/x.txt", "picture.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(name.encode()) if name.endswith(".gz") else name.encode())
    assert texts_of(tmp_path) == ["a/deep/er/x.text", "a/z.md", "b.txt", "c.txt.gz"]


def test_a_folder_that_links_to_itself_is_read_once(tmp_path: Path):
    (tmp_path / "a.txt").write_text("once")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "nowhere.txt").symlink_to(tmp_path / "missing")
    assert texts_of(tmp_path) == ["once"]


def test_a_file_of_unknown_kind_is_read_as_text_where_it_is_named(tmp_path: Path):
    (tmp_path / "README").write_text("words")
    assert texts_of(tmp_path / "README") == ["words"]


@pytest.mark.parametrize("marker", text_files.MARKERS)
def test_a_marker_is_found_and_ends_documents(tmp_path: Path, marker: str):
    path = tmp_path / "a.txt"
    path.write_text(f"one\n\ntwo\n{marker}\n\n{marker}\nthree\n{marker}")
    assert texts_of(path) == ["one\n\ntwo", "three"]
    assert detected(path) == [f"{marker} ends a document"]


def test_long_lines_without_blank_ones_are_documents(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{i} " + "word " * 60 + "\n" for i in range(20)))
    assert (len(texts_of(path)), detected(path)) == (20, ["each line is a document"])


def test_a_play_is_one_document(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("First:\nSpeak.\n\nAll:\nWe speak.\n" * 50)
    assert (len(texts_of(path)), detected(path)) == (1, [text_files.describe("file")])


@pytest.mark.parametrize(
    ("separator", "expected"),
    [("file", ["a\nb\n\nc|d"]), ("line", ["a", "b", "c|d"]), ("blank", ["a\nb", "c|d"]), ("|", ["a\nb\n\nc", "d"])],
)
def test_the_separator_can_be_set(tmp_path: Path, separator: str, expected: list[str]):
    (tmp_path / "a.txt").write_text("a\nb\n \t\nc|d\n".replace(" \t", ""))
    assert texts_of(tmp_path / "a.txt", options=ReadOptions(separator=separator)) == expected


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 100])
def test_a_separator_that_never_occurs_is_said(tmp_path: Path, monkeypatch, chunk: int):
    path = tmp_path / "a.txt"
    path.write_text("a line\nand line#\nb -- c")
    monkeypatch.setattr(text_files, "CHUNK", chunk)
    one = "the file is one document, cut where it is longer than a megabyte"
    assert detected(path, ReadOptions(separator="lines")) == [f"the separator 'lines' never occurs: {one}"]
    assert texts_of(path, options=ReadOptions(separator="lines")) == [path.read_text()]
    assert detected(path, ReadOptions(separator=" -- ")) == [" --  ends a document"]
    for name, line in (("line", "each line is a document"), ("blank", "a blank line ends a document"), ("file", one)):
        assert detected(path, ReadOptions(separator=name)) == [line]


@pytest.mark.parametrize("separator", ["<|endoftext|>", "blank", "line"])
def test_documents_are_the_same_wherever_a_read_ends(tmp_path: Path, monkeypatch, separator: str):
    path = tmp_path / "a.txt"
    path.write_text("aé\n<|endoftext|>\n\nbb b\n\n\n<|endoftext|>ccc")
    options = ReadOptions(separator=separator)
    whole = texts_of(path, options=options)
    monkeypatch.setattr(text_files, "LONGEST", 30)
    for chunk in range(1, 30):
        monkeypatch.setattr(text_files, "CHUNK", chunk)
        assert texts_of(path, options=options) == whole


def test_a_long_document_is_cut_at_paragraphs(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(text_files, "LONGEST", 100)
    paragraphs = [f"paragraph {i} " + "word " * 8 for i in range(20)]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs))
    pieces = texts_of(tmp_path / "a.txt")
    assert max(map(len, pieces)) <= 100
    assert all(piece.startswith("paragraph") for piece in pieces)
    assert "\n\n".join(pieces).split() == " ".join(paragraphs).split()


def test_text_without_any_blank_is_cut_too(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(text_files, "LONGEST", 100)
    (tmp_path / "a.txt").write_text("x" * 1234)
    assert [len(piece) for piece in texts_of(tmp_path / "a.txt")] == [100] * 12 + [34]


def test_a_byte_order_mark_and_foreign_line_ends_are_no_text(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert texts_of(tmp_path / "a.txt") == ["one\ntwo"]


@pytest.mark.parametrize("n_before", [0, 5, (1 << 20) - 1, 3_000_000])
@pytest.mark.parametrize(("wrong", "shift"), [(b"\xff", 0), ("é".encode()[:1] + b"x", 0), ("日".encode()[:2], 0)])
def test_invalid_utf8_is_named_by_its_byte(tmp_path: Path, n_before: int, wrong: bytes, shift: int):
    (tmp_path / "a.txt").write_bytes(b"a" * n_before + wrong)
    line = refused(tmp_path / "a.txt", options=ReadOptions(separator="file"))
    assert f"a.txt: byte {n_before + shift}: found no UTF-8" in line


def test_a_broken_gzip_file_is_named(tmp_path: Path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text " * 10_000)[:-20])
    (tmp_path / "b.txt.gz").write_bytes(b"no gzip at all")
    assert "a.txt.gz: found a broken gzip file" in refused(tmp_path / "a.txt.gz")
    assert "b.txt.gz: found a broken gzip file" in refused(tmp_path / "b.txt.gz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "a.txt")
    assert "expected a regular file" in refused(tmp_path / "a.txt")
    assert "expected a regular file" in refused(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path):
    assert "nowhere.txt: found No such file" in refused(tmp_path / "nowhere.txt")
    assert "No such file" in refused("no/where.txt")
    assert "null" in refused("a\0b")


def test_an_empty_folder_is_named(tmp_path: Path):
    assert f"{tmp_path}: found no file of text" in refused(tmp_path)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "may not read" in refused(tmp_path / "a.txt")


def test_empty_documents_are_left_out(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"text": " "}\n\n{"text": null}\n{"text": "x "}\n')
    assert texts_of(tmp_path / "a.jsonl") == ["x"]


def test_a_document_knows_where_it_stood(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n\n{"text": "two"}\n')
    places = [(document.source, document.record) for document in documents(find_sources([path]))]
    assert places == [(str(path), 1), (str(path), 3)]


def test_a_sample_comes_from_all_over_the_text(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"{i:04} " + "x" * 95}) + "\n" for i in range(1000)))
    numbers = [int(text[:4]) for text in sample(find_sources([tmp_path]), GUESS, 10_000)]
    assert 50 <= len(numbers) <= 100
    assert max(numbers) > 900


def test_a_large_file_is_read_in_little_memory(tmp_path: Path):
    path = tmp_path / "large.txt"
    with path.open("w") as file:
        for i in range(64):
            file.write((f"{i} words and more of them. " * 40_000)[: 1 << 20] + "<|endoftext|>" * (i % 2))
    tracemalloc.start()
    n_characters = sum(len(document.text) for document in documents(find_sources([path])))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_characters > 60 << 20
    assert peak_bytes < 12 << 20
