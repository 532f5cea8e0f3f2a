"""Types of the fields of requests: what JSON may hold there, and what becomes of it.

Types are strict (no "5" for 5), but for what real clients send: null is the same as nothing, and 16.0 is the integer 16.
"""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema, PydanticUseDefault, core_schema

from llamita.serve.limits import MAX_CHOICES, MAX_INPUTS, MAX_STOP_CHARACTERS, MAX_STOPS

T = TypeVar("T")
TokenIds = list[int]


class Body(BaseModel):
    """A request: fields that it does not know are ignored, as clients of other servers send many."""

    model_config = ConfigDict(strict=True, extra="ignore")


class NullIsDefault:
    """Marks a field that has its default where the request says null."""

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_refuse_null, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"type": "null"}]}


def _refuse_null(value: object) -> object:
    if value is None:
        raise PydanticUseDefault
    return value


@dataclass(frozen=True)
class Unsupported:
    """Marks a field that must be null: ignoring it would answer something else. instead: what to ask for, if anything."""

    instead: str = ""

    @property
    def _text(self) -> str:
        return "Not supported" + (f"; use {self.instead}" if self.instead else "")

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._refuse, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "description": f"{self._text}."}

    def _refuse(self, value: object) -> object:
        if value is not None:
            raise ValueError(self._text)
        return value


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def prompts_of(value: object, most: int = MAX_CHOICES) -> list[str | TokenIds]:
    """The texts or lists of ids that a request has in one of four forms; raises ValueError at anything else."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return _at_most(value, most)
        lists = value if all(isinstance(item, list) and item for item in value) else [value]
        ids = [[_whole(token_id) for token_id in item] for item in lists]
        if all(type(token_id) is int and token_id >= 0 for item in ids for token_id in item):
            return _at_most(ids, most)
    raise ValueError(
        "Expected a text, a list of texts, a list of token ids or a list of lists of token ids, none of them empty"
    )


def _at_most(prompts: list, most: int) -> list:
    if len(prompts) > most:
        raise ValueError(f"Expected at most {most} in one request, found {len(prompts)}")
    return prompts


def _prompt_schema(most: int) -> dict[str, Any]:
    text, ids = {"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
    lists = [{"type": "array", "items": item, "minItems": 1, "maxItems": most} for item in (text, ids)]
    return {"anyOf": [text, lists[0], ids, lists[1]]}


Nullable = Annotated[T, NullIsDefault()]
WHOLE = BeforeValidator(_whole)  # stands behind the bounds of an integer
Prompts = Annotated[list[str | TokenIds], BeforeValidator(prompts_of), WithJsonSchema(_prompt_schema(MAX_CHOICES))]
Inputs = Annotated[
    list[str | TokenIds],
    BeforeValidator(lambda value: prompts_of(value, MAX_INPUTS)),
    WithJsonSchema(_prompt_schema(MAX_INPUTS)),
]
StopText = Annotated[str, Field(max_length=MAX_STOP_CHARACTERS)]
_STOP_SCHEMA = {"type": "string", "maxLength": MAX_STOP_CHARACTERS}
_STOPS_SCHEMA = {"anyOf": [_STOP_SCHEMA, {"type": "array", "items": _STOP_SCHEMA, "maxItems": MAX_STOPS}]}
Stops = Annotated[list[StopText], Field(max_length=MAX_STOPS), BeforeValidator(_as_list), WithJsonSchema(_STOPS_SCHEMA)]
