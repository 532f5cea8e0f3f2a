"""ServedModel: an open model as the routes see it: its name, its tokenizer, its limits, and the scheduler that runs it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

from llamita.errors import ModelError, TokenizerError
from llamita.model import Model
from llamita.serve.errors import bad_request
from llamita.serve.scheduler import Scheduler
from llamita.tokenizer import Tokenizer


@dataclass(frozen=True)
class ServedModel:
    """created: seconds since 1970, which clients show. width: numbers of an embedding. chat_template: "" where there is none."""

    name: str
    created: int
    width: int
    tokenizer: Tokenizer
    scheduler: Scheduler
    stop_ids: frozenset[int] = field(default_factory=frozenset)
    chat_template: str = ""

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        return self.scheduler.context

    @cached_property
    def _special_texts(self) -> dict[int, str]:
        return {token_id: text for text, token_id in self.tokenizer.special_tokens.items()}

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text; a special token is spelled out."""
        special = self._special_texts.get(token_id)
        return special.encode() if special else self.tokenizer.piece_bytes(token_id)

    def special_text(self, token_id: int) -> str | None:
        """How a special token is spelled; None for -1, which no vocabulary has."""
        return self._special_texts.get(token_id)

    def encode(self, text: str, param: str, bos: bool) -> list[int]:
        """The ids of a text."""
        try:
            return self.tokenizer.encode(text, bos=bos)
        except TokenizerError as error:
            raise bad_request(f"{param}: {error}.", param) from None

    def ids_of(self, prompt: str | Sequence[int], param: str) -> list[int]:
        """The ids of a prompt: of a text, behind BOS where the model was trained so; ids as they are, checked."""
        if isinstance(prompt, str):
            ids = self.encode(prompt, param, bos=self.tokenizer.adds_bos)
        else:
            ids = self.checked_ids(prompt, param)
        if not ids:
            raise bad_request(f"{param}: found no tokens, expected at least one: this model begins no text by itself.", param)
        return ids

    def checked_ids(self, ids: Sequence[int], param: str) -> list[int]:
        """The ids themselves; ids of another vocabulary are refused."""
        if ids and max(ids) >= self.tokenizer.vocab_size:
            most = self.tokenizer.vocab_size - 1
            remedy = (
                "they may be of another model's vocabulary; send text instead (LangChain: check_embedding_ctx_length=False)"
            )
            raise bad_request(f"{param}: found token id {max(ids)}, expected 0 to {most}; {remedy}.", param, "invalid_token_id")
        return list(ids)


def open_served(model: Model, name: str, created: int, scheduler: Scheduler) -> ServedModel:
    """The model as routes see it; raises ModelError where it has no tokenizer."""
    if model.tokenizer is None:
        raise ModelError(f"{model.name}: found no tokenizer beside the model; name one with -z")
    tokenizer = cast(Tokenizer, model.tokenizer)
    stop_ids = frozenset({tokenizer.bos_id, tokenizer.eos_id, *model.stop_ids}) - {-1}
    return ServedModel(name, created, model.config.width, tokenizer, scheduler, stop_ids, model.chat_template)
