"""Passes over several sequences at once: prompts in chunks beside running texts, scores, hidden states, masks, stop ids."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cases import CASES, DTYPES, make_model, random_ids
from llamita.config import ModelConfig
from llamita.engine import Engine, Reading, Sampling, Sequence
from llamita.errors import SettingError
from llamita.model import random_model
from reference import log_softmax, reference_logits

CASE = CASES[0]
N_SLOTS = 4
WARM = Sampling(temperature=50.0, top_p=0.9, seed=7)


@pytest.fixture(scope="module", params=["f32", "q8_0", "q4_1"])
def engine(request):
    with Engine(make_model(CASE, request.param), n_threads=2, n_slots=N_SLOTS) as engine:
        yield engine


@pytest.fixture
def sequence(engine: Engine):
    sequence = engine.sequence(Sampling(temperature=0))
    yield sequence
    sequence.close()


def told_alone(engine: Engine, prompt: list[int], n: int) -> tuple[list[int], np.ndarray]:
    """The ids that follow a prompt, and the logits that the last of them was drawn from."""
    sequence = engine.sequence(WARM)
    sequence.append(prompt)
    ids = [sequence.next() for _ in range(n)]
    sequence.close()
    return ids, engine.logits_buffer[0].copy()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 110), st.integers(1, 70)), min_size=1, max_size=N_SLOTS))
def test_chunks_and_neighbours_change_no_bit(engine: Engine, jobs: list[tuple[int, int]]):
    """jobs: lengths of prompts, and rows of each that a pass reads; each text goes on as soon as its prompt is read."""
    prompts = [random_ids(CASE, n + i)[i:] for i, (n, _) in enumerate(jobs)]
    expected = [told_alone(engine, prompt, 5) for prompt in prompts]
    sequences = [engine.sequence(WARM) for _ in jobs]
    told: dict[int, list[int]] = {i: [] for i in range(len(jobs))}
    for sequence, prompt in zip(sequences, prompts, strict=True):
        sequence.append(prompt)
    while any(len(ids) < 5 for ids in told.values()):
        readings = {}
        for i, (sequence, (_, chunk)) in enumerate(zip(sequences, jobs, strict=True)):
            if len(told[i]) < 5:
                n = min(chunk, len(sequence.pending))
                readings[i] = Reading(sequence, n, draws=n == len(sequence.pending))
        order = sorted(readings, key=lambda i: not readings[i].draws)
        drawn = engine.run_pass([readings[i] for i in order])
        for place, i in enumerate(order[: drawn.shape[1]] if len(drawn) else []):
            told[i].append(int(drawn[0, place]))
            if len(told[i]) == 5:
                assert np.array_equal(engine.logits_buffer[place], expected[i][1])
    for sequence in sequences:
        sequence.close()
    assert list(told.values()) == [ids for ids, _ in expected]


def test_one_call_for_many_steps_of_many_sequences_draws_what_single_steps_draw(engine: Engine):
    prompts = [random_ids(CASE, 3), random_ids(CASE, 30), random_ids(CASE, 17)]
    expected = [told_alone(engine, prompt, 12)[0] for prompt in prompts]
    sequences = [engine.sequence(WARM) for _ in prompts]
    for sequence, prompt in zip(sequences, prompts, strict=True):
        sequence.append(prompt)
    rows: list[list[int]] = []
    while len(rows) < 12:  # a wait for a core may end a call early
        rows += engine.run_pass([Reading(s, len(s.pending), draws=True) for s in sequences], 12 - len(rows)).tolist()
    assert [list(ids) for ids in zip(*rows, strict=True)] == expected
    assert [s.ids[-12:] for s in sequences] == expected
    for sequence in sequences:
        sequence.close()


def test_many_steps_end_where_one_sequence_meets_its_own_stop_id(engine: Engine):
    prompts = [random_ids(CASE, 3), random_ids(CASE, 20)]
    expected = [told_alone(engine, prompt, 12)[0] for prompt in prompts]
    stop = expected[1][6]
    first = expected[1].index(stop)
    sequences = [engine.sequence(WARM) for _ in prompts]
    for sequence, prompt in zip(sequences, prompts, strict=True):
        sequence.append(prompt)
    sequences[1].stop_after([stop])
    n = 0
    while n <= first:
        n += len(engine.run_pass([Reading(s, len(s.pending), draws=True) for s in sequences], 12))
    assert n == first + 1
    for sequence in sequences:
        sequence.close()


@pytest.mark.parametrize("n_alternatives", [0, 1, 5, 20])
def test_scores_are_the_log_softmax_of_the_raw_logits(engine: Engine, n_alternatives: int):
    ids = random_ids(CASE, 30)
    expected = log_softmax(engine.logits(ids))
    bias = {int(expected[-1].argmin()): 100.0}
    sequence = engine.sequence(Sampling(temperature=2.0, logit_bias=bias, repetition_penalty=1.3, seed=3))
    sequence.append(ids)
    sequence.n_alternatives = n_alternatives
    drawn = engine.run_pass([Reading(sequence, 30, draws=True, wants_logits=True)])
    sequence.close()
    assert drawn.tolist() == [list(bias)]  # the bias forces the id, and does not show in its score
    for place, (row, token) in enumerate([(29, next(iter(bias))), *zip(range(29), ids[1:], strict=True)]):
        score = engine.score(place, n_alternatives)
        assert score.logprob == pytest.approx(expected[row, token], abs=2e-5)
        best = np.argsort(-expected[row], kind="stable")[:n_alternatives]
        assert [token_id for token_id, _ in score.alternatives] == best.tolist()
        assert [p for _, p in score.alternatives] == pytest.approx(expected[row, best].tolist(), abs=2e-5)
        assert all(p == score.logprob for token_id, p in score.alternatives if token_id == token)


def test_equal_logits_rank_by_id():
    model = make_model(CASE, "f32")
    model.tensors["embedding"].data[:] = 0
    with Engine(model, n_threads=1) as engine:
        sequence = engine.sequence(Sampling(temperature=0))
        sequence.append([5])
        sequence.n_alternatives = 3
        engine.run_pass([Reading(sequence, 1, draws=True)])
        uniform = pytest.approx(-np.log(512), abs=1e-6)
        assert engine.score(0, 3).alternatives == ((0, uniform), (1, uniform), (2, uniform))


@pytest.mark.parametrize("dtype", DTYPES)
def test_hidden_states_give_the_reference_logits_when_multiplied_by_the_head(dtype: str):
    model, ids = make_model(CASE, dtype), random_ids(CASE, 100)
    expected = reference_logits(model, ids, quantize_activations=False)
    with Engine(model, n_threads=2, n_slots=2) as engine:
        beside, sequence = engine.sequence(), engine.sequence()
        beside.append([1])
        sequence.append(ids)
        parts = []
        for n in (1, 63, 36):
            engine.run_pass([Reading(beside, 1, draws=True), Reading(sequence, n, wants_hidden=True)])
            parts.append(engine.hidden_states(0, n))
        whole = np.concatenate(parts)
        sequence.rewind(1)
        sequence.append(ids[1:])
        engine.run_pass([Reading(sequence, 100, wants_hidden=True)])
        assert np.array_equal(engine.hidden_states(0, 100), whole)
    found = whole @ model.head.dequantize().astype(np.float64).T
    assert np.abs(found - expected).max() < (0.03 if dtype.startswith("q") else 1e-5) * np.abs(expected).max()


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_a_mask_leaves_only_the_allowed_ids_in_their_proportions(sequence: Sequence, engine: Engine, temperature: float):
    sequence.reuse(Sampling(temperature=temperature, seed=9, top_p=1.0), 0)
    allowed = [3, 31, 32, 300, 511]
    mask = np.zeros(16, np.uint32)
    for i in allowed:
        mask[i // 32] |= np.uint32(1 << i % 32)
    sequence.allow(mask.view(np.int32))
    sequence.append([1, 2])
    expected = engine.logits([1, 2])[-1][allowed]
    found = []
    for _ in range(400):
        found.append(sequence.next())
        sequence.rewind(2)
    if temperature == 0:
        assert set(found) == {allowed[int(expected.argmax())]}
    else:
        p = np.exp((expected - expected.max()) / temperature)
        counts = np.array([found.count(i) for i in allowed]) / 400
        assert counts == pytest.approx(p / p.sum(), abs=0.08)
    sequence.allow(None)
    sequence.reuse(Sampling(temperature=0), 0)
    sequence.append([1, 2])
    assert sequence.next() == engine.logits([1, 2])[-1].argmax()


@pytest.mark.parametrize("mask", [np.zeros(16, np.uint32), np.ones(15, np.uint32), np.ones(16, np.uint64)])
def test_a_mask_that_allows_nothing_or_has_another_size_is_refused(sequence: Sequence, mask: np.ndarray):
    with pytest.raises(SettingError, match="mask: found"):
        sequence.allow(mask)


def test_bits_behind_the_vocabulary_allow_nothing():
    with Engine(make_model(CASES[3], "f32"), n_threads=1) as engine, pytest.raises(SettingError, match="no allowed id"):
        engine.sequence().allow(np.array([0, 0, 0, 0, 0, 0xFFFFFFFE], np.uint32))  # 161 ids


def test_a_slot_goes_on_from_what_another_has_read(engine: Engine):
    ids = random_ids(CASE, 60)
    expected, logits = told_alone(engine, ids, 4)
    first, second = engine.sequence(), engine.sequence()
    first.append([*ids[:45], 9, 9, 9])
    first.run(5)
    second.append([4, 4])
    second.run(10)
    second.reuse(WARM, 0)
    second.take_over(first, 45)
    second.reuse(WARM, 45)
    second.append(ids[45:])
    assert second.n_read == 45
    assert second.run(4) == expected
    assert np.array_equal(engine.logits_buffer[0], logits)
    first.close()
    second.close()


def test_logprobs_of_any_ids_are_the_log_softmax_of_the_logits(engine: Engine):
    ids, others = random_ids(CASE, 30), np.array(random_ids(CASE, 30)[::-1])
    expected = log_softmax(engine.logits(ids))
    sequence = engine.sequence(Sampling(temperature=0))
    sequence.append(ids)
    sequence.n_alternatives = 0
    engine.run_pass([Reading(sequence, 30, wants_logits=True)])
    sequence.close()
    assert engine.logprobs(others) == pytest.approx(expected[np.arange(30), others], abs=2e-5)


def test_the_many_unlikely_ids_of_a_large_vocabulary_count_in_a_logprob():
    """Each of them alone is less than half of the last bit of the likeliest one's share."""
    model = random_model(ModelConfig(16, 1, 2, 2, 16, 1 << 16, 16, tied_embedding=False))
    head = model.tensors["head"].data
    head *= 0.1
    with Engine(model, n_threads=1) as engine:
        hidden = read_one(engine, 5, wants_hidden=True).hidden_states(0, 1)[0]
    head[7] = 17.5 * hidden / (hidden @ hidden)
    with Engine(model, n_threads=1) as engine:
        expected = log_softmax(engine.logits([5]))[0, 7]
        found = read_one(engine, 5, wants_logits=True).logprobs(np.array([7]))
    assert -0.01 < expected < -0.001
    assert found == pytest.approx(expected, abs=2e-6)


def read_one(engine: Engine, token_id: int, **wants: bool) -> Engine:
    """The engine behind a pass that read one id."""
    sequence = engine.sequence(Sampling(temperature=0))
    sequence.append([token_id])
    sequence.n_alternatives = 0
    engine.run_pass([Reading(sequence, 1, **wants)])
    sequence.close()
    return engine


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_makes_no_numbers_draws_an_id_of_its_vocabulary(temperature: float):
    model = make_model(CASE, "f32")
    model.tensors["norm"].data[:] = np.nan
    with Engine(model, n_threads=1) as engine:
        sequence = engine.sequence(Sampling(temperature=temperature))
        sequence.append([5])
        sequence.n_alternatives = 3
        assert all(0 <= token_id < CASE.config.vocab_size for token_id in (sequence.next(), sequence.next()))
        assert np.isnan(engine.logprobs(np.array([5])))
