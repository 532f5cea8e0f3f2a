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
        (["--params", "1M", "--no-measure", "--out", "no/such/folder/recipe.toml"], 1),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], status: int, capsys):
    assert main(["plan", "--no-measure", *arguments]) == status
    assert len(capsys.readouterr().err.splitlines()) == (1 if status == 1 else 4)
