"""RoPE's frequencies, stretched or not, are those of the libraries that models were made with.

The numbers are those of transformers 5.24 with torch 2.13: ROPE_INIT_FUNCTIONS["llama3"] and ["linear"] of
modeling_rope_utils.py; tests/slow/test_transformers.py asks the library itself.
"""

import numpy as np
import pytest

from llamita.config import ModelConfig, RopeScaling
from llamita.errors import ModelError
from llamita.model import Model, random_model, rope_angles, rope_frequencies, with_more_rows
from llamita.quant import Tensor

# (theta, head size, stretching) -> pair -> frequency
RECORDED = {
    "Llama 3.1": (
        (500000.0, 64, RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)),
        {
            0: 1.0, 1: 0.663601279258728, 13: 0.00483942124992609, 14: 0.0032114461064338684, 15: 0.0013718936825171113,
            16: 0.0005248460220173001, 17: 0.0001785077911335975, 18: 7.784655463183299e-05, 31: 3.76732259610435e-07,
        },
    ),
    "Llama 3.2": (
        (500000.0, 64, RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)),
        {
            0: 1.0, 14: 0.0032114461064338684, 15: 0.0012905480107292533, 16: 0.000429556705057621,
            17: 9.708286233944818e-05, 18: 1.9461638657958247e-05, 31: 9.418306490260875e-08,
        },
    ),
    "linear": (
        (10000.0, 32, RopeScaling("linear", 4.0)),
        {0: 0.25, 1: 0.14058533310890198, 4: 0.02500000037252903, 15: 4.4456985051510856e-05},
    ),
}  # fmt: skip


def config(theta: float, head_size: int, scaling: RopeScaling | None) -> ModelConfig:
    return ModelConfig(2 * head_size, 1, 2, 2, 24, 40, 32, rope_theta=theta, rope_scaling=scaling)


@pytest.mark.parametrize("name", RECORDED)
def test_stretched_frequencies_are_those_of_transformers(name):
    arguments, expected = RECORDED[name]
    frequencies = rope_frequencies(config(*arguments))
    assert frequencies.dtype == np.float32
    assert len(frequencies) == arguments[1] // 2
    for pair, frequency in expected.items():
        assert frequencies[pair] == pytest.approx(frequency, rel=3e-7), pair


def test_factors_divide_each_frequency_by_its_own():
    factors = np.linspace(1, 8, 16)
    stretched = rope_frequencies(config(10000.0, 32, RopeScaling("factors", factors=tuple(factors))))
    np.testing.assert_allclose(stretched * factors, rope_frequencies(config(10000.0, 32, None)), rtol=1e-6)


def test_angles_are_positions_times_frequencies():
    stretched = config(10000.0, 32, RopeScaling("linear", 4.0))
    angles = rope_angles(stretched, 9)
    assert (angles.shape, angles.dtype) == ((9, 16), np.float64)
    np.testing.assert_array_equal(angles[::4], rope_angles(config(10000.0, 32, None), 3))  # as positions between


def rows_of(model: Model, name: str) -> np.ndarray:
    return model.tensors[name].dequantize()


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"])
@pytest.mark.parametrize("tied", [True, False])
def test_rows_that_are_added_are_the_mean_of_the_others_which_keep_their_bits(dtype: str, tied: bool):
    model = random_model(ModelConfig(64, 1, 2, 2, 64, 40, 32, tied_embedding=tied), dtype, group=32)
    grown = with_more_rows(model, 43)
    assert grown.validate().config.vocab_size == 43
    assert grown.tensors.keys() == model.tensors.keys()
    for name in ("embedding",) if tied else ("embedding", "head"):
        before, after = model.tensors[name], grown.tensors[name]
        assert (after.dtype, after.group, after.shape) == (before.dtype, before.group, (43, 64))
        for part in ("data", "scales", "offsets"):
            if (kept := getattr(before, part)) is not None:
                np.testing.assert_array_equal(getattr(after, part)[:40], kept)
                assert getattr(after, part).dtype == kept.dtype
        step = {"f32": 1e-6, "f16": 1e-3, "bf16": 1e-2, "q8_0": 1e-2}.get(dtype, 0.1)  # the mean is about 0.16 in size
        np.testing.assert_allclose(rows_of(grown, name)[40:], np.tile(rows_of(model, name).mean(axis=0), (3, 1)), atol=step)
    others = set(model.tensors) - {"embedding", "head"}
    assert all(grown.tensors[name] is model.tensors[name] for name in others)


def test_rows_to_spare_become_the_mean_of_the_known_ones():
    model = random_model(ModelConfig(16, 1, 2, 2, 24, 40, 12))
    for vocab_size in (40, 41):
        grown = with_more_rows(model, vocab_size, n_known=30)
        known = rows_of(model, "embedding")[:30]
        np.testing.assert_array_equal(rows_of(grown, "embedding")[:30], known)
        expected = np.tile(known.mean(axis=0), (vocab_size - 30, 1))
        np.testing.assert_allclose(rows_of(grown, "embedding")[30:], expected, atol=1e-6)


def test_blocks_that_cannot_be_added_to_become_numbers():
    model = random_model(ModelConfig(256, 1, 4, 4, 256, 40, 12))
    blocks = np.zeros((40, 210), np.uint8)  # q6_k: a block of 256 weights takes 210 bytes
    blocks[:, -2:] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    model.tensors["embedding"] = Tensor("q6_k", (40, 256), blocks)
    grown = with_more_rows(model, 41)
    assert grown.tensors["embedding"].dtype == "f32"
    np.testing.assert_array_equal(rows_of(grown, "embedding")[:40], rows_of(model, "embedding"))


@pytest.mark.parametrize(("vocab_size", "n_known"), [(39, 0), (41, 41), (41, -1)])
def test_a_model_does_not_shrink(vocab_size: int, n_known: int):
    with pytest.raises(ModelError, match="found 40 rows"):
        with_more_rows(random_model(ModelConfig(16, 1, 2, 2, 24, 40, 12)), vocab_size, n_known)
