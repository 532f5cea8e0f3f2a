"""The scheduler from outside: what a job is answered, who waits, who is refused, and how it all ends."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llamita.engine import Engine, Sampling
from llamita.errors import ModelError, PromptTooLongError, QueueFullError, SettingError, StoppedError
from llamita.language_model import LanguageModel
from llamita.model import Model, random_model
from llamita.serve.job import Finish, Reason
from llamita.serve.scheduler import MOST_FAILURES, Scheduler
from reference import log_softmax
from serve.asking import Heard, endless, job_of, wait_until

CONTEXT = 128
IDS = np.random.default_rng(5).integers(3, 400, 300).tolist()


@pytest.fixture(scope="module")
def scheduler(toy_model: Model) -> Iterator[Scheduler]:
    with Scheduler(toy_model, n_threads=1, n_slots=3, max_queue=4) as scheduler:
        yield scheduler
        assert scheduler.statistics().n_running == scheduler.statistics().n_waiting == 0


@pytest.fixture(scope="module")
def long_model(toy_model: Model) -> Model:
    """A model whose texts last: with an answer of a second, there is time to do something meanwhile."""
    config = replace(toy_model.config, width=128, n_layers=4, head_size=32, mlp_width=256, context=4096)
    return replace(random_model(config), tokenizer=toy_model.tokenizer)


@pytest.fixture
def fresh(long_model: Model) -> Iterator[Scheduler]:
    """One that a test may end; endless jobs last a second."""
    with Scheduler(long_model, n_threads=1, n_slots=2, max_queue=2) as scheduler:
        yield scheduler


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_an_answer_is_what_the_model_tells_without_a_server(toy_model: Model, scheduler: Scheduler):
    sampling = Sampling(temperature=1.0, seed=7, presence_penalty=0.5)
    with LanguageModel(toy_model, n_threads=1) as model:
        expected = "".join(model.continue_ids(IDS[:20], 40, sampling, stop=["he", "e t"], stop_ids=()))
    heard = Heard(scheduler, replace(job_of(IDS[:20], 40, stop_texts=("he", "e t")), sampling=sampling)).wait()
    assert heard.text == expected


def test_tokens_come_as_they_are_made_and_the_end_comes_last(scheduler: Scheduler):
    heard = Heard(scheduler, job_of(IDS[:9], 100)).wait()
    assert len(heard.tokens) == 100
    assert heard.n_calls > 1
    finish = heard.finish
    assert (finish.reason, finish.usage.n_prompt_tokens, finish.usage.n_tokens) == (Reason.LENGTH, 9, 100)
    times = finish.timings
    assert 0 <= times.queue_seconds <= times.first_token_seconds <= times.total_seconds


def test_a_stop_id_ends_an_answer_and_is_told_without_text(scheduler: Scheduler):
    free = Heard(scheduler, job_of(IDS[:9], 30)).wait()
    stop = free.ids[11]
    n = free.ids.index(stop) + 1
    heard = Heard(scheduler, job_of(IDS[:9], 30, stop_ids=frozenset({stop}))).wait()
    assert heard.ids == free.ids[:n]
    assert (heard.finish.reason, heard.tokens[-1].text) == (Reason.STOP, "")


def test_a_stop_text_ends_an_answer_before_it_begins(scheduler: Scheduler):
    free = Heard(scheduler, job_of(IDS[:9], 60)).wait().text
    stop = free[20:24]
    heard = Heard(scheduler, job_of(IDS[:9], 60, stop_texts=("\0", stop))).wait()
    assert heard.text == free[: free.index(stop)]
    assert heard.finish.reason is Reason.STOP


@pytest.mark.parametrize("n_prompt", [CONTEXT - 1, CONTEXT])
def test_an_answer_ends_where_the_context_does(scheduler: Scheduler, n_prompt: int):
    heard = Heard(scheduler, job_of(IDS[:n_prompt], 50)).wait()
    assert heard.finish.reason is Reason.LENGTH
    assert len(heard.tokens) == CONTEXT - n_prompt + 1  # the last one need not be read


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(scheduler: Scheduler):
    with pytest.raises(PromptTooLongError, match="found 129 tokens, expected at most 128") as caught:
        Heard(scheduler, job_of(IDS[: CONTEXT + 1]))
    assert (caught.value.n_prompt_tokens, caught.value.context) == (CONTEXT + 1, CONTEXT)


@pytest.mark.parametrize("wish", [
    {"prompt_ids": ()}, {"prompt_ids": (400,)}, {"prompt_ids": (-1,)}, {"prompt_ids": (1 << 70,)}, {"max_tokens": -1},
    {"n_alternatives": 21}, {"sampling": Sampling(temperature=-1)}, {"sampling": Sampling(logit_bias={400: 1.0})},
    {"wants_embedding": True},
])  # fmt: skip
def test_wishes_that_cannot_be_met_are_refused_at_once(scheduler: Scheduler, wish: dict[str, Any]):
    with pytest.raises(SettingError, match="found"):
        Heard(scheduler, replace(job_of(IDS[:3]), **wish))


def test_a_job_for_nothing_ends_at_once(scheduler: Scheduler):
    heard = Heard(scheduler, job_of(IDS[:5], max_tokens=0)).wait()
    assert heard.events == [heard.finish]
    assert (heard.finish.reason, heard.finish.usage.n_tokens) == (Reason.LENGTH, 0)


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
@pytest.mark.parametrize("n_prompt", [1, 2, 33, 120])
def test_logprobs_of_prompt_and_answer_are_the_log_softmax_of_the_logits(
    toy_model: Model, scheduler: Scheduler, n_prompt: int, max_tokens: int
):
    job = job_of(IDS[7 : 7 + n_prompt], max_tokens, prompt_logprobs=True, logprobs=True, n_alternatives=2)
    heard = Heard(scheduler, job).wait()
    ids = [*job.prompt_ids, *heard.ids]
    with Engine(toy_model, n_threads=1) as engine:
        expected = log_softmax(engine.logits(ids))
    told = [*heard.finish.prompt_tokens, *heard.tokens]
    assert [token.id for token in told] == ids
    assert len(heard.ids) == max_tokens
    assert (told[0].logprob, told[0].alternatives) == (0.0, ())
    for row, token in zip(expected, told[1:], strict=False):
        assert token.logprob == pytest.approx(row[token.id], abs=1e-5)
        assert [i for i, _ in token.alternatives] == np.argsort(-row, kind="stable")[:2].tolist()
        assert dict(token.alternatives).get(token.id, token.logprob) == token.logprob


def test_an_embedding_is_the_mean_of_the_hidden_states(toy_model: Model, scheduler: Scheduler):
    heard = Heard(scheduler, job_of(IDS[:70], max_tokens=0, wants_embedding=True)).wait()
    with Engine(toy_model, n_threads=1) as engine:
        logits = engine.logits(IDS[:70]).astype(np.float64)
    head = toy_model.head.dequantize().astype(np.float64)
    assert heard.finish.embedding.dtype == np.float32
    assert heard.finish.embedding @ head.T == pytest.approx(logits.mean(0), abs=1e-3)


# ---- constraints -----------------------------------------------------------------------------------------------------


class Only:
    """Allows ids of a set, and is finished after some of them."""

    def __init__(self, allowed: set[int], n: int = 1 << 30, fails_at: int = 1 << 30) -> None:
        self.allowed, self.n, self.fails_at = allowed, n, fails_at
        self.accepted: list[int] = []
        self.n_asked = 0

    @property
    def is_finished(self) -> bool:
        return len(self.accepted) >= self.n

    def mask(self) -> np.ndarray:
        self.n_asked += 1
        bits = np.zeros(416, np.uint8)
        bits[list(self.allowed)] = 1
        return np.packbits(bits, bitorder="little").view(np.int32)

    def accept(self, token_id: int) -> None:
        if len(self.accepted) == self.fails_at:
            raise ValueError("the grammar\nis wrong")
        self.accepted.append(token_id)


def test_a_constraint_is_asked_before_and_told_after_each_token(scheduler: Scheduler):
    odd = Only(set(range(5, 400, 2)), n=12)
    beside = Heard(scheduler, job_of(IDS[:30], 40))
    heard = Heard(scheduler, job_of(IDS[:100], 99, constraint=odd)).wait()  # read in several passes
    assert heard.ids == odd.accepted
    assert all(i % 2 for i in heard.ids)
    assert (len(heard.ids), odd.n_asked, heard.finish.reason) == (12, 12, Reason.STOP)
    assert any(i % 2 == 0 for i in beside.wait().ids)


def test_a_slot_forgets_the_constraint_of_its_last_job(scheduler: Scheduler):
    expected = Heard(scheduler, job_of(IDS[:4], 20)).wait().ids
    for _ in range(3):
        Heard(scheduler, job_of(IDS[:4], 2, constraint=Only({9}))).wait()
    assert [Heard(scheduler, job_of(IDS[:4], 20)).wait().ids for _ in range(3)] == [expected] * 3


def test_a_stop_id_is_not_told_to_the_constraint(scheduler: Scheduler):
    constraint = Only({2})
    heard = Heard(scheduler, job_of(IDS[:4], 20, constraint=constraint, stop_ids=frozenset({2}))).wait()
    assert (heard.ids, constraint.accepted, heard.finish.reason) == ([2], [], Reason.STOP)


@pytest.mark.parametrize(("constraint", "message"), [(Only(set()), "no allowed id"), (Only({7}, fails_at=3), "grammar\\nis")])
def test_a_constraint_that_fails_ends_its_own_job_only(scheduler: Scheduler, constraint: Only, message: str):
    expected = Heard(scheduler, job_of(IDS[:9], 40)).wait().ids
    beside = Heard(scheduler, job_of(IDS[:9], 40))
    heard = Heard(scheduler, job_of(IDS[:9], 40, constraint=constraint)).wait()
    assert heard.finish.reason is Reason.ERROR
    assert message in heard.finish.error
    assert beside.wait().ids == expected


# ---- prefixes --------------------------------------------------------------------------------------------------------


def test_a_conversation_reads_only_what_is_new(scheduler: Scheduler):
    first = Heard(scheduler, job_of(IDS[100:140], 20)).wait()
    longer = [*IDS[100:140], *first.ids, *IDS[:10]]
    second = Heard(scheduler, job_of(longer, 20)).wait()
    assert second.finish.usage.n_cached_tokens == 59  # the last token of the first answer was never read
    assert second.wait().ids == Heard(scheduler, job_of(longer, 20)).wait().ids


def test_a_prompt_takes_its_beginning_from_a_running_text(fresh: Scheduler):
    running = Heard(fresh, endless(IDS[150:230])).wait_for_tokens(1)
    heard = Heard(fresh, job_of([*IDS[150:200], 9, 9], 5)).wait()
    assert heard.finish.usage.n_cached_tokens == 50
    assert not running.has_ended


def test_jobs_that_come_together_read_their_common_prompt_once(long_model: Model):
    with Scheduler(long_model, n_threads=1, n_slots=4) as scheduler:
        blocker = Heard(scheduler, endless(IDS[:3])).wait_for_tokens(1)
        several = [Heard(scheduler, job_of(IDS[200:300], 4, seed=i + 1)) for i in range(3)]
        cached = [heard.wait().finish.usage.n_cached_tokens for heard in several]
        assert sorted(cached)[1:] == [99, 99]
        assert len({tuple(heard.ids) for heard in several}) == 3
        scheduler.cancel(blocker.ticket)


def test_scores_of_a_prompt_are_kept_for_prompts_that_begin_alike(scheduler: Scheduler):
    def ask(ids: list[int], n: int) -> Heard:
        return Heard(scheduler, job_of(ids, 1, prompt_logprobs=True, logprobs=True, n_alternatives=n)).wait()

    first, other = ask(IDS[30:110], 3), ask([*IDS[30:90], 7, 8], 2)
    assert other.finish.usage.n_cached_tokens == 59  # the 60th is read again, to score the 61st
    again = ask([*IDS[30:90], 7, 8], 2)
    assert again.finish.usage.n_cached_tokens == 61
    more = ask([*IDS[30:90], 7, 8], 5)  # nobody has asked for so many alternatives yet
    assert more.finish.usage.n_cached_tokens == 0
    assert again.answer == other.answer
    assert [t._replace(alternatives=t.alternatives[:2]) for t in more.finish.prompt_tokens] == [*other.finish.prompt_tokens]
    assert [t.logprob for t in first.finish.prompt_tokens[:60]] == [t.logprob for t in other.finish.prompt_tokens[:60]]


def test_the_slot_used_least_recently_is_overwritten(toy_model: Model):
    prompts = [IDS[i * 30 : i * 30 + 30] for i in range(4)]

    def cached(prompt: list[int]) -> int:
        return Heard(scheduler, job_of(prompt, 1)).wait().finish.usage.n_cached_tokens

    with Scheduler(toy_model, n_threads=1, n_slots=3) as scheduler:
        assert [cached(prompt) for prompt in prompts[:3]] == [0, 0, 0]
        assert [cached(prompt) for prompt in (prompts[0], prompts[3], prompts[0], prompts[2])] == [29, 0, 29, 29]
        assert cached(prompts[1]) == 0


# ---- waiting, cancelling ---------------------------------------------------------------------------------------------


def test_more_jobs_than_slots_wait_their_turn(fresh: Scheduler):
    heard = [Heard(fresh, job_of(IDS[i : i + 20], 300)) for i in range(4)]
    assert [one.finish.reason for one in heard] == [Reason.LENGTH] * 4
    seconds = [one.finish.timings.queue_seconds for one in heard]
    assert min(seconds[2:]) > 0.01 > max(seconds[:2])


def test_a_full_queue_refuses_with_a_time_to_come_back(fresh: Scheduler):
    heard = [Heard(fresh, endless(IDS[:4])) for _ in range(4)]
    with pytest.raises(QueueFullError, match="queue is full") as caught:
        Heard(fresh, job_of(IDS[:4]))
    assert 1 <= caught.value.wait_seconds <= 120
    assert fresh.statistics().n_jobs["refused"] == 1
    for one in heard:
        fresh.cancel(one.ticket)
    assert [one.finish.reason for one in heard] == [Reason.CANCELLED] * 4
    assert Heard(fresh, job_of(IDS[:4])).finish.reason is Reason.LENGTH


def test_several_jobs_are_taken_on_together_or_not_at_all(fresh: Scheduler):
    events: list[Any] = []
    wishes = [(job_of(IDS[:4], seed=i + 1), events.extend) for i in range(9)]
    with pytest.raises(PromptTooLongError):
        fresh.submit_all([*wishes, (job_of(IDS * 14), events.extend)])
    assert fresh.statistics().n_waiting == 0
    fresh.submit_all(wishes)  # more than slots and queue, which are empty
    with pytest.raises(QueueFullError):
        fresh.submit_all(wishes[:1])
    wait_until(lambda: sum(isinstance(event, Finish) for event in events) == 9)


def test_a_cancelled_job_ends_soon_whether_it_runs_or_waits(fresh: Scheduler):
    running = [Heard(fresh, endless(IDS[i : i + 90])).wait_for_tokens(1) for i in range(2)]
    waiting = Heard(fresh, endless(IDS[:4]))
    for heard in (waiting, running[0]):
        fresh.cancel(heard.ticket)
        assert heard.finish.reason is Reason.CANCELLED
        fresh.cancel(heard.ticket)  # once more changes nothing
    assert waiting.tokens == []
    fresh.cancel(running[1].ticket)
    wait_until(lambda: fresh.statistics().n_running == 0)


def test_a_job_can_be_cancelled_from_the_delivery_of_its_own_token(fresh: Scheduler):
    done, tickets, events = threading.Event(), [], []

    def deliver(new: list[Any]) -> None:
        events.extend(new)
        if tickets:
            fresh.cancel(tickets[0])
        if isinstance(new[-1], Finish):
            done.set()

    tickets.append(fresh.submit(endless(IDS[:4]), deliver))
    assert done.wait(10)
    assert events[-1].reason is Reason.CANCELLED


def test_a_client_that_takes_no_events_loses_its_job_and_nobody_elses(fresh: Scheduler, caplog: pytest.LogCaptureFixture):
    def broken(_: list[Any]) -> None:
        raise RuntimeError("gone")

    expected = Heard(fresh, job_of(IDS[:9], 30)).wait().ids
    fresh.submit(endless(IDS[:4]), broken)
    assert Heard(fresh, job_of(IDS[:9], 30)).wait().ids == expected
    wait_until(lambda: fresh.statistics().n_running == 0)
    assert "deliver failed" in caplog.text


# ---- the end ---------------------------------------------------------------------------------------------------------


def test_draining_lets_jobs_end_and_takes_on_no_more(fresh: Scheduler):
    heard = [Heard(fresh, job_of(IDS[i : i + 20], 60)) for i in range(4)]
    assert fresh.drain(20)
    assert all(one.has_ended for one in heard)
    assert [one.finish.reason for one in heard] == [Reason.LENGTH] * 4
    assert not fresh.is_alive
    with pytest.raises(StoppedError):
        Heard(fresh, job_of(IDS[:3]))


def test_closing_cancels_what_has_not_ended_in_time(long_model: Model):
    scheduler = Scheduler(long_model, n_threads=1, n_slots=1)
    heard = [Heard(scheduler, endless(IDS[:3])) for _ in range(2)]
    heard[0].wait_for_tokens(1)
    assert not scheduler.drain(0.01)
    scheduler.close()
    scheduler.close()
    assert [one.finish.reason for one in heard] == [Reason.CANCELLED] * 2
    assert heard[0].tokens
    assert not heard[1].tokens
    assert not scheduler._thread.is_alive()


def test_a_failing_pass_answers_running_jobs_and_the_scheduler_goes_on(fresh: Scheduler, monkeypatch: pytest.MonkeyPatch):
    expected = Heard(fresh, job_of(IDS[:20], 20)).wait().ids
    run_pass, fails = fresh._engine.run_pass, threading.Event()

    def failing(*arguments: Any) -> np.ndarray:
        if fails.is_set():
            fails.clear()
            raise MemoryError("no memory\nleft")
        return run_pass(*arguments)

    monkeypatch.setattr(fresh._engine, "run_pass", failing)
    running = [Heard(fresh, endless(IDS[:20], seed=i + 1)).wait_for_tokens(1) for i in range(2)]
    waiting = Heard(fresh, job_of(IDS[:20], 20))
    fails.set()
    assert [one.finish.reason for one in running] == [Reason.ERROR] * 2
    assert {one.finish.error for one in running} == {"the engine failed: no memory\\nleft"}
    assert waiting.wait().ids == expected
    assert waiting.finish.usage.n_cached_tokens == 0
    assert fresh.is_alive


def test_an_engine_that_keeps_failing_is_given_up(fresh: Scheduler, monkeypatch: pytest.MonkeyPatch):
    def failing(*_: Any) -> np.ndarray:
        raise ValueError("broken")

    monkeypatch.setattr(fresh._engine, "run_pass", failing)
    heard = []
    for _ in range(MOST_FAILURES):
        heard.append(Heard(fresh, job_of(IDS[:5])).wait())
    assert [(one.finish.reason, one.finish.error) for one in heard] == [(Reason.ERROR, "the engine failed: broken")] * 3
    wait_until(lambda: not fresh.is_alive)
    with pytest.raises(StoppedError):
        Heard(fresh, job_of(IDS[:5]))


def test_a_model_without_a_tokenizer_is_refused(toy_model: Model):
    with pytest.raises(ModelError, match="no tokenizer"):
        Scheduler(replace(toy_model, tokenizer=None))


def test_statistics_add_up(toy_model: Model):
    with Scheduler(toy_model, n_threads=1, n_slots=2) as scheduler:
        heard = [Heard(scheduler, job_of(IDS[:40], 10, seed=i + 1)).wait() for i in range(3)]
        assert scheduler.drain(5)
        counted = scheduler.statistics()
    finishes = [one.finish for one in heard]
    assert counted.n_jobs == {"length": 3}
    assert (counted.n_running, counted.n_waiting, counted.n_slots) == (0, 0, 2)
    assert (counted.n_prompt_tokens, counted.n_cached_tokens, counted.n_tokens) == (120, 78, 30)
    assert counted.cache_used == pytest.approx(49 / 256)
    assert counted.n_first_tokens == 3
    assert counted.queue_seconds == pytest.approx(sum(finish.timings.queue_seconds for finish in finishes))
    assert counted.first_token_seconds == pytest.approx(sum(finish.timings.first_token_seconds for finish in finishes))
    assert counted.n_passes >= 6
    assert counted.prompt_seconds > 0 < counted.answer_seconds
