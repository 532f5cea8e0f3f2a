"""Sequences: limits of the context, stop ids, coins, slots, and what a wrong call says."""

import gc
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest

from engine.cases import CASES, make_model, random_ids
from llamita.config import ModelConfig
from llamita.engine import Engine, Sampling
from llamita.errors import SettingError
from llamita.model import random_model


@pytest.fixture(scope="module")
def engine():
    with Engine(make_model(CASES[0], "f32"), n_threads=2, context=64, n_slots=2) as engine:
        yield engine


@pytest.fixture
def sequence(engine: Engine):
    sequence = engine.sequence(Sampling(temperature=0))
    yield sequence
    sequence.close()


def test_a_run_ends_where_the_context_does(sequence):
    sequence.append([1])
    assert len(sequence.run(1000)) == 64  # the last one is made at the last position and cannot be read any more
    assert sequence.is_full
    assert sequence.position == 65
    with pytest.raises(SettingError, match="64 tokens is full"):
        sequence.next()


def test_a_text_longer_than_the_context_is_refused(sequence):
    with pytest.raises(SettingError, match="65 tokens, the context has room for 64"):
        sequence.append(range(65))
    assert sequence.position == 0


@pytest.mark.parametrize("ids", [[512], [-1], [3, 1 << 40]])
def test_ids_outside_the_vocabulary_are_refused(sequence, ids):
    with pytest.raises(SettingError, match="expected 0 to 511"):
        sequence.append(ids)


def test_nothing_to_read_is_said(sequence):
    with pytest.raises(SettingError, match="nothing to read"):
        sequence.next()


def test_a_run_ends_after_a_stop_id(sequence):
    sequence.append(random_ids(CASES[0], 5))
    ids = sequence.run(20)
    stop = ids[7]
    sequence.rewind(5)
    assert sequence.run(20, stop_ids=[stop]) == ids[: ids.index(stop) + 1]


def test_one_call_and_single_steps_make_the_same_tokens(engine):
    made = []
    for single in (False, True):
        sequence = engine.sequence(Sampling(temperature=1.0, seed=5))
        sequence.append([1])
        made.append([sequence.next() for _ in range(30)] if single else sequence.run(30))
        sequence.close()
    assert made[0] == made[1]


def test_skipped_coins_are_drawn(engine):
    made = []
    for skipped in (0, 3):
        sequence = engine.sequence(Sampling(temperature=1.0, top_p=1.0, seed=42))
        sequence.append([1])
        sequence.skip_coins(skipped)
        state = int(sequence._sampler["rng"])
        sequence.next()
        made.append((state, int(sequence._sampler["rng"])))
        sequence.close()
    state = 42
    for _ in range(3):  # xorshift64*, specs of llama2.c
        state ^= state >> 12
        state = (state ^ (state << 25)) & (1 << 64) - 1
        state ^= state >> 27
    assert made[0][0] == 42
    assert made[1][0] == state


def test_slots_run_out_with_a_message_and_come_back(engine):
    taken = [engine.sequence(), engine.sequence()]
    with pytest.raises(SettingError, match="2 in use"):
        engine.sequence()
    taken[0].close()
    engine.sequence().close()
    taken[1].close()


def test_a_closed_sequence_says_so_and_leaves_the_next_one_alone(engine):
    closed = engine.sequence(Sampling(temperature=0))
    closed.append([1, 2])
    closed.next()
    ids = closed.ids
    closed.close()
    other = engine.sequence(Sampling(temperature=0))
    other.append([1, 2])
    closed.append([3])
    closed.allow(None)
    for use in (closed.next, closed.read, lambda: closed.run(3), lambda: closed.fork(1), lambda: other.take_over(closed, 1)):
        with pytest.raises(SettingError, match="the sequence: found it closed"):
            use()
    assert closed.ids == [*ids, 3]
    assert [1, 2, other.next()] == ids
    other.close()
    assert len(engine._free_slots) == 2


def test_a_fork_that_finds_no_slot_takes_none(engine):
    sequence, other = engine.sequence(), engine.sequence()
    sequence.append([1])
    other.close()
    with pytest.raises(SettingError, match="2 in use"):
        sequence.fork(2)
    sequence.close()
    assert len(engine._free_slots) == 2


@pytest.mark.parametrize("temperature", [1e-29, 1e-31, 1e-45])
def test_a_tiny_temperature_takes_the_likeliest(engine, temperature: float):
    made = []
    for wanted in (0.0, temperature):
        sequence = engine.sequence(Sampling(temperature=wanted, top_p=1.0))
        sequence.append([1])
        made.append(sequence.run(20))
        sequence.close()
    assert made[0] == made[1]


def test_threads_that_share_an_engine_wait_for_one_another(engine):
    def tell(seed: int) -> list[int]:
        with closing(engine.sequence(Sampling(seed=seed))) as sequence:
            sequence.append([1, seed])
            return [sequence.next() for _ in range(20)] + sequence.run(20)

    alone = [tell(seed) for seed in range(1, 21)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(tell, range(1, 21))) == alone


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12: threads are not copied, which is the point
def test_a_forked_process_goes_on_alone_with_the_same_tokens(engine):
    def tell() -> list[int]:
        with closing(engine.sequence(Sampling(seed=3))) as sequence:
            sequence.append([1])
            return sequence.run(20)

    expected = tell()
    assert exit_of_child(lambda: int(tell() != expected)) == 0
    assert tell() == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_process_forked_in_the_middle_of_another_threads_pass_goes_on_and_ends(n_threads: int):
    with Engine(make_model(CASES[0], "f32"), n_threads=n_threads, n_slots=2) as engine:
        ended = threading.Event()

        def tell(sequence) -> list[int]:
            sequence.rewind(0)
            sequence.append([1])
            return sequence.run(100)

        def tell_without_end(sequence) -> None:
            while not ended.is_set():
                tell(sequence)

        with closing(engine.sequence(Sampling(seed=3))) as own, closing(engine.sequence(Sampling(temperature=0))) as other:
            greedy = tell(other)
            busy = threading.Thread(target=tell_without_end, args=[own])
            busy.start()
            for _ in range(10):
                assert exit_of_child(lambda: int(tell(other) != greedy)) == 0
            ended.set()
            busy.join()


def exit_of_child(work: Callable[[], int]) -> int:
    """Fork, let the child work and close every engine as it ends, and return its exit status; a minute is enough."""
    if (child := os.fork()) == 0:
        signal.alarm(60)
        status = 1
        with suppress(BaseException):
            status = work()
            for engine in [thing for thing in gc.get_objects() if isinstance(thing, Engine)]:
                engine.close()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_more_cores_than_threads_are_possible_is_no_mistake(monkeypatch):
    monkeypatch.setattr("llamita.engine.engine.default_threads", lambda: 2)
    monkeypatch.setattr("llamita.engine.engine.MAX_THREADS", 1)
    with Engine(make_model(CASES[0], "f32")) as engine:
        assert engine.n_threads == 1


@pytest.mark.parametrize("settings", [
    {"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 1.5}, {"top_k": -1}, {"min_p": 2.0},
    {"repetition_penalty": 0.0}, {"seed": 0}, {"seed": 1 << 64}, {"logit_bias": {512: 1.0}}, {"logit_bias": {-1: 1.0}},
])  # fmt: skip
def test_settings_outside_their_range_are_refused_and_take_no_slot(engine, settings):
    with pytest.raises(SettingError, match="found"):
        engine.sequence(Sampling(**settings))
    engine.sequence().close()
    assert len(engine._free_slots) == 2


@pytest.mark.parametrize(
    "wrong",
    [{"n_threads": 0}, {"context": 0}, {"context": 129}, {"n_slots": 0}, {"n_threads": 1000}, {"n_slots": 1.5}],
)
def test_an_engine_of_impossible_size_is_refused(wrong):
    with pytest.raises(SettingError, match="expected 1 to"):
        Engine(make_model(CASES[0], "f32"), **wrong)


def test_a_long_run_is_stopped_from_another_thread():
    model = random_model(ModelConfig(512, 8, 8, 8, 1024, 2000, 4096))
    with Engine(model, n_threads=2) as engine:
        sequence = engine.sequence(Sampling(temperature=0))
        sequence.append([1])
        sequence.next()
        timer = threading.Timer(0.05, engine.stop)
        timer.start()
        ids = engine.run_steps(sequence, 4000)
        timer.join()
        assert 0 < len(ids) < 4000
        assert sequence.position == 2 + len(ids)
        assert len(sequence.run(3)) == 3


def test_workers_that_went_to_sleep_are_woken(sequence):
    sequence.append([1])
    first = [sequence.next() for _ in range(3)]
    for pause in (0.0005, 0.001, 0.002, 0.05):
        for _ in range(5):
            time.sleep(pause)
            first.append(sequence.next())
    sequence.rewind(1)
    assert sequence.run(len(first)) == first


def test_an_engine_that_nobody_closes_ends_its_threads_before_its_memory_goes():
    for _ in range(20):
        engine = Engine(make_model(CASES[0], "q8_0"), n_threads=3)
        sequence = engine.sequence(Sampling(temperature=0))
        sequence.append([1])
        sequence.run(2)
        del engine, sequence
    gc.collect()
    deadline = time.monotonic() + 5
    while any(t.name.startswith("llamita-2") for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [t for t in threading.enumerate() if t.name.startswith("llamita-2")]


@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
def test_read_bandwidth_is_measured_over_the_weights_of_a_token(dtype):
    with Engine(make_model(CASES[2], dtype), n_threads=2) as engine:
        assert sum(size for _, size in engine.weights.regions()) == engine.weights.n_token_bytes
        assert engine.read_bandwidth() > 1e6


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_closed_engine_says_so(n_threads: int):
    engine = Engine(make_model(CASES[0], "f32"), n_threads=n_threads)
    sequence = engine.sequence(Sampling(temperature=0))
    sequence.append([1])
    engine.close()
    with pytest.raises(SettingError, match="the model: found it closed"):
        sequence.next()


@pytest.mark.parametrize("bias", [math.inf, math.nan, 1e38, -1e7])
def test_a_bias_is_a_number_that_logits_can_bear(bias: float):
    with pytest.raises(SettingError, match=r"logit_bias: found .* for id 3"):
        Sampling(logit_bias={3: bias}).validate()
    assert Sampling(logit_bias={3: -math.inf, 4: -100.0}).validate()
