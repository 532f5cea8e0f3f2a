"""Damage of JSON: values, names and entries of a sound document changed, and what only a text can hold (NaN, a name twice)."""

import json
import random
from copy import deepcopy
from typing import Any

from fuzz.spans import NUMBERS, damaged_bytes

LIE_AS_TEXT = 0.2  # how often the text is damaged too

VALUES: list[Any] = [
    *(None, True, False, "", "a", "\0", "\n", "\u2581", "..", "../a.safetensors", "F32", "BF16", "I64", "llama", "llama3", "0"),
    *([], {}, [[]], [None], [1, 2], {"": 0}, {"type": "Sequence"}, {"content": "<s>"}, "x" * 5000, [0] * 300),
    *(0.5, -0.5, 1e-300, 1e300, 10**30, 10**400),
    *NUMBERS,
    *(-number for number in NUMBERS[1:20]),
]
# marks in the document, each of which becomes a text that Python's json does not write
RAW = [
    *(b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 5000, b"[" * 2000, b'{"a":' * 2000),
    *(b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'1, "a": 2'),
]
MARK = "\ufdd0"

Place = tuple[Any, Any]  # a list or an object, and an index or a name in it


def damaged_json(text: bytes, rng: random.Random) -> bytes:
    """The document with one to three changes."""
    document = json.loads(text)
    for _ in range(rng.randint(1, 3)):
        if places := list(_places(document)):
            _change(rng.choice(places), rng, places)
    data = json.dumps(document, ensure_ascii=False).encode()
    while (mark := f'"{MARK}"'.encode()) in data:
        data = data.replace(mark, rng.choice(RAW), 1)
    return damaged_bytes(data, rng, text) if rng.random() < LIE_AS_TEXT else data


def _places(document: Any) -> list[Place]:
    """Where all values of a document lie."""
    places: list[Place] = []
    waiting = [document]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict | list):
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            places += [(holder, key) for key in keys]
            waiting += [holder[key] for key in keys]
    return places


def _change(place: Place, rng: random.Random, places: list[Place]) -> None:
    holder, key = place
    other_holder, other_key = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del holder[key]
        case 1:
            holder[key] = MARK
        case 2:
            holder[key] = deepcopy(other_holder[other_key])
        case 3 if isinstance(holder, dict):
            name = rng.choice([value for value in VALUES if isinstance(value, str)])
            holder[name] = holder.pop(key)
        case 3:
            holder.insert(key, holder[key])
        case 4 if type(holder[key]) in (int, float) and abs(holder[key]) < 1 << 64:
            holder[key] += rng.choice((-1, 1, 0.5))
        case _:
            holder[key] = deepcopy(rng.choice(VALUES))
