"""`llamita plan`: a table, one JSON object, or recipe.toml."""

import json
from pathlib import Path

import pytest

from llamita.cli import main

pytest.importorskip("torch")


def test_a_plan_is_a_table_and_a_file(tmp_path: Path, capsys):
    from llamita.train.config import read_recipe

    path = tmp_path / "recipe.toml"
    assert main(["plan", "--params", "1.5M", "--no-measure", "--device", "cpu", "--batch", "3", "--out", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "operations per token" in shown
    assert read_recipe(path).training.batch == 3


def test_a_plan_for_a_text_is_one_json_object(tmp_path: Path, capsys):
    (tmp_path / "story.txt").write_text("Once upon a time. " * 20_000)
    arguments = ["plan", "--data", str(tmp_path), "--hours", "0.2", "--no-measure", "--device", "cpu", "--json"]
    assert main(arguments) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["recipe"]["model"]["vocab_size"] == 512
    assert made["hours"] < 0.21


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--params", "many"], 2),
        (["--params", "nanM"], 2),
        (["--hours", "-1"], 1),
        (["--preset", "3M"], 1),
        (["--data", "no/such/text"], 1),
        (["--params", "1M", "--device", "toaster"], 1),
        (["--params", "1M", "--n-kv-heads", "7"], 1),
        (["--params", "50K", "--width", "32", "--heads", "3"], 1),
        (["--params", "1M", "--no-measure", "--out", "no/such/folder/recipe.toml"], 1),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], status: int, capsys):
    assert main(["plan", "--no-measure", *arguments]) == status
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("content", ["", " \n\n", "<|endoftext|>\n<|endoftext|>\n"])
def test_a_file_without_text_is_refused(tmp_path: Path, content: str, capsys):
    path = tmp_path / "empty.txt"
    path.write_text(content)
    assert main(["plan", "--no-measure", "--device", "cpu", "--data", str(path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    expected = f"llamita: {path}: found no text, expected some to plan for; name a file or folder that holds some"
    assert shown.err.splitlines() == [expected]


def test_records_of_any_column_are_planned_for(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"chapter": "Once upon a time", "verse": "there was a cat"}\n' * 1000)
    assert main(["plan", "--no-measure", "--device", "cpu", "--params", "20K", "--data", str(path)]) == 0
    path.write_text("")
    assert main(["plan", "--no-measure", "--device", "cpu", "--params", "20K", "--data", str(path)]) == 1


TINY = [
    *("--params=20000", "--width=32", "--layers=1", "--heads=2", "--kv-heads=1", "--mlp-width=64", "--context=32", "--batch=8"),
    *("--accumulation=1", "--vocab-size=300", "--no-compile", "--no-measure", "--device=cpu"),
]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """A text of a few kilobytes with something to learn in it."""
    path = tmp_path_factory.mktemp("text") / "story.txt"
    animals = ("cat", "dog", "bird", "fish", "mouse", "horse", "cow", "duck", "frog", "bear")
    lines = [f"The {animals[i % 10]} saw a {animals[i * 7 % 9]} and the {animals[i * 3 % 8]} saw {i}.\n" for i in range(900)]
    path.write_text("".join(lines))
    return path


def test_a_range_test_shows_its_curve_and_leaves_no_file(text: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "own"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "own").mkdir()
    picture = tmp_path / "curve.png"
    assert main(["plan", "--data", str(text), *TINY, "--find-lr", "--plot", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "Learning-rate range test" in shown
    assert "Suggested learning rate: 0.0" in shown
    assert "--use-found-lr takes the suggested one" in shown
    assert "\x1b" not in shown
    assert all(len(line) < 80 for line in shown[shown.index("loss, nats") : shown.index("Suggested")].splitlines())
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["curve.png"]  # torch may leave empty folders
    assert [path.name for path in text.parent.iterdir()] == ["story.txt"]


def test_the_found_rate_is_planned_with_when_asked(text: Path, tmp_path: Path, capsys):
    from llamita.train.config import read_recipe

    path = tmp_path / "recipe.toml"
    arguments = ["plan", "--data", str(text), *TINY, "--optimizer=adamw", "--json", "--out", str(path)]
    assert main([*arguments, "--use-found-lr"]) == 0
    made = json.loads(capsys.readouterr().out)
    found = made["range_test"]["suggested_rate"]
    assert made["recipe"]["training"]["learning_rate"] == read_recipe(path).training.learning_rate == found
    (line,) = [line for line in made["lines"] if line["what"] == "learning rate"]
    assert line["how"].startswith("range test: half of the loss")
    assert len(made["range_test"]["rates"]) == len(made["range_test"]["losses"]) > 60

    assert main([*arguments, "--find-lr"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["range_test"]["suggested_rate"] == found != made["recipe"]["training"]["learning_rate"]


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["--find-lr"], 2, "--find-lr needs --data"),
        (["--plot=x.png"], 2, "--plot draws the curve of --find-lr"),
        (["--data=no/such/text", "--find-lr"], 1, "no/such/text"),
        (["--data=x", "--find-lr", "--plot=x.jpg"], 1, "found the ending .jpg"),
        (["--data=x", "--use-found-lr", "--learning-rate=1e-3"], 2, "leave one of them out"),
    ],
)
def test_flags_of_the_range_test_that_do_not_fit_are_said_at_once(arguments: list[str], status: int, expected: str, capsys):
    assert main(["plan", "--no-measure", *arguments]) == status
    assert expected in capsys.readouterr().err.splitlines()[-1]
