"""Fidelity: the numbers are those of their definitions, each form of a model passes its bounds, and a spoilt one does not."""

import math
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from llamita.config import ModelConfig
from llamita.errors import SettingError
from llamita.fidelity import BOUNDS, MAX_TOKENS, Bounds, Fidelity, beyond, coarsest_change, measure, split
from llamita.formats import read_model
from llamita.language_model import BUNDLED, find_model
from llamita.model import Model, random_model, with_dtype
from llamita.quant import FLOAT_DTYPES, Tensor, convert
from llamita.tokenizer import Tokenizer
from reference import reference_logits

CONFIG = ModelConfig(width=64, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=128, vocab_size=96, context=40)
WINDOWS = [[1, 5, 9, 70, 3, 22, 95, 2], [1, 8, 8], [7]]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def with_all(model: Model, dtype: str) -> Model:
    """The model with its norms in another dtype too."""
    return replace(model, tensors={name: convert(tensor, dtype, 32) for name, tensor in model.tensors.items()})


def test_the_numbers_are_those_of_their_definitions():
    source, other = random_model(CONFIG), random_model(CONFIG, seed=1)
    found = measure(source, other, WINDOWS)
    pairs = [(reference_logits(source, window), reference_logits(other, window)) for window in WINDOWS]
    left, right = (np.concatenate([softmax(pair[i]) for pair in pairs]) for i in (0, 1))
    assert found.n_tokens == 12
    assert math.isclose(found.logit_difference, max(np.abs(a - b).max() for a, b in pairs), rel_tol=1e-3)
    assert math.isclose(found.kl_divergence, (left * np.log(left / right)).sum() / 12, rel_tol=1e-3)
    assert found.top1_agreement == (left.argmax(axis=1) == right.argmax(axis=1)).mean()
    for i, value in ((0, found.source_cross_entropy), (1, found.cross_entropy)):
        likely = [
            softmax(pair[i])[t, window[t + 1]]
            for pair, window in zip(pairs, WINDOWS, strict=True)
            for t in range(len(window) - 1)
        ]
        assert len(likely) == 9
        assert math.isclose(value, -np.log(likely).mean(), rel_tol=1e-3)
    assert found.cross_entropy_change == found.cross_entropy - found.source_cross_entropy


def test_a_model_is_equal_to_itself_in_every_form():
    for dtype in ("f32", "bf16", "q8_0", "q4_0"):
        model = random_model(CONFIG, dtype, group=32)
        found = measure(model, with_dtype(model, dtype, 32), WINDOWS)
        assert (found.logit_difference, found.kl_divergence, found.top1_agreement, found.cross_entropy_change) == (0, 0, 1, 0)
        assert beyond(found, BOUNDS["f32"]) == []


def test_progress_is_told_of_every_id_of_both_models():
    told: list[int] = []
    measure(random_model(CONFIG), random_model(CONFIG), WINDOWS, told.append)
    assert sum(told) == 2 * 12


@pytest.fixture(scope="module")
def stories() -> Model:
    """The bundled model, its weights as float32."""
    return with_all(read_model(find_model("stories")), "f32")


@pytest.fixture(scope="module")
def windows(stories: Model) -> list[list[int]]:
    tokenizer = cast(Tokenizer, stories.tokenizer)
    return split(tokenizer.encode((BUNDLED / "tales.txt").read_text(encoding="utf-8"))[:400], [tokenizer.bos_id], stories)


@pytest.mark.parametrize("dtype", list(BOUNDS))
def test_the_bundled_model_passes_the_bounds_of_every_form(stories, windows, dtype):
    other = with_all(stories, dtype) if dtype in FLOAT_DTYPES else with_dtype(stories, dtype, 32)
    assert coarsest_change(stories, other) == (dtype if dtype != "f32" else "f32")
    found = measure(stories, other, windows)
    assert found.n_tokens > 400
    assert beyond(found, BOUNDS[dtype]) == []
    assert (found.kl_divergence > 0) == (dtype != "f32")


def test_the_bound_of_a_form_is_no_bound_of_a_finer_one(stories, windows):
    found = measure(stories, with_dtype(stories, "q4_0"), windows)
    assert len(beyond(found, BOUNDS["q8_0"])) >= 2
    assert beyond(measure(stories, with_dtype(stories, "bf16"), windows), BOUNDS["f32"])


@pytest.mark.parametrize("spoil", ["gate and up", "layers", "order of keys", "scale"])
def test_a_spoilt_model_does_not_pass(stories, windows, spoil):
    tensors = dict(stories.tensors)
    keys = tensors["layers.1.attention.key"].data
    pairs = {
        "gate and up": ("layers.1.mlp.gate", "layers.1.mlp.up"),
        "layers": ("layers.1.attention.output", "layers.2.attention.output"),
    }
    if spoil in pairs:
        one, other = pairs[spoil]
        tensors[one], tensors[other] = tensors[other], tensors[one]
    elif spoil == "order of keys":
        tensors["layers.1.attention.key"] = Tensor.from_array(np.roll(keys, 1, axis=0))
    else:
        tensors["layers.1.attention.key"] = Tensor.from_array(keys * np.float32(1.5))
    assert beyond(measure(stories, replace(stories, tensors=tensors), windows), BOUNDS["q8_0"])


def test_no_number_never_passes(stories, windows):
    tensors = stories.tensors | {"norm": Tensor.from_array(np.full(stories.config.width, np.nan, np.float32))}
    found = measure(stories, replace(stories, tensors=tensors), windows[:1])
    assert math.isnan(found.logit_difference)
    assert len(beyond(found, Bounds(1e9, 1e9, 0.0, 1e9))) == 3


def test_what_does_not_pass_is_said_with_both_numbers():
    found = Fidelity(10, 0.5, 0.25, 0.9, 2.0, 1.0)
    assert beyond(found, Bounds(0.5, 0.25, 0.9, 1.0)) == []
    assert beyond(found, Bounds(0.1, 0.1, 0.95, 0.5)) == [
        "largest logit difference: found 0.5, expected at most 0.1",
        "mean KL divergence: found 0.25, expected at most 0.1",
        "change of cross entropy: found 1, expected at most 0.5",
        "top-1 agreement: found 90.00%, expected at least 95.00%",
    ]


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("f32", "f32", "f32"),
        ("f16", "f32", "f32"),
        ("f32", "bf16", "bf16"),
        ("bf16", "q4_0", "q4_0"),
        ("q8_0", "q8_0", "q8_0"),
        ("q4_0", "f16", "q8_0"),  # activations are int8 in the source
        ("q4_0", "q4_1", "q4_1"),
    ],
)
def test_the_bound_is_that_of_the_coarsest_change(before, after, kind):
    source = random_model(CONFIG, before, 32)
    assert coarsest_change(source, with_dtype(source, after, 32)) == kind


def test_a_text_is_cut_into_windows_of_the_context_each_after_bos():
    model = random_model(CONFIG)
    windows = split(list(range(2, 90)), [1], model)
    assert [len(window) for window in windows] == [40, 40, 11]
    assert all(window[0] == 1 for window in windows)
    assert [token_id for window in windows for token_id in window[1:]] == list(range(2, 90))
    assert len(split([3] * 5000, [], model)) * 40 >= MAX_TOKENS > sum(map(len, split([3] * 5000, [], model))) - 40


def test_a_large_vocabulary_is_compared_on_fewer_tokens():
    many = random_model(replace(CONFIG, vocab_size=1 << 18, width=8, head_size=2))
    assert sum(map(len, split([3] * 5000, [], many))) == 256


def test_a_text_without_tokens_is_refused():
    with pytest.raises(SettingError, match="text to verify with: found nothing in it"):
        split([], [1], random_model(CONFIG))
