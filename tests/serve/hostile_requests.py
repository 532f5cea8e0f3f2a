"""Requests that no honest client sends, and some that careless ones do: each must be refused in OpenAI's shape, quickly.

A case is a name, a path, and a body: an object, or bytes where no JSON library would write them.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

COMPLETIONS, CHAT, EMBEDDINGS = "/v1/completions", "/v1/chat/completions", "/v1/embeddings"
TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"
POSTS = (COMPLETIONS, CHAT, EMBEDDINGS, TOKENIZE, DETOKENIZE)
HELLO = [{"role": "user", "content": "Hello"}]
GOOD: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"prompt": "Hello", "max_tokens": 1},
    CHAT: {"messages": HELLO, "max_tokens": 1},
    EMBEDDINGS: {"input": "Hello"},
    TOKENIZE: {"prompt": "Hello"},
    DETOKENIZE: {"tokens": [5]},
}


class Case(NamedTuple):
    """One hostile request."""

    name: str
    path: str
    body: bytes


def cases() -> list[Case]:
    """All of them."""
    return [*broken_json(), *wrong_values(), *impossible_wishes(), *wrong_messages(), *bad_schemas()]


def broken_json() -> Iterator[Case]:
    """Bodies that are no JSON, or no object."""
    bodies = {
        "nothing": b"",
        "no JSON": b"prompt=Hello",
        "half an object": b'{"prompt": "Hello"',
        "a second value": b"{}{}",
        "NaN": b'{"prompt": "x", "temperature": NaN}',
        "Infinity": b'{"prompt": "x", "temperature": -Infinity}',
        "single quotes": b"{'prompt': 'x'}",
        "a comment": b'{"prompt": "x" /* no */}',
        "a trailing comma": b'{"prompt": "x",}',
        "no UTF-8": b'{"prompt": "\xff\xfe"}',
        "a long form of NUL": b'{"prompt": "\xc0\x80"}',
        "UTF-16": '{"prompt": "x"}'.encode("utf-16"),
        "a byte order mark": b'\xef\xbb\xbf{"prompt": "x"}',
        "a lone surrogate": rb'{"prompt": "\ud800"}',
        "a surrogate the wrong way round": rb'{"prompt": "\udc00\ud800"}',
        "a raw NUL": b'{"prompt": "\x00"}',
        "deep lists": b"[" * 100_000,
        "deep objects": b'{"prompt":' * 100_000,
        "a deep value that nobody reads": b'{"prompt": "x", "metadata": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        "a number of 5000 digits": b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}",
        "zip": b"\x1f\x8b\x08\x00" * 30,
    }
    values = {"null": None, "true": True, "a number": 5, "a text": "prompt", "a list": [1], "a list of objects": [{}]}
    for path in POSTS:
        for name, body in (bodies | {name: json.dumps(value).encode() for name, value in values.items()}).items():
            yield Case(name, path, body)


def wrong_values() -> Iterator[Case]:
    """Fields of the wrong type or out of range; 1e999 is infinity to parsers that take it."""
    number = ("x", [], {}, True, "1", 1e308, -1e308, b"1e999", b"-1e999")
    integer = (*number, 1.5, 10**30, -(10**30), -2)
    text = (5, [], {}, True)
    fields = {
        "temperature": (*number, 2.1, -0.1),
        "top_p": (*number, 1.1, -1),
        "min_p": (*number, 2),
        "presence_penalty": (*number, 2.5, -2.5),
        "frequency_penalty": (*number, 3),
        "repetition_penalty": ("x", [], {}, True, 0, -1, 1e308, b"1e999"),
        "top_k": integer,
        "max_tokens": (*integer, -1, 1 << 31, 1 << 63),
        "n": (*integer, 0, -1, 129, 1 << 31),
        "seed": ("x", [], True, 1.5, b"1e999"),
        "stream": ("yes", 1, 0, [], {}),
        "stream_options": ("x", 5, [], {"include_usage": "x"}),
        "stop": (5, {}, [5], [None], [["x"]], ["x"] * 17, ["x"] * 100_000, "x" * 5000, True),
        "logit_bias": ("x", 5, [], {"5": "x"}, {"5": 101}, {"5": -1e9}, {"x": 1}, {"-1": 1}, {"1.5": 1}, {"999999": 1}, {"": 1},
                       {"9" * 400: 1}, {"٣": 1}, {"5": b"1e999"}, {str(i): 1 for i in range(5000)}),
        "model": text,
        "ignore_eos": ("x", 1),
        "response_format": ("x", 5, [], {}, {"type": 5}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": 5}),
    }  # fmt: skip
    for path in (COMPLETIONS, CHAT):
        for field, values in fields.items():
            for value in values:
                yield case(path, field, value)
    of_one = {
        COMPLETIONS: {
            "logprobs": (*number[:4], 21, -1, 1.5),
            "best_of": ("x", -1, 21, True),
            "echo": ("x", 1),
            "suffix": (5, "x"),
        },
        CHAT: {
            "logprobs": (1, "x"),
            "top_logprobs": ("x", 21, -1, True),
            "tools": ("x", [5], [{}]),
            "tool_choice": ("x", 5, {}),
        },
        EMBEDDINGS: {"encoding_format": ("hex", 5), "dimensions": (0, -1, 7, "x", 1 << 40), "model": text},
        TOKENIZE: {"add_special_tokens": ("x", 1), "messages": (HELLO, "x"), "return_token_strs": (5,)},
        DETOKENIZE: {"tokens": (5, "x", None, [-1], ["5"], [1.5], [True], [400], [1 << 40], [[5]])},
    }
    for path, fields_of_path in of_one.items():
        for field, values in fields_of_path.items():
            for value in values:
                yield case(path, field, value)


def impossible_wishes() -> Iterator[Case]:
    """Prompts that cannot be read, and too much at once."""
    prompts = ([], [[]], [""] * 5000, ["x", 5], [5, "x"], [[5], "x"], [-1], [400], [1 << 31], [1 << 70], [1.5], [True],
               [[5], [[5]]], {}, 5, True, "word " * 5000, [5] * 129, [5] * 100_000, [[5] * 129], "\n" * 1_000_000)  # fmt: skip
    for prompt in prompts:
        yield case(COMPLETIONS, "prompt", prompt)
        yield case(EMBEDDINGS, "input", prompt)
    yield case(COMPLETIONS, "max_tokens", 128)
    yield case(CHAT, "max_completion_tokens", 128)
    for wish in ({"best_of": 1, "n": 2}, {"best_of": 3, "stream": True}, {"prompt": ["x"] * 100, "n": 5}):
        yield Case(f"{wish}"[:60], COMPLETIONS, json.dumps(GOOD[COMPLETIONS] | wish).encode())
    yield Case("neither text nor messages", TOKENIZE, b"{}")
    yield Case("five megabytes", COMPLETIONS, b'{"prompt": "' + b"x" * (5 << 20) + b'"}')


def wrong_messages() -> Iterator[Case]:
    """Talks that are none."""
    contents = (
        5,
        {},
        [5],
        [{}],
        [{"type": "text"}],
        [{"type": "text", "text": 5}],
        [{"type": "image_url", "image_url": {}}],
        True,
    )
    wrong = [[], {}, "x", None, [5], [[]], [{}], [{"role": "user"}] * 5000, [{"role": "root", "content": "x"}],
             [{"content": "x"}], [{"role": 5, "content": "x"}],
             [{"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}],
             [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[" * 990 + "]" * 990}}]}],
             [{"role": "assistant", "tool_calls": [{}]}], [{"role": "assistant", "tool_calls": "x"}],
             [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": 5}}]}]]  # fmt: skip
    for messages in (*wrong, *([{"role": "user", "content": content}] for content in contents)):
        yield case(CHAT, "messages", messages)
        yield Case(f"tokenize messages={messages!r}"[:60], TOKENIZE, json.dumps({"messages": messages}).encode())
    yield case(CHAT, "messages", [{"role": "user", "content": "word " * 5000}])
    for variables in ("x", 5, {"messages": []}, {"add_generation_prompt": False}):
        yield case(CHAT, "chat_template_kwargs", variables)


def bad_schemas() -> Iterator[Case]:
    """Schemas that cannot be held, or would take for ever to compile."""
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(60):
        deep = {"type": "array", "items": deep}
    schemas = [{"type": "nothing"}, {"not": {}}, {"type": "string", "pattern": "("}, {"type": "string", "pattern": "(?=x)"},
               {"type": "string", "pattern": "(" * 30_000}, {"type": "string", "pattern": "*"}, {"$ref": "#/nowhere"},
               deep, False, {"type": "integer", "minimum": 2, "maximum": 1},
               {"$ref": "http://evil.example/"}, {"$ref": "file:///etc/passwd"}, {"enum": []},
               {"type": "string", "format": "nothing"}, {"uniqueItems": True}, {"if": {}, "then": {}}, {"type": ["x", 5]},
               {"properties": 5}, {"x-guidance": {"lenient": True}, "not": {}}, {"enum": ["x" * 100_000]}, {"type": "null\n"},
               {"allOf": [{"type": "string"}, {"type": "integer"}]}, {"const": 10**309}, {"minimum": -(10**309)},
               {"enum": [10**309]}, {"type": "string", "default": 10**309}, {"type": "string", "maxLength": 1e300}]  # fmt: skip
    for schema in schemas:
        wish = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        yield Case(f"schema {schema}"[:60], CHAT, json.dumps(GOOD[CHAT] | {"response_format": wish}).encode())
    for keyword in ("const", "minimum", "multipleOf", "minProperties", "default"):
        wish = {"type": "json_schema", "json_schema": {"schema": {keyword: "RAW"}}}
        body = json.dumps(GOOD[CHAT] | {"response_format": wish}).encode()
        yield Case(f"schema {keyword} 1e999", CHAT, body.replace(b'"RAW"', b"1e999"))


def case(path: str, field: str, value: object) -> Case:
    """A good request with one field replaced; bytes are written as they are."""
    raw = value if isinstance(value, bytes) else next(iter(value.values())) if isinstance(value, dict) and value else None
    body = json.dumps(GOOD[path] | {field: value}, default=lambda _: "RAW").encode()
    if isinstance(raw, bytes):
        body = body.replace(b'"RAW"', raw)
    return Case(f"{path.rsplit('/', 1)[-1]} {field}={value!r}"[:60], path, body)
