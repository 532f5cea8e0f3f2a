"""What a pass reads: shares of prompts, texts that go on beside them, bursts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamita.model import Model, random_model
from llamita.serve.planner import FEWEST_ROWS, share_rows
from llamita.serve.scheduler import Scheduler
from serve.asking import Heard, endless, job_of

IDS = np.random.default_rng(5).integers(3, 400, 900).tolist()


@given(st.lists(st.integers(1, 500), max_size=9), st.integers(1, 300))
def test_rows_are_shared_out_to_the_last_and_the_oldest_prompt_gets_half(wishes: list[int], n_rows: int):
    shares = share_rows(wishes, n_rows)
    assert sum(shares) == min(sum(wishes), n_rows)
    assert all(0 <= share <= wish for share, wish in zip(shares, wishes, strict=True))
    assert not wishes or shares[0] >= min(wishes[0], n_rows // 2)
    for wish, share in list(zip(wishes, shares, strict=True))[1:]:
        if share < wish:  # then no longer one got anything
            assert not any(s for w, s in list(zip(wishes, shares, strict=True))[1:] if w > wish)


@pytest.fixture
def watched(toy_model: Model, monkeypatch: pytest.MonkeyPatch):
    """A scheduler with a list of its passes: (ids read, whether the next is drawn) of each sequence, and steps."""
    config = replace(toy_model.config, width=96, n_layers=3, head_size=24, context=2048)
    passes: list[tuple[list[tuple[int, bool]], int]] = []
    with Scheduler(replace(random_model(config), tokenizer=toy_model.tokenizer), n_threads=1, n_slots=4) as scheduler:
        run_pass = scheduler._engine.run_pass

        def noted(readings: list, n_steps: int) -> Any:
            ids = run_pass(readings, n_steps)
            passes.append(([(reading.n_ids, reading.draws) for reading in readings], len(ids)))
            return ids

        monkeypatch.setattr(scheduler._engine, "run_pass", noted)
        monkeypatch.setattr(scheduler._planner, "learn", lambda *_: None)
        scheduler._planner._row_seconds, scheduler._planner._step_seconds = 0.1 / 40, 0.001
        yield scheduler, passes


def test_running_texts_get_a_token_in_every_pass_that_reads_a_prompt(watched):
    scheduler, passes = watched
    texts = [Heard(scheduler, endless(IDS[i : i + 5], seed=i + 1)).wait_for_tokens(1) for i in range(2)]
    del passes[:]
    Heard(scheduler, job_of(IDS[:800], 1)).wait()
    assert not any(text.has_ended for text in texts)
    with_prompt = [readings for readings, _ in passes if any(n > 1 for n, _ in readings)]
    assert len(with_prompt) >= 800 // 40
    for readings in with_prompt:
        assert sum(draws for _, draws in readings) >= 2
        assert sum(n for n, _ in readings) <= 40
    for text in texts:
        scheduler.cancel(text.ticket)


def test_a_short_prompt_does_not_wait_for_a_long_one(watched):
    scheduler, passes = watched
    text = Heard(scheduler, endless(IDS[5:9])).wait_for_tokens(1)
    long, short = Heard(scheduler, job_of(IDS[:800], 1)), Heard(scheduler, job_of(IDS[20:30], 1))
    short.wait()
    assert not long.has_ended
    scheduler.cancel(text.ticket)
    assert long.finish.usage.n_tokens == 1
    assert passes[-1][0]


def test_texts_alone_make_many_steps_in_a_call_and_end_when_they_should(watched):
    scheduler, passes = watched
    heard = [Heard(scheduler, job_of(IDS[i : i + 5], 100 + i, seed=i + 1)) for i in range(3)]
    assert [len(one.wait().tokens) for one in heard] == [100, 101, 102]
    assert max(n_steps for _, n_steps in passes) > 3
    assert max(n_steps for _, n_steps in passes) <= 10  # BURST_SECONDS, at a millisecond a step


def test_a_pass_of_scored_prompts_has_as_many_rows_of_logits_as_the_engine_holds(watched):
    scheduler, passes = watched
    jobs = [job_of(IDS[i * 100 : i * 100 + 90], 1, prompt_logprobs=True, n_alternatives=1) for i in range(4)]
    heard = [Heard(scheduler, job) for job in jobs]
    assert [len(one.wait().finish.prompt_tokens) for one in heard] == [90] * 4
    most = max(sum(n for n, _ in readings) for readings, _ in passes)
    assert FEWEST_ROWS < most <= scheduler._engine.max_logits
