"""Tool calls in the text of an answer, in the two forms that templates of Llamas teach; other text stays text.

hermes: <tool_call>{"name": ..., "arguments": {...}}</tool_call>, once for each call, among any text. llama3: the whole answer
is {"name": ..., "parameters": {...}}, perhaps several with semicolons between. A call names a tool that was offered and has
arguments, so that JSON about other things is not taken for one. Knows no request and no shape of answers.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NoReturn

Form = Literal["hermes", "llama3"]
OPENING, CLOSING = "<tool_call>", "</tool_call>"
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Call:
    """What the model wants to call; arguments are JSON."""

    name: str
    arguments: str


def form_of(template_source: str) -> Form | None:
    """The form that a Jinja template teaches its model; None where it is none that we know."""
    if OPENING in template_source:
        return "hermes"
    return "llama3" if '"parameters"' in template_source and "ipython" in template_source else None


class ToolText:
    """The text of one answer, as it comes; what may be a call is held back until the end. names: of the tools offered."""

    def __init__(self, form: Form, names: Collection[str]) -> None:
        self._form, self._names = form, names
        self._held = ""
        self._is_call = self._is_text = False

    def feed(self, text: str) -> str:
        """Return what of the text so far is certainly no call, and has not been returned."""
        self._held += text
        if self._is_call:
            return ""
        if self._form == "hermes":
            place, n_doubtful = self._held.find(OPENING), _n_beginning(self._held)
            self._is_call = place >= 0
            n_certain = place if self._is_call else len(self._held) - n_doubtful
        else:
            begun = self._held.lstrip()
            self._is_call = begun.startswith("{") and not self._is_text
            self._is_text |= bool(begun) and not self._is_call
            n_certain = len(self._held) if self._is_text else 0
        certain, self._held = self._held[:n_certain], self._held[n_certain:]
        return certain

    def finish(self) -> tuple[str, list[Call]]:
        """The rest of the text, and the calls; where one thing that looks like a call is none, all of it is text."""
        held, self._held = self._held, ""
        if not self._is_call:
            return held, []
        try:
            return _hermes_calls(held, self._names) if self._form == "hermes" else ("", _llama3_calls(held, self._names))
        except (ValueError, RecursionError):
            return held, []


def _n_beginning(text: str) -> int:
    """How many characters at the end of a text may be the beginning of a call."""
    return next((n for n in range(len(OPENING) - 1, 0, -1) if text.endswith(OPENING[:n])), 0)


def _hermes_calls(text: str, names: Collection[str]) -> tuple[str, list[Call]]:
    """The text outside of calls, and the calls; the end of the text may stand for that of the last one. Raises ValueError."""
    outside, calls, place = "", list[Call](), 0
    while (opening := text.find(OPENING, place)) >= 0:
        outside += text[place:opening]
        call, place = _call_at(text, opening + len(OPENING), names)
        calls.append(call)
        if place < len(text):
            place = _behind(CLOSING, text, place)
    outside += text[place:]
    return outside if outside.strip() else "", calls


def _llama3_calls(text: str, names: Collection[str]) -> list[Call]:
    """The calls that are the whole text; raises ValueError."""
    call, place = _call_at(text, 0, names)
    calls = [call]
    while place < len(text):
        call, place = _call_at(text, _behind(";", text, place), names)
        calls.append(call)
    return calls


def _behind(sign: str, text: str, place: int) -> int:
    if not text.startswith(sign, place):
        raise ValueError(f"expected {sign}")
    return place + len(sign)


def _call_at(text: str, place: int, names: Collection[str]) -> tuple[Call, int]:
    """The call that a text has at a place, and the place behind it and the white space around; raises ValueError."""
    value, end = _JSON.raw_decode(text, _no_space(text, place))
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or value["name"] not in names:
        raise ValueError("expected the name of a tool")
    arguments = value.get("arguments", value.get("parameters"))
    if not isinstance(arguments, dict):
        raise ValueError("expected arguments")
    return Call(value["name"], json.dumps(arguments, allow_nan=False)), _no_space(text, end)


def _no_space(text: str, place: int) -> int:
    space = _SPACE.match(text, place)
    return space.end() if space else place


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
