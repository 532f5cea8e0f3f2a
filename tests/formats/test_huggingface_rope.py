"""RoPE in config.json: the forms of transformers 4 and 5 say the same, and what we would compute otherwise is refused.

That transformers computes the same from what is written is tests/slow/test_transformers.py.
"""

from dataclasses import replace

import pytest

from llamita.config import ModelConfig, RopeScaling
from llamita.errors import ModelError, ModelFileError
from llamita.formats.huggingface_rope import parse_rope, rope_values
from llamita.model import rope_frequencies

LLAMA_3 = {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192}
LINEAR = RopeScaling("linear", 2.5)
LLAMA_3_2 = RopeScaling("llama3", 32.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_context=8192)
READ = [
    ({}, 10000.0, None),
    ({"rope_theta": 500, "rope_scaling": None}, 500.0, None),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 7}}, 7.0, None),
    ({"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.5}}, 500.0, LINEAR),
    ({"rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 2.5}}, 10000.0, LINEAR),
    ({"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 7.0}}, 7.0, LINEAR),
    ({"rope_theta": 500000.0, "rope_scaling": {**LLAMA_3, "rope_type": "llama3"}}, 500000.0, LLAMA_3_2),
    ({"rope_parameters": {**LLAMA_3, "rope_type": "llama3", "rope_theta": 500000.0}}, 500000.0, LLAMA_3_2),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 7, "partial_rotary_factor": 1.0}}, 7.0, None),
]  # fmt: skip
CONFIG = ModelConfig(128, 2, 2, 2, 24, 40, 32, rope_theta=500000.0)


@pytest.mark.parametrize(("fields", "theta", "scaling"), READ)
def test_both_forms_are_read(fields, theta, scaling):
    assert parse_rope(fields, "config.json") == (theta, scaling)


@pytest.mark.parametrize("scaling", [None, LINEAR, LLAMA_3_2])
def test_what_is_written_says_the_same_to_transformers_4_and_5(scaling):
    values = rope_values(replace(CONFIG, rope_scaling=scaling))
    assert parse_rope(values, "config.json") == (500000.0, scaling)
    assert parse_rope({"rope_parameters": values["rope_parameters"]}, "config.json") == (500000.0, scaling)
    del values["rope_parameters"]
    assert parse_rope(values, "config.json") == (500000.0, scaling)
    if scaling is LINEAR:  # the first versions that knew it refused any other field
        assert values["rope_scaling"] == {"type": "linear", "factor": 2.5}


@pytest.mark.parametrize("kind", ["dynamic", "yarn", "longrope", "proportional", "su", ""])
def test_another_kind_is_refused_by_name(kind):
    expected = rf"rope_scaling: found {kind}, expected rope_type default, linear, llama3; llamita does not stretch"
    with pytest.raises(ModelFileError, match=expected):
        parse_rope({"rope_scaling": {"rope_type": kind, "factor": 2.0}}, "config.json")


REFUSED = [
    ({"rope_scaling": "linear"}, "rope_scaling: found linear"),
    ({"rope_scaling": [1]}, "rope_scaling: found [1]"),
    ({"rope_scaling": {"type": ["linear"], "factor": 2.0}}, "rope_scaling: found {"),
    ({"rope_scaling": {"factor": 2.0}}, "rope_scaling: found factor for default, expected no numbers"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0, "beta": 1}}, "rope_scaling: found beta for linear, expected factor"),
    ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "rope_parameters: found full_attention for default"),
    (
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        "rope_parameters.partial_rotary",
    ),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 0}}, "rope_parameters.rope_theta: found 0"),
    ({"rope_theta": "1e4"}, "rope_theta: found 1e4"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.low_freq_factor: found None"),
    ({"rope_scaling": {**LLAMA_3, "rope_type": "llama3", "low_freq_factor": 4}}, "expected low_freq_factor below high_freq"),
    (
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
        "expected the same as in rope_parameters",
    ),
    *(
        ({"rope_scaling": {"type": "linear", "factor": factor}}, "rope_scaling.factor: found")
        for factor in (0, -1, "2", True, None, 1e10, [2.0], ...)
    ),
]


@pytest.mark.parametrize(("fields", "found"), REFUSED)
def test_what_makes_no_sense_is_refused_by_field(fields, found):
    with pytest.raises(ModelFileError) as caught:
        parse_rope(fields, "config.json")
    assert found in str(caught.value)


@pytest.mark.parametrize("scaling", [None, RopeScaling("linear", 3.0), RopeScaling("llama3", 8.0), LLAMA_3_2])
def test_factors_of_single_frequencies_are_written_under_the_name_that_they_have(scaling):
    stretched = rope_frequencies(replace(CONFIG, rope_scaling=scaling))
    factors = RopeScaling("factors", factors=tuple((rope_frequencies(CONFIG) / stretched).tolist()))
    values = rope_values(replace(CONFIG, rope_scaling=factors))
    assert parse_rope(values, "config.json") == (500000.0, scaling)


def test_factors_without_a_name_are_refused():
    factors = RopeScaling("factors", factors=(1.0, 3.0) * 16)
    with pytest.raises(ModelError, match=r"rope_scaling: found factors of their own, expected none, linear, or Llama 3's by 8"):
        rope_values(replace(CONFIG, rope_scaling=factors))
