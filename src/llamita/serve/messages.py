"""The messages and tools of a chat request, and their plain form, in which chat templates want them."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from llamita.serve.fields import Body, Nullable, Unsupported

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def text_of(content: object) -> object:
    """A message's content as one text: the texts of its parts, a line each, as other servers join them."""
    if not isinstance(content, list):
        return content
    texts = [_part_text(part) for part in content]
    return "\n".join(texts)


def _part_text(part: object) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type") if isinstance(part, dict) else None
    raise ValueError(f"Expected parts of the type 'text', found {str(kind)[:40]!r}: the model reads text only")


_PART_SCHEMA = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
Content = Annotated[
    str,
    BeforeValidator(text_of),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": _PART_SCHEMA}]}),
]


class CalledFunction(Body):
    """What an assistant called; arguments are JSON in a string."""

    name: str
    arguments: str = ""


class ToolCall(Body):
    """One call in an assistant's message."""

    id: Nullable[str] = ""
    type: Nullable[Literal["function"]] = "function"
    function: CalledFunction


class Message(Body):
    """One message of a talk."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Nullable[Content] = ""
    name: Nullable[str] = ""
    tool_calls: Nullable[list[ToolCall]] = Field(default_factory=list)
    tool_call_id: Nullable[str] = ""
    function_call: Annotated[None, Unsupported("tool_calls")] = None

    def plain(self) -> dict[str, Any]:
        """The message as templates read it: what is not there is left out, and arguments are objects."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        optional = {
            "name": self.name,
            "tool_call_id": self.tool_call_id,
            "tool_calls": [_plain_call(c) for c in self.tool_calls],
        }
        return message | {name: value for name, value in optional.items() if value}


def _plain_call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = call.function.arguments
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}


class FunctionTool(Body):
    """A function that the model may call; parameters are a JSON schema."""

    name: str
    description: Nullable[str] = ""
    parameters: Nullable[dict[str, Any]] = Field(default_factory=dict)


class Tool(Body):
    """A tool that a request offers."""

    type: Literal["function"]
    function: FunctionTool

    def plain(self) -> Mapping[str, Any]:
        """The tool as templates read it."""
        return self.model_dump()


class NamedFunction(Body):
    """The name of a function."""

    name: str


class NamedTool(Body):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction
