"""Base: the model that fine-tuning begins with, and the template by which it is talked to from now on.

Where the template has marks that the vocabulary lacks, they become special tokens, with rows of their own. Any format that is
read will do; quantized weights are trained as the numbers that they stand for. Knows no chats and no network.
"""

import hashlib
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import cast

import numpy as np

from llamita.errors import ModelError
from llamita.files import sha256_of
from llamita.formats import read_model, weight_paths
from llamita.model import Model, with_more_rows
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.added_tokens import missing_marks, n_tokens, with_special_tokens
from llamita.tokenizer.chat_template import ChatTemplate, open_template
from llamita.tokenizer.named_templates import TEMPLATES
from llamita.tokenizer.published_templates import jinja_of

USUAL_TEMPLATE = "chatml"  # for models that come without one


@dataclass(frozen=True, eq=False)
class Base:
    """model: as it was read; begun: with rows for the tokens that the template adds, which are n_new from n_known on.

    name: what the user calls it. sha256: of its weights; "" where nobody asked.
    """

    model: Model
    begun: Model
    tokenizer: Tokenizer
    template: ChatTemplate
    n_known: int
    n_new: int
    name: str
    sha256: str = ""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """What ends an answer."""
        return tuple(sorted(self.template.stop_ids))

    @property
    def chats_differently(self) -> bool:
        """Whether it was not talked to in this way before."""
        return self.n_new > 0 or jinja_of(self.template) != self.model.chat_template

    def new_rows(self) -> dict[str, np.ndarray]:
        """The rows of the added tokens before training: float32 (n_new, D), of "embedding", and "head" where it is another."""
        names = ["embedding"] if self.model.config.tied_embedding else ["embedding", "head"]
        end = self.n_known + self.n_new
        return {name: self.begun.tensors[name].rows(self.n_known, end).dequantize() for name in names}

    def with_chat(self, model: Model) -> Model:
        """A model of the same shape with tokenizer, template and ends of answers."""
        return replace(model, tokenizer=self.tokenizer, chat_template=jinja_of(self.template), stop_ids=self.stop_ids)


def open_base(path: str | PathLike[str], name: str, template: str = "", tokenizer: str | PathLike[str] | None = None) -> Base:
    """Read a model to be fine-tuned. template: a name, or a source of Jinja; left out, the model's own, else USUAL_TEMPLATE.

    Raises LlamitaError for a model that cannot be read or has no tokenizer, and for a template that cannot be used with it.
    """
    model = read_model(path, tokenizer)
    if model.tokenizer is None:
        raise ModelError(f"{name}: found no tokenizer beside the model; name one with --tokenizer")
    known = cast(Tokenizer, model.tokenizer)
    source = template or model.chat_template or USUAL_TEMPLATE
    marks = missing_marks(source, known) if source in TEMPLATES else []
    extended = with_special_tokens(known, marks)
    n_known, n_all = n_tokens(known), n_tokens(extended)
    grown = with_more_rows(model, extended.vocab_size, n_known) if n_all > n_known else model
    return Base(model, grown, extended, open_template(source, extended), n_known, n_all - n_known, name)


def digest_of(model: Model) -> str:
    """SHA-256 of the files that hold a model's weights, and of its config; raises OSError where one cannot be read."""
    facts = [repr(model.config), *(sha256_of(path) for path in weight_paths(model))]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def is_inside(folder: Path, model: Model) -> bool:
    """Whether a folder holds the files of a model."""
    return folder.resolve() in (path.resolve().parent for path in weight_paths(model))
