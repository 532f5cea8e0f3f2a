"""JSON from untrusted files: an object or a ModelFileError of one line, whatever the bytes are.

Stands under the readers of safetensors headers and of the config.json kind. Stricter than Python's json: UTF-8 only, no name
twice, no NaN, no half of a character, no nesting that exhausts the stack, and small, as a few bytes of JSON become a hundred in
memory. Knows no field of any format.
"""

import json
import re
from collections.abc import Iterable
from itertools import islice
from os import PathLike

from llamita.errors import ModelFileError

MAX_TEXT_BYTES = 1 << 20  # eight times the header of the largest Llama; one wide character makes a text four times as big
MAX_ITEMS = 1 << 16  # brackets and commas; the largest Llama has 1,138 tensors with eight each
_SHOWN_CHARACTERS = 80
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _JsonError(ValueError):
    """JSON that Python's reader would accept and we do not."""


def parse_object(
    data: bytes, path: str | PathLike[str], field: str = "content", max_items: int = MAX_ITEMS
) -> dict[str, object]:
    """Parse the bytes of one JSON object; path and field are for messages. Raises ModelFileError for anything else.

    max_items: brackets and commas, which bound the memory that the values take.
    """
    n_items = sum(map(data.count, (b"{", b"[", b",")))
    if n_items > max_items:
        raise ModelFileError(path, field, f"{n_items} brackets and commas", f"at most {max_items}")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # a ValueError where the halves of a pair do not meet
    except RecursionError:
        raise ModelFileError(path, field, "brackets nested too deeply", "JSON") from None
    except ValueError as error:  # of JSON, of UTF-8, or of an integer with thousands of digits
        raise ModelFileError(path, field, shown(error), "JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise ModelFileError(path, field, shown(value), "a JSON object")
    return value


def shown(value: object) -> str:
    """A value from a file as it may stand in a message: short, however long it is."""
    if isinstance(value, str | list):
        value = value[: _SHOWN_CHARACTERS + 1]
    elif isinstance(value, dict):
        value = dict(islice(value.items(), _SHOWN_CHARACTERS))
    text = str(value) if isinstance(value, str | Exception) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _unique(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in pairs:
        if name in values:
            raise _JsonError(f"the name {shown(name)} twice")
        values[name] = value
    return values


def _refuse_constant(name: str) -> object:
    raise _JsonError(f"the number {name}")
