"""The adapter to EleutherAI's lm-evaluation-harness: a model of ours as one of its models, called "llamita".

The harness makes requests of tasks, and metrics of the replies. Here a request becomes ids, as hf_conventions.py says, and
likelihoods.py or answers.py replies. evaluation.py runs it. Both need lm_eval, which comes with the extra `eval`.
"""

import logging
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from contextlib import AbstractContextManager, contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, cast

from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
from lm_eval.models.utils import normalize_gen_kwargs  # pyright: ignore[reportMissingImports]
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # pyright: ignore[reportMissingImports]

from llamita.engine import Engine
from llamita.errors import ChatTemplateError, ModelError, SettingError
from llamita.formats import read_model
from llamita.judge import hf_conventions
from llamita.judge.answers import answers
from llamita.judge.likelihoods import Likelihood, Question, likelihoods
from llamita.judge.losses import LOGITS_BYTES
from llamita.language_model import find_model
from llamita.model import Model
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.chat_template import ChatTemplate, open_template

DEFAULT_BATCH = 8
Advance = Callable[[int], None]
logger = logging.getLogger(__name__)


def uncounted(_title: str, _total: int) -> AbstractContextManager[Advance]:
    """Show no progress."""
    return nullcontext(lambda _n: None)


class HarnessModel(TemplateLM):
    """A model as the harness asks it.

    pretrained: a path, a bundled name, or a Model that is open; tokenizer, dtype: as llamita.load takes them. max_length:
    tokens of the longest text, the model's own context when left out. batch_size: texts that are read or written at once.
    template: a chat template's name or its Jinja source, the model's own when left out. counted: shows the progress of work
    that has a title and a total. Raises LlamitaError.
    """

    def __init__(
        self,
        pretrained: str | PathLike[str] | Model,
        tokenizer: str | None = None,
        dtype: str | None = None,
        threads: int | None = None,
        max_length: int | None = None,
        batch_size: int = DEFAULT_BATCH,
        template: str = "",
        counted: Callable[[str, int], AbstractContextManager[Advance]] = uncounted,
    ) -> None:
        super().__init__()
        opened = pretrained if isinstance(pretrained, Model) else read_model(find_model(pretrained), tokenizer, dtype)
        if opened.tokenizer is None:
            raise ModelError(f"{opened.name}: found no tokenizer beside the model; name one with -z")
        self._model, self._tokenizer = opened, cast(Tokenizer, opened.tokenizer)
        self._threads, self._counted = threads, counted
        self.max_length = opened.config.context if max_length is None else int(max_length)
        if not 2 <= self.max_length <= opened.config.context:
            raise SettingError(f"context: found {self.max_length}, expected 2 to {opened.config.context}, the model's")
        self.batch_size, self.max_gen_toks = int(batch_size), 256
        self.sampling_seed = 1  # of the first answer that is drawn
        self.is_at_work = False  # whether the harness waits for a reply of ours, and not we for it
        self._template_source = template or opened.chat_template

    # ---- text ------------------------------------------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        """EOS."""
        return self._tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context."""
        return hf_conventions.prefix_id(self._tokenizer)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """The ids of a text, behind BOS where the model was trained so."""
        return hf_conventions.encode(self._tokenizer, string, add_special_tokens)

    @property
    def tokenizer_name(self) -> str:
        """By what the harness tells prepared requests apart."""
        return str(self._model.name).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The source or name of the template that is applied."""
        return self._template_source if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A talk as text; without a generation prompt its last message is the beginning of the answer, and stays open.

        Where the template knows no system prompt it is left out, with a warning.
        """
        template = self._open_template()
        try:
            text = template.render(chat_history, add_generation_prompt)
        except ChatTemplateError as refusal:
            others = [message for message in chat_history if message["role"] != "system"]
            if len(others) == len(chat_history):
                raise
            text = template.render(others, add_generation_prompt)
            logger.warning("the system prompt is left out, as the template refuses it: %s", refusal)
        return text if add_generation_prompt else hf_conventions.left_open(text, chat_history[-1]["content"])

    def _open_template(self) -> ChatTemplate:
        if not self._template_source:
            raise SettingError(f"{self._model.name}: found no chat template, expected one; name it with --template")
        return open_template(self._template_source, self._tokenizer)

    # ---- requests --------------------------------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-probability of each continuation behind its context, and whether it is what greedy decoding would give."""
        for request in requests:
            if not request.args[1]:
                raise SettingError(f"{request.task_name}: found an empty text to be judged, expected some; check the task")
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(self, requests: Many[tuple[Any, list[int], list[int]]], **_: object) -> list[tuple[float, bool]]:
        questions = [hf_conventions.question_of(context, ending, self.max_length) for _, context, ending in requests]
        return [(found.logprob, found.is_greedy) for found in self._likelihoods(questions)]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:  # noqa: ARG002
        """Log-probability of each whole text, in windows where it is longer than max_length; each token counts once."""
        windows: list[Question] = []
        n_windows = []
        for request in requests:
            ids = self.tok_encode(request.args[0])
            pairs: list[tuple[list[int], list[int]]] = [
                make_disjoint_window(pair)
                for pair in get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)
            ]
            windows += [hf_conventions.question_of(context, ending, self.max_length) for context, ending in pairs]
            n_windows.append(len(pairs))
        found = iter(self._likelihoods(windows))
        return [sum(next(found).logprob for _ in range(n)) for n in n_windows]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:  # noqa: ARG002
        """What the model writes behind each context, up to a text that ends it or to max_gen_toks."""
        wishes = []
        for index, request in enumerate(requests):
            context, options = request.args
            options = normalize_gen_kwargs(options, self.max_gen_toks)
            ids = self.tok_encode(context)
            seed = self.sampling_seed + index
            wishes.append(hf_conventions.wish_of(self._model, self._tokenizer, ids, options, self.max_length, seed))
        n_tokens = max((len(wish.prompt) + wish.max_tokens for wish in wishes), default=1)
        with self._engine(n_tokens, len(wishes), "answers") as (engine, advance):
            return answers(engine, self._tokenizer, wishes, advance)

    def _likelihoods(self, questions: list[Question]) -> list[Likelihood]:
        n_tokens = max((question.n_read for question in questions), default=1)
        with self._engine(n_tokens, len(questions), "likelihoods") as (engine, advance):
            return likelihoods(engine, questions, advance)

    @contextmanager
    def _engine(self, n_tokens: int, n_texts: int, title: str) -> Iterator[tuple[Engine, Advance]]:
        """An engine with room for the longest of so many texts, and how to tell of each that is done.

        Its threads end with it: the harness forks processes of its own for some metrics.
        """
        self.is_at_work = True
        n_slots = max(min(self.batch_size, n_texts), 1)
        engine = Engine(self._model, self._threads, n_tokens, n_slots, LOGITS_BYTES)
        with engine, self._counted(title, n_texts) as advance:
            yield engine, advance
        self.is_at_work = False

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes down of the model beside the results."""
        dtypes = sorted({tensor.dtype for tensor in self._model.tensors.values() if len(tensor.shape) == 2})
        return {
            "model": "llamita",
            "model_args": {"pretrained": str(Path(self._model.name)), "max_length": self.max_length},
            "model_num_parameters": self._model.config.n_parameters,
            "model_dtype": ", ".join(dtypes),
            "model_source_format": self._model.source_format,
        }


_REGISTERED = register_model("llamita")(HarnessModel)  # as a decorator it would hide the class from type checkers
