"""The planner: one dial leads to a whole recipe, everything given stands, and what speaks against it is said. No torch."""

from dataclasses import replace

import pytest

from llamita.config import PRESETS
from llamita.errors import LlamitaError, ModelError, SettingError
from llamita.train.config import Recipe
from llamita.train.machine import Machine, peak_flops
from llamita.train.plan import Plan, plan
from llamita.train.published import PUBLISHED
from llamita.train.sizing import DataFacts, Dial, choose_vocab_size, estimate_data

LAPTOP = Machine("cpu", "a laptop", 2, 8 << 30, "float32", True, 130e9)
H100 = Machine("cuda", "NVIDIA H100 80GB HBM3", 16, 79 << 30, "bfloat16", True, 350e12)
HALF_AN_HOUR = Dial(hours=0.5)


def plan_for_text(n_bytes: int, machine: Machine = LAPTOP, dial: Dial = HALF_AN_HOUR) -> Plan:
    return plan(dial, estimate_data(n_bytes, choose_vocab_size(n_bytes, dial, machine)), machine, {})


def n_tokens_of(made: Plan) -> int:
    return made.recipe.training.n_steps * made.recipe.training.sequences_per_update * made.recipe.model.context


@pytest.mark.parametrize("dial", [Dial(params=15_000_000), Dial(preset="15M"), Dial(hours=2), Dial(params=10**6, hours=0.1)])
@pytest.mark.parametrize("machine", [LAPTOP, H100], ids=["laptop", "H100"])
def test_any_dial_leads_to_a_recipe_that_survives_its_file(dial: Dial, machine: Machine):
    made = plan(dial, None, machine, {})
    assert Recipe.from_dict(made.to_dict()["recipe"]) == made.recipe
    assert all(line.what and line.how and line.value for line in made.lines)
    assert plan(dial, None, machine, {}) == made


@pytest.mark.parametrize("n_bytes", [2_000, 20_000, 1_000_000, 100_000_000, 2_000_000_000])
@pytest.mark.parametrize("machine", [LAPTOP, H100], ids=["laptop", "H100"])
def test_any_text_leads_to_a_run_that_ends_in_time(n_bytes: int, machine: Machine):
    made = plan_for_text(n_bytes, machine)
    assert 0 < made.hours <= 0.55
    assert made.recipe.training.n_steps >= 100
    assert made.recipe.model.context * 64 <= max(64 * 32, n_bytes / 2)


def test_an_untouched_dial_means_half_an_hour():
    assert plan(Dial(), None, LAPTOP, {}) == plan(HALF_AN_HOUR, None, LAPTOP, {})
    assert choose_vocab_size(10**9, Dial(), LAPTOP) == choose_vocab_size(10**9, HALF_AN_HOUR, LAPTOP)


def test_more_time_or_more_text_make_a_larger_model():
    sizes = [plan_for_text(n_bytes).recipe.model.n_parameters for n_bytes in (10**5, 10**6, 10**8)]
    assert sizes == sorted(set(sizes))
    longer = plan_for_text(10**8, dial=Dial(hours=5)).recipe.model.n_parameters
    assert longer > 2 * sizes[-1]


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_is_the_published_recipe(name: str):
    made, published = plan(Dial(preset=name), None, H100, {}), PUBLISHED[name]
    assert made.recipe.model == PRESETS[name]
    training = made.recipe.training
    assert training.sequences_per_update == published.sequences_per_update
    settings = (
        "n_steps",
        "learning_rate",
        "warmup_steps",
        "weight_decay",
        "beta1",
        "beta2",
        "dropout",
        "optimizer",
        "schedule",
    )
    for setting in (*settings, "final_share", "gradient_clip"):
        assert getattr(training, setting) == getattr(published, setting)


def test_a_table_shows_rate_schedule_and_dropout_of_a_preset_too():
    def shown(dial: Dial, **given: object) -> dict[str, tuple[str, str]]:
        return {line.what: (line.value, line.how) for line in plan(dial, None, LAPTOP, given).lines}

    preset, ours = shown(Dial(preset="110M")), shown(Dial(params=110_000_000))
    assert preset["learning rate"] == ("0.0004", "as published")
    assert preset["schedule"] == ("cosine", "as published")
    assert preset["dropout"] == ("0.1", "as published")
    assert set(preset) >= set(ours) - {"size"}
    assert shown(Dial(preset="110M"), learning_rate=1e-3)["learning rate"] == ("0.001", "given")
    assert ours["schedule"][0] == "wsd"


def test_a_preset_with_hours_has_fewer_steps_of_the_same_size():
    made = plan(Dial(preset="110M", hours=2), DataFacts(10**9, 4 * 10**9, 32000), H100, {})
    assert made.hours == pytest.approx(2, rel=0.01)
    assert made.recipe.training.sequences_per_update == 128


def test_what_is_given_stands():
    overrides = {
        "width": 96, "n_layers": 3, "context": 64, "vocab_size": 777, "batch": 5, "accumulation": 3, "n_steps": 12,
        "learning_rate": 0.01, "compile": False, "seed": 7, "optimizer": "adamw", "save_every": 4,
    }  # fmt: skip
    recipe = plan(Dial(params=1_000_000), None, LAPTOP, overrides).recipe
    found = recipe.to_dict()["model"] | recipe.to_dict()["training"]
    assert {name: found[name] for name in overrides} == overrides
    assert recipe.model.query_width == 96
    assert recipe.model.mlp_width == 256


def test_a_given_pause_between_measurements_brings_saves_and_samples_along():
    made = plan(Dial(params=50_000), None, LAPTOP, {"n_steps": 30, "eval_every": 10})
    training = made.recipe.training
    assert (training.eval_every, training.save_every, training.sample_every) == (10, 10, 20)
    assert ("save every", "10", "with each measurement") in [(line.what, line.value, line.how) for line in made.lines]
    both = plan(Dial(params=50_000), None, LAPTOP, {"n_steps": 30, "eval_every": 10, "save_every": 4}).recipe.training
    assert (both.eval_every, both.save_every) == (10, 4)
    saves = plan(Dial(params=50_000), None, LAPTOP, {"n_steps": 30, "save_every": 4}).recipe.training
    assert (saves.eval_every, saves.save_every) == (1, 4)


def test_a_given_number_of_heads_brings_their_size_along():
    model = plan(Dial(params=1_000_000), None, LAPTOP, {"n_heads": 4}).recipe.model
    assert (model.n_heads, model.n_kv_heads, model.head_size) == (4, 4, model.width // 4)


@pytest.mark.parametrize("width", [32, 90, 100, 224, 1540, 2062])
def test_any_even_width_has_heads_that_divide_it(width: int):
    model = plan(Dial(params=1_000_000), None, LAPTOP, {"width": width}).recipe.model
    assert model.width == width == model.n_heads * model.head_size


@pytest.mark.parametrize(
    ("dial", "overrides"),
    [
        (Dial(preset="16M"), {}),
        (Dial(preset="15M", params=10**6), {}),
        (Dial(params=5), {}),
        (Dial(hours=0), {}),
        (Dial(hours=float("nan")), {}),
        (Dial(params=10**6), {"colour": 3}),
        (Dial(params=10**6), {"width": 0}),
        (Dial(params=10**6), {"n_heads": 0}),
        (Dial(params=10**6), {"width": 64, "n_heads": 3}),
        (Dial(preset="15M"), {"n_heads": 5}),
        (Dial(params=10**6), {"batch": 0}),
        (Dial(params=10**6), {"accumulation": 0}),
        (Dial(params=10**6), {"context": 0}),
        (Dial(params=10**6), {"n_layers": -1}),
        (Dial(params=10**6), {"learning_rate": -1.0}),
    ],
)
def test_a_dial_that_cannot_be_followed_is_one_line(dial: Dial, overrides: dict):
    with pytest.raises((SettingError, ModelError)) as caught:
        plan(dial, None, LAPTOP, overrides)
    assert len(str(caught.value).splitlines()) == 1


def test_a_vocabulary_of_ones_own_must_be_that_of_the_text():
    with pytest.raises(LlamitaError, match="which the text was encoded with"):
        plan(Dial(params=10**6), DataFacts(10**6, 3 * 10**6, 1024), LAPTOP, {"vocab_size": 512})


def test_batches_fit_the_memory_of_one_device_and_are_shared_out_evenly():
    small = replace(H100, memory_bytes=6 << 30)
    training = plan(Dial(preset="110M"), None, small, {}).recipe.training
    assert training.batch < 16
    assert training.sequences_per_update == 128
    four = plan(Dial(params=110_000_000), None, replace(H100, n_devices=4), {}).recipe.training
    assert four.accumulation % 4 == 0
    alone = plan(Dial(params=110_000_000), None, H100, {}).recipe.training
    assert four.sequences_per_update == alone.sequences_per_update


def test_what_speaks_against_a_plan_is_said():
    tiny = DataFacts(100_000, 300_000, 512)
    said = " ".join(plan(Dial(params=42_000_000), tiny, replace(LAPTOP, memory_bytes=1 << 28), {}).warnings)
    for piece in ("is read", "more parameters", "tokens a parameter", "of memory"):
        assert piece in said
    assert "days here" in " ".join(plan(Dial(preset="15M"), None, LAPTOP, {}).warnings)
    assert "vocabulary of 4,096" in " ".join(plan(Dial(preset="15M"), None, LAPTOP, {}).warnings)
    assert plan_for_text(100_000_000).warnings == []


@pytest.mark.parametrize(("n_bytes", "vocab_size"), [(1_000, 512), (1_000_000, 512), (10_000_000, 1024), (1_000_000_000, 1024)])
def test_a_vocabulary_suits_the_model_and_the_text(n_bytes: int, vocab_size: int):
    assert choose_vocab_size(n_bytes, HALF_AN_HOUR, LAPTOP) == vocab_size
    assert choose_vocab_size(10**10, Dial(preset="15M"), LAPTOP) == 32000
    assert choose_vocab_size(10**10, Dial(params=10**9), H100) == 32000


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("AMD EPYC", None),
    ],
)
def test_the_peak_of_a_device_is_known_by_its_name(name: str, peak: float | None):
    assert peak_flops(name, "bfloat16") == peak
    assert peak_flops(name, "float32") is None
