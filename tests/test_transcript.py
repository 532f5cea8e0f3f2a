"""Conversations on disk: OpenAI's messages in JSON, whole or not at all, and one line for any other file."""

import json
from pathlib import Path

import pytest

from llamita.errors import ModelFileError
from llamita.transcript import read_transcript, write_transcript

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": 'Hello,\n"world" [1] {2} 😀'},
    {"role": "assistant", "content": ""},
]


def test_what_is_written_is_read_again(tmp_path: Path):
    path = tmp_path / "talk.json"
    write_transcript(path, TALK, "smollm2")
    assert read_transcript(path) == TALK
    assert json.loads(path.read_text(encoding="utf-8")) == {"model": "smollm2", "messages": TALK}
    write_transcript(path, TALK[:2])
    assert read_transcript(path) == TALK[:2]
    assert list(tmp_path.iterdir()) == [path]


def test_a_list_by_itself_and_texts_in_parts_are_read(tmp_path: Path):
    path = tmp_path / "talk.json"
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": "there"}]
    path.write_text("\n" + json.dumps([{"role": "user", "content": parts, "name": None}]))
    assert read_transcript(path) == [{"role": "user", "content": "Hello\nthere"}]


def test_half_a_character_is_written_as_a_question_mark(tmp_path: Path):
    write_transcript(tmp_path / "talk.json", [{"role": "user", "content": "a\ud800b"}])
    assert read_transcript(tmp_path / "talk.json") == [{"role": "user", "content": "a?b"}]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"\xff\xfe",
        b"7",
        b"{}",
        b'{"messages": "Hello"}',
        b'{"messages": ["Hello"]}',
        b'{"messages": [{"content": "Hello"}]}',
        b'{"messages": [{"role": "user", "content": 7}]}',
        b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
        b'{"messages": [{"role": "tool", "content": "Hello"}]}',
        b'{"messages": [{"role": "assistant", "content": null, "tool_calls": [{}]}]}',
        b'{"messages": ' + b"[" * 100_000,
        b"[" * 100_000,
    ],
    ids=lambda content: content[:40].decode(errors="replace"),
)
def test_any_other_file_is_one_line_and_stays(content: bytes, tmp_path: Path):
    path = tmp_path / "other"
    path.write_bytes(content)
    for act in (lambda: read_transcript(path), lambda: write_transcript(path, TALK)):
        with pytest.raises(ModelFileError) as raised:
            act()
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path):
    with pytest.raises(ModelFileError):
        write_transcript(tmp_path / "nowhere" / "talk.json", TALK)
    with pytest.raises(ModelFileError):
        read_transcript(tmp_path)
