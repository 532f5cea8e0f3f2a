"""The chat templates that many models share, written in Python: Llama 2, Llama 3, ChatML, Zephyr, and a story for the rest.

Each gives pieces: texts, and marks, which are special tokens where the vocabulary has them, and says which of them the model
says in an answer. Only marks become special tokens, so no message can forge one. Where a mark is text to the vocabulary, as
Llama 2's [INST] is, a message that spells it is refused, as Meta's code does; what the assistant said is let through. Sources:
the templates published with each model, and chat_completion in generation.py of github.com/meta-llama/llama.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from llamita.errors import ChatTemplateError
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.answers import Example, Run, answers_of, encode_runs
from llamita.tokenizer.messages import ROLES, Message, plain_messages, refuse_calls

_TEMPLATE = -1  # who says what no message says


class Piece(NamedTuple):
    """A text, or a mark of a template, spelled out. said_in: the index of the message in which a model says it."""

    text: str
    is_mark: bool = False
    said_in: int = _TEMPLATE


class Ends(NamedTuple):
    """How the vocabulary spells BOS and EOS."""

    bos: str
    eos: str


def _llama2(messages: Sequence[Message], ends: Ends, _: bool) -> Iterator[Piece]:
    """[INST] <<SYS>> system <</SYS>> question [/INST] answer; the system prompt is part of the first question."""
    system: str | None = messages[0]["content"] if messages[0]["role"] in ("system", "developer") else None
    n_before = 0 if system is None else 1
    for index, message in enumerate(messages[n_before:]):
        if message["role"] != ("user", "assistant")[index % 2]:
            raise ChatTemplateError(f"llama2: found the role {message['role']}, expected user and assistant in turn")
        content: str = message["content"]
        if message["role"] == "assistant":
            yield Piece(f" {content.strip()} ", said_in=index + n_before)
            yield _mark(ends.eos, index + n_before)
            continue
        yield from (_mark(ends.bos), _mark("[INST]"), Piece(" "))
        if index == 0 and system is not None:
            yield from (_mark("<<SYS>>"), Piece(f"\n{system}\n"), _mark("<</SYS>>"), Piece(f"\n\n{content.rstrip()}"))
        else:
            yield Piece(content.strip())
        yield from (Piece(" "), _mark("[/INST]"))


def _llama3(messages: Sequence[Message], ends: Ends, add_generation_prompt: bool) -> Iterator[Piece]:
    yield _mark(ends.bos)
    for index, message in enumerate(messages):
        role = _renamed(message["role"], {"developer": "system", "tool": "ipython", "function": "ipython"})
        said_in = _speaker(message, index)
        yield from (_mark("<|start_header_id|>"), Piece(role), _mark("<|end_header_id|>"), Piece("\n\n"))
        yield from (Piece(message["content"].strip(), said_in=said_in), _mark("<|eot_id|>", said_in))
    if add_generation_prompt:
        yield from (_mark("<|start_header_id|>"), Piece("assistant"), _mark("<|end_header_id|>"), Piece("\n\n"))


def _chatml(messages: Sequence[Message], _: Ends, add_generation_prompt: bool) -> Iterator[Piece]:
    for index, message in enumerate(messages):
        role = _renamed(message["role"], {"developer": "system", "function": "tool"})
        said_in = _speaker(message, index)
        yield from (_mark("<|im_start|>"), Piece(f"{role}\n"))
        yield from (Piece(message["content"], said_in=said_in), _mark("<|im_end|>", said_in), Piece("\n"))
    if add_generation_prompt:
        yield from (_mark("<|im_start|>"), Piece("assistant\n"))


def _zephyr(messages: Sequence[Message], ends: Ends, add_generation_prompt: bool) -> Iterator[Piece]:
    for index, message in enumerate(messages):
        role = _renamed(message["role"], {"developer": "system"})
        if role not in ("system", "user", "assistant"):
            raise ChatTemplateError(f"zephyr: found the role {role}, expected system, user or assistant")
        said_in = _speaker(message, index)
        yield from (_mark(f"<|{role}|>"), Piece("\n"))
        yield from (Piece(message["content"], said_in=said_in), _mark(ends.eos, said_in), Piece("\n"))
    if add_generation_prompt:
        yield from (_mark("<|assistant|>"), Piece("\n"))


def _story(messages: Sequence[Message], ends: Ends, _: bool) -> Iterator[Piece]:
    """All texts one after another, as if one had told them: for models that were not trained to answer."""
    yield _mark(ends.bos)
    last = ""
    for index, message in enumerate(messages):
        content: str = message["content"]
        needs_space = last and not last.isspace() and content and content[0].isalnum()
        yield Piece((" " if needs_space else "") + content, said_in=_speaker(message, index))
        last = content[-1:] or last


def _mark(text: str, said_in: int = _TEMPLATE) -> Piece:
    return Piece(text, True, said_in)


def _speaker(message: Message, index: int) -> int:
    return index if message["role"] == "assistant" else _TEMPLATE


def _renamed(role: str, names: Mapping[str, str]) -> str:
    return names.get(role, role)


class _Template(NamedTuple):
    pieces: Callable[[Sequence[Message], Ends, bool], Iterator[Piece]]
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
        self._ends = Ends(spelling.get(bos_id, ""), spelling.get(tokenizer.eos_id, ""))
        if name in ("llama2", "zephyr") and not self._ends.eos:
            raise ChatTemplateError(f"{name}: found a vocabulary without EOS, expected one, which ends each answer")
        known = {special[mark] for mark in self._template.turn_end if mark in special}
        self.stop_ids = frozenset({tokenizer.eos_id, *known} - {-1})
        self.stop_texts = tuple(mark for mark in self._template.turn_end[:1] if mark not in special)
        self._plain_marks = [mark for mark in self._template.marks if mark not in special]

    @property
    def source(self) -> str:
        """What open_template opens it by: its name."""
        return self.name

    def render(self, messages: Iterable[Message], add_generation_prompt: bool = True, **variables: Any) -> str:
        """The text of the messages; see ChatTemplate.render."""
        return "".join(piece.text for piece in self._pieces(messages, add_generation_prompt, variables))

    def encode(self, messages: Iterable[Message], add_generation_prompt: bool = True, **variables: Any) -> list[int]:
        """The ids of the messages; see ChatTemplate.encode."""
        special, ids = self._tokenizer.special_tokens, list[int]()
        for is_special, pieces in self._grouped(self._pieces(messages, add_generation_prompt, variables)):
            texts = [piece.text for piece in pieces]
            ids += [special[text] for text in texts] if is_special else self._tokenizer.encode("".join(texts))
        return ids

    def encode_answers(
        self, messages: Iterable[Message], learned: Collection[int] | None = None, **variables: Any
    ) -> list[Example]:
        """The ids of the messages with their answers counted, one example; see ChatTemplate.encode_answers."""
        messages, tokenizer = plain_messages(messages), self._tokenizer
        learned = answers_of(messages) if learned is None else learned
        ids, counted = list[int](), list[bool]()
        for is_special, pieces in self._grouped(self._pieces(messages, False, variables)):
            runs = [Run(piece.text, piece.said_in in learned) for piece in pieces]
            if is_special:
                ids += [tokenizer.special_tokens[run.text] for run in runs]
                counted += [run.counted for run in runs]
            else:
                part = encode_runs(tokenizer, tokenizer.encode, runs)
                ids += part.ids
                counted += part.counted
        if self.name == "story" and tokenizer.eos_id >= 0:  # where others have a mark that ends an answer
            ids.append(tokenizer.eos_id)
            counted.append(len(messages) - 1 in learned)
        return [Example(ids, counted)]

    def _grouped(self, pieces: Iterable[Piece]) -> Iterator[tuple[bool, Iterator[Piece]]]:
        """Neighbouring pieces that are special tokens, and neighbouring ones that are text."""
        special = self._tokenizer.special_tokens
        return groupby(pieces, lambda piece: piece.is_mark and piece.text in special)

    def _pieces(self, messages: Iterable[Message], add_generation_prompt: bool, variables: dict[str, Any]) -> Iterator[Piece]:
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
        if message.get("tool_calls"):
            refuse_calls(index, self.name)
        forged = [mark for mark in self._plain_marks if mark in message["content"]]
        if forged and message["role"] != "assistant":
            raise ChatTemplateError(f"message {index}: found {forged[0]}, a mark of {self.name}, expected none in a message")
