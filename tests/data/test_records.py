"""Records: JSON lines, JSON, CSV, Parquet and data sets give the same texts, the column is guessed or named."""

import csv
import gzip
import json
import sys
from pathlib import Path

import pytest

from llamita.data import records
from llamita.data.records import read_texts
from llamita.data.sources import documents, find_sources
from llamita.errors import DataError

ROWS = [{"id": f"row {i}", "story": f'Story {i}, "quoted",\nwith two lines and é.'} for i in range(250)]
STORIES = [row["story"] for row in ROWS]


def write_json_lines(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS, indent=1))


def write_csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["id", "story"])
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    table = pyarrow.table({"id": [row["id"] for row in ROWS], "n": list(range(250)), "story": STORIES})
    parquet.write_table(table, path, row_group_size=60)


WRITERS = {"jsonl": write_json_lines, "json": write_json, "csv": write_csv, "parquet": write_parquet}


def texts_of(path: Path, field: str = "") -> list[str]:
    return [text for _, text in read_texts(str(path), find_sources([path])[0].kind, field, lambda _: None)]


def refused(path: Path, field: str = "") -> str:
    with pytest.raises(DataError) as caught:
        texts_of(path, field)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_gives_the_same_texts(tmp_path: Path, kind: str):
    path = tmp_path / f"a.{kind}"
    WRITERS[kind](path)
    assert texts_of(path) == texts_of(path, "story") == STORIES
    assert texts_of(path, "id") == [row["id"] for row in ROWS]
    if kind != "parquet":
        packed = tmp_path / f"b.{kind}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert texts_of(packed) == STORIES


@pytest.mark.parametrize("kind", WRITERS)
def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, kind: str):
    WRITERS[kind](tmp_path / f"a.{kind}")
    line = refused(tmp_path / f"a.{kind}", "body")
    assert "body" in line
    assert "story" in line


def test_the_longest_column_is_taken_where_no_name_is_known(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"title": "short", "words": "a longer text", "n": 1234567890123456789}\n')
    notes: list[str] = []
    assert list(read_texts(str(path), "jsonl", "", notes.append)) == [(1, "a longer text")]
    assert notes == ["the text is in 'words', the likeliest column"]


def test_records_may_be_texts_themselves(tmp_path: Path):
    (tmp_path / "a.json").write_text('["one", "two"]')
    assert texts_of(tmp_path / "a.json") == ["one", "two"]


def test_json_may_be_lines_or_one_record(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert texts_of(tmp_path / "a.json") == ["one", "two"]


@pytest.mark.parametrize("chunk", [1, 2, 7, 100])
def test_json_is_the_same_wherever_a_read_ends(tmp_path: Path, monkeypatch, chunk: int):
    monkeypatch.setattr(records, "_CHUNK", chunk)
    (tmp_path / "a.json").write_text(json.dumps(ROWS[:5], indent=1))
    assert texts_of(tmp_path / "a.json") == STORIES[:5]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "a.jsonl: line 2: found broken JSON"),
        ("a.jsonl", b'{"text": "a"}\n\xff\n', "a.jsonl: line 2, byte 0: found no UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 5}\n', "a.jsonl: record 2: found int 5, expected a text"),
        ("a.jsonl", b'{"text": "a"}\n{"other": "b"}\n', "a.jsonl: record 2: found no field 'text'"),
        ("a.jsonl", b'{"n": 1}\n', "a.jsonl: record 1: found no column of text, expected one (its columns: n)"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl: line 1: found broken JSON"),
        ("a.json", b'[{"text": "a"},\n{"text" 5}]', "a.json: record 2, from line 2: found broken JSON"),
        ("a.json", b'[{"text": "a"}, ', "a.json: found a list that does not end"),
        ("a.json", b"[" * 100_000, "a.json: record 1, from line 1: found broken JSON"),
        ("a.csv", b"text\n\xff\n", "a.csv: byte 5: found no UTF-8"),
        ("a.csv", b'text,n\na,1\n"b,2\nc,3\n', "a.csv: record 2, from line 3: found broken CSV (a quote that nothing closes)"),
        ("a.csv", b'"text\na,1\n', "a.csv: record 1, from line 1: found broken CSV"),
        ("a.csv", b'text\n"a', "a.csv: record 1, from line 2: found broken CSV"),
        ("a.csv", b'text,n\n"a\nb",1\nb,"c\n2\n', "a.csv: record 2, from line 4: found broken CSV"),
        ("a.parquet", b"PAR1 but no more", "a.parquet: found"),
    ],
)
def test_broken_records_are_named(tmp_path: Path, name: str, content: bytes, expected: str):
    (tmp_path / name).write_bytes(content)
    assert expected in refused(tmp_path / name)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_file_is_cut_where_its_header_is(tmp_path: Path, delimiter: str):
    rows = [["label", "text"], ["1", "Lily, Tom; and |a\tdog|"], ["2", '"Hi," he said.']]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    assert [text for _, text in read_texts(str(tmp_path / "a.csv"), "csv", "", lambda _: None)] == [row[1] for row in rows[1:]]


def test_a_csv_file_may_have_one_column_or_nothing(tmp_path: Path):
    for content, expected in (
        ("text\nLily; Tom\n", ["Lily; Tom"]),
        ('text,n\n\n"bad"x,1\n"a ""b"""\nc,2,3', ["badx", 'a "b"', "c"]),
        ("text\n", []),
        ("", []),
    ):
        (tmp_path / "a.csv").write_text(content)
        assert [text for _, text in read_texts(str(tmp_path / "a.csv"), "csv", "", lambda _: None)] == expected


def test_half_a_surrogate_pair_reaches_no_tokenizer(tmp_path: Path, tokenizer_path: Path):
    from llamita.data.prepare import prepare

    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": "not \\ud800"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: record 2, character 4: found '\\ud800'"):
        prepare([tmp_path / "a.jsonl"], tokenizer_path, tmp_path / "out")


@pytest.mark.parametrize(("library", "name"), [("pyarrow", "a.parquet"), ("datasets", "some/dataset")])
def test_a_missing_library_is_named_with_the_way_to_install_it(tmp_path: Path, monkeypatch, library: str, name: str):
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    name = str(tmp_path / name) if name == "a.parquet" else name
    with pytest.raises(DataError, match=rf"needs {library}: pip install 'llamita\[data\]'"):
        list(documents(find_sources([name])))


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


@pytest.mark.filterwarnings("ignore")  # what the library and its dependencies warn of is theirs
def test_a_data_set_is_streamed_by_the_library(tmp_path: Path, monkeypatch, offline_hub):  # noqa: ARG001
    (tmp_path / "owner" / "name").mkdir(parents=True)
    write_json_lines(tmp_path / "owner" / "name" / "train.jsonl")
    write_json_lines(tmp_path / "owner" / "name" / "validation.jsonl")
    monkeypatch.chdir(tmp_path)
    texts = [text for _, text in read_texts("owner/name", "dataset", "", lambda _: None)]
    assert texts == [text for _, text in read_texts("owner/name:validation", "dataset", "", lambda _: None)] == STORIES


@pytest.mark.filterwarnings("ignore")
def test_a_data_set_without_a_network_is_one_line(offline_hub):  # noqa: ARG001
    with pytest.raises(
        DataError, match=r"roneneldan/TinyStories: found no such file .* the data set cannot be read: .*network"
    ) as caught:
        list(documents(find_sources(["tinystories"])))
    assert "\n" not in str(caught.value)
