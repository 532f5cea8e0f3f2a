"""adapter_config.json of PEFT, both ways: which matrices an adapter changes, by what rank and scale, and what else it brings.

A field that changes the computation and that we do not compute is refused by name; the rest, such as how training began, is
passed over. Knows no tensor; modules go by their names in PEFT, such as model.layers.0.self_attn.q_proj. Source: PEFT's
LoraConfig (tuners/lora/config.py) and its matching of names (utils/other.py, tuners/tuners_utils.py).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, TypeVar

from llamita.config import LIMITS
from llamita.errors import ModelFileError
from llamita.files import read_file
from llamita.formats.json_text import MAX_TEXT_BYTES, parse_object, shown

T = TypeVar("T", int, float)

# What a field may say, first as the default is; anything else is another computation
_ONLY: dict[str, tuple[object, ...]] = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "use_qalora": (False, None),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None,),
    "use_bdlora": (None, False),
    "kasa_config": (None,),
    "monteclora_config": (None,),
}
_NOT_OURS = "llamita applies plain LoRA only"
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica")  # of A and B: the model's weights stay as they are
_CONVERT = "save it with path_initial_model_for_weight_conversion=..., which makes plain LoRA of it"
_MAX_NUMBER = 1e9
_NAME = re.compile(r"[\w.-]+")
# Some patterns take ages to match, and anybody may have written this one: few choices, and no repetition of a group
_PATTERN = re.compile(r"(?:[\w.|()^$-]|\[[\w-]+\]|\\[.dw]|(?<=[\w.\]])[*+?])*")
_MAX_KEYS, _MAX_PATTERNS, _MAX_CHARACTERS, _MAX_REPETITIONS, _MAX_GROUPS = 1 << 14, 32, 256, 2, 2


@dataclass(frozen=True)
class AdapterConfig:
    """What adapter_config.json says. rank, alpha: of modules that no key of ranks and alphas matches.

    targets: names of modules that have A and B, or the ends of names; () where that is not told by names. layers: only in
    these, () for all. saved: modules whose whole weights are there. token_ids: module -> ids of the rows that are there. ties:
    whether what is said of the embedding holds for the classifier of a model, too, whose two are one.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    use_rslora: bool = False
    base: str = ""
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    saved: tuple[str, ...] = ()
    token_ids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ties: bool = False

    def rank_of(self, module: str) -> int:
        """The rank of a module's A and B."""
        return _first_match(self.ranks, module, self.rank)

    def alpha_of(self, module: str) -> float:
        """The number that scales a module's B A, once it is divided by the rank or its square root."""
        return _first_match(self.alphas, module, self.alpha)

    def is_target(self, module: str) -> bool:
        """Whether `targets` says that a module has A and B."""
        if _is_one_of(module, self.excluded) or any(f".{name}." in f".{module}." for name in self.saved):
            return False
        layer = re.search(r"\.(\d+)\.", module)
        return _is_one_of(module, self.targets) and (not self.layers or layer is None or int(layer[1]) in self.layers)

    def is_saved(self, module: str) -> bool:
        """Whether the whole weight of a module comes with the adapter."""
        parents = [module[: match.start()] for match in re.finditer(r"\.|$", module)]
        return any(parent.endswith(self.saved) for parent in parents)


def read_adapter_config(path: str | PathLike[str]) -> AdapterConfig:
    """Read adapter_config.json; raise ModelFileError, naming the field, for what is no LoRA that we can compute."""
    values = parse_object(read_file(path, MAX_TEXT_BYTES), path)
    _check_computation(values, path)
    base = values.get("base_model_name_or_path")
    targets, excluded = values.get("target_modules"), values.get("exclude_modules")
    are_named = isinstance(targets, list) and not isinstance(excluded, str)  # else they are patterns
    return AdapterConfig(
        rank=_whole(values.get("r", 8), "r", path),
        alpha=_number(values.get("lora_alpha", 8), "lora_alpha", path),
        dropout=_number(values.get("lora_dropout", 0.0), "lora_dropout", path),
        use_rslora=_flag(values, "use_rslora", path),
        base=base if isinstance(base, str) else "",
        ranks=_by_pattern(values, "rank_pattern", path, _whole),
        alphas=_by_pattern(values, "alpha_pattern", path, _number),
        targets=_texts(targets, "target_modules", path) if are_named else (),
        excluded=_texts(excluded, "exclude_modules", path) if are_named else (),
        layers=_ids(values.get("layers_to_transform"), "layers_to_transform", path, LIMITS["n_layers"]),
        saved=_texts(values.get("modules_to_save"), "modules_to_save", path),
        token_ids=_token_ids(values.get("trainable_token_indices"), path),
        ties=_flag(values, "ensure_weight_tying", path),
    )


def adapter_config_values(config: AdapterConfig) -> dict[str, object]:
    """The fields of the adapter_config.json of this config, as PEFT has them; of those that adapter_writer.py has a use for."""
    alphas = {key: _plain(alpha) for key, alpha in config.alphas.items()}
    values: dict[str, object] = {
        "base_model_name_or_path": config.base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": _plain(config.alpha),
        "lora_dropout": config.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": dict(config.ranks),
        "alpha_pattern": alphas,
        "target_modules": list(config.targets),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": config.use_rslora,
    }
    if config.token_ids:
        values["trainable_token_indices"] = {module: list(ids) for module, ids in config.token_ids.items()}
    return dict(sorted(values.items()))


def _check_computation(values: dict[str, object], path: str | PathLike[str]) -> None:
    kind = values.get("peft_type")
    if kind != "LORA":
        raise ModelFileError(path, "peft_type", shown(kind), "LORA", _NOT_OURS)
    for name, allowed in _ONLY.items():
        value = values.get(name, allowed[0])
        if not any(type(value) is type(choice) and value == choice for choice in allowed):
            raise ModelFileError(path, name, shown(value), shown(allowed[0]), _NOT_OURS)
    start = values.get("init_lora_weights", True)
    if not (start is None or isinstance(start, bool) or start in _PLAIN_STARTS):
        expected = "true, or a beginning that leaves the model's weights as they are"
        raise ModelFileError(path, "init_lora_weights", shown(start), expected, _CONVERT)


def _first_match(patterns: Mapping[str, T], module: str, default: T) -> T:
    """The value of the first key that matches the end of a module's name, as PEFT's get_pattern_key finds it."""
    for key, value in patterns.items():
        is_match = _is_one_of(module, (key,)) if _NAME.fullmatch(key) else re.match(rf"(.*\.)?({key})$", module)
        if is_match:
            return value
    return default


def _is_one_of(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _by_pattern(
    values: dict[str, object], field: str, path: str | PathLike[str], read: Callable[[object, str, str | PathLike[str]], T]
) -> dict[str, T]:
    """An object whose names are names of modules, or patterns that they match."""
    entries = values.get(field)
    entries = {} if entries is None else entries
    if not isinstance(entries, dict) or len(entries) > _MAX_KEYS:
        raise ModelFileError(path, field, shown(entries), f"an object of at most {_MAX_KEYS} numbers")
    patterns = [key for key in entries if not _NAME.fullmatch(key)]
    if len(patterns) > _MAX_PATTERNS:
        raise ModelFileError(path, field, f"{len(patterns)} patterns", f"names, or at most {_MAX_PATTERNS} patterns")
    for pattern in patterns:
        _check_pattern(pattern, field, path)
    return {key: read(number, f"{field} of {shown(key)}", path) for key, number in entries.items()}


def _check_pattern(pattern: str, field: str, path: str | PathLike[str]) -> None:
    """Refuse a pattern that could take long to match."""
    is_plain = len(pattern) <= _MAX_CHARACTERS and _PATTERN.fullmatch(pattern) is not None
    if not is_plain or len(re.findall("[*+?]", pattern)) > _MAX_REPETITIONS or pattern.count("(") > _MAX_GROUPS:
        expected = f"names, or plain patterns with at most {_MAX_REPETITIONS} of *, + and ? and {_MAX_GROUPS} groups"
        raise ModelFileError(path, field, shown(pattern), expected, "write the names of the modules")
    try:
        re.compile(rf"(.*\.)?({pattern})$")
    except re.error as error:
        raise ModelFileError(path, field, f"{shown(pattern)} ({error})", "a pattern of names") from None


def _texts(value: object, field: str, path: str | PathLike[str]) -> tuple[str, ...]:
    texts = [] if value is None else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise ModelFileError(path, field, shown(value), "a list of names")
    return tuple(texts)


def _token_ids(value: object, path: str | PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Module -> ids of its rows; a list is about the embedding."""
    name = "trainable_token_indices"
    of_modules = value if isinstance(value, dict) else {} if value is None else {"embed_tokens": value}
    return {module: _ids(ids, f"{name} of {shown(module)}", path, LIMITS["vocab_size"]) for module, ids in of_modules.items()}


def _ids(value: object, field: str, path: str | PathLike[str], limit: int) -> tuple[int, ...]:
    """Different numbers from 0 to limit - 1; a single one, too."""
    ids: list[Any] = [] if value is None else value if isinstance(value, list) else [value]
    if not all(type(number) is int and 0 <= number < limit for number in ids) or len(set(ids)) != len(ids):
        raise ModelFileError(path, field, shown(value), f"different numbers from 0 to {limit - 1}")
    return tuple(ids)


def _whole(value: object, field: str, path: str | PathLike[str]) -> int:
    if type(value) is not int or not 1 <= value <= LIMITS["width"]:
        raise ModelFileError(path, field, shown(value), f"a whole number from 1 to {LIMITS['width']}")
    return value


def _number(value: object, field: str, path: str | PathLike[str]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_NUMBER:
        raise ModelFileError(path, field, shown(value), f"a number from 0 to {_MAX_NUMBER:g}")
    return float(value)


def _flag(values: dict[str, object], field: str, path: str | PathLike[str]) -> bool:
    value = values.get(field, False)
    if value is not None and not isinstance(value, bool):
        raise ModelFileError(path, field, shown(value), "true or false")
    return bool(value)


def _plain(number: float) -> float | int:
    """16 instead of 16.0: PEFT's alpha is a whole number mostly."""
    return int(number) if number == int(number) else number
