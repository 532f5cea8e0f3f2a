"""TrainConfig and Recipe: everything that decides what a training run computes, as plain numbers.

Presets and the planner (plan.py) choose them, a run records them in recipe.toml, and resuming compares them. Each field is
also a flag of `llamita train` and a key of recipe.toml; its help is written here. Knows no torch.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from llamita.config import LAYER_MATRICES, ModelConfig, RopeScaling
from llamita.errors import ModelError, SettingError
from llamita.files import atomic_file

Table = TypeVar("Table", ModelConfig, RopeScaling, "TrainConfig", "FinetuneConfig")
OBJECTIVES = ("answers", "preferences")
MOST = 1e15  # of any number here: no run gets there, and infinity has no place in a recipe
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
            _check(name, getattr(self, name), 1 <= getattr(self, name) < MOST, f"1 or more, below {MOST:g}")
        for name in ("warmup_steps", "weight_decay", "gradient_clip", "sample_every"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) < MOST, f"0 or more, below {MOST:g}")
        _check("seed", self.seed, 0 <= self.seed < 1 << 63, "0 or more, below 2**63")
        for name in ("cooldown_share", "final_share"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "0 to 1")
        for name in ("beta1", "beta2", "dropout"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) < 1, "0 or more, below 1")
        _check("learning_rate", self.learning_rate, 0 < self.learning_rate < 10, "a positive number below 10")
        _check("keep", self.keep, self.keep >= 2, "2 or more: a damaged checkpoint falls back to the one before")
        return self


@dataclass(frozen=True)
class FinetuneConfig:
    """What a model learns from chats, and which of its weights learn it."""

    objective: str = setting("Answers to foretell, or preferences between a chosen and a rejected one.", "answers")
    row_tokens: int = setting("Tokens of a row, into which whole chats are packed.", 512)
    lora_rank: int = setting("Rank of LoRA's matrices; 0 trains all weights.", 16)
    lora_alpha: float = setting("LoRA: what it adds is multiplied by alpha / rank.", 32.0)
    lora_dropout: float = setting("LoRA: share of the inputs left out in training.", 0.0)
    lora_targets: tuple[str, ...] = setting(
        "LoRA: its matrices, by commas: all, attention, mlp, or names such as attention.query.", LAYER_MATRICES
    )
    beta: float = setting("Preferences: how much a model that stays near the one it was is worth (DPO).", 0.1)
    label_smoothing: float = setting("Preferences: share of the pairs that may be the wrong way round.", 0.0)

    def validate(self) -> "FinetuneConfig":
        """Return the config; raise SettingError at the first field out of range."""
        if self.objective not in OBJECTIVES:
            raise SettingError(f"objective: found {self.objective!r}, expected {' or '.join(OBJECTIVES)}")
        _check("row_tokens", self.row_tokens, self.row_tokens >= 2, "2 or more")
        _check("lora_rank", self.lora_rank, 0 <= self.lora_rank <= 1 << 16, "0 for all weights, or a small number such as 16")
        _check("lora_alpha", self.lora_alpha, 0 < self.lora_alpha < 1e6, "a positive number")
        _check("lora_dropout", self.lora_dropout, 0 <= self.lora_dropout < 1, "0 or more, below 1")
        _check("beta", self.beta, 0 < self.beta < 1e6, "a positive number")
        _check("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 0.5, "0 or more, below 0.5")
        unknown = [target for target in self.lora_targets if target not in LAYER_MATRICES]
        found, holds = ", ".join(unknown) or "none", bool(self.lora_targets) and not unknown
        _check("lora_targets", found, holds, ", ".join(LAYER_MATRICES))
        return self


def lora_targets_of(text: str) -> tuple[str, ...]:
    """The matrices that are meant by names with commas between; raise SettingError for a name that is none.

    >>> lora_targets_of("attention.query,mlp")
    ('attention.query', 'mlp.gate', 'mlp.up', 'mlp.down')
    """
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in wanted if not any(_is_meant(matrix, name) for matrix in LAYER_MATRICES)]
    if unknown or not wanted:
        expected = f"all, attention, mlp, or some of {', '.join(LAYER_MATRICES)}"
        raise SettingError(f"lora_targets: found {unknown[0] if unknown else 'none'}, expected {expected}")
    return tuple(matrix for matrix in LAYER_MATRICES if any(_is_meant(matrix, name) for name in wanted))


def _is_meant(matrix: str, name: str) -> bool:
    return name in ("all", matrix, *matrix.split("."))


@dataclass(frozen=True)
class Recipe:
    """A model's shape and how it is trained: the tables of recipe.toml. finetuning: only of a model that was trained before."""

    model: ModelConfig
    training: TrainConfig
    finetuning: FinetuneConfig | None = None

    def validate(self) -> "Recipe":
        """Return the recipe; raise ModelError or SettingError at the first field out of range."""
        if self.finetuning is None or self.finetuning.lora_rank == 0:  # an adapter is no model folder
            check_heads(self.model.width, self.model.n_heads)
        self.model.validate()
        self.training.validate()
        if self.finetuning is not None:
            self.finetuning.validate()
        return self

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The tables by name, for JSON and TOML."""
        tables = {"model": self.model.to_dict(), "training": asdict(self.training)}
        if self.finetuning is not None:
            tables["finetuning"] = asdict(self.finetuning) | {"lora_targets": list(self.finetuning.lora_targets)}
        return tables

    @classmethod
    def from_dict(cls, tables: dict[str, Any]) -> "Recipe":
        """The inverse of to_dict; raises ModelError or SettingError at a field that is unknown, missing or of another type."""
        if set(tables) - {"finetuning"} != {"model", "training"}:
            raise SettingError(f"recipe: found tables {', '.join(sorted(tables)) or 'none'}, expected model and training")
        model = _read_table(ModelConfig, "model", tables["model"])
        training = _read_table(TrainConfig, "training", tables["training"])
        of_chats = tables.get("finetuning")
        finetuning = None if of_chats is None else _read_table(FinetuneConfig, "finetuning", of_chats)
        return cls(model, training, finetuning).validate()

    def to_toml(self) -> str:
        """The text of recipe.toml."""
        return "\n".join(
            f"[{table}]\n" + "".join(f"{name} = {_toml(value)}\n" for name, value in values.items())
            for table, values in self.to_dict().items()
        )


def check_heads(width: int, n_heads: int) -> None:
    """Raise SettingError unless the heads divide the width, as in the folder of Hugging Face's layout that a run leaves."""
    _check("n_heads", n_heads, n_heads < 1 or width % n_heads == 0, f"a divisor of the width {width}")


def _read_table(kind: type[Table], table: str, values: Any, prefix: str = "") -> Table:
    """A config from plain values; raise SettingError at a field that is unknown, missing or of another type.

    table: its name; prefix: how its fields' names begin, where it is a part of another table.
    """
    if not isinstance(values, dict):
        raise SettingError(f"recipe: {table}: found {values!r}, expected a table")
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(set(values) - set(known)):
        raise SettingError(f"recipe: found unknown field {prefix}{unknown[0]}, expected one of {', '.join(known)}")
    if missing := [name for name in known if name not in values and known[name].default is MISSING]:
        raise SettingError(f"recipe: {prefix}{missing[0]}: found none, expected {_name_of(known[missing[0]].type)}")
    return kind(**{name: _read_value(prefix + name, value, known[name].type) for name, value in values.items()})


def _read_value(name: str, value: Any, kind: Any) -> Any:
    """A value as its field has it: lists are tuples there."""
    if RopeScaling in get_args(kind):
        return _read_table(RopeScaling, name, value, f"{name}.")
    if not _fits(value, kind):
        raise SettingError(f"recipe: {name}: found {value!r}, expected {_name_of(kind)}")
    return tuple(value) if isinstance(value, list) else value


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of the type of a field, for which a whole number is a number too, but true and false are none."""
    if get_origin(kind) is tuple:
        return isinstance(value, (list, tuple)) and all(_fits(entry, get_args(kind)[0]) for entry in value)
    return type(value) is kind or (kind is float and type(value) is int)


def _name_of(kind: Any) -> str:
    return f"a list of {get_args(kind)[0].__name__}" if get_origin(kind) is tuple else kind.__name__


def _toml(value: Any) -> str:
    """A value as TOML has it, which is JSON's way but for tables."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_toml(entry)}' for name, entry in value.items())} }}"
    return json.dumps(value)


def with_overrides(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """A recipe with some of its numbers replaced, by field name."""
    tables = recipe.to_dict()
    for name, value in overrides.items():
        kinds = {"model": ModelConfig, "training": TrainConfig, "finetuning": FinetuneConfig}
        table = next(table for table, kind in kinds.items() if name in kind.__dataclass_fields__)
        tables[table][name] = list(value) if isinstance(value, tuple) else value
    return Recipe.from_dict(tables)


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
