"""What config.json says of RoPE, both ways: base and stretching, as transformers 4 and 5 write them.

transformers 4 has rope_theta and rope_scaling, 5 has both in rope_parameters. Knows no other field of config.json.
Source: transformers' modeling_rope_utils.py.
"""

from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np

from llamita.config import ModelConfig, RopeScaling
from llamita.errors import ModelError, ModelFileError
from llamita.formats.json_text import shown
from llamita.model import rope_frequencies

# rope_type -> its numbers -> their fields in RopeScaling
_FIELDS: dict[str, dict[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_frequency_factor",
        "high_freq_factor": "high_frequency_factor",
        "original_max_position_embeddings": "original_context",
    },
}
_COMMON_FIELDS = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
_LLAMA3_FACTORS = (8.0, 32.0)  # of Llama 3.1 and 3.3, and of 3.2
_MAX_THETA = 1e12
_MAX_NUMBER = 1e9


def parse_rope(values: dict[str, object], path: str | PathLike[str]) -> tuple[float, RopeScaling | None]:
    """Base and stretching of RoPE from the fields of config.json; path is for messages.

    Raises ModelFileError, naming the field, for a kind that llamita does not compute, and where two fields disagree.
    """
    theta = positive_number(values, "rope_theta", path, _MAX_THETA, 10000.0)
    found: list[RopeScaling | None] = []
    for name in ("rope_scaling", "rope_parameters"):
        rope = values.get(name)
        if rope is None:
            continue
        found.append(_scaling(rope, name, path))
        assert isinstance(rope, dict)
        theta = positive_number(rope, "rope_theta", path, _MAX_THETA, theta, name)
    if len(set(found)) == 2:
        raise ModelFileError(path, "rope_scaling", shown(values["rope_scaling"]), "the same as in rope_parameters")
    return theta, found[0] if found else None


def rope_values(config: ModelConfig) -> dict[str, object]:
    """The fields of config.json that say it, for transformers 4 and 5.

    Raises ModelError for factors of single frequencies that are of no kind with a name.
    """
    scaling = _named(config)
    kind = scaling.kind if scaling else "default"
    numbers = {name: getattr(scaling, field) for name, field in _FIELDS[kind].items()}
    # before rope_type there was type; then linear came with nothing but a factor
    older = numbers | ({"type": kind} if kind == "linear" else {"rope_type": kind})
    return {
        "rope_parameters": numbers | {"rope_theta": config.rope_theta, "rope_type": kind},
        "rope_scaling": older if scaling else None,
        "rope_theta": config.rope_theta,
    }


def positive_number(
    values: dict[str, object],
    name: str,
    path: str | PathLike[str],
    below: float,
    default: float | None = None,
    within: str = "",
) -> float:
    """A field that is a number; a missing one stands for the default. within: of which object it is a field, for messages.

    Raises ModelFileError for anything else.
    """
    value = values.get(name, default)
    if type(value) not in (int, float) or not isinstance(value, int | float) or not 0 < value < below:
        raise ModelFileError(path, f"{within}.{name}".strip("."), shown(value), f"a positive number below {below:g}")
    return float(value)


def _scaling(rope: object, name: str, path: str | PathLike[str]) -> RopeScaling | None:
    """The stretching that one of the two objects says."""
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else None
    if not isinstance(rope, dict) or not isinstance(kind, str) or kind not in _FIELDS:
        found = shown(kind if isinstance(kind, str) else rope)
        raise ModelFileError(path, name, found, f"rope_type {', '.join(_FIELDS)}", "llamita does not stretch RoPE otherwise")
    if unknown := sorted(set(rope) - set(_FIELDS[kind]) - _COMMON_FIELDS):
        raise ModelFileError(path, name, f"{shown(unknown[0])} for {kind}", f"{', '.join(_FIELDS[kind]) or 'no numbers'}")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ModelFileError(path, f"{name}.partial_rotary_factor", shown(rope["partial_rotary_factor"]), "1.0")
    if kind == "default":
        return None
    numbers: dict[str, Any] = {
        field: positive_number(rope, key, path, _MAX_NUMBER, within=name) for key, field in _FIELDS[kind].items()
    }
    scaling = RopeScaling(kind, **numbers)
    if scaling.low_frequency_factor >= scaling.high_frequency_factor:
        raise ModelFileError(path, name, shown(rope), "low_freq_factor below high_freq_factor")
    if scaling.original_context < 1:
        raise ModelFileError(path, name, shown(rope), "an original_max_position_embeddings of at least 1")
    return replace(scaling, original_context=int(scaling.original_context))


def _named(config: ModelConfig) -> RopeScaling | None:
    """The stretching as one of the kinds with a name; factors of single frequencies may be those of one."""
    given = config.rope_scaling
    if given is None or given.kind != "factors":
        return given
    known = [RopeScaling("linear", given.factors[0]), *(RopeScaling("llama3", factor) for factor in _LLAMA3_FACTORS)]
    for scaling in (None, *known):
        if np.allclose(rope_frequencies(replace(config, rope_scaling=scaling)), rope_frequencies(config), rtol=1e-5, atol=0):
            return scaling
    expected = f"none, linear, or Llama 3's by {' or '.join(f'{factor:g}' for factor in _LLAMA3_FACTORS)}"
    raise ModelError(f"rope_scaling: found factors of their own, expected {expected}: config.json has no name for others")
