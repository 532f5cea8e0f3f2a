"""The promise of the server: what a job is answered does not depend on who else is served, to the last byte.

Random jobs of every kind join and leave at random moments; each answer is compared with that of the same job alone.
"""

import random
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from llamita.engine import Sampling
from llamita.model import Model, random_model, with_dtype
from llamita.serve import planner
from llamita.serve.job import Job, Reason
from llamita.serve.scheduler import Scheduler
from serve.asking import Heard, endless, job_of, wait_until

CONTEXT = 160
N_JOBS = 14


@pytest.fixture(scope="module", params=["f32", "q8_0", "q4_1"])
def model(request: pytest.FixtureRequest, toy_model: Model) -> Model:
    config = replace(toy_model.config, width=64, head_size=16, mlp_width=96, context=CONTEXT)
    return with_dtype(replace(random_model(config), tokenizer=toy_model.tokenizer), request.param, 32)


class EvenAfterOdd:
    """A constraint whose mask changes with every token."""

    is_finished = False

    def __init__(self) -> None:
        self._last_id = 0

    def mask(self) -> np.ndarray:
        return np.full(13, 0x55555555 << (1 - self._last_id % 2), np.uint32)

    def accept(self, token_id: int) -> None:
        self._last_id = token_id


def random_job(rng: random.Random, beginnings: list[list[int]]) -> Job:
    """A job of any kind; many begin alike."""
    beginning = rng.choice(beginnings)
    prompt = [*beginning[: rng.randint(1, len(beginning))], *(rng.randrange(400) for _ in range(rng.choice([0, 0, 3, 40])))]
    sampling = Sampling(
        temperature=rng.choice([0.0, 0.8, 30.0]), top_p=rng.choice([0.5, 0.95, 1.0]), top_k=rng.choice([0, 5]),
        min_p=rng.choice([0.0, 0.05]), seed=rng.randint(1, 5), repetition_penalty=rng.choice([1.0, 1.2]),
        presence_penalty=rng.choice([0.0, 0.7]), frequency_penalty=rng.choice([0.0, 0.3]),
        logit_bias=rng.choice([{}, {7: 3.0, 9: -100.0}]),
    )  # fmt: skip
    job = Job(tuple(prompt), sampling, rng.choice([0, 1, 20, 90, 1000]), stop_texts=rng.choice([(), ("e", "on"), ("the",)]))
    kind = rng.choice(["text", "text", "scored", "prompt scored", "embedded", "constrained"])
    if kind == "scored":
        return replace(job, logprobs=True, n_alternatives=rng.choice([0, 4]))
    if kind == "prompt scored":
        return replace(job, logprobs=True, prompt_logprobs=True, n_alternatives=rng.choice([0, 1, 4]))
    if kind == "embedded":
        return replace(job, max_tokens=0, wants_embedding=True)
    return replace(job, constraint=EvenAfterOdd()) if kind == "constrained" else job


def again(job: Job) -> Job:
    """The same job for another run: a constraint has a state."""
    return replace(job, constraint=EvenAfterOdd() if job.constraint else None)


@pytest.fixture(params=range(6))
def rng(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> random.Random:
    """Random numbers; with them, prompts are cut and calls of the engine end at random places."""
    rng = random.Random(request.param)

    def planned(self: planner.Planner, slots: list) -> planner.Plan:
        monkeypatch.setattr(self, "_row_seconds", planner.PAUSE_SECONDS / rng.choice([4, 20, 60, 300]))
        monkeypatch.setattr(self, "_step_seconds", planner.BURST_SECONDS / rng.choice([1, 3, 30]))
        return plan(self, slots)

    plan = planner.Planner.plan
    monkeypatch.setattr(planner.Planner, "plan", planned)
    monkeypatch.setattr(planner, "FEWEST_ROWS", 1)
    return rng


def test_an_answer_does_not_depend_on_others(model: Model, rng: random.Random):
    beginnings = [[rng.randrange(400) for _ in range(rng.choice([5, 60, 110]))] for _ in range(3)]
    jobs = [random_job(rng, beginnings) for _ in range(N_JOBS)]
    with Scheduler(model, n_threads=1, n_slots=1) as alone:
        expected = []
        for job in jobs:
            alone._slots.forget()
            expected.append(Heard(alone, again(job)).wait().answer)
    with Scheduler(model, n_threads=2, n_slots=rng.choice([2, 4, 8]), max_queue=N_JOBS) as scheduler:
        heard = []
        for job in jobs:
            heard.append(Heard(scheduler, again(job)))
            if rng.random() < 0.3:
                cancelled = Heard(scheduler, again(rng.choice(jobs)))
                if rng.random() < 0.5 and cancelled.job.max_tokens > 0:
                    wait_until(lambda: cancelled.events != [])  # noqa: B023
                scheduler.cancel(cancelled.ticket)
            if rng.random() < 0.4:
                rng.choice(heard).wait()
        answers = [one.wait().answer for one in heard]
    for job, answer, right in zip(jobs, answers, expected, strict=True):
        assert answer == right, job


def test_two_hundred_clients_that_leave_at_random_moments_change_nobody_else(model: Model):
    """Eight streams at any time, one of them watched: it is the same at every round, and leavers' slots come back."""
    watched = job_of(range(3, 40), 60, seed=3)
    n_left, lock = 0, threading.Lock()
    with Scheduler(model, n_threads=1, n_slots=8, max_queue=16) as scheduler:
        expected = Heard(scheduler, watched).wait().answer

        def leave(client: int) -> None:
            nonlocal n_left
            mine = random.Random(client)
            for i in range(29):
                heard = Heard(scheduler, endless(range(3 + client, mine.choice([5, 90]) + client), seed=1000 * client + i + 1))
                n = mine.choice([0, 0, 1, 2, 30])
                wait_until(lambda: len(heard.events) >= n)  # noqa: B023
                scheduler.cancel(heard.ticket)
                heard.wait()
                with lock:
                    n_left += heard.finish.reason is Reason.CANCELLED

        clients = [threading.Thread(target=leave, args=(client,)) for client in range(1, 8)]
        for client in clients:
            client.start()
        rounds = 0
        while any(client.is_alive() for client in clients):
            assert Heard(scheduler, watched).wait().answer == expected
            rounds += 1
        for client in clients:
            client.join()
        assert rounds > 1
        wait_until(lambda: scheduler.statistics().n_running == 0)
        assert n_left > 100
        assert Heard(scheduler, watched).wait().answer == expected


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    wait_until(lambda: threading.active_count() <= before)
