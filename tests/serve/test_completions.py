"""POST /v1/completions: what openai-python, vLLM's clients and lm-eval expect of it."""

from typing import cast

import numpy as np
import pytest
from web import CONTEXT, Web

from llamita.judge.hf_conventions import encode
from llamita.language_model import LanguageModel
from llamita.model import Model
from llamita.serve.responses import CompletionResponse
from llamita.tokenizer import Tokenizer

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def ids(toy_model: Model) -> list[int]:
    assert toy_model.tokenizer
    return toy_model.tokenizer.encode(PROMPT, bos=True)  # pyright: ignore[reportAttributeAccessIssue]


def test_the_four_forms_of_a_prompt_say_the_same(web: Web, ids: list[int]):
    texts = []
    for prompt in (PROMPT, [PROMPT], ids, [ids]):
        answer = web.complete(prompt=prompt, max_tokens=12, seed=3)
        CompletionResponse.model_validate(answer)
        assert answer["usage"] == {
            "prompt_tokens": len(ids),
            "completion_tokens": answer["usage"]["completion_tokens"],
            "total_tokens": len(ids) + answer["usage"]["completion_tokens"],
            "prompt_tokens_details": answer["usage"]["prompt_tokens_details"],
        }
        texts.append(answer["choices"][0]["text"])
    assert len(set(texts)) == 1


def test_an_answer_is_what_the_model_says_without_a_server(web: Web, toy_model: Model):
    with LanguageModel(toy_model, n_threads=1) as model:
        expected = model.generate(PROMPT, 20, seed=7, temperature=1.0, top_p=1.0)
    assert web.complete(prompt=PROMPT, max_tokens=20, seed=7)["choices"][0]["text"] == expected


def test_choices_come_prompt_by_prompt_with_the_seeds_that_follow(web: Web):
    both = web.complete(prompt=[PROMPT, "Tom"], n=2, max_tokens=8, seed=5)["choices"]
    assert [choice["index"] for choice in both] == [0, 1, 2, 3]
    for i, (prompt, seed) in enumerate([(PROMPT, 5), (PROMPT, 6), ("Tom", 5), ("Tom", 6)]):
        alone = web.complete(prompt=prompt, max_tokens=8, seed=seed)["choices"][0]
        assert alone | {"index": i} == both[i]


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("logprobs", [None, 2])
def test_a_stream_says_what_the_whole_answer_says(web: Web, echo: bool, logprobs: int | None):
    body = {"prompt": [PROMPT, "Tom"], "max_tokens": 20, "seed": 2, "echo": echo, "logprobs": logprobs}
    whole = web.complete(**body)
    stream = web.post("/v1/completions", body | {"stream": True, "stream_options": {"include_usage": True}})
    *events, last = stream.events
    assert last["choices"] == []
    assert {**last["usage"], "prompt_tokens_details": 0} == {**whole["usage"], "prompt_tokens_details": 0}
    for choice in whole["choices"]:
        parts = [part for event in events for part in event["choices"] if part["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + [choice["finish_reason"]]
        if logprobs is not None:
            for name, values in choice["logprobs"].items():
                assert [v for part in parts if part["logprobs"] for v in part["logprobs"][name]] == values
    for event in events:
        CompletionResponse.model_validate(event)
        assert event["usage"] is None
        assert event["id"] == last["id"]


def test_a_stream_has_headers_that_no_proxy_holds_back(web: Web):
    headers = web.post("/v1/completions", {"prompt": PROMPT, "stream": True}).headers
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")


def test_echo_with_logprobs_tells_of_each_token_of_the_prompt(web: Web, toy_model: Model, ids: list[int]):
    body = {"prompt": [ids], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}  # as lm-eval asks
    choice = web.complete(**body)["choices"][0]
    logprobs = choice["logprobs"]
    with LanguageModel(toy_model, n_threads=1) as model:
        logits = model.logits(ids).astype(np.float64)
    scores = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert {len(values) for values in logprobs.values()} == {len(ids) + 1}
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    expected = [*(scores[i, token_id] for i, token_id in enumerate(ids[1:])), scores[-1].max()]
    np.testing.assert_allclose(logprobs["token_logprobs"][1:], expected, atol=1e-4)
    for i, top in enumerate(logprobs["top_logprobs"][1:]):
        assert max(top.values()) == pytest.approx(scores[i].max(), abs=1e-4)
    assert logprobs["token_logprobs"][-1] == max(logprobs["top_logprobs"][-1].values())  # lm-eval compares them so
    assert choice["text"].startswith(PROMPT)


def test_offsets_point_at_the_tokens_in_the_text(web: Web):
    choice = web.complete(prompt=PROMPT, max_tokens=15, logprobs=0, echo=True, seed=4)["choices"][0]
    logprobs = choice["logprobs"]
    assert logprobs["tokens"][0] == "<s>"
    for token, start in zip(logprobs["tokens"][2:], logprobs["text_offset"][2:], strict=True):
        if "\\x" not in token and token != "</s>":
            assert choice["text"][start:].startswith(token)
    assert all(list(top) == [token] for token, top in zip(logprobs["tokens"][1:], logprobs["top_logprobs"][1:], strict=True))


MARKED = "<s>Tom</s><s> and Lily"


def test_special_tokens_written_out_in_a_prompt_are_special_tokens(web: Web):
    ids = web.post("/tokenize", {"prompt": MARKED}).json["tokens"]
    assert [token_id for token_id in ids if token_id < 3] == [1, 2, 1]  # no second BOS before it
    settings = {"max_tokens": 8, "seed": 3, "logprobs": 0}
    answers = [web.complete(prompt=prompt, **settings) for prompt in (MARKED, ids)]
    assert answers[0]["choices"] == answers[1]["choices"]
    assert answers[0]["usage"]["prompt_tokens"] == len(ids)


@pytest.mark.parametrize("text", [MARKED, "Tom", "<s>", "</s>Tom<s>", " <s>", "<s><s>Tom", "Tom<|im_end|>"])
def test_a_prompt_has_the_ids_that_the_harness_in_this_process_gives_it(web: Web, toy_model: Model, text: str):
    ids = encode(cast(Tokenizer, toy_model.tokenizer), text)
    assert web.service.model.ids_of(text, "prompt", is_marked=True) == ids
    assert web.post("/tokenize", {"prompt": text}).json["tokens"] == ids


@pytest.mark.parametrize("text", [MARKED, "Tom</s><s>Tom", "Tom"])
@pytest.mark.parametrize("form", ["text", "ids"])
def test_an_echo_has_special_tokens_written_out_and_offsets_that_count_them(web: Web, text: str, form: str):
    prompt = text if form == "text" else web.post("/tokenize", {"prompt": text}).json["tokens"]
    choice = web.complete(prompt=prompt, max_tokens=3, logprobs=0, echo=True, seed=4)["choices"][0]
    echoed = text if form == "text" else text.removeprefix("<s>")
    assert choice["text"].startswith(echoed)
    logprobs = choice["logprobs"]
    marks = [i for i, token in enumerate(logprobs["tokens"][:-3]) if token in ("<s>", "</s>")]
    for i in marks if echoed.startswith("<s>") else marks[1:]:
        assert choice["text"][logprobs["text_offset"][i] :].startswith(logprobs["tokens"][i])
    assert logprobs["text_offset"][-3] == len(echoed)


def test_tokens_behind_a_stop_text_are_told_nowhere(web: Web):
    body = {"prompt": PROMPT, "max_tokens": 30, "seed": 9, "logprobs": 0}
    whole = web.complete(**body)["choices"][0]
    stop = whole["text"][10:13]
    cut = web.complete(**body, stop=[stop, "never there"])["choices"][0]
    assert cut["text"] == whole["text"][: whole["text"].index(stop)]
    assert cut["finish_reason"] == "stop"
    n = len(cut["logprobs"]["tokens"])
    assert cut["logprobs"]["tokens"] == whole["logprobs"]["tokens"][:n]
    assert all(offset < len(cut["text"]) for offset in cut["logprobs"]["text_offset"])


def test_best_of_gives_the_likeliest(web: Web):
    body = {"prompt": PROMPT, "max_tokens": 6, "logprobs": 0, "seed": 1, "logit_bias": {"1": -100, "2": -100}}
    all_of_them = web.complete(**body, n=5)["choices"]
    best = web.complete(**body, best_of=5)["choices"]
    likeliest = max(all_of_them, key=lambda choice: sum(choice["logprobs"]["token_logprobs"]))
    assert best == [likeliest | {"index": 0}]


@pytest.mark.parametrize("n_prompt", [CONTEXT - 1, CONTEXT, CONTEXT + 1])
@pytest.mark.parametrize("max_tokens", [0, 1, 2])
def test_what_does_not_fit_the_context_is_refused_with_both_numbers(web: Web, n_prompt: int, max_tokens: int):
    answer = web.post("/v1/completions", {"prompt": [5] * n_prompt, "max_tokens": max_tokens, "ignore_eos": True})
    if n_prompt + max_tokens <= CONTEXT:
        assert answer.json["usage"]["completion_tokens"] == max_tokens
        assert answer.json["choices"][0]["finish_reason"] == "length"
    else:
        assert answer.status == 400
        assert answer.error["code"] == "context_length_exceeded"
        assert str(CONTEXT) in answer.error["message"]
        assert str(n_prompt + max_tokens) in answer.error["message"]


def test_the_default_number_of_tokens_ends_with_the_context(web: Web):
    assert web.complete(prompt=[5] * (CONTEXT - 3), ignore_eos=True)["usage"]["completion_tokens"] == 3
    assert web.complete(prompt="Tom", ignore_eos=True)["usage"]["completion_tokens"] == 16


def test_no_share_of_the_probability_is_the_likeliest_token(web: Web):
    greedy = web.complete(prompt=PROMPT, max_tokens=9, temperature=0)["choices"]
    assert web.complete(prompt=PROMPT, max_tokens=9, top_p=0)["choices"] == greedy
    assert web.complete(prompt=PROMPT, max_tokens=9, top_k=1)["choices"] == greedy


@pytest.mark.parametrize("seed", [0, 1, -1, -(1 << 63), 10**40])
def test_any_seed_repeats_itself(web: Web, seed: int):
    assert web.complete(prompt=PROMPT, seed=seed)["choices"] == web.complete(prompt=PROMPT, seed=seed)["choices"]


def test_a_bias_decides_and_a_bias_of_nothing_is_ignored(web: Web):
    bias = {"300": 100, "foo": 0, "99999": 0}
    answer = web.complete(prompt=PROMPT, max_tokens=4, logit_bias=bias, logprobs=0)["choices"][0]["logprobs"]
    assert len(set(answer["tokens"])) == 1


def test_null_is_the_default_and_whole_floats_are_integers(web: Web):
    body = {"prompt": PROMPT, "seed": 5.0, "n": None, "stop": None, "temperature": None, "max_tokens": 16.0, "logprobs": None}
    assert web.complete(**body)["choices"] == web.complete(prompt=PROMPT, seed=5)["choices"]


def test_ids_of_another_vocabulary_are_refused(web: Web):
    error = web.post("/v1/completions", {"prompt": [100_000]}).error
    assert error["code"] == "invalid_token_id"
    assert "check_embedding_ctx_length" in error["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("suffix", "The end."), ("best_of", 1), ("grammar", "root ::= x"), ("guided_json", {}), ("logit_bias", {"foo": 1})],
)
def test_what_cannot_be_done_is_refused_by_name(web: Web, field: str, value: object):
    answer = web.post("/v1/completions", {"prompt": PROMPT, "n": 2, field: value})
    assert answer.status == 400
    assert answer.error["param"] == field
