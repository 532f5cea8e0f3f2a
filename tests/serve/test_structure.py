"""Structured output: valid or refused, never something else."""

import json
from typing import Any

import pytest
from web import Web, talk

NAMES = {"enum": ["Tom", "Lily"]}
SCHEMAS: list[dict[str, Any]] = [
    {"type": "boolean"},
    {"type": "integer", "minimum": 3, "maximum": 12},
    {"const": "Äpfel 😀"},
    {"type": "string", "maxLength": 5},
    {"type": "string", "pattern": "^[a-c]{2,4}$"},
    {"type": "array", "items": NAMES, "minItems": 1, "maxItems": 3},
    {
        "type": "object",
        "properties": {"name": NAMES, "age": {"type": "integer", "maximum": 99, "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    {"anyOf": [{"type": "null"}, NAMES]},
]


def wish(schema: dict[str, Any]) -> dict[str, Any]:
    """response_format for a schema."""
    return {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema, "strict": True}}


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_answers_satisfy_the_schema(web: Web, schema: dict[str, Any]):
    answer = web.chat("Hello", response_format=wish(schema), n=4, seed=1, temperature=2)
    for choice in answer["choices"]:
        assert choice["finish_reason"] == "stop"
        assert satisfies(json.loads(choice["message"]["content"]), schema)


def satisfies(value: object, schema: dict[str, Any]) -> bool:
    """Whether a value satisfies one of SCHEMAS."""
    match schema:
        case {"type": "boolean"}:
            return isinstance(value, bool)
        case {"type": "integer", "minimum": low, "maximum": high}:
            return type(value) is int and low <= value <= high
        case {"const": wanted}:
            return value == wanted
        case {"enum": values}:
            return value in values
        case {"maxLength": most}:
            return isinstance(value, str) and len(value) <= most
        case {"pattern": _}:
            return isinstance(value, str) and 2 <= len(value) <= 4 and set(value) <= set("abc")
        case {"items": inner}:
            return isinstance(value, list) and 1 <= len(value) <= 3 and all(satisfies(item, inner) for item in value)
        case {"properties": properties}:
            return isinstance(value, dict) and all(satisfies(value[name], inner) for name, inner in properties.items())
        case {"anyOf": alternatives}:
            return value is None or satisfies(value, alternatives[1])
    raise AssertionError(schema)


def test_any_object_is_an_object_or_unfinished(web: Web):
    for seed in range(8):
        choice = web.complete(prompt="x", response_format={"type": "json_object"}, max_tokens=60, seed=seed)["choices"][0]
        assert choice["text"].startswith("{")
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(choice["text"]), dict)


def test_a_stream_gives_the_same(web: Web):
    body = {"messages": talk("Hello"), "response_format": wish(SCHEMAS[6]), "seed": 4}
    events = web.post("/v1/chat/completions", body | {"stream": True}).events
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert text == web.post("/v1/chat/completions", body).json["choices"][0]["message"]["content"]


def test_an_answer_that_a_stop_text_could_cut_is_refused(web: Web):
    body = {"messages": talk("Hello"), "response_format": wish(SCHEMAS[0]), "stop": "u"}
    assert web.post("/v1/chat/completions", body).error["param"] == "stop"
    assert web.post("/v1/chat/completions", body | {"stop": None}).status == 200


def test_a_schema_cannot_loosen_itself(web: Web):
    loose = {"x-guidance": {"lenient": True, "whitespace_flexible": True}, "type": "string", "not": {"const": "x"}}
    answer = web.post("/v1/chat/completions", {"messages": talk("Hello"), "response_format": wish(loose)})
    assert answer.error["code"] == "unsupported_schema"


def test_plain_text_is_no_form(web: Web):
    plain = web.chat("Hello", seed=3, max_tokens=5)["choices"]
    assert web.chat("Hello", seed=3, max_tokens=5, response_format={"type": "text"})["choices"] == plain
