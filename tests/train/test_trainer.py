"""What the training loop does between steps and when things go wrong; that it resumes to the bit is in test_kills.py."""

import errno
import json
import math
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch comes with llamita[train]")

import kills  # pyright: ignore[reportMissingImports]

from llamita.config import ModelConfig
from llamita.data.shards import Dataset, open_dataset
from llamita.errors import TrainingError
from llamita.formats import read_model
from llamita.train import checkpoint, pretraining, trainer
from llamita.train.config import Recipe, TrainConfig
from llamita.train.pretraining import Pretraining
from llamita.train.recorder import Audience, Recorder
from llamita.train.trainer import CHECKPOINTS, Trainer
from llamita.train.world import open_world

MODEL = ModelConfig(width=16, n_layers=1, n_heads=2, n_kv_heads=1, mlp_width=32, vocab_size=300, context=16)
TRAINING = TrainConfig(
    n_steps=8, batch=2, accumulation=1, learning_rate=3e-3, warmup_steps=2, eval_every=2, eval_tokens=64, sample_every=4,
    save_every=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("text")
    kills.make_text(folder)
    return open_dataset(folder / "tokens")


class Run:
    """A run in a folder, and what it told."""

    def __init__(self, dataset: Dataset, out: Path, screen: StringIO, recorder: Recorder, config: TrainConfig, **more) -> None:
        self.out, self.screen, self.recorder = out, screen, recorder
        start = checkpoint.newest(out / CHECKPOINTS, recorder.note)
        task = Pretraining(Recipe(MODEL, config), dataset)
        self.trainer = Trainer(task, out, open_world("cpu", 1), recorder, start, **more)

    @property
    def steps_saved(self) -> list[int]:
        return sorted(int(path.name[5:]) for path in self.out.glob(f"{CHECKPOINTS}/step-*"))

    def log(self) -> list[dict]:
        self.recorder.sync()
        return [json.loads(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def begin(dataset, tmp_path) -> Iterator:
    recorders = []

    def begin(config: TrainConfig = TRAINING, first_step: int = 0, **more) -> Run:
        screen = StringIO()
        recorders.append(Recorder(tmp_path, first_step, config.n_steps, 1.0, None, Audience(tensorboard=False, screen=screen)))
        return Run(dataset, tmp_path, screen, recorders[-1], config, **more)

    yield begin
    for recorder in recorders:
        recorder.close()


def test_a_run_leaves_a_model_folder_and_the_newest_checkpoints(begin):
    run = begin()
    assert run.trainer.run() is None
    assert run.steps_saved == [6, 8]
    assert read_model(run.out).config == MODEL
    assert [line["step"] for line in run.log() if "gradient_norm" in line] == list(range(1, 9))


def test_the_best_checkpoint_is_kept_and_published(begin, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 2.5])
    measure = pretraining.evaluate
    monkeypatch.setattr(pretraining, "evaluate", lambda *a: replace(measure(*a), loss=next(losses)))
    run = begin()
    run.trainer.run()
    assert run.steps_saved == [4, 6, 8]
    best = run.out / CHECKPOINTS / "step-00000004" / "model.safetensors"
    assert (run.out / "model.safetensors").read_bytes() == best.read_bytes()


def test_samples_are_told_from_the_weights_of_their_step(begin):
    seen = []

    def tell(model):
        seen.append(model.validate().tensors["embedding"].data.copy())
        return [("Once", " upon")]

    run = begin(tell=tell)
    run.trainer.run()
    assert len(seen) == 2
    assert (seen[0] != seen[1]).any()
    samples = [json.loads(line) for line in (run.out / "samples.jsonl").read_text().splitlines()]
    assert [(s["step"], s["prompt"], s["text"]) for s in samples] == [(4, "Once", " upon"), (8, "Once", " upon")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_at_the_end_of_the_step(begin, number):
    run = begin(replace(TRAINING, save_every=100, sample_every=0))
    one_step = run.trainer._one_step

    def step_and_signal() -> None:
        one_step()
        if run.trainer.step == 3:
            os.kill(os.getpid(), number)

    run.trainer._one_step = step_and_signal
    assert run.trainer.run() == number
    assert run.steps_saved == [3]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    again = begin(replace(TRAINING, save_every=100, sample_every=0), first_step=3)
    assert again.trainer.step == 3
    assert again.trainer.run() is None


def not_finite(run: Run, steps: set[int]) -> None:
    """Let the loss of some steps be no number."""
    means = run.trainer.updater._means
    run.trainer.updater._means = lambda batch: [
        mean * (math.nan if run.trainer.step in steps else 1.0) for mean in means(batch)
    ]


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(begin):
    run = begin()
    not_finite(run, {4})
    with pytest.raises(TrainingError, match=r"step 5: loss nan, .* not finite; .*--learning-rate than 0\.003"):
        run.trainer.run()
    assert run.steps_saved == [2, 4]


def test_a_step_that_is_skipped_leaves_the_weights_as_they_were(begin):
    run = begin(replace(TRAINING, on_nonfinite="skip"))
    not_finite(run, {4})
    weights = {}
    one_step = run.trainer._one_step

    def watch() -> None:
        one_step()
        weights[run.trainer.step] = run.trainer.updater.network.embedding.detach().clone()

    run.trainer._one_step = watch
    run.trainer.run()
    assert torch.equal(weights[4], weights[5])
    assert not torch.equal(weights[5], weights[6])
    assert checkpoint.read_state(run.out / CHECKPOINTS / "step-00000008").n_skipped == 1
    assert "update skipped" in run.screen.getvalue()


def test_skipping_without_end_stops_too(begin):
    run = begin(replace(TRAINING, n_steps=60, on_nonfinite="skip"))
    not_finite(run, set(range(60)))
    with pytest.raises(TrainingError, match="step 21:"):
        run.trainer.run()


def test_a_full_disk_is_a_warning_and_a_retry(begin, monkeypatch):
    save, n_calls = checkpoint.save, iter(range(100))

    def full_at_first(*arguments):
        if next(n_calls) < 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*arguments)

    monkeypatch.setattr(checkpoint, "save", full_at_first)
    monkeypatch.setattr(trainer, "RETRY_SECONDS", 0.0)
    run = begin(replace(TRAINING, save_every=5))
    assert run.trainer.run() is None
    assert "No space left on device; the run goes on and tries again" in run.screen.getvalue()
    assert run.steps_saved == [7, 8]  # 5 and 6 found no room


def test_a_disk_that_stays_full_fails_at_the_end_and_says_so(begin, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    monkeypatch.setattr(trainer, "RETRY_SECONDS", 0.0)
    run = begin()
    with pytest.raises(TrainingError, match="no checkpoint could be written"):
        run.trainer.run()


def test_a_failed_compilation_is_noted_and_the_run_goes_on(begin, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no C++ compiler")

    run = begin(replace(TRAINING, compile=True))
    monkeypatch.setattr(torch, "compile", lambda _: broken)
    assert run.trainer.run() is None
    assert "torch.compile failed (RuntimeError: no C++ compiler)" in run.screen.getvalue()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_dtypes_train_and_keep_their_state(begin, dtype):
    config = replace(TRAINING, dtype=dtype, n_steps=6)
    run = begin(config)
    run.trainer.run()
    losses = [line["loss"] for line in run.log() if "gradient_norm" in line]
    assert losses[-1] < losses[0]
    assert bool(checkpoint.read_state(run.out / CHECKPOINTS / "step-00000006").scaler) == (dtype == "float16")
    assert begin(config, first_step=6).trainer.step == 6


@pytest.mark.parametrize(
    "settings",
    [
        {"document_mask": True, "dropout": 0.2},
        {"optimizer": "adamw", "schedule": "cosine", "gradient_clip": 0.0},
        {"batch": 3, "accumulation": 3, "warmup_steps": 0, "cooldown_share": 0.0},
    ],
    ids=["masks and dropout", "AdamW, cosine, no clipping", "odd batches, constant rate"],
)
def test_other_recipes_learn_too(begin, settings):
    run = begin(replace(TRAINING, n_steps=12, **settings))
    run.trainer.run()
    losses = [line["loss"] for line in run.log() if "gradient_norm" in line]
    assert losses[-1] < losses[0] - 0.05


def test_a_run_whose_checkpoints_are_all_damaged_begins_anew_and_keeps_what_it_saves(begin):
    run = begin()
    run.trainer.run()
    for path in (run.out / CHECKPOINTS).iterdir():
        (path / "optimizer.safetensors").write_bytes(b"damaged")
    run = begin(replace(TRAINING, n_steps=4))
    run.trainer.run()
    assert run.steps_saved == [2, 4]
    assert "begins anew: no whole checkpoint is left" in run.screen.getvalue()
    assert len(list((run.out / CHECKPOINTS).glob("damaged-step-*"))) == 2
