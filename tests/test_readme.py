"""The README says what is true: its Python runs, its commands exist, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from llamita.cli import VERBS, main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def shell_commands(program: str) -> list[list[str]]:
    """The words of every command line in the README that starts with a program."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True)) and words[0] == program]


@pytest.mark.parametrize("example", blocks("python"))
def test_the_python_example_runs(example: str, capsys):
    exec(compile(example, "README.md", "exec"), {})
    assert len(capsys.readouterr().out) > 20


def test_there_is_a_python_example():
    assert blocks("python")


@pytest.mark.parametrize("words", shell_commands("llamita"), ids=" ".join)
def test_the_verbs_and_flags_exist(words: list[str], capsys):
    assert words[1] in VERBS
    main([words[1], "--help"])
    text = capsys.readouterr().out
    flags = [word for word in words[2:] if re.fullmatch("--?[a-z][a-z-]*", word)]
    assert all(re.search(rf"(?<!\S){flag}\b", text) for flag in flags)


@pytest.mark.parametrize("words", shell_commands("make"), ids=" ".join)
def test_make_knows_the_targets(words: list[str]):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in words[1:])


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)", README))
def test_links_lead_to_files(link: str):
    assert (ROOT / link).exists()
