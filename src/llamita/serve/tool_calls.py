"""Tool calls in the text of an answer, in the two forms that templates of Llamas teach; other text stays text.

hermes: <tool_call>{"name": ..., "arguments": {...}}</tool_call>, once for each call, behind any text. llama3: the whole answer
is {"name": ..., "parameters": {...}}, perhaps several with semicolons between. Knows no request and no shape of answers.
"""

import json
import re
from dataclasses import dataclass
from typing import Literal

Form = Literal["hermes", "llama3"]
OPENING = "<tool_call>"
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


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
    """The text of one answer, as it comes; what may be a call is held back until the end."""

    def __init__(self, form: Form) -> None:
        self._form = form
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
        """The rest of the text, and the calls; what looked like calls and is none is text."""
        held, self._held = self._held, ""
        texts = _CALL.findall(held) if self._form == "hermes" else held.split(";")
        calls = [_parsed(text) for text in texts] if self._is_call else []
        whole = [call for call in calls if call]
        return ("", whole) if calls and len(whole) == len(calls) else (held, [])


def _n_beginning(text: str) -> int:
    """How many characters at the end of a text may be the beginning of a call."""
    return next((n for n in range(len(OPENING) - 1, 0, -1) if text.endswith(OPENING[:n])), 0)


def _parsed(text: str) -> Call | None:
    """The call that a text spells; None for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    return Call(value["name"], json.dumps(arguments)) if isinstance(arguments, dict) else None
