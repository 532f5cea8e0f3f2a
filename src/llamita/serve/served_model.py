"""ServedModel: an open model as the routes see it: its name, its tokenizer, its limits, and the scheduler that runs it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from llamita.errors import ChatTemplateError, ModelError, TokenizerError
from llamita.model import Model
from llamita.serve.errors import bad_request
from llamita.serve.messages import Message, Tool
from llamita.serve.scheduler import Scheduler
from llamita.serve.settings import Settings
from llamita.serve.structure import Structures
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.chat_template import ChatTemplate, open_template
from llamita.tokenizer.marks import decode_marked


@dataclass(frozen=True)
class ServedModel:
    """created: seconds since 1970, which clients show. width: numbers of an embedding.

    template: how messages are written down, "story" for a model that was not trained to answer; template_source: its Jinja.
    """

    name: str
    created: int
    width: int
    tokenizer: Tokenizer
    scheduler: Scheduler
    template: ChatTemplate
    template_source: str
    stop_ids: frozenset[int]

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        return self.scheduler.context

    @cached_property
    def _special_texts(self) -> dict[int, str]:
        return {token_id: text for text, token_id in self.tokenizer.special_tokens.items()}

    @cached_property
    def structures(self) -> Structures:
        """Makes grammars for structured output."""
        return Structures(self.tokenizer, self.stop_ids)

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text; a special token is spelled out."""
        special = self._special_texts.get(token_id)
        return special.encode() if special else self.tokenizer.piece_bytes(token_id)

    def special_text(self, token_id: int) -> str | None:
        """How a special token is spelled; None for -1, which no vocabulary has."""
        return self._special_texts.get(token_id)

    def encode_marked(self, text: str, param: str, bos: bool = True) -> list[int]:
        """The ids of a text in which special tokens are written out, as a client writes who applies the chat template itself.

        bos: whether BOS stands before it where the model was trained so; a text that begins with it gets no second one.
        """
        with _refused_by(param):
            ids = self.tokenizer.encode_marked(text)
        return [self.tokenizer.bos_id, *ids] if bos and self.tokenizer.adds_bos and not self.begins_with_bos(text) else ids

    def begins_with_bos(self, text: str) -> bool:
        """Whether BOS is written out where a text begins."""
        bos_text = self.special_text(self.tokenizer.bos_id)
        return bool(bos_text) and text.startswith(bos_text)

    def decode_marked(self, ids: Sequence[int]) -> str:
        """The text of ids with special tokens written out."""
        return decode_marked(self.tokenizer, ids)

    def ids_of(self, prompt: str | Sequence[int], param: str, is_marked: bool = False) -> list[int]:
        """The ids of a prompt: of a text, behind BOS where the model was trained so; ids as they are, checked.

        is_marked: whether special tokens may be written out in a text.
        """
        if not isinstance(prompt, str):
            ids = self.checked_ids(prompt, param)
        elif is_marked:
            ids = self.encode_marked(prompt, param)
        else:
            with _refused_by(param):
                ids = self.tokenizer.encode(prompt, bos=self.tokenizer.adds_bos)
        if not ids:
            raise bad_request(f"{param}: found no tokens, expected at least one: this model begins no text by itself.", param)
        return ids

    def chat_ids(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:  # fmt: skip
        """The ids of a talk, as the model's template writes it. variables: what else a template may ask for."""
        variables = dict(variables or {})
        if reserved := sorted({"self", "messages", "tools", "add_generation_prompt"} & set(variables)):
            raise bad_request(
                f"chat_template_kwargs: found {reserved[0]}, which has a place of its own.", "chat_template_kwargs"
            )
        if tools:
            if self.template_source and "tools" not in self.template_source:
                raise bad_request("tools: the model's chat template knows none; leave them out.", "tools")
            variables["tools"] = [tool.plain() for tool in tools]
        try:
            return self.template.encode([m.plain() for m in messages], add_generation_prompt, **variables)
        except (ChatTemplateError, TokenizerError) as error:
            raise bad_request(f"messages: {error}.", "messages") from None

    def checked_ids(self, ids: Sequence[int], param: str) -> list[int]:
        """The ids themselves; ids of another vocabulary are refused."""
        if ids and max(ids) >= self.tokenizer.vocab_size:
            most = self.tokenizer.vocab_size - 1
            remedy = (
                "they may be of another model's vocabulary; send text instead (LangChain: check_embedding_ctx_length=False)"
            )
            raise bad_request(f"{param}: found token id {max(ids)}, expected 0 to {most}; {remedy}.", param, "invalid_token_id")
        return list(ids)


def open_served(model: Model, settings: Settings, scheduler: Scheduler) -> ServedModel:
    """The model as routes see it; raises ModelError where it has no tokenizer, ChatTemplateError for a bad template."""
    if model.tokenizer is None:
        raise ModelError(f"{model.name}: found no tokenizer beside the model; name one with -z")
    tokenizer = cast(Tokenizer, model.tokenizer)
    source = settings.template or model.chat_template or "story"
    template = open_template(source, tokenizer)
    stop_ids = frozenset({tokenizer.bos_id, tokenizer.eos_id, *model.stop_ids, *template.stop_ids}) - {-1}
    template_source = source if template.name == "jinja" else ""
    created = int(time.time())
    return ServedModel(settings.name, created, model.config.width, tokenizer, scheduler, template, template_source, stop_ids)


@contextmanager
def _refused_by(param: str) -> Iterator[None]:
    """Answer 400 where the tokenizer refuses a text."""
    try:
        yield
    except TokenizerError as error:
        raise bad_request(f"{param}: {error}.", param) from None
