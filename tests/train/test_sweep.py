"""Sweeps: who wins, what is left, what goes wrong with a trial, and that a kill at any moment changes nothing."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch comes with llamita[train]")
pytest.importorskip("optuna", reason="optuna comes with llamita[sweep]")

import kills  # pyright: ignore[reportMissingImports]
import sweep_kills  # pyright: ignore[reportMissingImports]

from llamita.errors import DivergedError, SettingError, TrainingError
from llamita.files import sha256_of
from llamita.formats import read_model
from llamita.train import sweep as sweeping
from llamita.train import trial as trials
from llamita.train.company import Company
from llamita.train.config import read_recipe
from llamita.train.grid import parse_grid
from llamita.train.report import write_report
from llamita.train.run_folder import data_folder, read_run
from llamita.train.session import Wish, run
from llamita.train.sizing import Dial
from llamita.train.study import FAILED, FINISHED, RUNNING, STOPPED, Study
from llamita.train.sweep import Sweep, SweepWish, run_sweep, whole_trainings
from llamita.train.sweep_report import write_sweep_report
from llamita.train.sweep_results import TrialResult, results, summary
from llamita.train.trainer import Trainer

PROGRAM = Path(__file__).with_name("sweep_kills.py")
GRID = ("learning_rate=1e-3,1e-2,9", "optimizer=adamw,muon")


class Listener(Company):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines, self.n_done, self.n_all = [], 0, 0

    def say(self, line: str) -> None:
        self.lines.append(line)

    def update(self, done_bytes: int, total_bytes: int) -> None:
        self.n_done, self.n_all = done_bytes, total_bytes


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    kills.make_text(folder)
    return folder / "tokens"


def wish_for(tokens: Path, out: Path, *grid: str, **overrides) -> SweepWish:
    varied = parse_grid(grid or GRID)
    settings = {name: value for name, value in sweep_kills.SETTINGS.items() if name not in varied} | overrides
    run = Wish(out, (str(tokens),), dial=Dial(params=10_000), overrides=settings, device="cpu", n_threads=1)
    return SweepWish(run, varied)


@pytest.fixture(scope="module")
def finished(tokens: Path, tmp_path_factory) -> tuple[SweepWish, Sweep, Study, Listener]:
    """A sweep of six trials, of which two come to the second rung."""
    wish, company = wish_for(tokens, tmp_path_factory.mktemp("sweep") / "out"), Listener()
    sweep, study, signal_number = run_sweep(wish, company)
    assert signal_number is None
    return wish, sweep, study, company


def found_in(finished) -> list[TrialResult]:
    return results(finished[1], finished[2])


def test_the_lowest_losses_go_on_and_are_told_first(finished):
    found = found_in(finished)
    assert [result.state for result in found] == [FINISHED] * 2 + [STOPPED] * 4
    at_first = [loss for result in found if (loss := result.losses[0]) is not None]
    assert max(at_first[:2]) < min(at_first[2:])
    assert at_first[2:] == sorted(at_first[2:])
    last = [loss for result in found[:2] if (loss := result.losses[1]) is not None]
    assert len(last) == 2
    assert last == sorted(last)
    assert {result.losses[1] for result in found[2:]} == {None}
    assert {result.values["learning_rate"] for result in found[-2:]} == {9.0}


def test_a_rung_goes_on_where_the_one_before_stopped(finished):
    sweep, best, company = finished[1], found_in(finished)[0], finished[3]
    n_whole, n_first = 60, 20
    assert best.n_steps == n_first + n_whole - int(n_first * 0.6)
    assert sum(result.n_steps for result in found_in(finished)) == round(whole_trainings(sweep) * n_whole)
    assert company.n_done == company.n_all == round(whole_trainings(sweep) * n_whole)


def test_the_best_is_to_the_bit_what_training_by_its_recipe_makes(finished, tokens: Path, tmp_path: Path):
    out = finished[0].run.out
    wish = Wish(tmp_path / "run", (str(tokens),), recipe=out / "best.toml", device="cpu", n_threads=1, tensorboard=False)
    assert run(wish, Company()) is None
    assert sha256_of(tmp_path / "run" / "model.safetensors") == sha256_of(out / "model.safetensors")
    assert read_recipe(out / "best.toml").training.learning_rate == found_in(finished)[0].values["learning_rate"]
    assert np.isfinite(read_model(out).tensors["embedding"].dequantize()).all()


def test_only_the_best_keeps_its_checkpoints_and_all_keep_models_and_logs(finished):
    out, best = finished[0].run.out, found_in(finished)[0]
    assert {path.parent for path in out.glob("trials/*/*/checkpoints")} == {out / f"trials/{best.number:03d}/rung-2"} | {
        out / f"trials/{best.number:03d}/trunk"
    }
    for folder in out.glob("trials/*/rung-*"):
        assert read_model(folder).config.width == 16
        assert "steps" in write_report(folder).read_text()


def test_a_finished_sweep_is_told_again_without_training(finished, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trials, "_train", lambda *_: pytest.fail("trained again"))
    before = sha256_of(finished[0].run.out / "model.safetensors")
    sweep, study, _ = run_sweep(finished[0], Company())
    assert results(sweep, study) == found_in(finished)
    assert sha256_of(finished[0].run.out / "model.safetensors") == before


def test_a_summary_is_json(finished):
    told = json.loads(json.dumps(summary(finished[1], found_in(finished), True)))
    assert told["best"] == told["trials"][0]
    assert len(told["trials"]) == 6
    assert [rung["trials"] for rung in told["rungs"]] == [6, 2]


def test_another_grid_plan_or_text_is_refused_with_the_difference(finished, tokens: Path, tmp_path: Path):
    out = finished[0].run.out
    kills.make_text(tmp_path)
    (tmp_path / "more.txt").write_text("the cat sees a bird\n" * 999)
    other = tmp_path / "other"
    from llamita.data.prepare import prepare

    prepare([tmp_path / "text.txt", tmp_path / "more.txt"], tmp_path / "vocabulary", other)
    for wish, expected in (
        (wish_for(tokens, out, "seed=1,2"), "grid: then {"),
        (wish_for(tokens, out, n_steps=70), "overrides: then {"),
        (replace(finished[0], reduction=2), "reduction: then 3, now 2"),
        (wish_for(other, out), "text: then "),
    ):
        with pytest.raises(SettingError, match="found another sweep") as caught:
            run_sweep(wish, Company())
        assert expected in str(caught.value)


def test_a_signal_saves_and_the_same_wish_goes_on(finished, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one_step, n_steps = Trainer._one_step, iter(range(1000))

    def step_and_signal(self: Trainer) -> None:
        one_step(self)
        if next(n_steps) in (3, 20, 70, 130):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "_one_step", step_and_signal)
    wish = wish_for(tokens, tmp_path / "out")
    for _ in range(4):
        sweep, study, signal_number = run_sweep(wish, Company())
        assert signal_number == signal.SIGINT
        found = results(sweep, study)
        assert any(result.state == RUNNING for result in found)
        assert "sweep of llamita over" in write_sweep_report(sweep, found).read_text()
    sweep, study, signal_number = run_sweep(wish, Company())
    assert signal_number is None
    assert [replace(r, seconds=0) for r in results(sweep, study)] == [replace(r, seconds=0) for r in found_in(finished)]
    assert sha256_of(tmp_path / "out" / "model.safetensors") == sha256_of(finished[0].run.out / "model.safetensors")


def test_a_trial_that_fails_is_a_result(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run_trainer = Trainer.run

    def fails(self: Trainer) -> int | None:
        if self.config.learning_rate == 0.1:
            raise DivergedError("step 3: loss nan, gradient nan: not finite; checkpoints up to the last save are in x")
        if self.config.learning_rate == 0.2 and self.config.n_steps > 20:
            raise RuntimeError("out of memory\non the device")
        return run_trainer(self)

    monkeypatch.setattr(Trainer, "run", fails)
    wish, company = (
        wish_for(tokens, tmp_path / "out", "learning_rate=0.2,0.1", "n_heads=1,2", "n_kv_heads=1,2"),
        Listener(),
    )
    sweep, study, _ = run_sweep(wish, company)
    found = results(sweep, study)
    why = {result.why for result in found if result.state == FAILED}
    assert why == {
        "step 3: loss nan, gradient nan: not finite", r"out of memory\non the device",
        "n_kv_heads: found 2, expected a divisor of n_heads = 1",
    }  # fmt: skip
    assert found[0].state != FAILED
    assert found[-1].state == FAILED
    assert any("failed: step 3" in line for line in company.lines)
    again, study, _ = run_sweep(wish, Company())
    assert results(again, study) == found
    page = write_sweep_report(sweep, found).read_text()
    assert "failed: step 3: loss nan" in page


def test_a_sweep_of_failures_is_one_line(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(_: Trainer) -> int | None:
        raise DivergedError("step 1: loss inf")

    monkeypatch.setattr(Trainer, "run", fails)
    with pytest.raises(TrainingError, match="no combination could be trained; the first failed so: step 1: loss inf"):
        run_sweep(wish_for(tokens, tmp_path / "out"), Company())


def test_a_full_disk_is_no_fault_of_a_trial(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: Trainer) -> int | None:
        raise TrainingError("no checkpoint could be written")

    wish = wish_for(tokens, tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run", full)
        with pytest.raises(TrainingError, match="no checkpoint"):
            run_sweep(wish, Company())
    monkeypatch.setattr(Trainer, "run", lambda _: signal.SIGTERM)
    sweep, study, _ = run_sweep(wish, Company())
    assert {result.state for result in results(sweep, study)} == {RUNNING}


@pytest.fixture
def moving(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepWish:
    """A sweep that a signal stopped in its first trial, and whose folder has the tokens that it made of a text."""
    wish = wish_for(tokens, tmp_path / "before")
    made = replace(wish.run, texts=(str(tokens.parent / "text.txt"),), tokenizer=str(tokens.parent / "vocabulary"))
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run", lambda _: signal.SIGTERM)
        run_sweep(replace(wish, run=made), Company())
    return replace(wish, run=made)


def moved_to(wish: SweepWish, out: Path) -> SweepWish:
    return replace(wish, run=replace(wish.run, out=out))


def data_of_trial(out: Path) -> Path:
    folder = out / "trials/000/trunk"
    return data_folder(folder, read_run(folder)).resolve()


def test_a_copy_goes_on_with_its_own_tokens(moving: SweepWish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, copy, opened = moving.run.out, tmp_path / "after", []
    shutil.copytree(out, copy)
    assert data_of_trial(copy) == copy / "data"
    monkeypatch.setattr(sweeping, "climb", lambda _, __, dataset, *___: opened.append(dataset.folder) or signal.SIGTERM)
    run_sweep(moved_to(moving, copy), Company())
    shutil.rmtree(out)
    run_sweep(moved_to(moving, copy), Company())
    assert opened == [copy / "data"] * 2


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_sweep_whose_record_has_the_whole_path_goes_on(moving: SweepWish, tmp_path: Path, monkeypatch, is_moved: bool):
    out = moving.run.out
    record = json.loads((out / sweeping.SWEEP_FILE).read_text())
    (out / sweeping.SWEEP_FILE).write_text(json.dumps(record | {"data": str(out / "data")}))
    if is_moved:
        out = out.rename(tmp_path / "after")
    monkeypatch.setattr(Trainer, "run", lambda _: signal.SIGTERM)
    run_sweep(moved_to(moving, out), Company())
    assert json.loads((out / sweeping.SWEEP_FILE).read_text()) == record
    assert data_of_trial(out) == out / "data"


def test_a_call_that_is_no_utf8_is_recorded_as_it_was(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["llamita", "sweep", "caf\udce9"])
    monkeypatch.setattr(Trainer, "run", lambda _: signal.SIGTERM)
    run_sweep(wish_for(tokens, tmp_path), Company())
    assert json.loads((tmp_path / sweeping.SWEEP_FILE).read_text())["command"] == ["sweep", "caf\udce9"]


def test_a_damaged_record_is_one_line(tokens: Path, tmp_path: Path):
    wish = wish_for(tokens, tmp_path)
    (tmp_path / sweeping.SWEEP_FILE).write_text("{")
    with pytest.raises(SettingError, match=r"sweep.json: found no record of a sweep"):
        run_sweep(wish, Company())


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork")
@pytest.mark.parametrize("n_kills", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_kills_leave_no_trace(tmp_path: Path, n_kills: int):
    command = [sys.executable, str(PROGRAM), str(tmp_path), str(n_kills), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    ends = json.loads(done.stdout.splitlines()[-1])
    assert ends["killed"] == ends["whole"]
    assert ends["n_places"] >= min(n_kills - 1, 6)
