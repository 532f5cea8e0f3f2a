"""The sampler against a plain twin of llama2.c's run.c, and what it has beyond it."""

from typing import Any

import numpy as np
import pytest

from llamita.engine.memory import address_of, aligned
from llamita.engine.sampler import draw_coin, pick_by_sum, sample_row, sampler_at
from llamita.engine.state import SAMPLER
from llamita.simd.kernel import kernel

VOCAB = 1000


@kernel
def sample(sampler_address, logits, vocab_size, n_vectors, scratch, candidates, candidate_ids):
    return sample_row(sampler_at(sampler_address, 0), logits, vocab_size, n_vectors, scratch, candidates, candidate_ids)


@kernel
def coin(sampler_address):
    return draw_coin(sampler_at(sampler_address, 0))


@kernel
def pick(weights, n_vectors, wanted):
    return pick_by_sum(weights, n_vectors, wanted)


class Sampler:
    """The compiled sampler with its buffers."""

    def __init__(self, history: tuple[int, ...] = (), bias: dict[int, float] | None = None, **fields: Any) -> None:
        self.record = aligned(SAMPLER.itemsize, np.uint8).view(SAMPLER)
        values = {"rng": 1, "temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0, "penalty_window": 64} | fields
        for name, value in values.items():
            self.record[name] = value
        self.history = np.zeros(5000, np.int64)
        self.history[: len(history)] = history
        self.bias_ids, self.bias_values = (
            np.array(list(bias or {}), np.int64),
            np.array(list((bias or {}).values()), np.float32),
        )
        self.record["history"], self.record["n_history"] = address_of(self.history), len(history)
        self.record["n_bias"] = len(self.bias_ids)
        self.record["bias_ids"], self.record["bias_values"] = address_of(self.bias_ids), address_of(self.bias_values)

    def __call__(self, logits: np.ndarray) -> int:
        n_vectors = -(-len(logits) // 16)
        padded = aligned(16 * n_vectors, np.float32)
        padded[: len(logits)] = logits
        buffers = aligned(16 * n_vectors, np.float32), aligned(16 * n_vectors, np.float32), aligned(16 * n_vectors, np.int64)
        return int(sample(address_of(self.record), address_of(padded), len(logits), n_vectors, *map(address_of, buffers)))


def random_u32(state: int) -> tuple[int, int]:
    """run.c's generator: (new state, number)."""
    state ^= state >> 12
    state = (state ^ state << 25) & (1 << 64) - 1
    state ^= state >> 27
    return state, (state * 0x2545F4914F6CDD1D & (1 << 64) - 1) >> 32


def run_c_sample(logits: np.ndarray, temperature: float, top_p: float, coin: float) -> tuple[int, float]:
    """run.c's sample in float64: (id, distance of the coin from the nearest edge, below which rounding may decide)."""
    p = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    p /= p.sum()
    order, total = np.arange(len(p)), 1.0
    if 0 < top_p < 1:
        order = np.argsort(-p, kind="stable")
        order = order[p[order] >= (1 - top_p) / (len(p) - 1)]
        sums = np.cumsum(p[order])
        order = order[: np.searchsorted(sums, top_p, side="right") + 1]
        total = p[order].sum()
    edges = np.cumsum(p[order])
    place = min(np.searchsorted(edges, coin * total, side="right"), len(order) - 1)
    return int(order[place]), float(np.abs(edges - coin * total).min())


def test_coins_are_those_of_run_c():
    sampler = Sampler(rng=1337)
    coins = [coin(address_of(sampler.record)) for _ in range(5)]
    assert coins == pytest.approx([0.23031723, 0.19051826, 0.31086516, 0.90265948, 0.68491787], abs=1e-8)
    state = 42
    expected = []
    for _ in range(5):
        state, number = random_u32(state)
        expected.append(number)
    assert expected == [1456360119, 3359763283, 3393612768, 4054632243, 3283045847]
    sampler = Sampler(rng=42)
    assert [coin(address_of(sampler.record)) for _ in range(5)] == [np.float32((n >> 8) / 2**24) for n in expected]


@pytest.mark.parametrize("top_p", [0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("temperature", [0.1, 0.8, 1.0, 3.0])
@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
def test_tokens_are_those_of_run_c_wherever_rounding_does_not_decide(temperature: float, top_p: float, spread: float):
    rng, state, compared = np.random.default_rng(7), 99, 0
    sampler = Sampler(rng=99, temperature=temperature, top_p=top_p)
    for _ in range(60):
        logits = (rng.standard_normal(VOCAB) * spread + rng.permutation(VOCAB) * 1e-3).astype(np.float32)
        state, number = random_u32(state)
        expected, margin = run_c_sample(logits, temperature, top_p, (number >> 8) / 2**24)
        token = sampler(logits)
        if margin > 2e-6:
            assert token == expected
            compared += 1
    assert compared > 50
    assert sampler.record["n_history"][0] == 60


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 100])
def test_greedy_takes_the_first_of_the_largest_and_draws_no_coin(n: int):
    rng = np.random.default_rng(n)
    for _ in range(20):
        logits = rng.integers(0, 3, n).astype(np.float32)
        sampler = Sampler(rng=5, temperature=0.0)
        assert sampler(logits) == int(np.argmax(logits))
        assert sampler.record["rng"][0] == 5


def test_negative_logits_are_not_beaten_by_the_padding():
    logits = np.full(17, -50.0, np.float32)
    logits[16] = -40.0
    assert Sampler(temperature=0.0)(logits) == 16


def counts(n: int = 3000, logits: np.ndarray | None = None, **fields: Any) -> np.ndarray:
    logits = np.arange(20, dtype=np.float32) * 0.2 if logits is None else logits
    sampler = Sampler(rng=3, **fields)
    return np.bincount([sampler(logits) for _ in range(n)], minlength=len(logits)) / n


def test_top_k_keeps_k_tokens_in_their_proportions():
    logits = np.arange(20, dtype=np.float32) * 0.2
    found, p = counts(top_k=3), np.exp(logits[17:])
    assert np.all(found[:17] == 0)
    assert found[17:] == pytest.approx(p / p.sum(), abs=0.03)


def test_min_p_keeps_tokens_that_are_likely_enough():
    found = counts(min_p=0.5)  # exp(-0.2 * 3) > 0.5 > exp(-0.2 * 4)
    assert np.all(found[:16] == 0)
    assert np.all(found[16:] > 0)


def test_a_bias_forbids_and_forces():
    assert counts(300, bias={19: -1000.0})[19] == 0
    assert counts(300, bias={4: 1000.0})[4] == 1


def test_the_repetition_penalty_weakens_each_seen_token_once():
    logits = np.zeros(16, np.float32)
    logits[[3, 5]], logits[7] = 2.0, -1.0
    seen = (3, 3, 3, 7)
    sampler = Sampler(history=seen, temperature=0.0, repetition_penalty=1.5)
    assert sampler(logits) == 5  # 2 / 1.5 < 2
    sampler = Sampler(history=seen, temperature=0.0, repetition_penalty=1.5, penalty_window=1)
    assert sampler(logits) == 3  # only 7 is in the window
    sampler = Sampler(history=(5, 7), temperature=0.0, repetition_penalty=1.5)
    assert sampler(np.where(logits == 2, -1.0, logits).astype(np.float32)) != 5


@pytest.mark.parametrize("behind", [0, 3, 35])
@pytest.mark.parametrize("n", [40, 512, 32_000])
def test_a_coin_beyond_the_rounded_sum_takes_the_last_token_that_has_a_weight(n: int, behind: int):
    weights = aligned(-(-n // 16) * 16, np.float32)
    weights[1 : n - behind] = np.random.default_rng(n).random(n - behind - 1, np.float32)  # the first has none
    last = n - behind - 1
    for wanted in (weights.sum() * 1.001, np.float32(np.inf)):
        assert pick(address_of(weights), len(weights) // 16, np.float32(wanted)) == last


def test_a_tiny_top_p_keeps_the_most_likely():
    logits = np.zeros(64, np.float32)
    logits[9] = 1e-3
    assert counts(50, logits, top_p=1e-6)[9] == 1


def test_presence_and_frequency_penalties_count_what_was_drawn_since_the_prompt():
    logits = np.zeros(16, np.float32)
    logits[[3, 5, 7]] = 4.0, 3.0, 2.0
    history = (5, 5, 5, 5, 3, 3, 7)  # the first four are the prompt

    def adjusted(**fields: Any) -> int:
        return Sampler(history=history, n_prompt=4, temperature=0.0, **fields)(logits)

    assert adjusted() == 3
    assert adjusted(frequency_penalty=0.4) == 3  # 4 - 2 * 0.4 > 3
    assert adjusted(frequency_penalty=0.6) == 5  # 4 - 2 * 0.6 < 3, of which the prompt costs nothing
    assert adjusted(presence_penalty=0.9) == 3  # once, however often
    assert adjusted(presence_penalty=1.1) == 5
    assert adjusted(presence_penalty=-3.0, frequency_penalty=1.1) == 3  # 4 - 2 * 1.1 + 3 > 2 - 1.1 + 3


def test_penalties_of_many_ids_equal_their_definition():
    rng = np.random.default_rng(2)
    for _ in range(30):
        logits = rng.standard_normal(VOCAB).astype(np.float32)
        ids = tuple(rng.integers(0, 40, 300).tolist())
        repetition, presence, frequency = rng.uniform(1, 2), rng.uniform(-2, 2), rng.uniform(-2, 2)
        expected = logits.astype(np.float64)
        for token in set(ids[-64:]):
            expected[token] = expected[token] / repetition if expected[token] > 0 else expected[token] * repetition
        for token in set(ids[100:]):
            expected[token] -= presence + frequency * ids[100:].count(token)
        sampler = Sampler(
            history=ids, n_prompt=100, temperature=0.0, repetition_penalty=repetition, presence_penalty=presence,
            frequency_penalty=frequency,
        )  # fmt: skip
        assert sampler(logits) == expected.argmax()
