"""Structured output: valid or refused, never something else."""

import json
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from web import Web, talk

from llamita.model import Model
from llamita.serve.requests import SchemaFormat
from llamita.serve.structure import Grammar, Names, Spellings, Structures
from llamita.tokenizer import Tokenizer

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


@pytest.fixture
def grammar_of(toy_model: Model) -> Callable[[dict[str, Any]], Grammar]:
    tokenizer = cast(Tokenizer, toy_model.tokenizer)
    structures = Structures(tokenizer, frozenset({tokenizer.eos_id}))
    return lambda schema: structures.maker(SchemaFormat.model_validate(wish(schema)))()


def follow(grammar: Grammar, tokenizer: Tokenizer, text: str) -> bool:
    """Whether a grammar allows a text, in the longest pieces that it allows."""
    pieces, left = [tokenizer.piece_bytes(i) for i in range(tokenizer.vocab_size)], text.encode()
    while left:
        mask = grammar.mask()
        fitting = [i for i, piece in enumerate(pieces) if piece and left.startswith(piece) and mask[i // 32] >> (i % 32) & 1]
        if not fitting:
            return False
        longest = max(fitting, key=lambda i: len(pieces[i]))
        grammar.accept(longest)
        left = left[len(pieces[longest]) :]
    return True


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


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "pattern": "("}, "regex parse error: unclosed group."),
        ({"type": "string", "pattern": "(?=x)"}, "look-around"),
        ({"type": "nothing"}, "Invalid type: nothing."),
        ({"const": 10**309}, "out of range"),
    ],
)
def test_a_schema_that_cannot_be_held_is_refused_with_the_reason(web: Web, schema: dict[str, Any], words: str):
    error = web.post("/v1/chat/completions", {"messages": talk("Hello"), "response_format": wish(schema)}).error
    assert (error["param"], error["code"]) == ("response_format", "unsupported_schema")
    assert words in error["message"]


@pytest.mark.parametrize("keyword", ["const", "minimum", "default", "minProperties"])
def test_infinity_is_no_number_of_a_schema(web: Web, keyword: str):
    body = json.dumps({"messages": talk("Hello"), "response_format": wish({keyword: "RAW"})}).replace('"RAW"', "1e999")
    error = web.post("/v1/chat/completions", body.encode()).error
    assert (error["code"], "too large" in error["message"]) == ("unsupported_schema", True)


def test_a_schema_cannot_loosen_itself(web: Web):
    loose = {"x-guidance": {"lenient": True, "whitespace_flexible": True}, "type": "string", "not": {"const": "x"}}
    answer = web.post("/v1/chat/completions", {"messages": talk("Hello"), "response_format": wish(loose)})
    assert answer.error["code"] == "unsupported_schema"


def test_a_name_cannot_come_twice_in_two_spellings(grammar_of: Callable[[dict[str, Any]], Grammar], toy_model: Model):
    tokenizer = cast(Tokenizer, toy_model.tokenizer)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    for text in ('{"a": 1, "b": "\\u0001", "c": {"d": "x/y"}}', '{"a": 1, "\\"b\\n": ["\\u0001", {}]}'):
        assert follow(grammar_of(schema), tokenizer, text), text
    for text in ('{"a": 1, "\\u0061": "x"}', '{"a": 1, "c": {"d": 1, "\\u0064": 2}}', '{"a": 1, "c": [{"\\/": 2}]}'):
        assert not follow(grammar_of(schema), tokenizer, text), text


def test_a_token_may_spell_a_name_as_little_as_several_may():
    spellings, names = Spellings([b'"', b'{"', b'a": "', b"b\\u", b"\\", b"u", b'\\u0", "', b'\\u0", "\\/', b"/"]), Names()

    def allowed() -> set[int]:
        bits = spellings.without(np.full(1, (1 << 9) - 1, np.uint32), names)
        return {i for i in range(9) if bits[0] >> i & 1}

    assert allowed() == set(range(9))  # outside of texts the grammar decides
    assert names.feed(b'{"')
    assert allowed() == {0, 1, 2, 4, 5, 8}
    assert names.feed(b"\\")
    assert allowed() == {0, 1, 2, 4, 6}  # a second backslash makes it one
    assert names.feed(b'\\a": "')
    assert allowed() == set(range(9)) - {7}


@pytest.mark.parametrize("least", [2, 3])
def test_more_names_than_are_required_are_refused(web: Web, least: int):
    body = {"messages": talk("Hello"), "seed": 1}
    open_names = {"type": "object", "minProperties": least, "additionalProperties": {"type": "integer"}, "required": ["a"]}
    for schema in (open_names, {"type": "array", "items": open_names, "maxItems": 1}):
        assert web.post("/v1/chat/completions", body | {"response_format": wish(schema)}).error["code"] == "unsupported_schema"
    one = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": {"type": "boolean"}}
    answer = web.post("/v1/chat/completions", body | {"response_format": wish(one), "temperature": 0})
    assert answer.status == 200


def test_plain_text_is_no_form(web: Web):
    plain = web.chat("Hello", seed=3, max_tokens=5)["choices"]
    assert web.chat("Hello", seed=3, max_tokens=5, response_format={"type": "text"})["choices"] == plain
