"""Chat templates: messages to the ids that a model was trained to answer. Named ones are written here, others are Jinja.

What a message says must not pass for a mark of the template: each kind of template says how it sees to that. Knows no model.
"""

from collections.abc import Collection, Iterable
from typing import Any, Protocol

from llamita.tokenizer import Tokenizer
from llamita.tokenizer.answers import Example
from llamita.tokenizer.messages import Message
from llamita.tokenizer.named_templates import TEMPLATES, NamedTemplate


class ChatTemplate(Protocol):
    """A way to write messages down. Its stops end an answer: ids, and texts where the vocabulary has no such token.

    variables are what templates of Jinja may ask for: tools, documents, enable_thinking and the like; None counts as not given.
    The methods raise ChatTemplateError for messages that the template refuses, or has no way to write.
    """

    name: str
    stop_ids: frozenset[int]
    stop_texts: tuple[str, ...]

    @property
    def source(self) -> str:
        """What open_template opens it by."""
        ...

    def render(self, messages: Iterable[Message], add_generation_prompt: bool = True, **variables: Any) -> str:
        """The text of the messages, and of the beginning of an answer, with special tokens spelled out."""
        ...

    def encode(self, messages: Iterable[Message], add_generation_prompt: bool = True, **variables: Any) -> list[int]:
        """The ids of that text; a special token that is spelled in a message is text."""
        ...

    def encode_answers(
        self, messages: Iterable[Message], learned: Collection[int] | None = None, **variables: Any
    ) -> list[Example]:
        """The ids of a whole chat as a model learns it, and which of them it shall learn to say.

        learned: indices of the answers that count; left out, all that have a message before them. Before each stand the ids
        that encode gives for the messages before it; counted are the answer and what ends it. Nearly always one example; where
        the template writes an answer otherwise once the talk has gone on, that answer gets one of its own.
        """
        ...


def open_template(source: str, tokenizer: Tokenizer) -> ChatTemplate:
    """The template of a name out of TEMPLATES or of a Jinja source; raise ChatTemplateError where it cannot be used.

    >>> open_template("chatml", tokenizer).render([{"role": "user", "content": "Hi"}])       # doctest: +SKIP
    '<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n'
    """
    if source in TEMPLATES:
        return NamedTemplate(source, tokenizer)
    from llamita.tokenizer.jinja_template import JinjaTemplate

    return JinjaTemplate(source, tokenizer)
