"""TrainConfig and Recipe: everything that decides what a training run computes, as plain numbers.

Presets and the planner (plan.py) choose them, a run records them in recipe.toml, and resuming compares them. Each field is
also a flag of `llamita train` and a key of recipe.toml; its help is written here. Knows no torch.
"""

import json
import tomllib
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

from llamita.config import ModelConfig
from llamita.errors import ModelError, SettingError
from llamita.files import atomic_file

CHOICES = {
    "schedule": ("wsd", "cosine"),
    "optimizer": ("muon", "adamw"),
    "dtype": ("float32", "bfloat16", "float16"),
    "on_nonfinite": ("stop", "skip"),
}


def setting(help: str, default: Any = ...) -> Any:
    """A field of TrainConfig with the text that --help shows."""
    return field(metadata={"help": help}) if default is ... else field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. What has a default may be left out; the planner fits the rest to the size."""

    n_steps: int = setting("Updates of the weights.")
    batch: int = setting("Sequences that one device takes at once.")
    accumulation: int = setting("Batches whose gradients are summed for one update, over all devices together.")
    learning_rate: float = setting("Highest learning rate.")
    warmup_steps: int = setting("Steps in which the learning rate rises from 0.")
    schedule: str = setting("After warm-up: wsd stays up and falls in a line at the end, cosine falls all the way.", "wsd")
    cooldown_share: float = setting("wsd: share of the steps in which the learning rate falls.", 0.4)
    final_share: float = setting("Learning rate at the end, as a share of the highest.", 0.0)
    optimizer: str = setting("muon for the matrices and AdamW for the rest, or adamw for all.", "muon")
    weight_decay: float = setting("Weight decay of matrices; embedding, classifier and norms have none with muon.", 0.1)
    beta1: float = setting("AdamW: memory of the gradient.", 0.9)
    beta2: float = setting("AdamW: memory of its square.", 0.95)
    gradient_clip: float = setting("Longest gradient; 0 switches it off.", 1.0)
    dropout: float = setting("Share of values dropped from the embedding and from what each half of a layer adds.", 0.0)
    dtype: str = setting("Numbers in which matrices are multiplied; weights and sums are float32.", "float32")
    compile: bool = setting("Let torch.compile fuse the network: slower to start, faster to run.", False)
    document_mask: bool = setting("Let no token see the documents before its own.", False)
    eval_every: int = setting("Steps between two measurements on the validation text.", 250)
    eval_tokens: int = setting("Tokens of validation text to measure on.", 65536)
    sample_every: int = setting("Steps between two samples of text; 0 for none.", 500)
    save_every: int = setting("Steps between two checkpoints.", 250)
    keep: int = setting("Checkpoints to keep beside the best.", 2)
    on_nonfinite: str = setting("When loss or gradient is not finite: stop the run, or skip the step.", "stop")
    seed: int = setting("Decides initial weights, order of samples and dropout.", 1337)

    @property
    def sequences_per_update(self) -> int:
        """Sequences behind one update, whatever the number of devices."""
        return self.batch * self.accumulation

    def validate(self) -> "TrainConfig":
        """Return the config; raise SettingError at the first field out of range."""
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise SettingError(f"{name}: found {getattr(self, name)!r}, expected {' or '.join(choices)}")
        for name in ("n_steps", "batch", "accumulation", "eval_every", "eval_tokens", "save_every"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        for name in ("warmup_steps", "weight_decay", "gradient_clip", "sample_every", "seed"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        for name in ("cooldown_share", "final_share"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "0 to 1")
        for name in ("beta1", "beta2", "dropout"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) < 1, "0 or more, below 1")
        _check("learning_rate", self.learning_rate, 0 < self.learning_rate < 10, "a positive number below 10")
        _check("keep", self.keep, self.keep >= 2, "2 or more: a damaged checkpoint falls back to the one before")
        return self


@dataclass(frozen=True)
class Recipe:
    """A model's shape and how it is trained: the two tables of recipe.toml."""

    model: ModelConfig
    training: TrainConfig

    def validate(self) -> "Recipe":
        """Return the recipe; raise ModelError or SettingError at the first field out of range."""
        self.model.validate()
        self.training.validate()
        return self

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Both tables by name, for JSON and TOML."""
        return {"model": self.model.to_dict(), "training": asdict(self.training)}

    @classmethod
    def from_dict(cls, tables: dict[str, Any]) -> "Recipe":
        """The inverse of to_dict; raises ModelError or SettingError at a field that is unknown, missing or of another type."""
        if set(tables) != {"model", "training"}:
            raise SettingError(f"recipe: found tables {', '.join(sorted(tables)) or 'none'}, expected model and training")
        values = tables["training"]
        known = {field.name: field.type for field in fields(TrainConfig)}
        if unknown := sorted(set(values) - set(known)):
            raise SettingError(f"recipe: found unknown field {unknown[0]}, expected one of {', '.join(known)}")
        for name, value in values.items():
            expected = known[name]
            if not (type(value) is expected or (expected is float and type(value) is int)):
                raise SettingError(f"recipe: {name}: found {value!r}, expected {getattr(expected, '__name__', expected)}")
        try:
            training = TrainConfig(**values)
        except TypeError as error:
            raise SettingError(f"recipe: {error}") from None
        return cls(ModelConfig.from_dict(tables["model"]), training).validate()

    def to_toml(self) -> str:
        """The text of recipe.toml."""
        tables = self.to_dict()
        return "\n".join(
            f"[{table}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
            for table, values in tables.items()
        )


def write_recipe(recipe: Recipe, path: str | PathLike[str]) -> None:
    """Write recipe.toml, whole or not at all."""
    with atomic_file(path) as file:
        file.write(recipe.to_toml().encode())


def read_recipe(path: str | PathLike[str]) -> Recipe:
    """Read a recipe.toml; raises SettingError that names the file and what is wrong in it."""
    try:
        return Recipe.from_dict(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingError(
            f"{path}: found no recipe ({reason}), expected a recipe.toml as `llamita plan --out` writes it"
        ) from None
    except (SettingError, ModelError) as error:
        raise SettingError(f"{path}: {error}") from None


def _check(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise SettingError(f"{name}: found {value}, expected {expected}")
