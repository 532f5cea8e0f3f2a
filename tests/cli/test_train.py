"""`llamita train` as a user types it: one command from text to a model that talks; stopped, resumed, and told nonsense."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch comes with llamita[train]")

from llamita import load
from llamita.cli import main
from llamita.train import checkpoint

SENTENCES = (
    "Once upon a time, there was a {}. ",
    "The {} was happy. ",
    "One day, a {} saw the sun. ",
    "They played with a {}.",
)
ANIMALS = ("cat", "dog", "bird", "fish", "mouse", "horse", "cow", "duck", "frog", "bear")
SMALL = [
    *("--width=32", "--layers=1", "--heads=2", "--kv-heads=1", "--mlp-width=64", "--vocab-size=300", "--context=32"),
    *("--steps=6", "--batch=2", "--accumulation=2", "--warmup-steps=1", "--eval-every=3", "--save-every=3", "--sample-every=3"),
    *("--eval-tokens=64", "--no-compile", "--device=cpu", "--threads=1"),
]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """A folder with two files of some hundred stories each."""
    folder = tmp_path_factory.mktemp("texts")
    for number in (0, 1):
        stories = [
            "".join(s.format(ANIMALS[(i * 7 + j + number) % 10]) for j, s in enumerate(SENTENCES)) + f" {i}."
            for i in range(300)
        ]
        (folder / f"part{number}.txt").write_text("\n<|endoftext|>\n".join(stories))
    return folder


def train(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llamita", "train", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, check=False, **options)


def told(capfd, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has torch already: for what is refused."""
    capfd.readouterr()
    status = main(["train", *map(str, arguments)])
    return subprocess.CompletedProcess([], status, *capfd.readouterr())


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("run") / "model"
    return out, train(text, "--out", out, *SMALL)


def test_one_command_leads_from_a_folder_of_text_to_a_model_that_talks(finished):
    out, done = finished
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    with load(out) as model:
        assert model.config.vocab_size == 300
        assert model.logits([1, 2]).shape == (2, 300)
        model.generate("Once", n_tokens=5, temperature=0)  # which may be no text at all after six steps


def test_a_run_says_what_it_found_what_it_will_do_and_how_to_go_on(finished):
    out, done = finished
    for expected in ("<|endoftext|> ends a document", "learning 300 pieces", "parameters: width 32", "step 6/6", "sample:",
                     f"llamita run {out}"):  # fmt: skip
        assert expected in done.stderr, expected


def test_a_run_leaves_logs_recipe_report_and_checkpoints(finished):
    out, _ = finished
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "gradient_norm" in line] == [1, 2, 3, 4, 5, 6]
    assert [json.loads(line)["step"] for line in (out / "samples.jsonl").read_text().splitlines()] == [3, 6]
    assert "width = 32" in (out / "recipe.toml").read_text()
    assert "<html" in (out / "report.html").read_text()
    assert any((out / "tensorboard").iterdir())
    assert checkpoint.newest(out / "checkpoints", pytest.fail)


def test_a_finished_run_has_nothing_left_to_resume(finished, text):
    out, _ = finished
    before = (out / "model.safetensors").read_bytes()
    done = train(text, "--out", out, "--resume", *SMALL)
    assert done.returncode == 0, done.stderr
    assert (out / "model.safetensors").read_bytes() == before


def test_a_folder_with_a_run_is_not_overwritten(finished, text, capfd):
    out, _ = finished
    done = told(capfd, text, "--out", out, *SMALL)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"llamita: {out}: found a run there; go on with it by --resume, or name another folder with --out"
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--width=64"], "width: then 32, now 64"),
        (["--learning-rate=0.5"], "learning_rate: then "),
        (["--preset=15M"], "plan: then "),
        (["--tokenizer={other}"], "tokenizer (sha256): then "),
        (["--separator=line"], "separator: then none, now line"),
        (["--field=story"], "field: then none, now story"),
        (["--validation={other}/held.txt"], "held.txt: then absent, now 12"),
    ],
)
def test_resuming_with_other_settings_is_refused_with_the_difference(finished, tmp_path, change, expected, capfd):
    out, _ = finished
    (tmp_path / "tokenizer.model").write_bytes((out / "tokenizer.model").read_bytes() + b"\0")
    (tmp_path / "held.txt").write_text("Once a bird.")
    done = told(capfd, "--out", out, "--resume", *[argument.format(other=tmp_path) for argument in change])
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert expected in done.stderr


def test_resuming_with_other_text_is_refused(finished, tmp_path, capfd):
    out, _ = finished
    (tmp_path / "other.txt").write_text("Something else.\n" * 100)
    done = told(capfd, tmp_path / "other.txt", "--out", out, "--resume")
    assert done.returncode == 1
    assert "other.txt" in done.stderr
    assert "then" in done.stderr


def test_a_run_may_be_moved_and_its_tokens_may_not_be_changed(finished, tmp_path):
    moved = shutil.copytree(finished[0], tmp_path / "moved", copy_function=shutil.copyfile)
    last = "checkpoints/step-00000006"
    shutil.rmtree(moved / last)
    finished[0].rename(tmp_path / "elsewhere")
    try:
        done = train("--out", moved, "--resume")
    finally:
        (tmp_path / "elsewhere").rename(finished[0])
    assert done.returncode == 0, done.stderr
    weights = "model.safetensors"
    assert (moved / last / weights).read_bytes() == (finished[0] / last / weights).read_bytes()
    shard = moved / "data" / "train-00000.bin"
    shard.write_bytes(np.fromfile(shard, np.uint16)[::-1].tobytes())
    done = train("--out", moved, "--resume")
    assert done.returncode == 1
    assert "train-00000.bin: sha256: found " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("verb", ["train", "sweep", "vocab", "prepare"])
def test_somebodys_model_is_never_written_over(text, tmp_path, capsys, verb):
    assert main(["export", "stories", str(tmp_path / "model")]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    more = {"sweep": ["--grid", "seed=1,2"], "vocab": ["--size", "300"], "prepare": ["-z", str(tmp_path / "model")]}.get(
        verb, []
    )
    assert main([verb, str(text), "--out", str(tmp_path / "model"), *more]) == 1
    assert "found a model there (config.json)" in capsys.readouterr().err.splitlines()[-1]
    assert {name: (tmp_path / "model" / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--out={tmp}/new"], "no text to train on"),
        (["--out={tmp}/new", "--resume"], "no run to resume there"),
        (["{tmp}/missing.txt", "--out={tmp}/new"], "missing.txt"),
        (["{text}", "--out={tmp}/file"], "file"),
        (["{text}", "--out={tmp}/new", "--device=tpu9"], "device: found tpu9"),
        (["{text}", "--out={tmp}/new", "--recipe={tmp}/file"], "recipe"),
        (["{text}", "--out={tmp}/new", "--context=100000", "--no-compile"], "context: found 100000"),
        (["{text}", "--out={tmp}/new", "--heads=4", "--kv-heads=3"], "n_kv_heads: found 3"),
    ],
)
def test_a_mistake_is_one_line(text, tmp_path, arguments, expected, capfd):
    (tmp_path / "file").write_text("not a folder, not a recipe")
    done = told(capfd, *[argument.format(tmp=tmp_path, text=text) for argument in arguments])
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("llamita: ")
    assert expected in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("line", ['width = "a"', "width = 64.5", "width = true", "rope_scaling = 3", "tied_embedding = 3"])
def test_a_recipe_with_a_value_of_another_type_is_one_line(text, tmp_path, line, capfd):
    shape = {"width": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "mlp_width": 64, "vocab_size": 300, "context": 32}
    name, _, value = line.partition(" = ")
    model = "\n".join(f"{key} = {entry}" for key, entry in (shape | {name: value}).items())
    training = "n_steps = 6\nbatch = 2\naccumulation = 1\nlearning_rate = 1e-3\nwarmup_steps = 1"
    (tmp_path / "rr.toml").write_text(f"[model]\n{model}\n[training]\n{training}\n")
    done = told(capfd, text, "--out", tmp_path / "new", "--recipe", tmp_path / "rr.toml")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"llamita: {tmp_path / 'rr.toml'}: recipe: {name}: found ")


@pytest.fixture
def published(tmp_path) -> Path:
    """The recipe that `llamita plan --preset 110M` writes, whose vocabulary is larger than a small text allows."""
    assert main(["plan", "--preset=110M", "--no-measure", "--device=cpu", f"--out={tmp_path / 'p.toml'}"]) == 0
    return tmp_path / "p.toml"


def test_the_vocabulary_that_is_learned_has_the_size_of_the_recipe(text, published, tmp_path):
    recipe = published.read_text()
    published.write_text(recipe.replace("vocab_size = 32000", "vocab_size = 310"))
    small = [flag for flag in SMALL if not flag.startswith("--vocab-size")]
    done = train(text, "--out", tmp_path / "model", "--recipe", published, *small, "--head-size=16")
    assert done.returncode == 0, done.stderr
    assert "learning 310 pieces" in done.stderr
    with load(tmp_path / "model") as model:
        assert model.config.vocab_size == 310


def test_a_recipe_whose_vocabulary_the_text_does_not_allow_is_one_line_with_the_size_that_it_does(text, published, tmp_path):
    done = train(text, "--out", tmp_path / "new", "--recipe", published)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("llamita: vocabulary: found text for at most ")
    assert "expected enough for 32000; take --vocab-size " in line


@pytest.mark.parametrize(
    ("verb", "flag"),
    [
        ("train", "--prompt=Once \udcff"),
        ("train", "--separator=\udcff"),
        ("sweep", "--field=\udcff"),
        ("finetune", "--prompt=\udcff"),
        ("finetune", "--system=\udcff"),
        ("finetune", "--set=a=\udcff"),
    ],
)
def test_a_text_that_is_no_utf8_is_refused_at_once(text, tmp_path, verb, flag, capfd):
    """As a shell passes on a byte that is none of UTF-8; a path may hold such bytes."""
    assert main([verb, str(text), "--out", str(tmp_path / "new"), flag]) == 2
    line = capfd.readouterr().err
    assert "found '\\udcff' at character " in line
    assert len(line.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_a_default_that_is_said_is_a_setting_too(text, tmp_path, capfd):
    out = tmp_path / "model"
    assert main(["train", str(text), "--out", str(out), *SMALL, "--steps=1", "--separator=blank", "--sample-every=0"]) == 0
    done = told(capfd, "--out", out, "--resume", "--separator=")
    assert done.returncode == 1
    assert "separator: then blank, now none" in done.stderr


def test_heads_that_do_not_divide_the_width_are_refused_before_the_text_is_read(text, tmp_path, capfd):
    done = told(capfd, text, "--out", tmp_path / "new", "--params=50K", "--width=32", "--heads=3", "--steps=6")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["llamita: n_heads: found 3, expected a divisor of the width 32"]
    assert not (tmp_path / "new/vocabulary").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_goes_on_from_there(text, tmp_path, number, status):
    out = tmp_path / "model"
    many = [*SMALL, "--steps=100000", "--save-every=100000", "--eval-every=100000", "--sample-every=0"]
    command = [sys.executable, "-m", "llamita", "train", str(text), "--out", str(out), *many]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not ((out / "metrics.jsonl").exists() and "gradient_norm" in (out / "metrics.jsonl").read_text()):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, number)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == status, stderr
    assert "--resume" in stderr.splitlines()[-1]
    found = checkpoint.newest(out / "checkpoints", pytest.fail)
    assert found is not None
    assert found[1].step >= 1
    with load(out) as model:  # never measured, and yet the best there is
        assert model.logits([1, 2]).shape == (2, 300)
