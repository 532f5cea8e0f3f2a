"""Answers: what one prompt is answered alone, however many are written side by side."""

from typing import cast

import pytest

from judge.toys import byte_level_model, sentencepiece_model
from llamita.engine import Engine, Sampling
from llamita.judge.answers import Wish, answers
from llamita.model import Model
from llamita.tokenizer import Tokenizer

GREEDY = Sampling(temperature=0)
BEGINNING = "She loved to play outside in the park."


@pytest.fixture(scope="module", params=["sentencepiece", "byte level"])
def model(request: pytest.FixtureRequest, toy_sentencepiece_bytes: bytes) -> Model:
    return sentencepiece_model(toy_sentencepiece_bytes) if request.param == "sentencepiece" else byte_level_model()


@pytest.fixture(scope="module")
def tokenizer(model: Model) -> Tokenizer:
    return cast(Tokenizer, model.tokenizer)


def told(model: Model, prompt: tuple[int, ...], n: int, sampling: Sampling = GREEDY) -> list[int]:
    with Engine(model, n_threads=1) as engine:
        sequence = engine.sequence(sampling)
        sequence.append(prompt)
        return sequence.run(n)


def wishes_of(tokenizer: Tokenizer) -> list[Wish]:
    """Prompts that begin alike and others, greedy ones and drawn ones, of several lengths."""
    texts = [BEGINNING, BEGINNING + " Tom", "Once", "Lily", BEGINNING[:20], BEGINNING]
    prompts = [tuple(tokenizer.encode(text)) for text in texts]
    samplings = [GREEDY, GREEDY, Sampling(1.0, seed=5), GREEDY, Sampling(0.7, seed=9), GREEDY]
    return [Wish(p, 3 + i, (), frozenset(), s) for i, (p, s) in enumerate(zip(prompts, samplings, strict=True))]


@pytest.mark.parametrize("n_slots", [1, 3, 8])
def test_each_answer_is_what_its_prompt_is_answered_alone(model: Model, tokenizer: Tokenizer, n_slots: int):
    wishes, done = wishes_of(tokenizer), []
    special = set(tokenizer.special_tokens.values())
    expected = [told(model, w.prompt, w.max_tokens, w.sampling) for w in wishes]
    with Engine(model, n_threads=2, n_slots=n_slots) as engine:
        found = answers(engine, tokenizer, wishes, done.append)
    assert found == [tokenizer.decode(i for i in ids if i not in special) for ids in expected]
    assert done == [1] * len(wishes)


def test_an_answer_ends_before_a_stop_text_and_unseen_at_a_stop_id(model: Model, tokenizer: Tokenizer):
    prompt = tuple(tokenizer.encode("Once"))
    ids = told(model, prompt, 12)
    text = tokenizer.decode(ids)
    stop_text, stop_id = text[len(text) // 2 :][:2], ids[6]
    wishes = [
        Wish(prompt, 12, (stop_text, "no such text"), frozenset(), GREEDY),
        Wish(prompt, 12, (), frozenset({stop_id}), GREEDY),
    ]
    with Engine(model, n_threads=1, n_slots=2) as engine:
        found = answers(engine, tokenizer, wishes)
    assert found == [text[: text.index(stop_text)], tokenizer.decode(ids[: ids.index(stop_id)])]


def test_special_tokens_in_an_answer_are_left_out_and_take_nothing_with_them(toy_sentencepiece_bytes: bytes):
    model = sentencepiece_model(toy_sentencepiece_bytes)
    tokenizer = cast(Tokenizer, model.tokenizer)
    word = tokenizer.encode("park")[0]
    assert tokenizer.piece_bytes(word).startswith(b" ")
    either = Sampling(temperature=100.0, top_p=1.0, logit_bias={word: 1e4, tokenizer.bos_id: 1e4}, seed=3)
    ids = told(model, (5,), 12, either)
    assert tokenizer.bos_id in ids[1:-1]
    assert set(ids) == {word, tokenizer.bos_id}
    with Engine(model, n_threads=1) as engine:
        (found,) = answers(engine, tokenizer, [Wish((5,), 12, (), frozenset(), either)])
    assert found == (ids.count(word) * tokenizer.piece_bytes(word).decode()).removeprefix(" ")
