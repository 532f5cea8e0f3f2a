"""Messages of a talk, as OpenAI's API has them: {"role": "user", "content": "Hello"}. Knows neither templates nor tokens."""

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from llamita.errors import ChatTemplateError

Message = Mapping[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def plain_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The messages without what is None, and with the texts of parts as one; raise ChatTemplateError for what is no message."""
    return [_plain(message, index) for index, message in enumerate(messages)]


def refuse_calls(index: int, whose: str) -> NoReturn:
    """Raise ChatTemplateError for calls of tools in the message of an index. whose: the template that cannot write them."""
    raise ChatTemplateError(f"message {index}: found calls of tools, expected a text; {whose} has no way to write them")


def _plain(message: Message, index: int) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ChatTemplateError(f"message {index}: found no role, expected one of {', '.join(ROLES)}")
    plain = {name: value for name, value in message.items() if value is not None}
    content = plain.get("content", "")
    if isinstance(content, list):
        content = "\n".join(_part_text(part, index) for part in content)
    if not isinstance(content, str):
        raise ChatTemplateError(f"message {index}: found content of type {type(content).__name__}, expected a text")
    if "content" in plain or not plain.get("tool_calls"):
        plain["content"] = content
    return plain


def _part_text(part: object, index: int) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    raise ChatTemplateError(f"message {index}: found a part that is no text, expected texts only")
