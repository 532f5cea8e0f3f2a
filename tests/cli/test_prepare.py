"""`llamita vocab` and `llamita prepare`: from text to tokens as a shell does it."""

import json
from pathlib import Path

import pytest

from llamita.cli import main
from llamita.data.shards import open_dataset
from stories import story


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    path = tmp_path / "stories.txt"
    path.write_text("\n<|endoftext|>\n".join(map(story, range(300))))
    return path


def test_a_vocabulary_is_learned_and_text_prepared_with_it(stories: Path, tmp_path: Path, capsys):
    vocabulary, out = str(tmp_path / "vocabulary"), str(tmp_path / "tokens")
    assert main(["vocab", str(stories), "--size", "320", "--out", vocabulary]) == 0
    shown = capsys.readouterr()
    assert "bytes per token" in shown.out
    assert "<|endoftext|> ends a document" in shown.err
    assert main(["prepare", str(stories), "--tokenizer", vocabulary, "--out", out]) == 0
    shown = capsys.readouterr()
    n_tokens = open_dataset(out).train.n_tokens
    assert f"{n_tokens:,}" in shown.out
    assert main(["prepare", str(stories), "--tokenizer", vocabulary, "--out", out, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["train"]["n_tokens"] == n_tokens
    assert "prepared already" in shown.err


def test_another_tokenizer_stands_beside_the_new_one(stories: Path, tmp_path: Path, capsys):
    main(["vocab", str(stories), "--size", "310", "--out", str(tmp_path / "a")])
    capsys.readouterr()
    arguments = [
        "vocab",
        str(stories),
        "--size",
        "340",
        "--out",
        str(tmp_path / "b"),
        "--compare",
        str(tmp_path / "a"),
        "--json",
    ]
    assert main(arguments) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [report["vocab_size"] for report in reports.values()] == [340, 310]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["vocab", "{stories}", "--size", "99999", "--out", "{folder}"], "found text for at most"),
        (["vocab", "{folder}/nowhere.txt", "--out", "{folder}"], "nowhere.txt: found No such file"),
        (["prepare", "{stories}", "-z", "{folder}", "--out", "{folder}/x"], "found no tokenizer"),
    ],
)
def test_a_mistake_is_one_line(stories: Path, tmp_path: Path, capsys, arguments: list[str], expected: str):
    assert main([argument.format(stories=stories, folder=tmp_path) for argument in arguments]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("llamita: ")
    assert expected in last


def test_without_text_the_usage_is_shown(capsys):
    assert main(["prepare", "-z", "x", "--out", "y"]) == 2
    assert "TEXT" in capsys.readouterr().err
