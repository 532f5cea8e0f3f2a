"""What came of each trial of a sweep, best first, from its journal and the logs of its runs: for a table, a page and JSON."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamita.train.metrics import METRICS, StepRecord, ValidationRecord, read_lines
from llamita.train.rungs import branch_step
from llamita.train.study import Study, ranking
from llamita.train.sweep import BEST_FILE, Sweep
from llamita.train.trial import TRUNK

Point = tuple[int, float]  # tokens seen, validation loss


@dataclass(frozen=True)
class TrialResult:
    """A trial as far as it has come. losses: at each rung, None where it has not come to; curves: to each rung it began."""

    number: int
    values: dict[str, Any]
    state: str  # see study.py
    why: str  # it failed
    losses: list[float | None]
    bits_per_byte: float | None  # at the furthest rung
    n_steps: int  # computed in all
    seconds: float
    curves: list[list[Point]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without curves."""
        names = ("number", "values", "state", "why", "losses", "bits_per_byte", "n_steps", "seconds")
        return {name: getattr(self, name) for name in names}


def results(sweep: Sweep, study: Study) -> list[TrialResult]:
    """All trials, the best first."""
    by_rung = [study.losses(i) for i in range(len(sweep.rungs))]
    order = ranking(study, len(sweep.combinations), len(sweep.rungs))
    return [_result(sweep, study, number, [losses.get(number) for losses in by_rung]) for number in order]


def _result(sweep: Sweep, study: Study, number: int, losses: list[float | None]) -> TrialResult:
    values, state, why = sweep.combinations[number].values, study.state(number), study.why(number)
    if sweep.combinations[number].recipe is None:
        return TrialResult(number, values, state, why, losses, None, 0, 0.0, [])
    trial = sweep.trial(number)
    steps, curves, bits = list(_steps(trial.folder / TRUNK)), [], None
    n_tokens = trial.recipe.training.sequences_per_update * trial.recipe.model.context
    for i, rung in enumerate(sweep.rungs):
        shared = branch_step(trial.recipe.training, rung)
        steps += [step for step in _steps(trial.rung_folder(i)) if step.step > shared]
        measured = [v for v in _validations(trial.rung_folder(i)) if math.isfinite(v.loss)]
        if measured:
            curves.append([(v.step * n_tokens, v.loss) for v in measured])
        if losses[i] is not None and measured:
            bits = measured[-1].bits_per_byte
    return TrialResult(number, values, state, why, losses, bits, len(steps), sum(step.seconds for step in steps), curves)


def _steps(folder: Path) -> Iterator[StepRecord]:
    return (line.record for line in read_lines(folder / METRICS) if isinstance(line.record, StepRecord))


def _validations(folder: Path) -> Iterator[ValidationRecord]:
    return (line.record for line in read_lines(folder / METRICS) if isinstance(line.record, ValidationRecord))


def summary(sweep: Sweep, found: list[TrialResult], is_over: bool) -> dict[str, Any]:
    """Everything that a script may want to know, for JSON."""
    return {
        "finished": is_over,
        "grid": sweep.facts["asked"]["grid"],
        "rungs": [{"share": rung.share, "trials": rung.n_trials} for rung in sweep.rungs],
        "best": found[0].to_dict() if is_over else None,
        "recipe": str(sweep.folder / BEST_FILE) if is_over else None,
        "trials": [result.to_dict() for result in found],
    }
