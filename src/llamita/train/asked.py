"""What a user asks of a run, looked at before time is spent: numbers that no run can have, and, where one is resumed, what is
not as it was when the run began.

session.py and finetune.py say what is compared. Knows no torch.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from llamita.config import ModelConfig
from llamita.data.sources import Source
from llamita.errors import SettingError
from llamita.train.arithmetic import sequences_of_rank
from llamita.train.config import FinetuneConfig, Recipe, TrainConfig, with_overrides

# What may change when a run is resumed, because no number that is trained or logged depends on it.
CHANGEABLE = frozenset(f"training.{name}" for name in ("save_every", "keep", "sample_every", "on_nonfinite"))
MOST_NAMED = 3  # files in a message


def check_training(overrides: Mapping[str, Any], n_ranks: int) -> None:
    """Raise SettingError for a number of TrainConfig or FinetuneConfig that is out of range whatever the data."""
    draft = Recipe(ModelConfig(2, 1, 1, 1, 2, 2, 2), TrainConfig(1, 1, 1, 1e-3, 1), FinetuneConfig())
    names = {field.name for kind in (TrainConfig, FinetuneConfig) for field in fields(kind)}
    given = with_overrides(draft, {name: value for name, value in overrides.items() if name in names})
    if {"batch", "accumulation"} <= overrides.keys():
        sequences_of_rank(given.training, n_ranks)


def check_same(out: Path, changes: Iterable[tuple[str, Any, Any]]) -> None:
    """Raise SettingError where anything is not as it was when the run in a folder began."""
    if found := differences(changes):
        raise SettingError(f"{out}: found other settings than the run began with: {found}; expected the same")


def differences(changes: Iterable[tuple[str, Any, Any]]) -> str:
    """What differs, of names with the values then and now."""
    return "; ".join(f"{name}: then {then}, now {now}" for name, then, now in changes if then != now)


def changed_files(then: Iterable[Mapping[str, Any]], now: Iterable[Source]) -> Iterator[tuple[str, Any, Any]]:
    """The first files that are not as they were, by their sizes. then: as a manifest has them."""
    before, after = {source["name"]: source["n_bytes"] for source in then}, {source.name: source.n_bytes for source in now}
    for name in sorted({name for name, _ in before.items() ^ after.items()})[:MOST_NAMED]:
        yield f"bytes of {name}", before.get(name, "absent"), after.get(name, "absent")


def changed_fields(then: Recipe, now: Recipe) -> Iterator[tuple[str, Any, Any]]:
    """The fields of two recipes side by side, without those that may change."""
    new = now.to_dict()
    for table, values in then.to_dict().items():
        for name, value in values.items():
            if f"{table}.{name}" not in CHANGEABLE:
                yield name, value, new[table][name]
