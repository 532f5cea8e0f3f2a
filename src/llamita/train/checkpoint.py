"""Checkpoints: a model folder, the optimizers' state and state.json with checksums, written whole or not at all.

    checkpoints/step-00000250/   config.json, model.safetensors, tokenizer files   a model folder that every verb opens, or
                                 adapter_config.json, adapter_model.safetensors    one of an adapter
                                 optimizer.safetensors, state.json                 what resuming needs besides

A folder gets its name only when all its bytes are on the disk, so a process may be killed anywhere. No pickle. Knows no torch.
"""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llamita.errors import DataError
from llamita.files import atomic_file, sha256_of, sync_folder
from llamita.formats import huggingface_writer
from llamita.formats.safetensors import read_arrays, write_tensors
from llamita.model import Model

STATE_FILE, OPTIMIZER_FILE = "state.json", "optimizer.safetensors"
LOOKED_FOR = ("config.json", "adapter_config.json")  # by readers, so they are written last
VERSION = 1


@dataclass(frozen=True)
class RunState:
    """Where a run stands after `step` updates, besides weights and optimizer; all else follows from recipe and step."""

    step: int
    recipe: dict[str, Any]
    data_fingerprint: str
    n_ranks: int
    n_threads: int
    device: str
    validation_loss: float | None = None  # of these weights; None where the run was interrupted between measurements
    base: str = ""  # SHA-256 of the model that was fine-tuned
    n_skipped: int = 0  # steps without an update, because loss or gradient was not finite
    scaler: dict[str, float] = field(default_factory=dict)  # of float16
    sha256: dict[str, str] = field(default_factory=dict)  # of every other file in the folder
    version: int = VERSION


class Contents(Protocol):
    """What a checkpoint keeps of a network, as files of any kind. n_bytes: about how large they are."""

    @property
    def n_bytes(self) -> int: ...

    def write(self, folder: Path) -> None:
        """Write the files into a folder that is not there yet."""
        ...


@dataclass(frozen=True)
class ModelFolder:
    """A whole model with the tokenizer files of a folder, where the model has no tokenizer of its own."""

    model: Model
    tokenizer_folder: Path

    @property
    def n_bytes(self) -> int:
        """Bytes of the weights."""
        return self.model.n_bytes

    def write(self, folder: Path) -> None:
        """Write it in Hugging Face's layout."""
        huggingface_writer.write(self.model, folder, tokenizer_folder=self.tokenizer_folder)


def save(folder: Path, state: RunState, contents: Contents, optimizer: Mapping[str, np.ndarray]) -> Path:
    """Write the checkpoint of a step into the folder of checkpoints and return its own folder.

    Raises OSError or ModelFileError where that fails; then nothing has changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed = contents.n_bytes + sum(array.nbytes for array in optimizer.values())
    if shutil.disk_usage(folder).free < needed + (needed >> 6):
        raise OSError(errno.ENOSPC, f"no room for a checkpoint of {needed:,} bytes on the disk of {folder}")
    target = folder / f"step-{state.step:08d}"
    part = folder / f".{target.name}.{secrets.token_hex(4)}.part"
    try:
        contents.write(part)
        write_tensors(part / OPTIMIZER_FILE, optimizer)
        sums = {file.name: sha256_of(file) for file in sorted(part.iterdir())}
        with atomic_file(part / STATE_FILE) as file:
            file.write(json.dumps(asdict(state) | {"sha256": sums}, indent=1).encode())
        if target.exists():  # a damaged one that the run fell back from
            _remove(target)
        part.replace(target)
        sync_folder(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def newest(folder: Path, note: Callable[[str], None]) -> tuple[Path, RunState] | None:
    """Find the newest checkpoint that is whole, and tell of newer ones that are not; None where there is none."""
    for path in reversed(_checkpoints(folder)):
        try:
            return path, read_state(path)
        except DataError as error:
            note(f"{error}; falling back to the checkpoint before it")
    return None


def read_state(path: Path) -> RunState:
    """Read state.json and check every file of a checkpoint against it; raise DataError at a difference."""
    try:
        values = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        state = RunState(**values)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path / STATE_FILE}: found no state of a run ({error})") from None
    if state.version != VERSION:
        raise DataError(f"{path / STATE_FILE}: version: found {state.version}, expected {VERSION}")
    for name, expected in state.sha256.items():
        try:
            found = sha256_of(path / name)
        except OSError as error:
            raise DataError(f"{path / name}: {error.strerror}, expected a file of the checkpoint") from None
        if found != expected:
            raise DataError(f"{path / name}: sha256: found {found[:12]}, expected {expected[:12]}: the file is damaged")
    return state


def read_optimizer(path: Path) -> dict[str, np.ndarray]:
    """The optimizers' state as it was saved, by name; read-only views."""
    return read_arrays(path / OPTIMIZER_FILE)


def prune(folder: Path, keep: int, best_step: int | None) -> None:
    """Remove all checkpoints but the newest `keep` and the best, and what killed processes left half written.

    What cannot be removed stays: no reason to end a run.
    """
    for path in _checkpoints(folder)[:-keep]:
        if _step_of(path) != best_step:
            with suppress(OSError):
                _remove(path)
    remove_leftovers(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half written or half removed."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def best_of(folder: Path) -> tuple[float, int] | None:
    """The lowest validation loss of all checkpoints, and its step; None where none was measured."""
    measured = []
    for path in _checkpoints(folder):
        with suppress(OSError, ValueError, KeyError):
            values = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
            if values["validation_loss"] is not None:
                measured.append((values["validation_loss"], values["step"]))
    return min(measured, default=None)


def publish(checkpoint: Path, folder: Path) -> None:
    """Let the model of a checkpoint be the model of the run's folder too: the same files under two names where possible."""
    for source in sorted(checkpoint.iterdir(), key=lambda file: file.name in LOOKED_FOR):
        if source.name in (OPTIMIZER_FILE, STATE_FILE):
            continue
        part = folder / f".{source.name}.{secrets.token_hex(4)}.part"
        try:
            try:
                os.link(source, part)
            except OSError:
                shutil.copyfile(source, part)
            part.replace(folder / source.name)
        finally:
            part.unlink(missing_ok=True)
    sync_folder(folder)


def differences(then: RunState, now: RunState, changeable: frozenset[str]) -> list[str]:
    """What of recipe and data is not as it was, one "name: then ..., now ..." each; changeable, as "table.field", may be."""
    pairs = [("data", then.data_fingerprint[:12], now.data_fingerprint[:12]), ("model", then.base[:12], now.base[:12])]
    for table, values in then.recipe.items():
        pairs += [(f"{table}.{name}", value, now.recipe.get(table, {}).get(name)) for name, value in values.items()]
    return [f"{name}: then {old}, now {new}" for name, old, new in pairs if old != new and name not in changeable]


def environment_differences(then: RunState, now: RunState) -> list[str]:
    """What of the machine is not as it was, one line each."""
    pairs = [(name, getattr(then, name), getattr(now, name)) for name in ("n_ranks", "n_threads", "device")]
    return [f"{name}: then {old}, now {new}" for name, old, new in pairs if old != new]


def set_aside(folder: Path, step: int, note: Callable[[str], None]) -> None:
    """Rename checkpoints of later steps, which are damaged, so that none counts as the newest: weights may still be whole."""
    for path in _checkpoints(folder):
        if _step_of(path) > step:
            aside = path.with_name(f"damaged-{path.name}-{secrets.token_hex(4)}")
            with suppress(OSError):
                path.replace(aside)
                how = f"goes on from step {step:,}" if step else "begins anew: no whole checkpoint is left"
                note(f"the checkpoint of step {_step_of(path):,} is kept as {aside.name}; the run {how}")


def _checkpoints(folder: Path) -> list[Path]:
    """The folders of all checkpoints, oldest first; a copy that somebody made beside them is none."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name) and path.is_dir()]
    return sorted(found, key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _remove(path: Path) -> None:
    """Remove a checkpoint so that no moment shows half of one under its name."""
    leftover = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
    path.replace(leftover)
    shutil.rmtree(leftover, ignore_errors=True)
