"""The example that trains GPT-2, Llama and what lies between: all changes together are llamita's network, and it runs."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch comes with llamita[train]")

from llamita.config import PRESETS, ModelConfig
from llamita.train.arithmetic import flops_per_token
from llamita.train.network import build_network
from stories import story

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
pytest.importorskip("matplotlib", reason="matplotlib comes with llamita[train]")
example = importlib.import_module("llama_vs_gpt")
CONFIG = ModelConfig(width=24, n_layers=2, n_heads=3, n_kv_heads=3, mlp_width=64, vocab_size=50, context=16)
REAL = ModelConfig(
    example.WIDTH, example.N_LAYERS, example.N_HEADS, example.N_HEADS, example.LLAMA_MLP_WIDTH, 1024, example.CONTEXT
)


def n_parameters(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_all_changes_together_are_llamitas_own_network():
    own, ours = example.build_variant(CONFIG, example.LLAMA, seed=5), build_network(CONFIG, seed=6)
    with torch.no_grad():
        for parameter in own.parameters():  # larger than fresh weights, so that attention is not almost uniform
            parameter.mul_(5).add_(torch.randn_like(parameter), alpha=0.05)
    ours.load_state_dict({name.removesuffix(".weight"): tensor for name, tensor in own.state_dict().items()})
    ids = torch.randint(0, CONFIG.vocab_size, (2, CONFIG.context))
    with torch.no_grad():
        torch.testing.assert_close(own.logits(ids), ours.logits(ids), rtol=1e-4, atol=1e-4)


def test_all_changes_together_begin_with_the_weights_of_llamitas_own_network():
    expected = build_network(CONFIG, seed=5).state_dict()
    found = example.build_variant(CONFIG, example.LLAMA, seed=5).state_dict()
    assert {name.removesuffix(".weight") for name in found} == set(expected)
    assert all(torch.equal(tensor, expected[name.removesuffix(".weight")]) for name, tensor in found.items())


def test_every_variant_but_the_last_changes_at_most_one_component():
    changes = [sum(vars(components).values()) for components in example.VARIANTS.values()]
    assert changes == [0, 1, 1, 1, 1, 4]
    assert isinstance(example.build(CONFIG, example.LLAMA, seed=0), type(build_network(CONFIG)))


@pytest.mark.parametrize("components", example.VARIANTS.values(), ids=example.VARIANTS)
def test_every_parameter_gets_a_gradient(components):
    network = example.build(CONFIG, components, seed=1)
    ids = torch.randint(0, CONFIG.vocab_size, (4, CONFIG.context + 1))
    network(ids[:, :-1], ids[:, 1:]).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("components", example.VARIANTS.values(), ids=example.VARIANTS)
def test_no_token_sees_what_follows_it(components):
    network = example.build(CONFIG, components, seed=1).eval()
    ids = torch.randint(0, CONFIG.vocab_size, (1, CONFIG.context))
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % CONFIG.vocab_size
    with torch.no_grad():
        torch.testing.assert_close(network.logits(ids)[:, :-1], network.logits(other)[:, :-1])


def test_gpt_2_has_biases_and_positions_and_llama_neither():
    names = [name for name, _ in example.build(CONFIG, example.GPT_2, seed=0).named_parameters()]
    assert "position.weight" in names
    assert sum(name.endswith("bias") for name in names) == CONFIG.n_layers * 8 + 1
    assert not [name for name, _ in example.build(CONFIG, example.LLAMA, seed=0).named_parameters() if "bias" in name]


@pytest.mark.parametrize("components", [example.GPT_2, example.Components(rope=True)], ids=["learned", "RoPE"])
def test_the_order_of_the_tokens_before_it_reaches_the_last_one(components):
    config = replace(CONFIG, n_layers=1)  # whose attention alone cannot tell one order of keys from another
    network = example.build(config, components, seed=0)
    ids = torch.arange(config.context)[None]
    turned = torch.cat((ids[:, :-1].flip(1), ids[:, -1:]), 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
        assert (network.logits(ids)[:, -1] - network.logits(turned)[:, -1]).abs().max() > 1e-2


def test_parameters_are_equal_within_two_per_cent():
    """Of each change alone; Llama misses the table of positions and the biases together."""
    counts = {}
    for variant, components in example.VARIANTS.items():
        network = example.build(REAL, components, seed=0)
        positions = 0 if components.rope else REAL.context * REAL.width
        counts[variant] = n_parameters(network) - positions
    for variant, count in counts.items():
        assert count == pytest.approx(counts["GPT-2"], rel=0.02), variant
    assert REAL.context * REAL.width < 0.025 * counts["GPT-2"]


def test_three_steps_on_a_text_leave_a_plot_its_numbers_and_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(example, "WIDTH", 24)
    monkeypatch.setattr(example, "LLAMA_MLP_WIDTH", 64)
    monkeypatch.setattr(example, "CONTEXT", 16)
    text, out = tmp_path / "stories.txt", tmp_path / "plot.svg"
    text.write_text("\n<|endoftext|>\n".join(map(story, range(100))), encoding="utf-8")
    n_threads = torch.get_num_threads()
    try:
        example.main([str(text), "--steps", "3", "--seeds", "2", "--vocab-size", "320", "--out", str(out)])
    finally:
        torch.set_num_threads(n_threads)
    assert "<svg" in out.read_text(encoding="utf-8")
    runs = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert [(run["variant"], run["seed"]) for run in runs] == [(name, seed) for seed in (1, 2) for name in example.VARIANTS]
    assert all(len(run["curve"]) == 3 and 0 < run["curve"][-1]["loss"] < 6.5 for run in runs)
    assert all(line.startswith("|") for line in capsys.readouterr().out.splitlines()[-8:])


def test_the_15m_preset_has_the_numbers_that_the_document_works_out():
    config = PRESETS["15M"]
    width, mlp, vocab, n_layers, context = 288, 768, 32000, 6, 256
    attention, mlp_weights, norms = 4 * width * width, 3 * width * mlp, 2 * width
    total = vocab * width + n_layers * (attention + mlp_weights + norms) + width
    assert config.n_parameters == total
    assert flops_per_token(config) == 6 * total + 12 * n_layers * width * context
    sums = (vocab * width, attention, mlp_weights, norms, total, flops_per_token(config))
    assert [f"{number:,.0f}" for number in sums if f"{number:,.0f}" not in DOCUMENT] == []


def test_the_table_of_the_document_is_that_of_the_numbers_beside_it():
    saved = json.loads((ROOT / "docs" / "llama_vs_gpt.json").read_text(encoding="utf-8"))
    runs = [example.Run(**(run | {"curve": [example.Point(**point) for point in run["curve"]]})) for run in saved]
    assert example.table(runs) in DOCUMENT


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)", DOCUMENT))))
def test_the_links_of_the_document_lead_to_files(link: str):
    assert (ROOT / "docs" / link).exists()
