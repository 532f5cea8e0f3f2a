"""RoPE's frequencies, stretched or not, are those of the libraries that models were made with.

The numbers are those of transformers 5.24 with torch 2.13: ROPE_INIT_FUNCTIONS["llama3"] and ["linear"] of
modeling_rope_utils.py; tests/slow/test_transformers.py asks the library itself.
"""

import numpy as np
import pytest

from llamita.config import ModelConfig, RopeScaling
from llamita.model import rope_angles, rope_frequencies

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
