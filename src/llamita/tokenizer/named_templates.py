"""The chat templates that many models share, written in Python: Llama 2, Llama 3, ChatML, Zephyr, and a story for the rest.

Each gives pieces: texts, and marks, which are special tokens where the vocabulary has them. Only marks become special tokens,
so no message can forge one. Where a mark is text to the vocabulary, as Llama 2's [INST] is, a message that spells it is
refused, as Meta's code does; what the assistant said is let through. Sources: the templates published with each model, and
chat_completion in generation.py of github.com/meta-llama/llama.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from llamita.errors import ChatTemplateError
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.messages import ROLES, Message, plain_messages


class Mark(str):
    """A piece that is a mark of a template, spelled out."""


class Ends(NamedTuple):
    """How the vocabulary spells BOS and EOS."""

    bos: Mark
    eos: Mark


def _llama2(messages: Sequence[Message], ends: Ends, _: bool) -> Iterator[str]:
    """[INST] <<SYS>> system <</SYS>> question [/INST] answer; the system prompt is part of the first question."""
    system: str | None = messages[0]["content"] if messages[0]["role"] in ("system", "developer") else None
    for index, message in enumerate(messages if system is None else messages[1:]):
        if message["role"] != ("user", "assistant")[index % 2]:
            raise ChatTemplateError(f"llama2: found the role {message['role']}, expected user and assistant in turn")
        content: str = message["content"]
        if message["role"] == "assistant":
            yield f" {content.strip()} "
            yield ends.eos
            continue
        yield from (ends.bos, Mark("[INST]"), " ")
        if index == 0 and system is not None:
            yield from (Mark("<<SYS>>"), f"\n{system}\n", Mark("<</SYS>>"), f"\n\n{content.rstrip()}")
        else:
            yield content.strip()
        yield from (" ", Mark("[/INST]"))


def _llama3(messages: Sequence[Message], ends: Ends, add_generation_prompt: bool) -> Iterator[str]:
    yield ends.bos
    for message in messages:
        role = _renamed(message["role"], {"developer": "system", "tool": "ipython", "function": "ipython"})
        yield from (Mark("<|start_header_id|>"), role, Mark("<|end_header_id|>"), f"\n\n{message['content'].strip()}")
        yield Mark("<|eot_id|>")
    if add_generation_prompt:
        yield from (Mark("<|start_header_id|>"), "assistant", Mark("<|end_header_id|>"), "\n\n")


def _chatml(messages: Sequence[Message], _: Ends, add_generation_prompt: bool) -> Iterator[str]:
    for message in messages:
        role = _renamed(message["role"], {"developer": "system", "function": "tool"})
        yield from (Mark("<|im_start|>"), f"{role}\n{message['content']}", Mark("<|im_end|>"), "\n")
    if add_generation_prompt:
        yield from (Mark("<|im_start|>"), "assistant\n")


def _zephyr(messages: Sequence[Message], ends: Ends, add_generation_prompt: bool) -> Iterator[str]:
    for message in messages:
        role = _renamed(message["role"], {"developer": "system"})
        if role not in ("system", "user", "assistant"):
            raise ChatTemplateError(f"zephyr: found the role {role}, expected system, user or assistant")
        yield from (Mark(f"<|{role}|>"), f"\n{message['content']}", ends.eos, "\n")
    if add_generation_prompt:
        yield from (Mark("<|assistant|>"), "\n")


def _story(messages: Sequence[Message], ends: Ends, _: bool) -> Iterator[str]:
    """All texts one after another, as if one had told them: for models that were not trained to answer."""
    yield ends.bos
    text = ""
    for message in messages:
        needs_space = text and not text[-1].isspace() and message["content"] and message["content"][0].isalnum()
        text += (" " if needs_space else "") + message["content"]
    yield text


def _renamed(role: str, names: Mapping[str, str]) -> str:
    return names.get(role, role)


class _Template(NamedTuple):
    pieces: Callable[[Sequence[Message], Ends, bool], Iterator[str]]
    marks: tuple[str, ...] = ()  # that nobody but the assistant may write
    turn_end: tuple[str, ...] = ()  # the marks that end an answer, besides EOS


TEMPLATES = {
    "llama2": _Template(_llama2, ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")),
    "llama3": _Template(_llama3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), ("<|eot_id|>", "<|eom_id|>")),
    "chatml": _Template(_chatml, ("<|im_start|>", "<|im_end|>"), ("<|im_end|>",)),
    "zephyr": _Template(_zephyr, ("<|system|>", "<|user|>", "<|assistant|>")),
    "story": _Template(_story),
}


class NamedTemplate:
    """One of TEMPLATES for the messages of a vocabulary; see ChatTemplate."""

    def __init__(self, name: str, tokenizer: Tokenizer) -> None:
        self.name, self._tokenizer, self._template = name, tokenizer, TEMPLATES[name]
        special = tokenizer.special_tokens
        spelling = {token_id: text for text, token_id in special.items()}
        bos_id = tokenizer.bos_id if name != "story" or tokenizer.adds_bos else -1
        self._ends = Ends(Mark(spelling.get(bos_id, "")), Mark(spelling.get(tokenizer.eos_id, "")))
        if name in ("llama2", "zephyr") and not self._ends.eos:
            raise ChatTemplateError(f"{name}: found a vocabulary without EOS, expected one, which ends each answer")
        known = {special[mark] for mark in self._template.turn_end if mark in special}
        self.stop_ids = frozenset({tokenizer.eos_id, *known} - {-1})
        self.stop_texts = tuple(mark for mark in self._template.turn_end[:1] if mark not in special)
        self._plain_marks = [mark for mark in self._template.marks if mark not in special]

    def render(self, messages: Iterable[Message], add_generation_prompt: bool = True, **variables: Any) -> str:
        """The text of the messages; see ChatTemplate.render."""
        return "".join(self._pieces(messages, add_generation_prompt, variables))

    def encode(self, messages: Iterable[Message], add_generation_prompt: bool = True, **variables: Any) -> list[int]:
        """The ids of the messages; see ChatTemplate.encode."""
        tokenizer, special = self._tokenizer, self._tokenizer.special_tokens
        ids: list[int] = []
        text = ""
        for piece in self._pieces(messages, add_generation_prompt, variables):
            if isinstance(piece, Mark) and piece in special:
                ids += [*tokenizer.encode(text), special[piece]]
                text = ""
            else:
                text += piece
        return ids + tokenizer.encode(text)

    def _pieces(self, messages: Iterable[Message], add_generation_prompt: bool, variables: dict[str, Any]) -> Iterator[str]:
        plain = plain_messages(messages)
        if not plain:
            raise ChatTemplateError(f"{self.name}: found no messages, expected at least one")
        if variables.get("tools"):
            raise ChatTemplateError(f"{self.name}: found tools, expected none; only templates that come with a model know them")
        for index, message in enumerate(plain):
            self._check(message, index)
        return self._template.pieces(plain, self._ends, add_generation_prompt)

    def _check(self, message: Message, index: int) -> None:
        """Raise ChatTemplateError where a message could not be told from marks of the template."""
        if message["role"] not in ROLES:
            raise ChatTemplateError(f"message {index}: found the role {message['role']!r}, expected one of {', '.join(ROLES)}")
        if "content" not in message:
            raise ChatTemplateError(
                f"message {index}: found calls of tools, expected a text; {self.name} has no way to write them"
            )
        forged = [mark for mark in self._plain_marks if mark in message["content"]]
        if forged and message["role"] != "assistant":
            raise ChatTemplateError(f"message {index}: found {forged[0]}, a mark of {self.name}, expected none in a message")
