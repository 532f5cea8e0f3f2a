"""What a run has left in its folder, read for a report: recipe, run.json, logs, the manifest of its tokens.

Each part may be missing, torn or hostile: what cannot be read is left out. Says too how run.json is written; knows no torch and
no page.
"""

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from llamita.data.manifest import Manifest, read_manifest
from llamita.errors import LlamitaError, SettingError, one_line
from llamita.files import atomic_file, sha256_of
from llamita.train.config import Recipe, read_recipe
from llamita.train.metrics import (
    METRICS,
    SAMPLES,
    Line,
    PreferenceRecord,
    SampleRecord,
    StartRecord,
    StepRecord,
    ValidationRecord,
    read_lines,
)

RECIPE_FILE, RUN_FILE, WEIGHTS_FILE = "recipe.toml", "run.json", "model.safetensors"
LONGEST_HASHED_BYTES = 4 << 30


@dataclass(frozen=True)
class RunFolder:
    """A run as far as it has come."""

    name: str
    recipe: Recipe | None
    facts: dict[str, Any]  # run.json
    manifest: Manifest | None
    lines: list[Line]
    samples: list[SampleRecord]
    weights_sha256: str

    @property
    def steps(self) -> list[StepRecord]:
        """The records of updates, in order."""
        return [line.record for line in self.lines if isinstance(line.record, StepRecord)]

    @property
    def validations(self) -> list[ValidationRecord]:
        """The measurements on the validation text, in order."""
        return [line.record for line in self.lines if isinstance(line.record, ValidationRecord)]

    def preferences(self, what: str) -> list[PreferenceRecord]:
        """How pairs were ranked in "training" or in "validation", in order; none where answers are learned."""
        records = [line.record for line in self.lines]
        return [record for record in records if isinstance(record, PreferenceRecord) and record.what == what]

    @property
    def n_processes(self) -> int:
        """How often the run began or went on."""
        return sum(isinstance(line.record, StartRecord) for line in self.lines)

    @property
    def seconds(self) -> float:
        """Time at work: of each process from its start to the last thing it logged."""
        total, before = 0.0, None
        for line in self.lines:
            if before is not None and not isinstance(line.record, StartRecord):
                total += max(0.0, line.unix_time - before)
            before = line.unix_time
        return total

    def summary(self) -> dict[str, Any]:
        """The numbers that matter most, for tiles and for JSON; None where nothing was logged."""
        steps, validations = self.steps, [v for v in self.validations if math.isfinite(v.loss)]
        best = min(validations, key=lambda v: v.loss, default=None)
        updating = sum(step.seconds for step in steps)
        return {
            "steps": steps[-1].step if steps else 0,
            "n_steps": self.recipe.training.n_steps if self.recipe else None,
            "parameters": self.recipe.model.n_parameters if self.recipe else None,
            "tokens": sum(step.n_tokens for step in steps),
            "loss": steps[-1].loss if steps and math.isfinite(steps[-1].loss) else None,
            "best_validation": {name: _or_nothing(value) for name, value in asdict(best).items()} if best else None,
            "tokens_per_second": median(s.n_tokens / s.seconds for s in steps if s.seconds) if updating else None,
            "data_share": sum(step.data_seconds for step in steps) / updating if updating else None,
            "hours": self.seconds / 3600,
            "processes": self.n_processes,
        }


def read_run_folder(folder: Path) -> RunFolder:
    """Read all that a run has left; raise SettingError, one line, where the folder is none of a run."""
    if not (folder / METRICS).is_file() and not (folder / RECIPE_FILE).is_file():
        raise SettingError(
            one_line(f"{folder}: found neither {METRICS} nor {RECIPE_FILE}, expected the folder of a training run")
        )
    facts = _read_facts(folder / RUN_FILE)
    samples = [line.record for line in read_lines(folder / SAMPLES)]
    return RunFolder(
        name=folder.resolve().name,
        recipe=_or_none(read_recipe, folder / RECIPE_FILE),
        facts=facts,
        manifest=_or_none(read_manifest, data_folder(folder, facts)),
        lines=[line for line in read_lines(folder / METRICS) if not isinstance(line.record, SampleRecord)],
        samples=[sample for sample in samples if isinstance(sample, SampleRecord)],
        weights_sha256=_sha256(folder / WEIGHTS_FILE),
    )


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a run's folder, which it cannot go on without; raises SettingError where it is none."""
    try:
        facts = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"{folder / RUN_FILE}: found no record of a run ({error})") from None
    return facts | {"data": str(data_folder(folder, facts))}


def write_run(facts: dict[str, Any], path: Path) -> None:
    """Write run.json, or sweep.json, whole or not at all. Arguments and paths that are no UTF-8 come back as they were."""
    with atomic_file(path) as file:  # half a surrogate pair is escaped as JSON has it
        file.write(json.dumps(facts, indent=1, ensure_ascii=False).encode(errors="backslashreplace"))


def change_run(folder: Path, changes: dict[str, Any]) -> None:
    """Give entries of run.json other values, as where what they name has been moved; data as data_entry() has it."""
    facts = read_run(folder)
    facts["data"] = data_entry(Path(facts["data"]), folder)
    if any(facts.get(name) != value for name, value in changes.items()):
        write_run(facts | changes, folder / RUN_FILE)


def data_entry(data: Path, out: Path, whole: Path | None = None) -> str:
    """What run.json says of where the tokens lie: as seen from the run's folder, so that it can be moved, where they lie there.

    whole: the folder that is moved as one, where the run's is a part of it.
    """
    data, out, whole = data.resolve(), out.resolve(), (whole or out).resolve()
    return Path(os.path.relpath(data, out)).as_posix() if data.is_relative_to(whole) else str(data)


def data_folder(run: Path, facts: dict[str, Any]) -> Path:
    """Where the tokens of a run lie, by its run.json."""
    return run / str(facts.get("data", "data"))


def _or_nothing(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return value if math.isfinite(value) else None


def _or_none(read: Any, path: Path) -> Any:
    try:
        return read(path)
    except (LlamitaError, OSError):
        return None


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _sha256(path: Path) -> str:
    """Of a file that is there and not too large to read for a report; "" otherwise."""
    try:
        if path.stat().st_size > LONGEST_HASHED_BYTES:
            return ""
        return sha256_of(path)
    except OSError:
        return ""
