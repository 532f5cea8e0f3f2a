"""The engine against the numpy reference: every storage, odd shapes, one to three threads, rows apart and together."""

from dataclasses import replace

import numpy as np
import pytest

from engine.cases import CASES, DTYPES, HALF_CACHE_DTYPES, Case, errors_of, is_right, make_model, random_ids
from llamita.engine import Engine, Sampling
from llamita.errors import SettingError
from llamita.quant import Tensor
from llamita.simd.isa import INSTRUCTION_SETS, detect_isa


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_logits_equal_the_reference_and_decode_equals_prefill(case: Case, dtype: str, n_threads: int):
    errors = errors_of(case, dtype, n_threads)
    assert is_right(dtype, errors), errors


@pytest.mark.skipif(not INSTRUCTION_SETS[detect_isa()].has_half_cache, reason="this path keeps float32")
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", HALF_CACHE_DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_with_a_cache_of_float16_too(case: Case, dtype: str, n_threads: int):
    errors = errors_of(case, dtype, n_threads, cache_itemsize=2)
    assert is_right(dtype, errors, 2), errors


def test_keys_and_values_are_float16_beside_weights_in_fast_groups_alone():
    sizes = {(case.name, dtype): make_model(case, dtype).cache_itemsize for case in CASES for dtype in ("f32", "bf16", "q8_0")}
    assert {key for key, size in sizes.items() if size == 2} == {("groups of 32", "q8_0"), ("grouped queries", "q8_0")}
    with pytest.raises(SettingError, match=r"cache_itemsize: found 1, expected 4"):
        Engine(make_model(CASES[0], "f32"), cache_itemsize=1)


@pytest.mark.skipif(not INSTRUCTION_SETS[detect_isa()].has_half_cache, reason="this path keeps float32")
def test_keys_too_large_for_float16_stay_numbers():
    model = make_model(CASES[1], "f32")
    key = model.tensors["layers.0.attention.key"]
    large = replace(model, tensors=model.tensors | {"layers.0.attention.key": Tensor.from_array(key.data * np.float32(1e6))})
    with Engine(large, n_threads=2, cache_itemsize=2) as engine:
        assert np.isfinite(engine.logits(random_ids(CASES[1], 40))).all()


@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
def test_a_sequence_is_the_same_alone_and_in_a_batch(dtype: str):
    case = CASES[0]
    prompts = [random_ids(case, n) for n in (1, 7, 40, 3, 19)]
    with Engine(make_model(case, dtype), n_threads=2, n_slots=5) as engine:
        alone = []
        for seed, prompt in enumerate(prompts, start=1):
            sequence = engine.sequence(Sampling(temperature=100.0, top_p=1.0, seed=seed))
            sequence.append(prompt)
            alone.append(sequence.run(12))
            sequence.close()
        batch = [engine.sequence(Sampling(temperature=100.0, top_p=1.0, seed=seed)) for seed in range(1, 6)]
        for sequence, prompt in zip(batch, prompts, strict=True):
            sequence.append(prompt)
        together = np.array([engine.step(batch) for _ in range(12)]).T.tolist()
    assert together == alone


def test_a_prompt_longer_than_one_pass_is_read_in_pieces():
    case = Case("long", CASES[0].config.__class__(64, 1, 4, 4, 96, 300, 700), 32)
    model, ids = make_model(case, "f32"), random_ids(case, 600)
    with Engine(model, n_threads=2) as engine:
        assert engine.max_rows < 600
        expected = engine.logits(ids)[-1]
        sequence = engine.sequence(Sampling(temperature=0))
        sequence.append(ids)
        assert sequence.next() == expected.argmax()
        assert np.array_equal(engine.logits_buffer[0, :300], expected)


def test_forks_go_on_from_what_was_read():
    case = CASES[0]
    with Engine(make_model(case, "f32"), n_threads=2, n_slots=4) as engine:
        first = engine.sequence(Sampling(temperature=100.0, top_p=1.0, seed=10))
        first.append(random_ids(case, 30))
        forks = first.fork(3)
        texts = [sequence.run(10) for sequence in (first, *forks)]
        assert len({tuple(text) for text in texts}) == 4
        first.close()
        again = engine.sequence(Sampling(temperature=100.0, top_p=1.0, seed=12))
        again.append(random_ids(case, 30))
        assert again.run(10) == texts[2]


def test_a_rewound_sequence_goes_on_as_a_new_one():
    case = CASES[0]
    ids = random_ids(case, 40)
    with Engine(make_model(case, "q8_0"), n_threads=2) as engine:
        sequence = engine.sequence(Sampling(temperature=0))
        sequence.append(ids)
        sequence.run(20)
        sequence.rewind(25)
        first = sequence.run(8)
        sequence.close()
        sequence = engine.sequence(Sampling(temperature=0))
        sequence.append(ids[:25])
        assert sequence.run(8) == first
