"""A conversation on disk: JSON with OpenAI's messages, {"messages": [{"role": "user", "content": "Hello"}, ...]}.

Written whole or not at all, and never over a file that is none. A list of messages by itself is read too. Knows no model.
"""

import json
from os import PathLike
from pathlib import Path

from llamita.errors import ChatTemplateError, ModelFileError
from llamita.files import atomic_file, read_file
from llamita.formats.json_text import parse_object
from llamita.tokenizer.messages import plain_messages

LIMIT_BYTES = 16 << 20
MAX_ITEMS = 1 << 22  # brackets and commas, those in the texts too
ROLES = ("system", "user", "assistant")


def write_transcript(path: str | PathLike[str], messages: list[dict[str, str]], model: str = "") -> None:
    """Write messages, and the name of the model that answered. Raises ModelFileError where that cannot be done."""
    if Path(path).exists():
        read_transcript(path)  # another file stays
    content = {"model": model, "messages": messages} if model else {"messages": messages}
    with atomic_file(path) as file:
        file.write(json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8", errors="replace") + b"\n")


def read_transcript(path: str | PathLike[str]) -> list[dict[str, str]]:
    """Read the messages: texts of system, user and assistant. Raises ModelFileError for a file that holds anything else."""
    data = read_file(path, LIMIT_BYTES)
    if data.lstrip()[:1] == b"[":
        data = b'{"messages":' + data + b"}"
    messages = parse_object(data, path, max_items=MAX_ITEMS).get("messages")
    if not isinstance(messages, list):
        raise ModelFileError(path, "messages", type(messages).__name__, "a list of messages")
    try:
        plain = plain_messages(messages)
    except ChatTemplateError as error:
        raise ModelFileError(path, "messages", error, "texts of system, user and assistant") from None
    for index, message in enumerate(plain):
        if message["role"] not in ROLES or "content" not in message:
            raise ModelFileError(path, f"message {index}", f"role {message['role']!r}", f"a text of {', '.join(ROLES)}")
    return [{"role": message["role"], "content": message["content"]} for message in plain]
