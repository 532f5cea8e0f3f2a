"""`llamita sweep` as a user types it: a table, JSON, a page and a recipe; and one line for each mistake."""

import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch comes with llamita[train]")
pytest.importorskip("optuna", reason="optuna comes with llamita[sweep]")

from llamita.cli import main
from llamita.train import sweep as sweeping

SMALL = [
    *(
        "--width=16",
        "--layers=1",
        "--heads=2",
        "--kv-heads=1",
        "--mlp-width=32",
        "--vocab-size=300",
        "--context=16",
        "--batch=2",
    ),
    *("--steps=21", "--accumulation=1", "--warmup-steps=1", "--eval-tokens=64", "--no-compile", "--device=cpu", "--threads=1"),
]
GRID = ["--grid", "learning-rate=1e-3,1e-2", "--grid", "schedule=wsd,cosine"]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "story.txt"
    animals = ("cat", "dog", "bird", "fish", "mouse", "horse", "cow", "duck", "frog", "bear")
    path.write_text("".join(f"The {animals[i % 10]} saw a {animals[i * 7 % 9]} and {i}.\n" for i in range(900)))
    return path


def test_a_sweep_ends_in_a_table_a_page_a_recipe_and_a_model(text: Path, tmp_path: Path, capsys):
    arguments = ["sweep", str(text), "--out", str(tmp_path / "out"), *SMALL, *GRID]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    for piece in ("learning_rate", "0.01", "cosine", "bits/byte", "report.html", "best.toml", "llamita run"):
        assert piece in shown.out
    assert "as much work as" in shown.err
    page = (tmp_path / "out/report.html").read_text()
    assert page.count('class="spark"') == 4
    for piece in ("Validation loss at rung 1", "The best recipe", "Successive halving", "by learning rate"):
        assert piece in page
    best = tomllib.loads((tmp_path / "out/best.toml").read_text())
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert best["training"]["learning_rate"] == told["best"]["values"]["learning_rate"]
    assert told["finished"]

    model = tmp_path / "model"
    recipe = ["--recipe", str(tmp_path / "out/best.toml"), "--device=cpu", "--no-tensorboard"]
    assert main(["train", str(tmp_path / "out/data"), "--out", str(model), *recipe]) == 0
    assert (model / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "grid: found none"),
        (["--grid=learning_rate=1e-3"], "found one value"),
        (["--grid=lernrate=1,2"], "unknown field lernrate"),
        (["--grid=optimizer=muon,sgd"], "cannot be trained: optimizer: found 'sgd'"),
        (["--grid=width=16,32"], "width: found it as a flag too"),
        (["--grid=seed=1,2", "--heads=3", "--kv-heads=3"], "n_heads: found 3, expected a divisor of the width 16"),
        (["--grid=seed=1,2", "--recipe={tmp}/none.toml"], "found no recipe"),
        (["--grid=seed=1,2", "--device=tpu9"], "device: found tpu9"),
    ],
)
def test_a_mistake_is_one_line(text: Path, tmp_path: Path, arguments: list[str], expected: str, capsys):
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    assert main(["sweep", str(text), "--out", str(tmp_path / "out"), *SMALL, *given]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("llamita: ")
    assert expected in line
    assert not (tmp_path / "out/sweep.json").exists()


def test_a_grid_with_heads_that_do_not_divide_the_width_has_no_trial(text: Path, tmp_path: Path, capsys):
    flags = [flag for flag in SMALL if "heads" not in flag]
    assert main(["sweep", str(text), "--out", str(tmp_path / "out"), *flags, "--grid=n_heads=2,3"]) == 1
    expected = "n_heads=3 cannot be trained: n_heads: found 3, expected a divisor of the width 16"
    assert expected in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out/trials").exists()


def test_a_sweep_over_a_recipe_learns_a_vocabulary_of_its_size(text: Path, tmp_path: Path, monkeypatch, capsys):
    assert main(["plan", "--no-measure", *SMALL[:-1], "--vocab-size=310", f"--out={tmp_path / 'r.toml'}"]) == 0
    monkeypatch.setattr(sweeping, "train_to", lambda *_: signal.SIGTERM)
    with pytest.raises(SystemExit):
        main(
            ["sweep", str(text), f"--out={tmp_path / 'out'}", f"--recipe={tmp_path / 'r.toml'}", *SMALL[-2:], "--grid=seed=1,2"]
        )
    assert "learning 310 pieces" in capsys.readouterr().err
    assert json.loads((tmp_path / "out/sweep.json").read_text())["base"]["model"]["vocab_size"] == 310


def test_no_text_is_one_line(tmp_path: Path, capsys):
    assert main(["sweep", "--out", str(tmp_path / "out"), *GRID]) == 1
    assert "found no text to train on" in capsys.readouterr().err.splitlines()[-1]


def test_without_optuna_it_is_said_how_to_get_it(text: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("llamita.train.study.find_spec", lambda _: None)
    assert main(["sweep", str(text), "--out", str(tmp_path / "out"), *SMALL, *GRID]) == 1
    assert "pip install 'llamita[sweep]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_sweep_that_a_signal_stops_tells_how_far_it_came(text: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(sweeping, "train_to", lambda *_: signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(text), "--out", str(tmp_path / "out"), *SMALL, *GRID])
    assert ended.value.code == 143
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == "stopped and saved; the same command goes on"
    assert "running" in shown.out
    assert (tmp_path / "out/report.html").exists()


def test_help_loads_neither_torch_nor_optuna():
    code = "import sys; from llamita.cli import main; main(['sweep', '--help']); print({'torch', 'optuna'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
