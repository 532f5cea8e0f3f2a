"""What fine-tuning's plan chooses by size, method and objective."""

from dataclasses import replace

import numpy as np
import pytest

from llamita.config import PRESETS
from llamita.errors import SettingError
from llamita.train.finetune_plan import ChatFacts, FinetunePlan, plan_finetuning
from llamita.train.machine import Machine

CPU = Machine("cpu", "some processor", 2, 8 << 30, "float32", False, 1e11)
LENGTHS = np.full(640, 100, np.int64)


def planned(shape: str, objective: str = "answers", **given: object) -> FinetunePlan:
    return plan_finetuning(PRESETS[shape], 2, ChatFacts(LENGTHS, 1000, objective), 3.0, CPU, given)


def test_a_tiny_model_learns_to_answer_as_it_learned_to_tell():
    training = planned("260K").recipe.training
    assert (training.optimizer, training.learning_rate) == ("muon", pytest.approx(0.8 * 8e-3))


@pytest.mark.parametrize(
    ("shape", "objective", "given", "rate"),
    [
        ("15M", "answers", {}, 2e-3 / 4),
        ("260K", "answers", {"lora_rank": 4}, 2e-3),
        ("260K", "preferences", {}, 2e-3 / 4 * 0.05),
        ("110M", "answers", {}, 6e-4 / 4 * 5),
        ("260K", "answers", {"optimizer": "adamw"}, 0.8 * 2e-3),
    ],
)
def test_all_others_are_held_near_to_what_they_know(shape: str, objective: str, given: dict, rate: float):
    training = planned(shape, objective, **given).recipe.training
    assert (training.optimizer, training.learning_rate) == ("adamw", pytest.approx(rate))


def test_large_models_get_lora_and_small_ones_all_weights():
    large, small = planned("110M"), planned("15M")
    assert large.recipe.finetuning is not None
    assert large.recipe.finetuning.lora_rank == 16
    assert small.n_trained == PRESETS["15M"].n_parameters
    assert large.n_trained < PRESETS["110M"].n_parameters / 10


def test_steps_are_those_of_the_epochs():
    one, three = planned("15M", "answers", lora_rank=0), planned("15M")
    assert one.recipe.training.n_steps == three.recipe.training.n_steps
    row_tokens = three.recipe.finetuning.row_tokens if three.recipe.finetuning else 0
    tokens = three.recipe.training.n_steps * three.recipe.training.sequences_per_update * row_tokens
    assert 3 * LENGTHS.sum() <= tokens <= 1.5 * 3 * LENGTHS.sum()


def test_a_given_pause_between_measurements_brings_saves_along():
    training = planned("15M", eval_every=17).recipe.training
    assert (training.eval_every, training.save_every, training.sample_every) == (17, 17, 34)
    assert planned("15M", eval_every=17, save_every=5).recipe.training.save_every == 5


def test_a_row_that_holds_no_chat_is_refused():
    with pytest.raises(SettingError, match="row_tokens: found 64, expected at least the 100 of the longest chat"):
        planned("15M", row_tokens=64)


def test_too_little_memory_is_said():
    facts = ChatFacts(LENGTHS, 1000, "answers")
    plan = plan_finetuning(PRESETS["15M"], 2, facts, 3.0, replace(CPU, memory_bytes=1 << 20), {})
    assert any("--lora-rank 16" in warning for warning in plan.warnings)
