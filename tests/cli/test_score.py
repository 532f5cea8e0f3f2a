"""`llamita score`: what it prints and as JSON, text from a pipe, and one line for every mistake."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from judge.toys import TEXTS, sentencepiece_model
from llamita.cli import main
from llamita.cli.score import WINDOWS, in_words
from llamita.formats import read_model, write_model
from llamita.judge import Comparison, score
from llamita.judge.resampling import Interval
from llamita.judge.windows import KINDS


@pytest.fixture(scope="module")
def folder(toy_sentencepiece_bytes: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, the second without a tokenizer beside it, and a text of many lines."""
    folder = tmp_path_factory.mktemp("score")
    for seed, name in enumerate(("one", "other.bin")):
        model = sentencepiece_model(toy_sentencepiece_bytes, seed)
        to = "llama2c-v0" if name.endswith(".bin") else "safetensors"
        write_model(model if to == "safetensors" else replace(model, tokenizer=None), folder / name, to)
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 10), encoding="utf-8")
    return folder


@pytest.fixture
def run(folder: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)

    def run(*arguments: str, status: int = 0) -> str:
        assert main(["score", *arguments]) == status
        printed = capsys.readouterr()
        return printed.out if status == 0 else printed.err.splitlines()[-1]

    return run


def test_choices_are_those_of_the_library():
    assert WINDOWS == KINDS


def test_json_has_the_numbers_of_the_library(run, folder: Path):
    facts = json.loads(run("one", "text.jsonl", "--json"))
    expected = score(read_model(folder / "one"), TEXTS * 10).to_dict()
    for name in ("cross_entropy", "perplexity", "bits_per_byte", "n_tokens", "n_bytes", "windowing"):
        assert facts[name] == expected[name]
    assert "compare" not in facts


def test_a_comparison_says_what_the_difference_is_worth(run):
    facts = json.loads(run("one", "text.jsonl", "--compare", "other.bin", "--json"))["compare"]
    assert facts["comparison"]["unit"] == "nats per token"
    assert facts["comparison"]["is_more_than_noise"] is True
    assert facts["comparison"]["interval"]["pieces"] == "documents"
    last_line = run("one", "text.jsonl", "--compare", "other.bin").splitlines()[-1]
    assert last_line.startswith("other.bin foretells this text ")
    assert last_line.endswith("paired bootstrap of 40 documents: more than noise.")


def test_both_models_read_windows_of_the_smaller_context(run):
    facts = json.loads(run("stories", "text.jsonl", "--compare", "one", "--json"))
    assert facts["windowing"]["context"] == facts["compare"]["windowing"]["context"] == 48
    assert facts["compare"]["comparison"]["unit"] == "bits per byte"


def test_text_may_come_from_a_pipe_and_is_read_by_both_models(run, monkeypatch: pytest.MonkeyPatch):
    class Pipe:
        buffer = io.BytesIO("\n".join(["A long line of text. " * 20] * 12).encode())

    monkeypatch.setattr(sys, "stdin", Pipe())
    facts = json.loads(run("one", "-", "--compare", "other.bin", "--json"))
    assert facts["n_documents"] == facts["compare"]["n_documents"] == 12


def test_a_limit_takes_documents_from_all_of_the_text(run):
    facts = json.loads(run("one", "text.jsonl", "--limit", "2000", "--json"))
    assert 500 < facts["n_bytes"] < 3000
    assert 2 < facts["n_documents"] < 40


def test_a_table_says_which_windows_were_read(run):
    printed = run("one", "text.jsonl", "--windows", "strided", "--stride", "40", "--context", "44")
    assert "windows of 44 tokens that overlap, 40 tokens further each" in printed
    assert "bits per byte" in printed


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("one", "nosuch.txt"), "nosuch.txt: found No such file or directory, expected"),
        (("nosuch", "text.jsonl"), "nosuch"),
        (("other.bin", "text.jsonl"), "found no tokenizer beside the model; name one (-z"),
        (("one", "empty.txt"), "text: found no token to count, expected some text"),
        (("one", "broken.jsonl"), "broken.jsonl: line 2: found broken JSON"),
        (("one", "latin1.txt"), "latin1.txt: byte 1: found no UTF-8"),
        (("one", "text.jsonl", "--windows", "stream", "--stride", "3"), "stride: found it with windows of a stream"),
        (("one", "text.jsonl", "--stride", "49"), "stride: found 49, expected 1 to 48"),
        (("one", "text.jsonl", "--context", "49"), "context: found 49, expected 1 to 48"),
        (("one", "text.jsonl", "--field", "story"), "text.jsonl: record 1: found no field 'story'"),
        (("stories", "text.jsonl", "--compare", "other.bin"), "other.bin: the tokenizer has 2048 tokens, the model 400"),
    ],
)
def test_a_mistake_is_one_line(run, folder: Path, arguments: tuple[str, ...], found: str):
    (folder / "empty.txt").write_text("\n \n")
    (folder / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (folder / "latin1.txt").write_bytes("café".encode("latin1")[2:])
    assert found in run(*arguments, status=1)


@pytest.mark.parametrize(
    ("difference", "interval", "end"),
    [
        (-0.02, Interval(-0.03, -0.01, 40, "documents"),
         "better by 0.0200 nats per token; 95 % interval -0.0300 to -0.0100, paired bootstrap of 40 documents: more than "
         "noise."),
        (0.002, Interval(-0.003, 0.01, 12, "kilobytes"),
         "worse by 0.0020 nats per token; 95 % interval -0.0030 to +0.0100, paired bootstrap of 12 kilobytes: it may be "
         "noise, as no difference lies within."),
        (0.002, None, "worse by 0.0020 nats per token. The text is too short to say whether that is more than noise."),
        (0.0, Interval(0.0, 0.0, 12, "kilobytes"), "exactly as well."),
    ],
)  # fmt: skip
def test_the_last_line_says_plainly_what_is_known(difference: float, interval: Interval | None, end: str):
    assert in_words(Comparison("nats per token", difference, interval), "b") == f"b foretells this text {end}"
