"""Tool calls: found where the template teaches a form of them, in pieces of any size."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from web import Web, serving, talk

from llamita.model import Model
from llamita.serve.requests import SchemaFormat
from llamita.serve.tool_calls import Call, ToolText, form_of

LLAMA3 = """{% for m in messages %}{% if m.role == "tool" %}ipython{% endif %}{{ m.content }}{% endfor %}
{%- if tools %}{{ tools | length }} "parameters"{% endif %}"""
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def told(form, text: str, size: int) -> tuple[str, str, list[Call]]:
    """Feed a text in pieces: (what came at once, the rest, the calls)."""
    tool_text = ToolText(form, {"a", "b"})
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
            '<tool_call>{"name": "a", "arguments": {}}</tool_call>\n<tool_call>\n{"name": "b", "parameters": {}}\n</tool_call>',
            "",
            [("a", {}), ("b", {})],
        ),
        ("hermes", '<tool_call>{"name": "a", "arguments": {}}', "", [("a", {})]),  # its end may be the end of the answer
        (
            "hermes",
            'One.<tool_call>{"name": "a", "arguments": {"x": "</tool_call>"}}</tool_call> Two.',
            "One. Two.",
            [("a", {"x": "</tool_call>"})],
        ),
        ("hermes", "a < b, <tool_cal", "a < b, <tool_cal", []),
        ("hermes", "<tool_call>none</tool_call>", "<tool_call>none</tool_call>", []),
        ("hermes", '<tool_call>{"name": 5}</tool_call>', '<tool_call>{"name": 5}</tool_call>', []),
        ("llama3", '{"name": "a", "parameters": {"x": "y"}}', "", [("a", {"x": "y"})]),
        ("llama3", '\n{"name": "a", "parameters": {}} ; {"name": "b", "arguments": {}}\n', "", [("a", {}), ("b", {})]),
        ("llama3", '{"name": "a", "parameters": {"q": "select 1; select 2"}}', "", [("a", {"q": "select 1; select 2"})]),
        ("llama3", 'Like this: {"name": "a"}', 'Like this: {"name": "a"}', []),
        ("llama3", '{"name": "a", "parameters"', '{"name": "a", "parameters"', []),
        ("llama3", '{"name": "a", "parameters": [1]}', '{"name": "a", "parameters": [1]}', []),
        ("llama3", '{"a":' * 5000, '{"a":' * 5000, []),
        *[
            (form, before + text + behind, before + text + behind, [])
            for form, before, behind in (("llama3", "", ""), ("hermes", "<tool_call>", "</tool_call>"))
            for text in (
                '{"name": "Bob", "parameters": {}}',  # no tool of that name
                '{"name": "a", "age": 3}',
                '{"name": ["a"], "parameters": {}}',
                '{"name": "a", "parameters": {"x": NaN}}',
                '{"name": "a", "parameters": {"x": 1e999}}',
                '{"name": "a", "parameters": {}} {"name": "b", "parameters": {}}',
                '{"name": "a", "parameters": {}};',
            )
        ],
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


CALL = {"name": "weather", "parameters": {"city": "Rome"}}


def constant(value: object) -> dict:
    """response_format for one value."""
    return {"type": "json_schema", "json_schema": {"schema": {"const": value}}}


@pytest.fixture
def says(with_tools: Web, monkeypatch) -> Callable[[object], None]:
    """Let the model say a value in JSON, whatever a request asks for."""

    def prepare(value: object) -> None:
        wish = SchemaFormat.model_validate(constant(value))
        make = with_tools.service.model.structures.maker(wish)
        monkeypatch.setattr("llamita.serve.jobs.grammar_maker", lambda *_: make)

    return prepare


def test_an_answer_that_is_a_call_comes_as_one(with_tools: Web, says):
    says(CALL)
    body = {"messages": talk("Rain?"), "tools": TOOLS}
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


def test_json_about_other_things_is_no_call(with_tools: Web, says):
    says({"name": "Bob", "age": 3})
    body = {"messages": talk("Who?"), "tools": TOOLS}
    message = with_tools.post("/v1/chat/completions", body).json["choices"][0]["message"]
    assert message == {"role": "assistant", "content": '{"name": "Bob", "age": 3}', "refusal": None}
    events = with_tools.post("/v1/chat/completions", body | {"stream": True}).events
    deltas = [event["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content", "") for delta in deltas) == message["content"]
    assert not any("tool_calls" in delta for delta in deltas)


def test_an_answer_whose_form_is_prescribed_is_no_call(with_tools: Web):
    body = {"messages": talk("Rain?"), "tools": TOOLS, "response_format": constant(CALL)}
    choice = with_tools.post("/v1/chat/completions", body).json["choices"][0]
    assert (json.loads(choice["message"]["content"]), choice["finish_reason"]) == (CALL, "stop")
    assert "tool_calls" not in choice["message"]
    events = with_tools.post("/v1/chat/completions", body | {"stream": True}).events
    deltas = [event["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content", "") for delta in deltas) == choice["message"]["content"]


ASKED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather"}}],
}
TOLD = {"role": "tool", "content": "No.", "tool_call_id": "c1"}
WRITES_CALLS = """{% for m in messages %}{{ m.role + m.content }}{% for call in m.tool_calls or [] %}
{{- call.function.name }}({{ call.function.arguments | tojson }}){% endfor %}{% endfor %}"""


@pytest.mark.parametrize("content", [None, "", "Let me look."])
def test_calls_in_a_talk_reach_a_template_that_writes_them(toy_model: Model, content: str | None):
    with serving(replace(toy_model, chat_template=WRITES_CALLS)) as web:
        messages = [*talk("Rain?"), ASKED | {"content": content}, TOLD]
        tokens = web.post("/tokenize", {"messages": messages, "add_special_tokens": False}).json["tokens"]
        text = web.post("/detokenize", {"tokens": tokens}).json["prompt"]
        assert text == f"userRain?assistant{content or ''}weather({{}})toolNo."


@pytest.mark.parametrize("template", ["chatml", "llama3", "story", "{% for m in messages %}{{ m.content }}{% endfor %}"])
@pytest.mark.parametrize("content", [None, "Let me look."])
def test_calls_in_a_talk_that_a_template_cannot_write_are_refused(toy_model: Model, template: str, content: str | None):
    with serving(toy_model, template=template) as web:
        for path in ("/tokenize", "/v1/chat/completions"):
            answer = web.post(path, {"messages": [*talk("Rain?"), ASKED | {"content": content}, TOLD]})
            assert (answer.status, answer.error["param"]) == (400, "messages")
            assert "message 1: found calls of tools" in answer.error["message"]


@pytest.mark.parametrize(
    "arguments",
    ["[" * 990 + "]" * 990, '{"a":' * 50_000, "[" * 300 + "]" * 300, "NaN", "9" * 5000, "none"],
    ids=lambda arguments: arguments[:9],
)
def test_arguments_that_no_parser_takes_are_no_fault_of_the_server(toy_model: Model, arguments: str):
    with serving(replace(toy_model, chat_template=WRITES_CALLS)) as web:
        call = {"function": {"name": "weather", "arguments": arguments}}
        answer = web.post("/tokenize", {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]})
        assert answer.status in (200, 400)


def test_without_tools_the_same_text_is_text(with_tools: Web, says):
    says(CALL)
    for more in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        answer = with_tools.chat("Rain?", **more)["choices"][0]
        assert (json.loads(answer["message"]["content"]), answer["finish_reason"]) == (CALL, "stop")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_cannot_be_forced(with_tools: Web, choice: object):
    answer = with_tools.post("/v1/chat/completions", {"messages": talk("Rain?"), "tools": TOOLS, "tool_choice": choice})
    assert (answer.status, answer.error["param"]) == (400, "tool_choice")
