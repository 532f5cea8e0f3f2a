"""Checkpoints on the disk: whole or absent, checked when read, pruned, published."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch comes with llamita[train]")

import kills  # pyright: ignore[reportMissingImports]

from llamita.config import ModelConfig
from llamita.errors import DataError
from llamita.formats import read_model
from llamita.model import random_model
from llamita.train import checkpoint
from llamita.train.checkpoint import ModelFolder, RunState

MODEL = random_model(ModelConfig(width=16, n_layers=1, n_heads=2, n_kv_heads=1, mlp_width=32, vocab_size=300, context=16))
STATE = RunState(1, {"model": {}, "training": {}}, "f" * 64, 1, 2, "cpu")
OPTIMIZER = {"norm/exp_avg": np.arange(16, dtype=np.float32), "norm/step": np.array(3.0, dtype=np.float32)}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    kills.make_text(folder)
    return folder / "vocabulary"


@pytest.fixture
def save(tmp_path, tokenizer_folder):
    def save(step: int, loss: float | None = None) -> Path:
        state = replace(STATE, step=step, validation_loss=loss)
        return checkpoint.save(tmp_path / "c", state, ModelFolder(MODEL, tokenizer_folder), OPTIMIZER)

    return save


def test_what_is_saved_comes_back(save, tmp_path):
    path = save(7, 1.5)
    found = checkpoint.newest(tmp_path / "c", pytest.fail)
    assert found is not None
    assert found[0] == path
    assert replace(found[1], sha256={}) == replace(STATE, step=7, validation_loss=1.5)
    optimizer = checkpoint.read_optimizer(path)
    assert all(np.array_equal(optimizer[name], array) for name, array in OPTIMIZER.items())
    model = read_model(path)
    assert model.tokenizer is not None
    for name, tensor in model.tensors.items():
        assert np.array_equal(tensor.dequantize(), MODEL.tensors[name].dequantize()), name


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "config.json", "tokenizer.model", "state.json"])
@pytest.mark.parametrize("damage", ["bit", "truncated", "missing"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(save, tmp_path, name, damage):
    save(1)
    broken = save(2) / name
    content = broken.read_bytes()
    broken.unlink()  # it may share its bytes with the published model
    if damage == "bit":
        broken.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "truncated":
        broken.write_bytes(content[: len(content) // 2])
    notes = []
    found = checkpoint.newest(tmp_path / "c", notes.append)
    assert found is not None
    assert found[1].step == 1
    assert len(notes) == 1
    assert "step-00000002" in notes[0]
    assert "falling back" in notes[0]


def test_nothing_is_left_of_a_save_that_fails(save, tmp_path, monkeypatch):
    save(1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(OSError, match="No space"):
        save(2)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-00000001"]


def test_no_save_begins_on_a_disk_without_room(save, monkeypatch):
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(OSError, match="no room for a checkpoint"):
        save(1)


def test_pruning_keeps_the_newest_and_the_best_and_sweeps_leftovers(save, tmp_path):
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, None), (5, 2.5)):
        save(step, loss)
    (tmp_path / "c" / ".step-00000006.12345678.part").mkdir()
    assert checkpoint.best_of(tmp_path / "c") == (1.0, 2)
    checkpoint.prune(tmp_path / "c", keep=2, best_step=2)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["step-00000002", "step-00000004", "step-00000005"]


def test_a_published_model_opens_and_survives_the_checkpoint(save, tmp_path):
    path = save(1)
    checkpoint.publish(path, tmp_path)
    checkpoint.prune(tmp_path / "c", keep=1, best_step=None)
    save(2)
    checkpoint.prune(tmp_path / "c", keep=1, best_step=None)
    assert not path.exists()
    assert read_model(tmp_path).tokenizer is not None
    assert not (tmp_path / "state.json").exists()
    assert not (tmp_path / "optimizer.safetensors").exists()


def test_a_step_is_saved_again_over_a_damaged_one(save, tmp_path):
    (save(1) / "state.json").write_text("{")
    save(1)
    assert checkpoint.newest(tmp_path / "c", pytest.fail) is not None


def test_equal_states_are_equal_bytes(save):
    first = {file.name: file.read_bytes() for file in save(1).iterdir()}
    assert {file.name: file.read_bytes() for file in save(1).iterdir()} == first


def test_differences_name_both_values_and_leave_out_what_may_change():
    then = replace(STATE, recipe={"model": {"width": 16}, "training": {"keep": 2}})
    now = replace(then, recipe={"model": {"width": 32}, "training": {"keep": 5}}, data_fingerprint="0" * 64, n_threads=8)
    found = checkpoint.differences(then, now, frozenset({"training.keep"}))
    assert found == ["data: then ffffffffffff, now 000000000000", "model.width: then 16, now 32"]
    assert checkpoint.environment_differences(then, now) == ["n_threads: then 2, now 8"]


def test_a_state_of_another_version_is_refused(save):
    path = save(1)
    values = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(values | {"version": 99}))
    with pytest.raises(DataError, match="version: found 99, expected 1"):
        checkpoint.read_state(path)


def test_copies_beside_checkpoints_are_none(save, tmp_path):
    shutil.copytree(save(1), tmp_path / "c" / "step-00000009-backup")
    (tmp_path / "c" / "step-by-step").mkdir()
    found = checkpoint.newest(tmp_path / "c", pytest.fail)
    assert found is not None
    assert found[1].step == 1
    checkpoint.prune(tmp_path / "c", keep=1, best_step=None)
    assert (tmp_path / "c" / "step-00000009-backup").is_dir()


def test_damaged_checkpoints_of_later_steps_are_set_aside_and_count_no_more(save, tmp_path):
    for step in (1, 40, 50):
        save(step, 1.0 / step)
    notes = []
    checkpoint.set_aside(tmp_path / "c", 1, notes.append)
    checkpoint.prune(tmp_path / "c", keep=1, best_step=None)
    assert checkpoint.best_of(tmp_path / "c") == (1.0, 1)
    kept = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert [name[: len("damaged-step-00000040")] for name in kept] == [
        "damaged-step-00000040",
        "damaged-step-00000050",
        "step-00000001",
    ]
    assert ["of step 40 is kept" in notes[0], notes[1].endswith("goes on from step 1")] == [True, True]
