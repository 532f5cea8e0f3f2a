"""Examples on the screen: what is learned stands out, with and without colour, and nothing in a chat steers the terminal."""

import io
import json
import sys
from pathlib import Path

import pytest

from llamita.cli.show_examples import show
from llamita.data.chat_options import ChatOptions
from llamita.data.chats import prepare_chats
from llamita.data.examples import ChatData, open_chats
from llamita.tokenizer.chat_template import open_template
from llamita.tokenizer.library import LibraryTokenizer
from small_vocabularies import byte_level

TOKENIZER = LibraryTokenizer(byte_level(marks=("<s>", "</s>", "<|im_start|>", "<|im_end|>")))


def prepared(folder: Path, records: list[dict], kind: str = "chats") -> ChatData:
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    template = open_template("chatml", TOKENIZER)
    return open_chats(prepare_chats([path], template, TOKENIZER, folder / "data", ChatOptions(kind=kind)))


def chats(*answers: str) -> list[dict]:
    return [{"prompt": f"Question {i}", "completion": answer} for i, answer in enumerate(answers)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_brackets_stand_around_what_is_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = prepared(tmp_path, chats("Lily.", "Tom é", "Max"))
    show(data, TOKENIZER, 1)
    out = capsys.readouterr().out
    assert out.startswith(f"{data.folder}: what is between [[ and ]] is learned, the rest is only read\n\n--- 1 of 2: ")
    assert out.count("---") == 2
    answer = "Lily." if "Lily." in out else "Tom é"
    number = 0 if answer == "Lily." else 1
    assert out.endswith(f"<|im_start|>user\nQuestion {number}<|im_end|>\n<|im_start|>assistant\n[[{answer}<|im_end|>]]\n\n")


def test_on_a_terminal_what_is_learned_is_bold_and_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = prepared(tmp_path, chats("Lily.", "Tom", "Max"))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    show(data, TOKENIZER, 5)
    assert "what is bold and green is learned" in screen.getvalue()
    assert "[[" not in screen.getvalue()
    assert "\x1b[1;32mTom<|im_end|>\x1b[0m" in screen.getvalue() or "\x1b[1;32mLily.<|im_end|>\x1b[0m" in screen.getvalue()
    assert screen.getvalue().count("--- ") == 2  # there are no more


def test_of_pairs_both_answers_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    records = [{"prompt": f"Q{i}", "chosen": "yes", "rejected": "no"} for i in range(3)]
    show(prepared(tmp_path, records, "pairs"), TOKENIZER, 1)
    out = capsys.readouterr().out
    assert "--- 1 of 2: chosen, " in out
    assert "--- 1 of 2: rejected, " in out
    assert out.index("[[yes<|im_end|>]]") < out.index("[[no<|im_end|>]]")


def test_nothing_in_a_chat_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    hostile = "a\x1b[2J\x07b\rc\u202ed"
    show(prepared(tmp_path, chats(hostile, hostile)), TOKENIZER, 1)
    assert "[[a\\x1b[2J\\x07b\\rc\\u202ed<|im_end|>]]" in capsys.readouterr().out
