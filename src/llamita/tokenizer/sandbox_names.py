"""The filters, functions and methods that chat templates find in the sandbox; see sandbox.py.

Those of jinja2 and str that real templates use, but for what makes much of little (center, batch, zfill, ...), reads the random
generator or writes HTML. What differs from jinja2 differs as transformers has it.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2.exceptions import SecurityError, TemplateError
from jinja2.filters import FILTERS, do_indent, do_round, make_attrgetter
from jinja2.utils import Cycler, Joiner, Namespace

from llamita.tokenizer.budget import WIDEST

if TYPE_CHECKING:
    from llamita.tokenizer.sandbox import Sandbox

_FILTERS = (
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "groupby", "int",
    "items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "safe", "select",
    "selectattr", "sort", "string", "title", "trim", "truncate", "unique", "upper", "urlencode", "wordcount",
)  # fmt: skip
HARMLESS_METHODS = {
    str: {
        "capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha", "isascii", "isdecimal",
        "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition",
        "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines",
        "startswith", "strip", "swapcase", "title", "upper",
    },
    Mapping: {"get", "items", "keys", "values"},
    (list, tuple): {"count", "grouper", "index", "list"},  # two of them are of what groupby gives
    (int, float, complex, bytes, type): set(),
}  # fmt: skip


def filters_of(sandbox: "Sandbox") -> dict[str, Callable[..., Any]]:
    """Name -> filter; each takes its time from the sandbox's budget, and has its result weighed."""

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        sandbox.budget.check_width(indent)
        encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        parts, n_characters = [], 0
        for part in encoder.iterencode(sandbox.budget.weigh(value)):
            n_characters += len(part)
            sandbox.budget.check_length(n_characters)
            parts.append(part)
        return "".join(parts)

    def join(values: Iterable[Any], d: Any = "", attribute: str | int | None = None) -> str:
        return sandbox.budget.join(str(d), _attributes(sandbox, values, attribute))

    def total(values: Iterable[Any], attribute: str | int | None = None, start: float = 0) -> float:
        numbers = sandbox.budget.take(_attributes(sandbox, values, attribute))
        if not all(isinstance(number, int | float) for number in (start, *numbers)):
            raise TemplateError("found a sum of other things than numbers")
        return sum(numbers, start)

    def replace(text: Any, old: Any, new: Any, count: int | None = None) -> str:
        return sandbox.budget.replace(str(text), str(old), str(new), count)

    def indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text = str(text)
        sandbox.budget.check_length(len(text) + (text.count("\n") + 1) * sandbox.budget.check_width(width))
        return do_indent(text, width, first, blank)

    def rounded(number: float, precision: int = 0, method: Any = "common") -> float:
        return do_round(number, sandbox.budget.check_width(precision), method)

    own = {"tojson": tojson, "join": join, "sum": total, "replace": replace, "indent": indent, "round": rounded}
    functions: dict[str, Callable[..., Any]] = {name: FILTERS[name] for name in _FILTERS} | own
    return {name: _metered(sandbox, function) for name, function in functions.items()}


def functions_of(sandbox: "Sandbox") -> dict[str, Any]:
    """Name -> what a template may call."""

    def bounded_range(*bounds: int) -> range:
        numbers = range(*bounds)
        sandbox.budget.check_items(len(numbers))
        return numbers

    return {
        "cycler": Cycler,
        "dict": _new_dict,
        "joiner": Joiner,
        "namespace": _Namespace,
        "raise_exception": _refuse,
        "range": bounded_range,
        "strftime_now": _format_now,
    }


def _metered(sandbox: "Sandbox", function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # which also copies the mark by which jinja2 knows that a filter wants the environment
    def filter_(*args: Any, **kwargs: Any) -> Any:
        sandbox.budget.step()
        return sandbox.budget.weigh(function(*args, **kwargs))

    return filter_


def _attributes(sandbox: "Sandbox", values: Iterable[Any], attribute: str | int | None) -> Iterable[Any]:
    return values if attribute is None else map(make_attrgetter(sandbox, attribute), values)


def _new_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(str(message))


def _format_now(pattern: str) -> str:
    if len(pattern) > WIDEST or re.search(r"\d{3}", pattern):
        raise TemplateError(f"found the pattern {pattern[:WIDEST]!r}, expected that of a date")
    return datetime.now().strftime(pattern)


class _Namespace(Namespace):
    """A namespace that keeps Python's own names out and, as text, shows none of its values, which may hold each other."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # without self, so that there may be a value of that name
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"


def _check_name(name: str) -> None:
    if name.startswith("_"):
        raise SecurityError(f"found {name!r} in a namespace, expected a name without an underscore in front")
