"""Files of chats are read whatever holds them; a broken line has its place named, and the rest is read where that is wished."""

import gzip
import json
from pathlib import Path

import pytest

from llamita.data import records
from llamita.data.chat_files import find_chat_files, read_chat_files
from llamita.data.chat_options import ChatOptions
from llamita.data.chat_records import BadChatError
from llamita.errors import DataError


def chat(i: int) -> dict:
    return {"messages": [{"role": "user", "content": f"How many? {i}"}, {"role": "assistant", "content": f"{i} ä"}]}


CHATS = [chat(i) for i in range(5)]
LINES = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in CHATS)


def stop(error: BadChatError) -> None:
    raise error


def read(path: Path | str, options: ChatOptions | None = None, bad: list[BadChatError] | None = None) -> list[str]:
    """The last message of each chat."""

    def on_bad(error: BadChatError) -> None:
        if bad is None:
            raise error
        bad.append(error)

    found = read_chat_files(find_chat_files([path]), options or ChatOptions(), on_bad, lambda *_: None)
    return [item.chats[-1].messages[-1]["content"] for item in found]


def write_parquet(path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist([{"n": i, **record} for i, record in enumerate(CHATS)]), path)


def write_csv(path: Path) -> None:
    path.write_text("id,prompt,completion\n" + "".join(f'{i},"Who, {i}?",{i} ä\n' for i in range(5)), encoding="utf-8")


WRITERS = {
    "a.jsonl": lambda path: path.write_text(LINES, encoding="utf-8"),
    "bom.jsonl": lambda path: path.write_text("\ufeff" + LINES, encoding="utf-8"),
    "lines.json": lambda path: path.write_text(LINES, encoding="utf-8"),
    "list.json": lambda path: path.write_text(json.dumps(CHATS), encoding="utf-8"),
    "pretty.json": lambda path: path.write_text(json.dumps(CHATS, indent=1), encoding="utf-8"),
    "list.jsonl": lambda path: path.write_text(json.dumps(CHATS, indent=1), encoding="utf-8"),
    "one_line_list.jsonl": lambda path: path.write_text(json.dumps(CHATS), encoding="utf-8"),
    "objects.json": lambda path: path.write_text("\n".join(json.dumps(c, indent=1) for c in CHATS), encoding="utf-8"),
    "bare.jsonl": lambda path: path.write_text("".join(json.dumps(c["messages"]) + "\n" for c in CHATS), encoding="utf-8"),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES.encode())),
    "a.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(CHATS).encode())),
    "a.parquet": write_parquet,
    "a.csv": write_csv,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_file_gives_the_same_chats(name: str, tmp_path: Path):
    WRITERS[name](tmp_path / name)
    assert read(tmp_path / name) == [f"{i} ä" for i in range(5)]
    assert read(tmp_path) == [f"{i} ä" for i in range(5)]


def test_texts_in_a_folder_are_passed_over_and_refused_by_name(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(LINES, encoding="utf-8")
    (tmp_path / "README.md").write_text("About chats")
    assert len(read(tmp_path)) == 5
    with pytest.raises(DataError, match=r"README\.md: found no file of chats, expected \.jsonl"):
        read(tmp_path / "README.md")
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(DataError, match="found no file of chats"):
        read(tmp_path)
    with pytest.raises(DataError, match="nowhere"):
        read(tmp_path / "nowhere")


BROKEN = [
    (b'{"messages": [', "found broken JSON"),
    (b"\xff\xfe{}", "byte 0: found no UTF-8"),
    (b'{"messages": [{"role": "user", "content": "\xc3("}]}', "found no UTF-8"),
    (b"[" * 100_000, "found broken JSON"),
    (b'{"n": ' + b"9" * 5000 + b"}", "found broken JSON"),
    (b'"text"', "found str 'text', expected an object"),
    (b"{}", "found no field 'messages'"),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "a"}]}', "half a surrogate"),
    (b'{"messages": [{"role": "elf", "content": "a"}]}', "found the role str 'elf'"),
    (b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]}', "found an empty answer"),
]


@pytest.mark.parametrize(("line", "complaint"), BROKEN, ids=lambda value: str(value)[:25])
def test_a_broken_line_has_its_place_named_and_the_others_are_read(line: bytes, complaint: str, tmp_path: Path):
    path = tmp_path / "a.jsonl"
    lines = LINES.encode().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line + b"\n", b"\n", *lines[2:]]))
    bad: list[BadChatError] = []
    assert len(read(path, bad=bad)) == 5
    assert len(bad) == 1
    assert str(bad[0]).startswith(f"{path}: line 3")
    assert complaint in str(bad[0])
    assert "\n" not in str(bad[0])
    with pytest.raises(BadChatError, match="line 3"):
        read(path)


def test_a_broken_line_at_the_beginning_does_not_hide_the_shape(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text("{broken\n5\n" + LINES, encoding="utf-8")
    bad: list[BadChatError] = []
    assert len(read(path, bad=bad)) == 5
    assert [error.reason for error in bad] == ["broken line", "no chat"]


def test_a_line_that_is_too_long_to_be_a_record_is_one_broken_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(records, "LONGEST_RECORD", 1000)
    monkeypatch.setattr(records, "_CHUNK", 64)
    path = tmp_path / "a.jsonl"
    path.write_text(LINES + json.dumps(chat(7)) + " " * 5000 + "\n" + LINES, encoding="utf-8")
    bad: list[BadChatError] = []
    assert len(read(path, bad=bad)) == 10
    assert [str(error).partition(": found")[0] for error in bad] == [f"{path}: line 6"]
    assert "more than 1,000 bytes in a line" in str(bad[0])
    path.write_text(LINES + "x" * 5000, encoding="utf-8")
    assert len(read(path, bad=bad)) == 5
    assert len(bad) == 2


@pytest.mark.parametrize("content", [b"[{", b'[{"messages": []}', b'[{"a": 1} {"b": }]'])
def test_a_list_that_is_broken_cannot_be_read_on(content: bytes, tmp_path: Path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json: .*found"):
        read(tmp_path / "a.json", bad=[])


def test_records_of_a_list_are_numbered(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps([chat(0), 5, chat(1)]))
    bad: list[BadChatError] = []
    read(tmp_path / "a.json", bad=bad)
    assert f"{tmp_path / 'a.json'}: record 2: found int 5" in str(bad[0])


def test_what_a_file_holds_is_told_once(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(LINES, encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps([{"instruction": "a", "output": "b"}] * 3))
    told: list[str] = []
    sources = find_chat_files([tmp_path])
    list(read_chat_files(sources, ChatOptions(), stop, lambda source, line: told.append(f"{source.name}: {line}")))
    assert told == [
        f"{tmp_path / 'a.jsonl'}: the shape is openai, by the first record",
        f"{tmp_path / 'b.json'}: the shape is alpaca, by the first record",
    ]


def test_pairs_are_not_taken_for_chats_nor_chats_for_pairs(tmp_path: Path):
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}))
    (tmp_path / "chats.jsonl").write_text(LINES, encoding="utf-8")
    with pytest.raises(DataError, match="found pairs of answers, expected chats"):
        read(tmp_path / "pairs.jsonl", bad=[])
    with pytest.raises(DataError, match=r"found chats \(openai\), expected chosen and rejected"):
        read(tmp_path / "chats.jsonl", ChatOptions(kind="pairs"), bad=[])
    assert read(tmp_path / "pairs.jsonl", ChatOptions(kind="pairs")) == ["c"]


@pytest.mark.parametrize(
    ("file", "shape", "n_chats", "options"),
    [
        ("chat/fastchat_dummy_conversation.json", "sharegpt", 500, ChatOptions()),
        ("chat/rasbt_instruction-data.json", "alpaca", 1100, ChatOptions()),
        ("chat/llamafactory_identity.json", "alpaca", 91, ChatOptions(values={"name": "Tiny", "author": "us"})),
        (
            "text/fairytaleqa/qa.jsonl",
            "completion",
            10580,
            ChatOptions(columns={"prompt": "question", "completion": "answer1"}),
        ),
    ],
)
def test_real_files_are_read_whole(file: str, shape: str, n_chats: int, options: ChatOptions, shared_data: Path):
    told: list[str] = []
    found = list(read_chat_files(find_chat_files([shared_data / file]), options, stop, lambda _, line: told.append(line)))
    assert told == [f"the shape is {shape}, by the first record"]
    assert len(found) == n_chats
    assert not any(item.chats[0].unfilled for item in found)
