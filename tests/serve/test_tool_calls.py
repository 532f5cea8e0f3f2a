"""Tool calls: found where the template teaches a form of them, in pieces of any size."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from web import Web, serving, talk

from llamita.model import Model
from llamita.serve.tool_calls import Call, ToolText, form_of

LLAMA3 = """{% for m in messages %}{% if m.role == "tool" %}ipython{% endif %}{{ m.content }}{% endfor %}
{%- if tools %}{{ tools | length }} "parameters"{% endif %}"""
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def told(form, text: str, size: int) -> tuple[str, str, list[Call]]:
    """Feed a text in pieces: (what came at once, the rest, the calls)."""
    tool_text = ToolText(form)
    at_once = "".join(tool_text.feed(text[i : i + size]) for i in range(0, len(text), size))
    return at_once, *tool_text.finish()


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("form", "text", "content", "calls"),
    [
        (
            "hermes",
            'Let me look.<tool_call>{"name": "a", "arguments": {"x": 1}}</tool_call>',
            "Let me look.",
            [("a", {"x": 1})],
        ),
        (
            "hermes",
            '<tool_call>{"name": "a"}</tool_call>\n<tool_call>\n{"name": "b"}\n</tool_call>',
            "",
            [("a", {}), ("b", {})],
        ),
        ("hermes", '<tool_call>{"name": "a"}', "", [("a", {})]),  # its end may be the end of the answer
        ("hermes", "a < b, <tool_cal", "a < b, <tool_cal", []),
        ("hermes", "<tool_call>none</tool_call>", "<tool_call>none</tool_call>", []),
        ("hermes", '<tool_call>{"name": 5}</tool_call>', '<tool_call>{"name": 5}</tool_call>', []),
        ("llama3", '{"name": "a", "parameters": {"x": "y"}}', "", [("a", {"x": "y"})]),
        ("llama3", '\n{"name": "a"}; {"name": "b"}', "", [("a", {}), ("b", {})]),
        ("llama3", 'Like this: {"name": "a"}', 'Like this: {"name": "a"}', []),
        ("llama3", '{"name": "a", "parameters"', '{"name": "a", "parameters"', []),
        ("llama3", '{"name": "a", "parameters": [1]}', '{"name": "a", "parameters": [1]}', []),
        ("llama3", '{"a":' * 5000, '{"a":' * 5000, []),
    ],
)
def test_calls_are_told_from_text(size: int, form, text: str, content: str, calls: list):
    at_once, rest, found = told(form, text, size)
    assert at_once + rest == content
    assert [(call.name, json.loads(call.arguments)) for call in found] == calls


def test_text_before_a_call_comes_at_once():
    assert told("hermes", "Let me look.<tool_call>", 1)[0] == "Let me look."
    assert told("llama3", "It rains.", 1)[0] == "It rains."


def test_forms_are_known_by_the_template():
    assert form_of("... <tool_call>{{ x }}</tool_call>") == "hermes"
    assert form_of(LLAMA3) == "llama3"
    assert form_of("{{ messages }}{{ tools }}") is None


@pytest.fixture(scope="module")
def with_tools(toy_model: Model) -> Iterator[Web]:
    with serving(replace(toy_model, chat_template=LLAMA3)) as web:
        yield web


def test_an_answer_that_is_a_call_comes_as_one(with_tools: Web):
    call = {"name": "weather", "parameters": {"city": "Rome"}}
    schema = {"type": "json_schema", "json_schema": {"schema": {"const": call}}}
    body = {"messages": talk("Rain?"), "tools": TOOLS, "response_format": schema}
    answer = with_tools.post("/v1/chat/completions", body)
    assert answer.status == 200, answer.data
    choice = answer.json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (made,) = choice["message"]["tool_calls"]
    assert (made["type"], made["function"]["name"]) == ("function", "weather")
    assert json.loads(made["function"]["arguments"]) == {"city": "Rome"}
    events = with_tools.post("/v1/chat/completions", body | {"stream": True}).events
    deltas = [event["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content", "") for delta in deltas) == ""
    (streamed,) = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
    assert streamed[0]["function"] == made["function"]
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    answered = [*talk("Rain?"), choice["message"], {"role": "tool", "content": "No.", "tool_call_id": made["id"]}]
    assert with_tools.post("/v1/chat/completions", body | {"messages": answered}).status == 200


def test_without_tools_the_same_text_is_text(with_tools: Web):
    schema = {"type": "json_schema", "json_schema": {"schema": {"const": {"name": "weather"}}}}
    for more in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        answer = with_tools.chat("Rain?", response_format=schema, **more)["choices"][0]
        assert (answer["message"]["content"], answer["finish_reason"]) == ('{"name": "weather"}', "stop")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_cannot_be_forced(with_tools: Web, choice: object):
    answer = with_tools.post("/v1/chat/completions", {"messages": talk("Rain?"), "tools": TOOLS, "tool_choice": choice})
    assert (answer.status, answer.error["param"]) == (400, "tool_choice")
