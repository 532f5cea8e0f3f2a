"""From a request's fields to the jobs of the scheduler: one for each text that was asked for.

OpenAI's meaning of a field becomes the engine's here, and nowhere else.
"""

import secrets
from collections.abc import Callable, Sequence

from llamita.engine.sampling import Sampling
from llamita.serve.errors import bad_request, context_exceeded, shown
from llamita.serve.job import Job
from llamita.serve.limits import MAX_CHOICES
from llamita.serve.requests import GenerationRequest
from llamita.serve.served_model import ServedModel
from llamita.serve.structure import Grammar

SEED_OF_ZERO = 0x9E3779B97F4A7C15  # the engine's generator never leaves the state 0


def jobs_of(
    request: GenerationRequest, model: ServedModel, prompts: Sequence[list[int]], n_each: int, max_tokens: int,
    logprobs: bool = False, n_alternatives: int = 0, prompt_logprobs: bool = False, stop_texts: Sequence[str] = (),
) -> list[Job]:  # fmt: skip
    """n_each jobs for each prompt, prompt by prompt; the i-th of a prompt has the request's seed + i.

    stop_texts: besides those of the request. Raises ApiError for wishes that cannot be met.
    """
    if len(prompts) * n_each > MAX_CHOICES:
        raise bad_request(f"n: found {len(prompts)} prompts times {n_each}, expected at most {MAX_CHOICES} texts at once.", "n")
    sampling = [sampling_of(request, model, i) for i in range(n_each)]
    stop_ids = frozenset() if request.ignore_eos else model.stop_ids
    stops = tuple(filter(None, [*request.stop, *stop_texts]))
    make_grammar = grammar_maker(request, model)
    if make_grammar:
        stops = ()  # the grammar knows where the answer ends
    return [
        Job(
            prompt_ids=prompt, sampling=sampling[i], max_tokens=max_tokens, stop_texts=stops,
            stop_ids=stop_ids, logprobs=logprobs, n_alternatives=n_alternatives,
            prompt_logprobs=prompt_logprobs and i == 0, constraint=make_grammar() if make_grammar else None,
        )
        for prompt in prompts
        for i in range(n_each)
    ]  # fmt: skip


def grammar_maker(request: GenerationRequest, model: ServedModel) -> Callable[[], Grammar] | None:
    """Makes the grammar of each answer, where its form is prescribed."""
    wish = request.response_format
    if wish is None or wish.type == "text":
        return None
    if any(request.stop):
        raise bad_request("stop: found it beside response_format, expected one of the two: it could cut an answer.", "stop")
    return model.structures.maker(wish)


def sampling_of(request: GenerationRequest, model: ServedModel, index: int) -> Sampling:
    """How the index-th text of a prompt is drawn."""
    seed = secrets.randbits(64) if request.seed is None else (request.seed + index) % (1 << 64)
    return Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        # no share at all is the likeliest token alone; the engine takes 0 for all tokens. Others write -1 for "off"
        top_k=1 if request.top_p == 0 else max(request.top_k, 0),
        min_p=request.min_p,
        repetition_penalty=request.repetition_penalty,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=bias_of(request, model),
        seed=seed or SEED_OF_ZERO,
    )


def bias_of(request: GenerationRequest, model: ServedModel) -> dict[int, float]:
    """The biases by token id. A bias of 0 changes nothing, whatever it is said of."""
    biases: dict[int, float] = {}
    for key, bias in request.logit_bias.items():
        if bias == 0:
            continue
        if not (key.isascii() and key.isdecimal()) or len(key) > 9 or int(key) >= model.tokenizer.vocab_size:
            most = model.tokenizer.vocab_size - 1
            raise bad_request(f"logit_bias: found {shown(key)}, expected token ids from 0 to {most}.", "logit_bias")
        biases[int(key)] = bias
    return biases


def room_for(wanted: int | None, prompts: Sequence[list[int]], context: int, param: str, default: int | None = None) -> int:
    """Tokens that each answer may have; raises ApiError where the longest prompt leaves no room for those wanted.

    default: how many where the request does not say, as far as they fit; None fills the context.
    """
    longest = max(map(len, prompts))
    least = 1 if wanted is None else wanted
    if longest + least > context:
        raise context_exceeded(longest, least, context, param)
    if wanted is not None:
        return wanted
    return context - longest if default is None else min(default, context - longest)
