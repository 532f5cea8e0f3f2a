"""What lm-evaluation-harness's `hf` asks of transformers, asked of our tokenizers and engine, so that both say the same.

Where BOS goes, what is cut where a text is too long, what ends an answer. harness.py takes its requests through here. Knows no
engine and does not import the harness. Source: lm_eval/models/huggingface.py, 0.4.13.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llamita.engine import Sampling
from llamita.errors import SettingError
from llamita.judge.answers import Wish
from llamita.judge.likelihoods import Question
from llamita.model import Model
from llamita.tokenizer import Tokenizer

_SAMPLING_KEYS = ("temperature", "top_p", "top_k", "min_p")


def prefix_id(tokenizer: Tokenizer) -> int:
    """The id that a text without a context is foretold from: BOS, or EOS. Raises SettingError where there is neither."""
    token_id = tokenizer.bos_id if tokenizer.bos_id >= 0 else tokenizer.eos_id
    if token_id < 0:
        raise SettingError("tokenizer: found neither BOS nor EOS, expected one of them before a text without a context")
    return token_id


def encode(tokenizer: Tokenizer, text: str, bos: bool | None = None) -> list[int]:
    """The ids of a text, in which special tokens may be spelled; behind BOS where the model was trained so.

    bos: False leaves it out, and None where the text spells it itself.
    """
    if bos is None:
        spelled = spelling(tokenizer, tokenizer.bos_id)
        bos = not (spelled and text.startswith(spelled))
    ids = tokenizer.encode_marked(text)
    return [tokenizer.bos_id, *ids] if bos and tokenizer.adds_bos else ids


def spelling(tokenizer: Tokenizer, token_id: int) -> str:
    """How a special token is spelled; "" for an id that is none."""
    return next((text for text, special_id in tokenizer.special_tokens.items() if special_id == token_id), "")


def question_of(context: Sequence[int], continuation: Sequence[int], max_length: int) -> Question:
    """The question for a pair of ids; what is too long loses its beginning.

    Raises SettingError where either is empty, as spaces alone may be, or the continuation too long by itself.
    """
    if not context:
        raise SettingError("context: found no token in it, expected at least one, or no context at all; check the task")
    if not 1 <= len(continuation) <= max_length:
        raise SettingError(
            f"continuation: found {len(continuation)} tokens, expected 1 to {max_length}, the model's context; check the task"
        )
    n_context = max_length + 1 - len(continuation)  # the last id of all is not read
    return Question(tuple(context[-n_context:]), tuple(continuation))


def wish_of(
    model: Model, tokenizer: Tokenizer, prompt: Sequence[int], options: Mapping[str, Any], max_length: int, seed: int
) -> Wish:
    """The wish for the ids of a prompt; one that leaves no room for the answer loses its beginning.

    options: generation_kwargs of a task, as the harness normalizes them. Raises SettingError for those that we cannot meet.
    """
    max_tokens, until = int(options["max_gen_toks"]), list(options["until"])
    if not 1 <= max_tokens < max_length:
        raise SettingError(
            f"max_gen_toks: found {max_tokens}, expected 1 to {max_length - 1}, less than the model's context; "
            "set it by --gen-kwargs max_gen_toks=N"
        )
    special = tokenizer.special_tokens
    stop_ids = end_ids(model, tokenizer) | {special[text] for text in until if text in special}
    stop_texts = tuple(text for text in [*until, spelling(tokenizer, tokenizer.eos_id)] if text)
    return Wish(tuple(prompt[-(max_length - max_tokens) :]), max_tokens, stop_texts, stop_ids, _sampling_of(options, seed))


def end_ids(model: Model, tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that end an answer: those of generation_config.json, as our folders have it, and EOS."""
    return frozenset({tokenizer.eos_id, *(model.stop_ids or (tokenizer.bos_id,))} - {-1})


def _sampling_of(options: Mapping[str, Any], seed: int) -> Sampling:
    known = ("until", "max_gen_toks", "do_sample", *_SAMPLING_KEYS)
    if unknown := sorted(set(options) - set(known)):
        raise SettingError(f"generation_kwargs: found {', '.join(unknown)}, expected only {', '.join(known)}")
    if not options["do_sample"]:
        return Sampling(temperature=0)
    given = {key: options[key] for key in _SAMPLING_KEYS if options.get(key) is not None}
    return Sampling(**({"temperature": 1.0, "top_p": 1.0, "seed": seed} | given)).validate()


def left_open(rendered: str, last_message: str) -> str:
    """A rendered talk cut behind its last message, so that the model goes on with it; transformers' continue_final_message.

    Raises SettingError where the template changes the message, so that its end cannot be found.
    """
    place = rendered.rfind(last_message.strip())
    if place < 0:
        raise SettingError("chat template: found no trace of the beginning of an answer, expected it as the task gives it")
    whole = last_message.lstrip()
    return rendered[: place + len(whole if rendered.startswith(whole, place) else whole.rstrip())]
