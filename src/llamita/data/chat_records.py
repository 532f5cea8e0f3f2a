"""A record of a file to chats: the shapes that people keep chats in, read and checked one record at a time.

openai: {"messages": [{"role", "content"}]}; sharegpt: {"conversations": [{"from", "value"}]}; alpaca: {"instruction", "input",
"output"}; completion: {"prompt", "completion"}; pairs: {"chosen", "rejected"}, texts behind a prompt or whole chats. What is
no such thing is one BadChatError. Knows no file, no template and no tokenizer.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llamita.data.chat_options import ChatOptions
from llamita.errors import ChatTemplateError, DataError
from llamita.tokenizer.answers import answers_of
from llamita.tokenizer.messages import plain_messages

Message = dict[str, Any]

_ROLES = {
    "system": "system", "developer": "developer", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
    "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "tool": "tool", "function": "function",
    "observation": "tool", "function_response": "tool",
}  # fmt: skip
SYSTEM_ROLES = ("system", "developer")
_FURTHER_FIELDS = ("name", "tool_calls", "tool_call_id", "reasoning_content")  # of a message, which templates may ask for
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_SHOWN = 60  # characters of a value in a message

# Stanford Alpaca's two prompts
_ALPACA = (
    "Below is an instruction that describes a task{}. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\n{}### Response:"
)


class BadChatError(DataError):
    """A record that is no chat to learn from; reason: in few words, by which such records are counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TooLongError(BadChatError):
    """A chat that the context has no room for: no mistake, but nothing can be learned from it."""


@dataclass(frozen=True)
class Chat:
    """Messages up to the last answer, and the indices of the answers that are learned.

    variables: what else a template may ask for, such as tools. unfilled: names of placeholders without a value.
    """

    messages: list[Message]
    learned: frozenset[int]
    variables: dict[str, Any] = field(default_factory=dict)
    unfilled: frozenset[str] = frozenset()

    @property
    def n_characters(self) -> int:
        """About how long it is in its file."""
        return sum(len(message.get("content", "")) + _SHOWN for message in self.messages)


def shape_of(record: object, options: ChatOptions) -> str:
    """The shape that a record has; raise BadChatError where it has none."""
    fields = {*_as_fields(record), *options.columns}
    if {"chosen", "rejected"} <= fields:
        return "pairs"
    if "messages" in fields:
        return "openai"
    if fields & {"conversations", "conversation"}:
        return "sharegpt"
    if "instruction" in fields and fields & {"output", "response"}:
        return "alpaca"
    if fields & {"prompt", "question"} and fields & {"completion", "response", "answer"}:
        return "completion"
    expected = "messages, conversations, instruction and output, prompt and completion, or chosen and rejected"
    raise BadChatError("no chat", f"found the fields {', '.join(sorted(fields))[:200]}, expected {expected}; see --columns")


def read_chats(record: object, shape: str, options: ChatOptions) -> tuple[Chat, ...]:
    """The chat in a record of a shape, or of pairs the chosen and the rejected one; raise BadChatError."""
    fields = _as_fields(record)
    for ours, theirs in options.columns.items():
        if theirs not in fields:
            raise BadChatError(
                "no chat", f"found no field {theirs!r}, expected one as {ours}; it has {', '.join(fields)[:200]}"
            )
        fields = fields | {ours: fields[theirs]}
    variables = {"tools": fields["tools"]} if fields.get("tools") else {}
    if shape == "pairs":
        chosen, rejected = (_completed(fields, name, options) for name in ("chosen", "rejected"))
        return _pair(_checked(chosen, variables, options), _checked(rejected, variables, options))
    return (_checked(_READERS[shape](fields, options), variables, options),)


def _as_fields(record: object) -> dict[str, Any]:
    if isinstance(record, list):  # a chat without anything around it
        return {"messages": record}
    if not isinstance(record, Mapping):
        raise BadChatError("no chat", f"found {_shown(record)}, expected an object with a chat")
    return {name: value for name, value in record.items() if isinstance(name, str)}


def _read_openai(fields: Mapping[str, Any], _: ChatOptions) -> list[Message]:
    return _messages(_field(fields, "messages"))


def _read_sharegpt(fields: Mapping[str, Any], _: ChatOptions) -> list[Message]:
    return _system(fields) + _messages(_field(fields, "conversations", "conversation"))


def _read_alpaca(fields: Mapping[str, Any], options: ChatOptions) -> list[Message]:
    return [*_instruction(fields, options), _message("assistant", _field(fields, "output", "response"))]


def _read_completion(fields: Mapping[str, Any], options: ChatOptions) -> list[Message]:
    return _prompt(fields, options) + _answer(fields, "completion", "response", "answer")


_READERS: dict[str, Callable[[Mapping[str, Any], ChatOptions], list[Message]]] = {
    "openai": _read_openai,
    "sharegpt": _read_sharegpt,
    "alpaca": _read_alpaca,
    "completion": _read_completion,
}


def _system(fields: Mapping[str, Any]) -> list[Message]:
    return [_message("system", fields["system"])] if fields.get("system") else []


def _instruction(fields: Mapping[str, Any], options: ChatOptions) -> list[Message]:
    """System, earlier turns and the question of an instruction."""
    instruction, given = _field(fields, "instruction"), fields.get("input", fields.get("context")) or ""
    for text in (instruction, given):
        if not isinstance(text, str):
            raise BadChatError("no text", f"instruction or input: found {_shown(text)}, expected a text")
    if options.alpaca_prompt:
        paired = ", paired with an input that provides further context" if given else ""
        question = _ALPACA.format(paired, instruction, f"### Input:\n{given}\n\n" if given else "")
    else:
        question = f"{instruction}\n\n{given}" if given.strip() else instruction
    turns: list[Message] = []
    for turn in fields.get("history") or []:
        if not isinstance(turn, Sequence) or isinstance(turn, str) or len(turn) != 2:
            raise BadChatError("no chat", f"history: found {_shown(turn)}, expected pairs of a question and an answer")
        turns += [_message("user", turn[0]), _message("assistant", turn[1])]
    return [*_system(fields), *turns, _message("user", question)]


def _prompt(fields: Mapping[str, Any], options: ChatOptions) -> list[Message]:
    """What stands before an answer: a text, messages, an instruction; nothing where the answers are whole chats."""
    for name in ("prompt", "question", "conversations", "messages"):
        if isinstance(value := fields.get(name), list):
            return _messages(value)
        if value is not None:
            return [*_system(fields), _message("user", value)]
    return _instruction(fields, options) if "instruction" in fields else []


def _answer(fields: Mapping[str, Any], *names: str) -> list[Message]:
    value = _field(fields, *names)
    if isinstance(value, Mapping):
        value = [value]
    return _messages(value) if isinstance(value, list) else [_message("assistant", value)]


def _field(fields: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        if name in fields:
            return fields[name]
    raise BadChatError("no chat", f"found no field {names[0]!r}, expected one; it has {', '.join(map(str, fields))[:200]}")


def _message(role: str, content: object) -> Message:
    return {"role": role, "content": content}


def _messages(value: object) -> list[Message]:
    """Messages in either way of writing them, with our names of roles."""
    if not isinstance(value, list) or not value:
        raise BadChatError("no chat", f"found {_shown(value)}, expected a list of messages")
    messages: list[Message] = []
    for index, item in enumerate(value):
        role = item.get("role", item.get("from")) if isinstance(item, Mapping) else None
        if not isinstance(role, str) or role not in _ROLES:
            found = f"the role {_shown(role)}" if isinstance(item, Mapping) else _shown(item)
            raise BadChatError("wrong role", f"message {index}: found {found}, expected {', '.join(_ROLES)}")
        message = _message(_ROLES[role], item.get("content", item.get("value")))
        message |= {name: item[name] for name in (*_FURTHER_FIELDS, "weight") if item.get(name) is not None}
        if message.get("weight", 1) not in (0, 1):
            raise BadChatError("no chat", f"message {index}: weight: found {_shown(message['weight'])}, expected 0 or 1")
        messages.append(message)
    return messages


def _completed(fields: Mapping[str, Any], name: str, options: ChatOptions) -> list[Message]:
    """The prompt and one of its answers; an answer that does not begin with the assistant is a whole chat already."""
    answer = _answer(fields, name)
    return answer if answer[0]["role"] != "assistant" else _prompt(fields, options) + answer


def _pair(chosen: Chat, rejected: Chat) -> tuple[Chat, Chat]:
    """Two chats of which only what differs is learned; raise BadChatError where that is no answer to one prompt."""
    pairs = zip(chosen.messages, rejected.messages, strict=False)
    n_shared = next((i for i, (left, right) in enumerate(pairs) if left != right), None)
    if n_shared is None:
        raise BadChatError("equal answers", "found the same answer as chosen and as rejected, expected two")
    first = {chat.messages[n_shared]["role"] for chat in (chosen, rejected)}
    if not n_shared or first != {"assistant"}:
        found = f"chats that differ at message {n_shared}, of the role {' and '.join(sorted(first))}"
        raise BadChatError("two prompts", f"found {found}, expected answers to one prompt")
    learned = [frozenset(i for i in chat.learned if i >= n_shared) for chat in (chosen, rejected)]
    return replace(chosen, learned=learned[0]), replace(rejected, learned=learned[1])


def _checked(messages: list[Message], variables: dict[str, Any], options: ChatOptions) -> Chat:
    """A chat of messages whose texts are texts, with placeholders filled and system messages as the options say."""
    for index, message in enumerate(messages):
        content = message["content"]
        if not isinstance(content, str | list) and not (content is None and message.get("tool_calls")):
            raise BadChatError("no text", f"message {index}: found {_shown(content)}, expected a text")
    try:
        plain = plain_messages(messages)
    except ChatTemplateError as error:
        raise BadChatError("no text", str(error)) from None
    unfilled = {name for message in plain for name in _fill(message, options.values)}
    plain = _with_system(plain, options)
    weights = [message.pop("weight", 1) for message in plain]
    for index, message in enumerate(plain):
        _check_text(message, index)
    learned = frozenset(index for index in answers_of(plain) if weights[index])
    if not learned:
        roles = ", ".join(message["role"] for message in plain[:8])
        raise BadChatError("no answer", f"found messages of {roles or 'nobody'}, expected an answer of the assistant")
    return Chat(plain[: max(learned) + 1], learned, variables, frozenset(unfilled))


def _fill(message: Message, values: Mapping[str, str]) -> set[str]:
    """Put values in place of {{name}} into a message; return the names that have none."""
    unfilled: set[str] = set()

    def value_of(found: re.Match[str]) -> str:
        if found[1] not in values:
            unfilled.add(found[1])
        return values.get(found[1], found[0])

    if "{{" in message.get("content", ""):
        message["content"] = _PLACEHOLDER.sub(value_of, message["content"])
    return unfilled


def _with_system(messages: list[Message], options: ChatOptions) -> list[Message]:
    """The messages behind what options.system says, with system messages kept, dropped or put before the next question."""
    if options.system and not any(message["role"] in SYSTEM_ROLES for message in messages):
        messages = [_message("system", options.system), *messages]
    if options.system_messages == "keep":
        return messages
    kept: list[Message] = []
    pending: list[str] = []
    for message in messages:
        if message["role"] in SYSTEM_ROLES:
            pending += [message["content"]] if options.system_messages == "fold" else []
        elif message["role"] == "user" and pending:
            kept.append(message | {"content": "\n\n".join([*pending, message["content"]])})
            pending = []
        else:
            kept.append(message)
    if pending:
        raise BadChatError("no question", "found a system message without a question behind it, expected one to fold it into")
    return kept


def _check_text(message: Message, index: int) -> None:
    content = message.get("content")
    if content is None:
        return
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"{content[error.start]!r}, half a surrogate pair"
        raise BadChatError("no text", f"message {index}: found {found}, expected valid Unicode") from None
    if message["role"] == "assistant" and not content.strip() and not message.get("tool_calls"):
        raise BadChatError("empty answer", f"message {index}: found an empty answer, expected a text")


def _shown(value: object) -> str:
    """A value as it may stand in a message."""
    if value is None:
        return "nothing"
    text = repr(value)
    return f"{type(value).__name__} {text[:_SHOWN]}{'...' if len(text) > _SHOWN else ''}"
