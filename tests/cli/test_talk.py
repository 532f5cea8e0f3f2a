"""`llamita run -m chat` as llama2.c talks, with its defects mended."""

import io
import os
import sys
from pathlib import Path

import pytest

from llamita.cli import main
from llamita.cli.talk import render
from llamita.formats import read_model
from llamita.language_model import BUNDLED

CONTEXT = read_model(BUNDLED / "stories").config.context


@pytest.fixture
def talk(monkeypatch, capsys):
    """Talk with the bundled model: give lines and flags, get the exit status, stdout and stderr."""

    def run(lines: str, *flags: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        status = main(["run", "-m", "chat", "-t", "0", *flags])
        return status, *capsys.readouterr()

    return run


def test_the_templates_are_llama_2s():
    assert render("Be kind.", "Hello") == "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHello [/INST]"
    assert render("", "Hello") == "[INST] Hello [/INST]"


def test_system_prompt_and_message_are_asked_for(talk):
    status, output, _ = talk("\nHello\n", "-n", "40")
    assert status == 0
    assert output.startswith("Enter system prompt (optional): User: Assistant: ")


def test_flags_answer_the_questions(talk):
    _, output, _ = talk("", "-y", "", "-i", "Hello", "-n", "40")
    assert output.startswith("Assistant: ")


@pytest.mark.parametrize("flags", [(), ("-y", "Be kind.")], ids=str)
def test_the_end_of_input_ends_the_talk(flags: tuple[str, ...], talk):
    status, output, errors = talk("", *flags)
    assert status == 0
    assert output.endswith(": \n")
    assert errors == ""


def test_a_closed_input_ends_the_talk(llamita):
    done = llamita("run", "-m", "chat")
    assert (done.returncode, done.stdout) == (0, "Enter system prompt (optional): \n")


def test_a_long_message_overflows_nothing_and_is_said(talk):
    status, _, errors = talk("", "-y", "", "-i", "word " * 5000)
    assert status == 0
    assert "does not fit" in errors


def test_the_limit_that_ends_the_talk_is_said(talk):
    _, output, errors = talk("", "-y", "", "-i", "Hello", "-n", "24")
    assert output.endswith("\n")
    assert "the limit is 24 tokens" in errors


@pytest.mark.parametrize(
    ("seed", "reply"),
    [
        (3, " are surpristo many dinner and run around to keep the air. As they went to the "),
        (4, ' are going to it!"\nOne day, Kitty and Daddy played together. They had a big jungle that'),
        (5, " next time, there was a cheep. It was somethingto attray to his table. He was always"),
    ],
)
def test_a_reply_is_the_one_that_llama2c_draws(seed: int, reply: str, shared_data: Path, capsys):
    folder = shared_data / "models" / "stories260K"
    words = ["-z", str(folder / "tok512.bin"), "-m", "chat", "-y", "", "-i", "Hello", "-t", "0.9", "-n", "60"]
    main(["run", str(folder / "stories260K.bin"), *words, "-s", str(seed)])
    assert capsys.readouterr().out == f"Assistant: {reply}\n"


def test_bytes_that_are_no_utf8_end_no_talk(llamita):
    words = ("run", "-m", "chat", "-t", "0", "-n", "60")
    for variables in ({}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        settings = {"input": "sys\n\udcff\udcfe hello\n", "errors": "surrogateescape", "env": os.environ | variables}
        done = llamita(*words, **settings)
        assert (done.returncode, "Assistant: " in done.stdout) == (0, True), done.stderr


def test_a_limit_says_which_flag_allows_more(talk):
    long = "word " * 5000
    for flags, said in {
        ("-n", "0"): f"the limit is {CONTEXT} tokens, the model's context\n",
        (
            "-n",
            "0",
            "--context",
            "40",
        ): f"40 tokens, the context; a larger --context allows more, up to {CONTEXT}\n",
        ("-n", "40"): f"the limit is 40 tokens; a larger -n allows more, up to the context of {CONTEXT}\n",
    }.items():
        assert talk("", "-y", "", "-i", long, *flags)[2].endswith(said)
