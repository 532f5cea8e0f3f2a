"""A sweep: all combinations of a grid, trained by successive halving, and the best recipe of them.

    OUT/  sweep.json, study.journal    what was asked for, and what came of it so far
          trials/000/ ...              see trial.py
          vocabulary/, data/           made from the texts, once for all, where no tokenizer or shards were given
          report.html, best.toml       the table with curves; the recipe of the best
          model.safetensors, ...       the best model itself

Whatever ends a sweep early, the same command goes on: texts, plan and grid are on the disk before the first trial begins, a
trial's runs resume to the bit, and rungs.py decides the same from the same losses. One process on one device.
"""

import json
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from llamita.data.out_folder import check_no_model
from llamita.data.shards import Dataset, open_dataset
from llamita.errors import DivergedError, ModelError, SettingError, TrainingError, one_line
from llamita.train import checkpoint
from llamita.train.company import Company
from llamita.train.config import Recipe, read_recipe, write_recipe
from llamita.train.grid import Combination, Grid, combinations
from llamita.train.machine import describe_machine
from llamita.train.run_folder import data_entry, data_folder, write_run
from llamita.train.rungs import Rung, going_on, rungs_for, steps_at, steps_in_all
from llamita.train.running import alone_in
from llamita.train.session import Wish, choose_recipe, make_dataset
from llamita.train.study import FAILED, RUNNING, Study, check_optuna, ranking
from llamita.train.trainer import CHECKPOINTS
from llamita.train.trial import Place, Steps, Trial, forget_checkpoints, loss_at, steps_to, train_to
from llamita.train.world import World, open_world

SWEEP_FILE, JOURNAL_FILE, TRIALS, BEST_FILE = "sweep.json", "study.journal", "trials", "best.toml"


@dataclass(frozen=True)
class SweepWish:
    """What the user asked for. run: texts, folder, plan and machine as for one training; of `reduction` trials one goes on."""

    run: Wish
    grid: Grid
    reduction: int = 3


@dataclass(frozen=True)
class Sweep:
    """A sweep that is set up. facts: sweep.json; combinations, by number, whether they can be trained or not."""

    folder: Path
    facts: dict[str, Any]
    base: Recipe
    combinations: list[Combination]
    rungs: list[Rung]

    def trial(self, number: int) -> Trial:
        """A combination that can be trained."""
        chosen = self.combinations[number]
        assert chosen.recipe is not None
        return Trial(number, chosen.values, chosen.recipe, self.folder / TRIALS / f"{number:03d}", self.rungs[0])


def run_sweep(wish: SweepWish, company: Company) -> tuple[Sweep, Study, int | None]:
    """Sweep, or go on, to the end or to a signal, whose number is returned last.

    Raises SettingError for anything that the user should change, TrainingError where no combination could be trained.
    """
    check_optuna()
    with open_world(wish.run.device, wish.run.n_threads) as world:
        if world.n_ranks > 1:
            raise SettingError(f"sweep: found {world.n_ranks} processes, expected one; several sweeps may run side by side")
        with alone_in(wish.run.out):
            sweep = set_up(wish, world, company)
            study = Study(sweep.folder / JOURNAL_FILE, wish.grid, [chosen.values for chosen in sweep.combinations])
            company.training_begins()
            rungs = ", ".join(f"{rung.n_trials} to {rung.share:.0%} of a training" for rung in sweep.rungs)
            company.say(f"trials: {rungs}; as much work as {whole_trainings(sweep):.1f} whole trainings")
            signal_number = climb(sweep, study, open_dataset(data_folder(sweep.folder, sweep.facts)), world, company)
            if signal_number is None:
                crown(sweep, study)
            return sweep, study, signal_number


def set_up(wish: SweepWish, world: World, company: Company) -> Sweep:
    """Leave shards and sweep.json in the folder, or find them there from the same wish; raise SettingError for another."""
    out, path = wish.run.out, wish.run.out / SWEEP_FILE
    if not wish.run.texts:
        raise SettingError(f"{out}: found no text to train on; name files, folders or a data set of text")
    before = _read_facts(path)
    asked = _as_json({
        "grid": wish.grid,
        "reduction": wish.reduction,
        "dial": asdict(wish.run.dial),
        "overrides": wish.run.overrides,
        "recipe": read_recipe(wish.run.recipe).to_dict() if wish.run.recipe else None,
    })  # fmt: skip
    if before is not None:
        _check_same(out, before["asked"], asked)
    else:
        check_no_model(out)
    dataset = open_dataset(make_dataset(wish.run, world, company))
    data = data_entry(dataset.folder, out)
    if before is not None:
        _check_same(out, {"text": before["fingerprint"]}, {"text": dataset.fingerprint})
        if data != before.get("data"):  # the sweep or its tokens were moved
            before["data"] = data
            write_run(before, path)
        return _sweep(out, before, wish)
    facts = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv[1:],
        "texts": list(wish.run.texts),
        "data": data,
        "fingerprint": dataset.fingerprint,
        "device": str(world.device),
        "n_threads": torch.get_num_threads(),
        "asked": asked,
        "base": choose_recipe(wish.run, dataset, world, company).to_dict(),
    }
    sweep = _sweep(out, facts, wish)  # which raises where the grid does not fit the plan
    write_run(facts | describe_machine(), path)
    return sweep


def _sweep(out: Path, facts: dict[str, Any], wish: SweepWish) -> Sweep:
    base, run = Recipe.from_dict(facts["base"]), wish.run
    planned_rate = run.recipe is None and run.dial.preset is None and "learning_rate" not in run.overrides
    found = combinations(wish.grid, base, tuple(run.overrides), planned_rate)
    trainings = [chosen.recipe.training for chosen in found if chosen.recipe is not None]
    return Sweep(out, facts, base, found, rungs_for(trainings, wish.reduction))


def _read_facts(path: Path) -> dict[str, Any] | None:
    """sweep.json, or None where there is none; raises SettingError for one that is damaged."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        Recipe.from_dict(facts["base"])
        return facts
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SettingError(
            one_line(f"{path}: found no record of a sweep ({error}), expected it as the sweep left it")
        ) from None


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    """The values as they come back from a file."""
    return json.loads(json.dumps(values))


def _check_same(out: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    found = [f"{name}: then {then[name]}, now {now[name]}" for name in then if then[name] != now.get(name)]
    if found:
        raise SettingError(f"{out}: found another sweep: {'; '.join(found)}; expected the same, or another folder with --out")


def climb(sweep: Sweep, study: Study, dataset: Dataset, world: World, company: Company) -> int | None:
    """Take all trials from rung to rung, to the last or to a signal, whose number is returned."""
    for number, chosen in enumerate(sweep.combinations):
        if chosen.recipe is None and study.state(number) == RUNNING:
            study.fail(number, chosen.error)
    steps = Steps(company, round(whole_trainings(sweep) * sweep.base.training.n_steps))
    place = Place(sweep.folder, dataset, world, company, steps)
    for i in range(len(sweep.rungs)):
        climbing = [n for n in range(len(sweep.combinations)) if study.state(n) == RUNNING]
        for number in climbing:
            trial = sweep.trial(number)
            if number in study.losses(i):
                place.steps.advance(steps_to(trial, i, sweep.rungs))
                continue
            signal_number = _one_trial(study, trial, i, sweep.rungs, place)
            if signal_number is not None:
                return signal_number
        _decide(sweep, study, i)
    return None


def _one_trial(study: Study, trial: Trial, i: int, rungs: list[Rung], place: Place) -> int | None:
    """Train a trial to rung i and note its loss. What goes wrong with it is noted too, and the sweep goes on."""
    number, values = trial.number, ", ".join(f"{name} {value}" for name, value in trial.values.items())
    told = f"rung {i + 1} of {len(rungs)}, {values}:"
    try:
        signal_number = train_to(trial, i, rungs[i], place)
        if signal_number is not None:
            return signal_number
        loss = loss_at(trial, i)
        study.note_loss(number, i, loss)
        place.company.say(f"{told} validation loss {loss:.4f} at step {steps_at(trial.recipe.training, rungs[i]):,}")
    except (DivergedError, SettingError, ModelError, RuntimeError) as error:  # RuntimeError: out of memory, and the like
        why = one_line(str(error).partition("; checkpoints up to")[0].strip() or type(error).__name__)
        study.fail(number, why)
        place.company.say(f"{told} failed: {why}")
        forget_checkpoints(trial.folder)
        torch.cuda.empty_cache()
    return None


def _decide(sweep: Sweep, study: Study, i: int) -> None:
    """All that still climb have come to rung i: the best go on, the others stop. At the last rung all are finished."""
    losses, is_last = study.losses(i), i + 1 == len(sweep.rungs)
    climbing = [number for number in losses if study.state(number) == RUNNING]
    winners = climbing if is_last else going_on(losses, sweep.rungs[i + 1].n_trials)
    for number in climbing:
        trial = sweep.trial(number)
        if number not in winners:
            study.stop(number)
            forget_checkpoints(trial.folder)
        elif is_last:
            study.finish(number, losses[number])
        else:
            forget_checkpoints(trial.rung_folder(i))


def crown(sweep: Sweep, study: Study) -> None:
    """Leave the best recipe and its model in the sweep's folder; raise TrainingError where all trials failed."""
    best = ranking(study, len(sweep.combinations), len(sweep.rungs))[0]
    if study.state(best) == FAILED:
        raise TrainingError(f"{sweep.folder}: no combination could be trained; the first failed so: {study.why(0)}")
    trial = sweep.trial(best)
    write_recipe(trial.recipe, sweep.folder / BEST_FILE)
    found = checkpoint.newest(trial.rung_folder(len(sweep.rungs) - 1) / CHECKPOINTS, lambda _: None)
    if found is not None:
        with suppress(OSError):
            checkpoint.publish(found[0], sweep.folder)
    for number in range(len(sweep.combinations)):
        if number != best:
            forget_checkpoints(sweep.folder / TRIALS / f"{number:03d}")


def whole_trainings(sweep: Sweep) -> float:
    """How many times the work of one whole training all rungs take together, in steps."""
    n_steps, work = sweep.base.training.n_steps, 0.0
    counts = [rung.n_trials for rung in sweep.rungs] + [0]
    for i in range(len(sweep.rungs)):
        work += (counts[i] - counts[i + 1]) * steps_in_all(sweep.base.training, sweep.rungs[: i + 1])
    return work / n_steps
