"""Structured output fails closed: ten thousand random schemas, each refused or held by a model that says anything."""

import json
import random
from typing import Any

import numpy as np
import pytest

jsonschema = pytest.importorskip("jsonschema")

from llamita.formats import read_model
from llamita.language_model import BUNDLED
from llamita.serve.errors import ApiError
from llamita.serve.requests import SchemaFormat
from llamita.serve.structure import Grammar, Structures
from llamita.tokenizer import Tokenizer

pytestmark = pytest.mark.slow
N_SCHEMAS, N_ANSWERS, LONGEST = 10_000, 2, 250
VALUES = (1, "a", None, True, {"a": [1]}, [1, 2], "Äpfel", 2.5, "😀", -3, 1e10)
PATTERNS = ("^a+b?$", "[0-9]{2}", "^(foo|bar)$", "x", r"^\d{3}-\d{2}$", "^[^a]*$", r"\w+", "(?=x)", "^a$|^b$")
FORMATS = ("date", "time", "date-time", "uuid", "email", "ipv4", "hostname", "uri", "nothing")
NAMES = ("a", "b", "name", "Ä", "x y")


def random_schema(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema; some ask for what cannot be held, or for nothing at all."""
    makers = [a_string, a_number, an_enum, lambda _: {"type": chance.choice(["boolean", "null", ["string", "null"]])}]
    if depth < 3:
        inner = [an_array, an_object, some_of]
        makers += [lambda chance, make=make: make(chance, depth + 1) for make in inner * 2]
    if depth == 0:
        makers.append(
            lambda chance: {"$defs": {"t": random_schema(chance, 1)}, "type": "array", "items": {"$ref": "#/$defs/t"}}
        )
    return chance.choice(makers)(chance)


def a_string(chance: random.Random) -> dict[str, Any]:
    """With lengths, a pattern or a format."""
    kind = chance.random()
    if kind < 0.3:
        return {"type": "string", "pattern": chance.choice(PATTERNS)}
    if kind < 0.4:
        return {"type": "string", "format": chance.choice(FORMATS)}
    least = chance.randrange(4)
    return {"type": "string", "minLength": least, "maxLength": least + chance.randrange(-1, 5)}


def a_number(chance: random.Random) -> dict[str, Any]:
    """With bounds, which may exclude each other."""
    schema: dict[str, Any] = {"type": chance.choice(["integer", "number"])}
    bounds = {"minimum": (-50, 50), "maximum": (-20, 90), "exclusiveMinimum": (-5, 5), "multipleOf": (1, 6)}
    return schema | {name: chance.randrange(*bound) for name, bound in bounds.items() if chance.random() < 0.3}


def an_enum(chance: random.Random) -> dict[str, Any]:
    """One of some values."""
    values = chance.sample(VALUES, chance.randrange(1, 5))
    return {"enum": values} if chance.random() < 0.7 else {"const": values[0]}


def an_array(chance: random.Random, depth: int) -> dict[str, Any]:
    """With lengths, and perhaps its first item of another kind."""
    schema: dict[str, Any] = {"type": "array", "items": random_schema(chance, depth), "maxItems": chance.randrange(4)}
    more = {"minItems": chance.randrange(3), "prefixItems": [random_schema(chance, depth)], "uniqueItems": True}
    return schema | {name: value for name, value in more.items() if chance.random() < 0.2}


def an_object(chance: random.Random, depth: int) -> dict[str, Any]:
    """With some properties required, and others allowed or not."""
    names = chance.sample(NAMES, chance.randrange(4))
    schema: dict[str, Any] = {"type": "object", "properties": {name: random_schema(chance, depth) for name in names}}
    schema["required"] = chance.sample(names, chance.randrange(len(names) + 1)) + ["zz"] * (chance.random() < 0.1)
    schema["additionalProperties"] = chance.choice([False, False, True, random_schema(chance, depth)])
    more = {"maxProperties": chance.randrange(1, 3), "patternProperties": {"^p": random_schema(chance, depth)}}
    return schema | {name: value for name, value in more.items() if chance.random() < 0.1}


def some_of(chance: random.Random, depth: int) -> dict[str, Any]:
    """Several schemas at once, or instead of each other."""
    kind = chance.choice(["anyOf", "anyOf", "oneOf", "allOf"])
    return {kind: [random_schema(chance, depth) for _ in range(chance.randrange(1, 4))]}


def answer(grammar: Grammar, tokenizer: Tokenizer, chance: random.Random) -> str | None:
    """What a model would write that finds all allowed tokens alike, but the end likelier; None where it does not end."""
    data = b""
    for _ in range(LONGEST):
        if grammar.is_finished:
            return data.decode()
        allowed = np.flatnonzero(np.unpackbits(grammar.mask().view(np.uint8), bitorder="little"))
        may_end = tokenizer.eos_id in allowed
        token_id = tokenizer.eos_id if may_end and chance.random() < 0.3 else int(chance.choice(allowed))
        if token_id in (tokenizer.bos_id, tokenizer.eos_id):
            return data.decode()
        grammar.accept(token_id)
        data += tokenizer.piece_bytes(token_id)
    return None


def test_answers_satisfy_random_schemas_or_these_are_refused():
    tokenizer: Tokenizer = read_model(BUNDLED / "stories").tokenizer  # pyright: ignore[reportAssignmentType]
    structures = Structures(tokenizer, frozenset({tokenizer.bos_id, tokenizer.eos_id}))
    n_refused = n_valid = n_unfinished = 0
    for seed in range(N_SCHEMAS):
        chance = random.Random(seed)
        schema = random_schema(chance)
        wish = {"type": "json_schema", "json_schema": {"schema": schema}}
        try:
            make = structures.maker(SchemaFormat.model_validate(wish))
        except ApiError as refusal:
            n_refused += refusal.status_code == 400
            continue
        for _ in range(N_ANSWERS):
            text = answer(make(), tokenizer, chance)
            if text is None:
                n_unfinished += 1
                continue
            jsonschema.Draft202012Validator(schema).validate(json.loads(text))
            n_valid += 1
    assert n_valid + n_unfinished + N_ANSWERS * n_refused == N_ANSWERS * N_SCHEMAS  # no other status, no other error
    assert n_valid > N_SCHEMAS
    assert n_unfinished < N_SCHEMAS / 5
    assert n_refused < N_SCHEMAS / 2
