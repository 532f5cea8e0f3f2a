"""JinjaTemplate: the chat template that comes with a model, run in the sandbox.

Special tokens that are spelled in messages, tools and other variables are broken by a character that no text holds before the
template sees them, and mended when they are tokens no more: so only what the template itself writes becomes a special token.
Marks that the vocabulary has as text only, as Llama 2's [INST], cannot be told apart here. What a model says of a text is found
by rendering the messages before it as well, which is what the model will be prompted with. Knows no model.
"""

import re
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from llamita.errors import ChatTemplateError, one_line
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.answers import Example, Run, answers_of, encode_runs
from llamita.tokenizer.marks import END_TEXTS, encode_marked
from llamita.tokenizer.messages import ROLES, Message, plain_messages, refuse_calls

MAX_CHARACTERS = 1 << 16  # of a template; the longest in use have some 20,000
_BREAK = "\ufdd0"  # one of the code points that Unicode keeps for the inside of programs
_SAID, _SAID_END = "\ufdd1", "\ufdd2"  # around what {% generation %} holds
_UNTEXT = str.maketrans(dict.fromkeys((_BREAK, _SAID, _SAID_END), "\ufffd"))


class JinjaTemplate:
    """A Jinja source for the messages of a vocabulary; see ChatTemplate. Raises ChatTemplateError where it cannot be used."""

    name = "jinja"
    stop_texts: tuple[str, ...] = ()

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        from llamita.tokenizer.sandbox import Sandbox

        if len(source) > MAX_CHARACTERS:
            raise ChatTemplateError(f"chat template: found {len(source):,} characters, expected at most {MAX_CHARACTERS:,}")
        if "messages" not in source:
            raise ChatTemplateError("chat template: found none that writes messages, expected one of Jinja")
        self.source, self._tokenizer = source, tokenizer
        special = tokenizer.special_tokens
        self.stop_ids = frozenset({tokenizer.eos_id, *(special[end] for end in END_TEXTS if end in special and end in source)})
        self.stop_ids -= {-1}
        spelling = {token_id: text for text, token_id in special.items()}
        ends = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
        self._ends = {name: spelling[token_id] for name, token_id in ends.items() if token_id in spelling}
        marks = sorted((text for text in special if len(text) > 1), key=len, reverse=True)
        self._marks = re.compile("|".join(map(re.escape, marks)) or r"(?!)", re.IGNORECASE)
        self._beginnings = {mark[:n] for mark in marks for n in range(1, len(mark))}
        self._longest = max(map(len, marks), default=0)
        self._lock = threading.Lock()  # the sandbox renders one text at a time
        stops = sorted((spelling[token_id] for token_id in self.stop_ids if token_id in spelling), key=len, reverse=True)
        self._stops = re.compile("|".join(map(re.escape, stops)) or r"(?!)")
        try:
            self._render_source = Sandbox((_SAID, _SAID_END)).compile_template(source)
        except Exception as error:
            raise _explain(error) from None

    def render(self, messages: Iterable[Message], add_generation_prompt: bool = True, **variables: Any) -> str:
        """The text of the messages; see ChatTemplate.render."""
        return self._render_broken(messages, add_generation_prompt, variables).replace(_BREAK, "")

    def encode(self, messages: Iterable[Message], add_generation_prompt: bool = True, **variables: Any) -> list[int]:
        """The ids of the messages; see ChatTemplate.encode."""
        return self._encode_broken(self._render_broken(messages, add_generation_prompt, variables))

    def encode_answers(
        self, messages: Iterable[Message], learned: Collection[int] | None = None, **variables: Any
    ) -> list[Example]:
        """The ids of the messages with their answers counted; see ChatTemplate.encode_answers.

        Where the template marks what the assistant says by {% generation %}, that is counted. Raises ChatTemplateError where an
        answer does not begin as the prompt for it does: what the model would have to say is unknown then.
        """
        messages = plain_messages(messages)
        learned = answers_of(messages) if learned is None else learned
        marked = self._render_marked(messages, False, variables)
        text = _unmarked(marked)
        if _SAID in marked:
            return [self._encode_said(text, _spans(marked, messages, learned))]
        spans, alone = list[tuple[int, int]](), list[Example]()
        for index in sorted(learned):
            prompt = self._render_broken(messages[:index], True, variables)
            said = text if index == len(messages) - 1 else self._render_broken(messages[: index + 1], False, variables)
            if not said.startswith(prompt):
                found = f"message {index}: found an answer that does not begin as the prompt for it does"
                raise ChatTemplateError(f"chat template: {found}, expected one that goes on from it")
            if text.startswith(said):
                spans.append((len(prompt), len(said)))
            else:
                alone.append(self._encode_said(said, [(len(prompt), len(said))]))
        return [*alone, self._encode_said(text, spans)] if spans or not alone else alone

    def _encode_said(self, text: str, spans: Sequence[tuple[int, int]]) -> Example:
        """The ids of a text with spans of it counted, each up to the first mark that ends an answer."""
        stops = [self._stops.search(text, start, end) for start, end in spans]
        ends = [stop.end() if stop else end for stop, (_, end) in zip(stops, spans, strict=True)]
        places = [0, *(place for (start, _), end in zip(spans, ends, strict=True) for place in (start, end)), len(text)]
        runs = [Run(text[first:end], i % 2 == 1) for i, (first, end) in enumerate(pairwise(places))]
        return encode_runs(self._tokenizer, self._encode_broken, runs, self.stop_ids if all(stops) else ())

    def _encode_broken(self, text: str) -> list[int]:
        return encode_marked(self._tokenizer, text, _BREAK) if _BREAK in text else self._tokenizer.encode_marked(text)

    def _render_broken(self, messages: Iterable[Message], add_generation_prompt: bool, variables: Mapping[str, Any]) -> str:
        """The text with special tokens broken where they come from outside of the template."""
        return _unmarked(self._render_marked(messages, add_generation_prompt, variables))

    def _render_marked(self, messages: Iterable[Message], add_generation_prompt: bool, variables: Mapping[str, Any]) -> str:
        """The broken text, with what the template says that the assistant said between _SAID and _SAID_END."""
        given = [self._renamed(message) for message in plain_messages(messages)]
        for index, message in enumerate(given):
            if message.get("tool_calls") and "tool_calls" not in self.source:
                refuse_calls(index, "the model's chat template")
        outside: dict[str, Any] = {"tools": None, "documents": None, **variables, "messages": given}
        counter = _Counter()
        try:
            broken = {name: self._broken(value, counter) for name, value in outside.items()}
            for message, original in zip(broken["messages"], given, strict=True):
                message["role"] = original["role"] if original["role"] in ROLES else message["role"]
            names = self._ends | {"add_generation_prompt": add_generation_prompt} | broken
            with self._lock:
                return self._render_source(names, counter.n)
        except Exception as error:
            raise _explain(error) from None

    def _renamed(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message of a developer is one of the system to templates that know no developers."""
        is_unknown = message["role"] == "developer" and "developer" not in self.source
        return message | {"role": "system"} if is_unknown else message

    def _broken(self, value: Any, counter: "_Counter") -> Any:
        """A copy of plain data with special tokens, and beginnings of such at the end of a text, broken."""
        counter.n += 1
        if isinstance(value, str):
            counter.n += len(value)
            text = self._marks.sub(lambda mark: mark[0][0] + _BREAK + mark[0][1:], value.translate(_UNTEXT))
            return text + _BREAK if any(text[-n:] in self._beginnings for n in range(1, self._longest)) else text
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {self._broken(name, counter): self._broken(item, counter) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._broken(item, counter) for item in value]
        raise ChatTemplateError(f"found a value of type {type(value).__name__}, expected what JSON can hold")


def _unmarked(text: str) -> str:
    return text.replace(_SAID, "").replace(_SAID_END, "") if _SAID in text else text


def _spans(marked: str, messages: Sequence[Message], learned: Collection[int]) -> list[tuple[int, int]]:
    """First and last place of what the template marks, in the text without marks, of the answers that are learned."""
    spans, n_before = list[tuple[int, int]](), 0
    for found in re.finditer(f"{_SAID}([^{_SAID}{_SAID_END}]*){_SAID_END}", marked):
        start = found.start() - n_before
        spans.append((start, start + len(found[1])))
        n_before += 2
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if len(spans) != len(answers) or marked.count(_SAID) != len(spans):
        found = f"{marked.count(_SAID)} marks of {{% generation %}} in {len(answers)} answers"
        raise ChatTemplateError(f"chat template: found {found}, expected one in each")
    return [span for index, span in zip(answers, spans, strict=True) if index in learned]


class _Counter:
    """Counts the characters and values that a template is given."""

    n = 0


def _explain(error: Exception) -> ChatTemplateError:
    """The error to raise for whatever went wrong in a template, in one line."""
    line = f"line {number}: " if (number := getattr(error, "lineno", None)) else ""
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    return ChatTemplateError(one_line(f"chat template: {line}{text}"[:1000]))
