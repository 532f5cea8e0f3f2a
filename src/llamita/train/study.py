"""The journal of a sweep, kept by Optuna: its trials, their loss at each rung, what became of them.

A line is appended for every event, so a process may be killed anywhere, and Optuna's own tools open the file too. Knows neither
training nor who goes on.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llamita.errors import DataError, SettingError, one_line

NAME = "sweep"
WHY = "why"  # the user attribute of a trial that failed
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"  # what may have become of a trial


def check_optuna() -> None:
    """Raise SettingError where Optuna is not installed."""
    if find_spec("optuna") is None:
        raise SettingError("sweep: found no optuna; install it by: pip install 'llamita[sweep]'")


class Study:
    """The trials of a sweep, by number: the place of their combination in the grid."""

    def __init__(self, path: Path, grid: Mapping[str, Sequence[Any]], combinations: Sequence[Mapping[str, Any]]) -> None:
        """Open a journal, or begin one; raise DataError where it is damaged or of another grid. Nobody else may do so."""
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._states = optuna.trial.TrialState
        _mend(path)
        try:
            self._storage = JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
            self._study = optuna.create_study(storage=self._storage, study_name=NAME, load_if_exists=True)
            choices = {name: optuna.distributions.CategoricalDistribution(values) for name, values in grid.items()}
            for values in combinations[len(self._trials()) :]:
                running = self._states.RUNNING
                trial = optuna.trial.create_trial(state=running, params=dict(values), distributions=dict(choices))
                self._study.add_trial(trial)
            found = [trial.params for trial in self._trials()]
        except (ValueError, LookupError, TypeError, AssertionError) as error:  # Optuna trusts its files
            reason = one_line(str(error))
            raise DataError(f"{path}: found no journal of a sweep ({reason}); expected it as the sweep left it") from None
        if found != [dict(values) for values in combinations]:
            raise DataError(f"{path}: found the trials of another grid; expected it as the sweep left it")

    def _trials(self) -> list[Any]:
        return self._study.get_trials(deepcopy=False)

    def _id(self, number: int) -> int:
        study_id = self._storage.get_study_id_from_name(NAME)
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, number)

    def losses(self, rung: int) -> dict[int, float]:
        """The loss of every trial that has come to a rung, by the trial's number."""
        values = {trial.number: trial.intermediate_values for trial in self._trials()}
        return {number: found[rung] for number, found in values.items() if rung in found}

    def state(self, number: int) -> str:
        """What has become of a trial."""
        names = {self._states.COMPLETE: FINISHED, self._states.PRUNED: STOPPED, self._states.FAIL: FAILED}
        return names.get(self._trials()[number].state, RUNNING)

    def why(self, number: int) -> str:
        """Why a trial failed; "" for others."""
        return str(self._trials()[number].user_attrs.get(WHY, ""))

    def note_loss(self, number: int, rung: int, loss: float) -> None:
        """A trial has come to a rung."""
        self._storage.set_trial_intermediate_value(self._id(number), rung, loss)

    def finish(self, number: int, loss: float) -> None:
        """A trial has come to the last rung."""
        self._study.tell(number, loss)

    def stop(self, number: int) -> None:
        """A trial does not go on, since others are better."""
        self._study.tell(number, state=self._states.PRUNED)

    def fail(self, number: int, why: str) -> None:
        """A trial cannot go on."""
        self._storage.set_trial_user_attr(self._id(number), WHY, why)
        self._study.tell(number, state=self._states.FAIL)


def ranking(study: Study, n_trials: int, n_rungs: int) -> list[int]:
    """The numbers of all trials, the best first: by the rung that they came to, then by their loss there; failed ones last."""
    by_rung = [study.losses(i) for i in range(n_rungs)]

    def place(number: int) -> tuple[bool, int, float, int]:
        reached = [i for i, losses in enumerate(by_rung) if number in losses]
        loss = by_rung[reached[-1]][number] if reached else 0.0
        return study.state(number) == FAILED, -len(reached), loss, number

    return sorted(range(n_trials), key=place)


def _mend(path: Path) -> None:
    """Cut off the half of a line that a killed process left, and its lock: Optuna would append to one, wait for the other."""
    with suppress(FileNotFoundError):
        path.with_name(path.name + ".lock").unlink()
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
