"""Recipes as text: what is written comes back, and nonsense is named."""

import math
from dataclasses import replace

import pytest

from llamita.config import ModelConfig, RopeScaling
from llamita.errors import SettingError
from llamita.train.config import (
    FinetuneConfig,
    Recipe,
    TrainConfig,
    lora_targets_of,
    read_recipe,
    with_overrides,
    write_recipe,
)

MODEL = ModelConfig(width=16, n_layers=1, n_heads=2, n_kv_heads=1, mlp_width=32, vocab_size=300, context=16)
TRAINING = TrainConfig(8, 2, 1, 3e-3, 2)
THETA = "rope_theta = 10000.0"
FINETUNING = FinetuneConfig(lora_rank=4, lora_targets=("attention.query", "mlp.up"), beta=0.25)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(MODEL, TRAINING),
        Recipe(MODEL, TRAINING, FINETUNING),
        Recipe(replace(MODEL, rope_scaling=RopeScaling("llama3", 8.0)), TRAINING, FinetuneConfig()),
        Recipe(replace(MODEL, rope_scaling=RopeScaling("factors", factors=(1.0, 2.0, 2.5, 4.0))), TRAINING),
    ],
    ids=["of training", "of fine-tuning", "of a stretched model", "with factors"],
)
def test_a_recipe_comes_back_from_its_file(recipe, tmp_path):
    write_recipe(recipe, tmp_path / "recipe.toml")
    assert read_recipe(tmp_path / "recipe.toml") == recipe


def test_a_recipe_of_training_has_no_table_of_fine_tuning():
    assert set(Recipe(MODEL, TRAINING).to_dict()) == {"model", "training"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("width = 16", 'width = "a"', "width: found 'a', expected int"),
        ("width = 16", "width = 64.5", "width: found 64.5, expected int"),
        ("width = 16", "width = true", "width: found True, expected int"),
        ("width = 16\n", "", "width: found none, expected int"),
        (THETA, 'rope_theta = "1"', "rope_theta: found '1', expected float"),
        ("tied_embedding = true", "tied_embedding = 3", "tied_embedding: found 3, expected bool"),
        (THETA, "rope_scaling = 3", "rope_scaling: found 3, expected a table"),
        (THETA, "rope_scaling = {}", "rope_scaling.kind: found none, expected str"),
        (THETA, "rope_scaling = {kind = 'linear', factor = 'x'}", "rope_scaling.factor: found 'x', expected float"),
        (THETA, "rope_scaling = {kind = 'factors', factors = ['x']}", "rope_scaling.factors: found ['x'], "),
        (THETA, "rope_scaling = {kind = 'linear', f = 1}", "found unknown field rope_scaling.f, expected one of kind, "),
        (THETA, "widht = 3", "found unknown field widht, expected one of width, "),
        ("n_steps = 8\n", "", "n_steps: found none, expected int"),
        ("seed = 1337", "seed = 1.5", "seed: found 1.5, expected int"),
        ('["attention.query", ', "[3, ", "lora_targets: found [3, 'mlp.up'], expected a list of str"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_named_with_its_file(old, new, expected, tmp_path):
    text = Recipe(MODEL, TRAINING, FINETUNING).to_toml()
    assert old in text
    (tmp_path / "rr.toml").write_text(text.replace(old, new))
    with pytest.raises(SettingError) as caught:
        read_recipe(tmp_path / "rr.toml")
    assert str(caught.value).startswith(f"{tmp_path / 'rr.toml'}: recipe: {expected}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["model = 3\ntraining = 3", "[model]\n[[training]]", "[[model]]\n[training]", "[model]", "model = []\n[training]"]
)
def test_tables_that_are_none_are_one_line(text, tmp_path):
    (tmp_path / "rr.toml").write_text(text)
    with pytest.raises(SettingError, match=r"rr.toml: recipe: "):
        read_recipe(tmp_path / "rr.toml")


def test_overrides_find_their_table():
    changed = with_overrides(Recipe(MODEL, TRAINING, FINETUNING), {"context": 32, "batch": 4, "lora_rank": 0})
    assert (changed.model.context, changed.training.batch, changed.finetuning.lora_rank) == (32, 4, 0)  # pyright: ignore


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"lora_rank": -1}, "lora_rank: found -1"),
        ({"lora_alpha": 0.0}, "lora_alpha: found 0.0"),
        ({"lora_dropout": 1.0}, "lora_dropout: found 1.0"),
        ({"objective": "rhymes"}, "objective: found 'rhymes', expected answers or preferences"),
        ({"beta": 0.0}, "beta: found 0.0"),
        ({"label_smoothing": 0.5}, "label_smoothing: found 0.5"),
        ({"row_tokens": 1}, "row_tokens: found 1"),
        ({"lora_targets": ("attention.query", "head")}, "lora_targets: found head, expected attention.query"),
        ({"lora_targets": ()}, "lora_targets: found none"),
    ],
)
def test_a_number_out_of_range_is_named(change, expected):
    with pytest.raises(SettingError) as caught:
        replace(FINETUNING, **change).validate()
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    "change",
    [{"weight_decay": math.inf}, {"gradient_clip": math.nan}, {"n_steps": 10**20}, {"seed": 1 << 63}, {"seed": -1}],
)
def test_a_number_that_no_recipe_can_hold_is_refused(change):
    with pytest.raises(SettingError, match=rf"^{next(iter(change))}: found .*, expected .* below (1e\+15|2\*\*63)$"):
        replace(TRAINING, **change).validate()


def test_heads_that_no_folder_can_hold_are_refused_but_for_an_adapter():
    odd = replace(MODEL, width=32, n_heads=3, n_kv_heads=3, head_size=10)
    for recipe in (Recipe(odd, TRAINING), Recipe(odd, TRAINING, replace(FINETUNING, lora_rank=0))):
        with pytest.raises(SettingError, match=r"^n_heads: found 3, expected a divisor of the width 32$"):
            recipe.validate()
    Recipe(odd, TRAINING, FINETUNING).validate()
    Recipe(replace(MODEL, width=32, head_size=24), TRAINING).validate()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", FinetuneConfig().lora_targets),
        ("query, mlp.up", ("attention.query", "mlp.up")),
        ("mlp,value", ("attention.value", "mlp.gate", "mlp.up", "mlp.down")),
    ],
)
def test_targets_are_named_in_short(text, expected):
    assert lora_targets_of(text) == expected


@pytest.mark.parametrize("text", ["", "q_proj", "attention.quer"])
def test_unknown_targets_are_refused(text):
    with pytest.raises(SettingError, match="lora_targets: found"):
        lora_targets_of(text)
