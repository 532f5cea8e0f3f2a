"""Likelihoods of continuations: those of the plain numpy forward pass, however many run side by side and share a beginning."""

import numpy as np
import pytest

from llamita.config import ModelConfig
from llamita.engine import Engine, Reading
from llamita.errors import ModelError, SettingError
from llamita.judge.likelihoods import Question, likelihoods
from llamita.model import Model, random_model
from reference import log_softmax, reference_logits

CONFIG = ModelConfig(32, 2, 4, 2, 64, 300, 400)


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(CONFIG, seed=4)


def naive(model: Model, question: Question) -> tuple[float, bool]:
    ids, n = list(question.context + question.continuation), len(question.continuation)
    rows = log_softmax(reference_logits(model, ids[:-1]))[-n:]
    targets = np.array(question.continuation)
    return float(rows[np.arange(n), targets].sum()), bool((rows.argmax(axis=1) == targets).all())


def greedy(model: Model, context: tuple[int, ...], n: int) -> tuple[int, ...]:
    ids = list(context)
    for _ in range(n):
        ids.append(int(reference_logits(model, ids)[-1].argmax()))
    return tuple(ids[len(context) :])


def made_up(model: Model) -> list[Question]:
    """Questions that share contexts, beginnings of contexts, and continuations up to the last id, in no order."""
    chance = np.random.default_rng(0)

    def some(least: int, most: int) -> tuple[int, ...]:
        return tuple(chance.integers(0, CONFIG.vocab_size, int(chance.integers(least, most))).tolist())

    examples = some(60, 61)  # such as stand before every question
    contexts = [(7,), some(1, 4), some(20, 40), *(examples + some(1, 30) for _ in range(5)), examples, examples[:-1]]
    questions = [Question(context, some(1, 50)) for context in contexts for _ in range(4)]
    questions += [Question(context, (i,)) for context in contexts[3:6] for i in range(5)]
    questions += [Question(q.context, (*q.continuation[:-1], 11)) for q in questions[:6]]
    questions += [Question(context, greedy(model, context, 3)) for context in contexts[:3]]
    questions += [questions[5], Question((1,), some(CONFIG.context, CONFIG.context + 1))]
    chance.shuffle(order := list(range(len(questions))))
    return [questions[i] for i in order]


@pytest.fixture(scope="module")
def questions(model: Model) -> list[Question]:
    return made_up(model)


@pytest.fixture(scope="module")
def alone(model: Model, questions: list[Question]) -> list[tuple[float, bool]]:
    """What each question is answered by itself."""
    with Engine(model, n_threads=1) as engine:
        return [(found.logprob, found.is_greedy) for [found] in (likelihoods(engine, [question]) for question in questions)]


def test_likelihoods_are_those_of_the_reference(model: Model, questions: list[Question], alone: list[tuple[float, bool]]):
    expected = [naive(model, question) for question in questions]
    assert [logprob for logprob, _ in alone] == pytest.approx([logprob for logprob, _ in expected], abs=1e-4, rel=1e-6)
    assert [is_greedy for _, is_greedy in alone] == [is_greedy for _, is_greedy in expected]
    assert {True, False} == {is_greedy for _, is_greedy in alone}


@pytest.mark.parametrize("n_slots", [1, 2, 5, 40])
def test_neighbours_and_shared_beginnings_change_no_bit(
    model: Model, questions: list[Question], alone: list[tuple[float, bool]], n_slots: int
):
    told: list[int] = []
    with Engine(model, n_threads=2, n_slots=n_slots) as engine:
        assert [tuple(found) for found in likelihoods(engine, questions, told.append)] == alone
        assert likelihoods(engine, []) == []
    assert sum(told) == len(questions)


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many ids each pass of any engine has read."""
    rows: list[int] = []
    run = Engine.run_pass

    def counting(self: Engine, readings: list[Reading], n_steps: int = 1) -> np.ndarray:
        rows.append(sum(reading.n_ids for reading in readings))
        return run(self, readings, n_steps)

    monkeypatch.setattr(Engine, "run_pass", counting)
    return rows


def test_a_context_is_read_once_for_all_that_may_follow_it(model: Model, rows_read: list[int]):
    context = tuple(range(100, 200))
    questions = [Question(context, (i, i + 1, i + 2)) for i in range(4)] + [Question(context, (i,)) for i in range(50)]
    with Engine(model, n_threads=1, n_slots=4) as engine:
        likelihoods(engine, questions)
    assert sum(rows_read) == 99 + 4 * 3 + 1  # the last id of the context is read with each ending: fifty of them are one


def test_examples_that_stand_before_every_question_are_copied_once_they_are_read(model: Model, rows_read: list[int]):
    examples = tuple(range(10, 270))  # longer than a pass
    questions = [Question((*examples, i, i + 1), (5,)) for i in range(8)]
    with Engine(model, n_threads=1, n_slots=8) as engine:
        likelihoods(engine, questions)
    assert sum(rows_read) == 256 + 8 * (261 - 256) + 8  # the first pass is the first question's alone


def test_a_question_longer_than_the_context_is_refused(model: Model):
    with Engine(model, n_threads=1, context=32) as engine, pytest.raises(SettingError, match="33 tokens"):
        likelihoods(engine, [Question(tuple(range(20)), tuple(range(14)))])
    with Engine(model, n_threads=1, context=32) as engine:
        assert len(likelihoods(engine, [Question(tuple(range(20)), tuple(range(13)))])) == 1


def test_a_model_that_makes_no_numbers_is_refused():
    model = random_model(CONFIG)
    model.tensors["norm"].data[:] = np.nan
    with Engine(model, n_threads=1) as engine, pytest.raises(ModelError, match="no numbers"):
        likelihoods(engine, [Question((1,), (2, 3))])
