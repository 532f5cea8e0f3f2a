"""The grid of a sweep: what may stand in it, what it makes of a recipe, and one line for each mistake. No torch."""

import pytest

from llamita.config import ModelConfig
from llamita.errors import SettingError
from llamita.train.config import Recipe, TrainConfig
from llamita.train.grid import MOST_COMBINATIONS, combinations, parse_grid
from llamita.train.hyperparameters import learning_rate_for

BASE = Recipe(
    ModelConfig(width=64, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=128, vocab_size=300, context=32),
    TrainConfig(n_steps=100, batch=4, accumulation=2, learning_rate=3e-3, warmup_steps=4, eval_every=10, save_every=20),
)


def recipes(*texts: str, given: tuple[str, ...] = (), planned_rate: bool = False) -> list[Recipe | None]:
    return [found.recipe for found in combinations(parse_grid(texts), BASE, given, planned_rate)]


def test_values_have_the_types_of_their_fields():
    texts = ["learning_rate=1e-3, 1", "optimizer=muon,adamw", "n_layers=2,3", "tied_embedding=yes,False", "beta1=0.8,.9"]
    assert parse_grid(texts) == {
        "learning_rate": (1e-3, 1.0), "optimizer": ("muon", "adamw"), "n_layers": (2, 3), "tied_embedding": (True, False),
        "beta1": (0.8, 0.9),
    }  # fmt: skip


def test_a_field_may_be_spelled_as_its_flag():
    assert list(parse_grid(["learning-rate=1,2", "layers=2,3", "n-heads=2,4"])) == ["learning_rate", "n_layers", "n_heads"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], "found none"),
        (["learning_rat=1,2"], "did you mean learning_rate"),
        (["=1,2"], "unknown field without a name"),
        (["\x1b[2J=1,2"], "unknown field \\x1b"),
        (["learning_rate"], "learning_rate: found '', expected a number"),
        (["learning_rate="], "expected a number"),
        (["learning_rate=1e-3"], "found one value, expected two or more; what does not vary is a flag: --learning-rate"),
        (["learning_rate=1e-3,fast"], "found 'fast', expected a number"),
        (["learning_rate=1e-3,nan"], "found 'nan'"),
        (["learning_rate=1e-3,inf"], "found 'inf'"),
        (["learning_rate=0.1,1e-1"], "found 0.1 twice"),
        (["learning_rate=1,2", "learning-rate=3,4"], "found it twice"),
        (["batch=1.5,2"], "found '1.5', expected a whole number"),
        (["compile=maybe,yes"], "expected true or false"),
        (["n_steps=10,20"], "cannot vary: the rungs"),
        (["vocab_size=10,20"], "encoded once"),
        (["save_every=10,20"], "changes nothing that is learned"),
        (["rope_scaling=1,2"], "unknown field rope_scaling"),
    ],
)  # fmt: skip
def test_a_bad_grid_is_one_line(texts: list[str], expected: str):
    with pytest.raises(SettingError, match=r"^grid: ") as caught:
        parse_grid(texts)
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_million_combinations_are_refused():
    ten = ",".join(map(str, range(1, 11)))
    names = ("batch", "accumulation", "n_layers", "warmup_steps", "seed", "width")
    with pytest.raises(SettingError, match=f"found 1,000,000 combinations, expected {MOST_COMBINATIONS} at most"):
        parse_grid([f"{name}={ten}" for name in names])


def test_a_combination_changes_its_fields_and_nothing_else():
    found = combinations(parse_grid(["learning_rate=1e-3,1e-2", "optimizer=adamw,muon"]), BASE, (), True)
    assert [list(chosen.values.values()) for chosen in found] == [
        [1e-3, "adamw"], [1e-3, "muon"], [1e-2, "adamw"], [1e-2, "muon"]
    ]  # fmt: skip
    tables = BASE.to_dict()
    tables["training"] |= {"learning_rate": 1e-3, "optimizer": "adamw"}
    assert found[0].recipe == Recipe.from_dict(tables)


def test_all_combinations_see_as_many_tokens():
    for recipe in recipes("batch=1,2,8", "context=16,64"):
        assert recipe is not None
        training = recipe.training
        n_tokens = training.n_steps * training.sequences_per_update * recipe.model.context
        assert n_tokens == pytest.approx(100 * 8 * 32, rel=0.02)
        assert training.warmup_steps / training.n_steps == pytest.approx(0.04, rel=0.3)


def test_a_width_brings_heads_and_mlp_along_unless_they_are_given():
    narrow, wide = recipes("width=64,128")
    assert narrow is not None
    assert wide is not None
    assert (wide.model.query_width, wide.model.mlp_width > narrow.model.mlp_width) == (128, True)
    _, wide = recipes("width=64,128", given=("mlp_width",))
    assert wide is not None
    assert wide.model.mlp_width == BASE.model.mlp_width


def test_a_rate_is_planned_for_each_optimizer_where_nobody_chose_one():
    muon, adamw = recipes("optimizer=muon,adamw", planned_rate=True)
    assert muon is not None
    assert adamw is not None
    assert adamw.training.learning_rate == learning_rate_for(adamw.model.n_parameters, "adamw") < muon.training.learning_rate
    assert {recipe.training.learning_rate for recipe in recipes("optimizer=muon,adamw") if recipe} == {3e-3}


def test_combinations_that_do_not_fit_stay_in_the_grid_without_a_recipe():
    found = combinations(parse_grid(["n_heads=2,4", "n_kv_heads=2,4"]), BASE, (), False)
    assert [chosen.recipe is None for chosen in found] == [False, True, False, False]
    assert "n_kv_heads" in found[1].error


@pytest.mark.parametrize(
    "text", ["learning_rate=1e-3,11", "optimizer=muon,sgd", "n_kv_heads=2,3", "n_heads=4,6", "dropout=0,1"]
)
def test_a_value_that_no_combination_can_have_is_refused(text: str):
    with pytest.raises(SettingError, match=r"grid: \w+=\S+ cannot be trained: "):
        recipes(text, "seed=1,2")


def test_what_is_a_flag_cannot_vary():
    with pytest.raises(SettingError, match="learning_rate: found it as a flag too"):
        recipes("learning_rate=1e-3,1e-2", given=("learning_rate",))
