"""LoRA in the network: against merged weights, what is trained and what is not, and its way to an adapter and back."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch comes with llamita[train]")

from llamita.config import LAYER_MATRICES, ModelConfig
from llamita.formats.adapter import read_adapter
from llamita.formats.adapter_writer import write_adapter
from llamita.formats.merged_model import merged
from llamita.model import random_model
from llamita.train.config import FinetuneConfig, TrainConfig
from llamita.train.lora import adapter_of, add_lora, add_rows, freeze, load_adapter
from llamita.train.low_rank import LowRank
from llamita.train.network import Llama
from llamita.train.optimizer import Optimizers
from llamita.train.weights import load_weights
from reference import reference_logits

CONFIGS = {
    "tied, grouped heads": ModelConfig(16, 2, 4, 2, 24, 40, 12),
    "own head, wide heads": ModelConfig(16, 2, 4, 1, 20, 50, 20, head_size=6, tied_embedding=False),
}
ALL = FinetuneConfig(lora_rank=3, lora_alpha=5.0)


def lora_network(config: ModelConfig, lora: FinetuneConfig = ALL, dtype=torch.float32, trained: bool = True):
    """A network with LoRA, and the model that it began with. trained: B is no longer zero."""
    model = random_model(config, seed=1)
    network = Llama(config)
    freeze(network, dtype)
    load_weights(network, model)
    add_lora(network, lora, seed=7)
    if trained:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return network, model


def low_rank_of(part: Any) -> LowRank:
    assert isinstance(part.low_rank, LowRank)
    return part.low_rank


@pytest.fixture(params=list(CONFIGS.values()), ids=list(CONFIGS))
def config(request) -> ModelConfig:
    return request.param


@pytest.mark.parametrize("targets", [LAYER_MATRICES, ("attention.query", "mlp.down"), ("attention.value",), ("mlp.up",)])
def test_logits_are_those_of_the_merged_weights(config, targets):
    lora = replace(ALL, lora_targets=targets)
    network, model = lora_network(config, lora)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, config.context)
    whole = merged(model, adapter_of(network, lora, "base"))
    with torch.no_grad():
        found = network.logits(torch.from_numpy(ids)[None])[0].numpy()
    expected, before = reference_logits(whole, ids), reference_logits(model, ids)
    assert np.abs(found - expected).max() < 2e-4 * np.abs(expected).max()
    assert np.abs(expected - before).max() > 1e-2


def test_before_training_it_computes_what_the_model_did_to_the_bit(config):
    network, model = lora_network(config, trained=False)
    plain = Llama(config)
    load_weights(plain, model)
    ids = torch.randint(0, config.vocab_size, (1, config.context))
    with torch.no_grad():
        assert torch.equal(network.logits(ids), plain.logits(ids))


def test_only_a_and_b_are_trained_and_remembered(config):
    network, _ = lora_network(config, trained=False)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    ids = torch.randint(0, config.vocab_size, (2, 8))
    optimizers = Optimizers(network, TrainConfig(2, 1, 1, 1e-2, 0, optimizer="adamw", weight_decay=0.0))
    for _ in range(2):  # A has no gradient while B is zero
        network(ids, ids).backward()
        optimizers.step(1e-2)
    for name, parameter in network.named_parameters():
        assert ("low_rank" in name) == parameter.requires_grad, name
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    remembered = {name.rpartition("/")[0] for name in optimizers.state()}
    assert remembered == {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_gradients_of_a_and_b_follow_from_those_of_the_merged_matrix():
    config = CONFIGS["tied, grouped heads"]
    network, model = lora_network(config)
    ids = torch.randint(0, config.vocab_size, (2, 8))
    network(ids, ids).backward()
    plain = Llama(config)
    load_weights(plain, merged(model, adapter_of(network, ALL, "")))
    plain(ids, ids).backward()
    scale = ALL.lora_alpha / ALL.lora_rank
    for layer, whole in zip(network.layers, plain.layers, strict=True):
        for part_name in ("attention", "mlp"):
            part = layer.get_submodule(part_name)
            for name in low_rank_of(part).a:
                low, high = low_rank_of(part).a[name], low_rank_of(part).b[name]
                slope = whole.get_submodule(part_name).get_parameter(name).grad
                assert slope is not None
                torch.testing.assert_close(low.grad, scale * high.T @ slope, rtol=1e-3, atol=1e-5)
                torch.testing.assert_close(high.grad, scale * slope @ low.T, rtol=1e-3, atol=1e-5)


def test_an_adapter_goes_to_disk_and_back_to_the_bit(config, tmp_path):
    network, _ = lora_network(config)
    rows = {"embedding": np.ones((2, 16), np.float32)} | (
        {} if config.tied_embedding else {"head": np.zeros((2, 16), np.float32)}
    )
    add_rows(network, config.vocab_size, rows)
    write_adapter(adapter_of(network, ALL, "base"), tmp_path / "adapter", config)
    again, _ = lora_network(config, trained=False)
    add_rows(again, config.vocab_size, {name: values * 9 for name, values in rows.items()})
    load_adapter(again, read_adapter(tmp_path / "adapter", config))
    for (name, parameter), other in zip(network.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(parameter, other), name


@pytest.mark.parametrize("n_spare", [0, 1, 2, 3])  # rows of the model from the first new token on
def test_new_rows_stand_for_their_tokens_in_embedding_and_head(config, n_spare):
    first_new = config.vocab_size - n_spare
    network, model = lora_network(config)
    rng = np.random.default_rng(0)
    names = ["embedding"] if config.tied_embedding else ["embedding", "head"]
    add_rows(network, first_new, {name: rng.standard_normal((2, 16)).astype(np.float32) for name in names})
    whole = merged(model, adapter_of(network, ALL, ""))
    assert whole.config.vocab_size == max(config.vocab_size, first_new + 2)
    ids = np.array([3, first_new, 5, first_new + 1, 2])
    with torch.no_grad():
        found = network.logits(torch.from_numpy(ids)[None])[0].numpy()
    expected = reference_logits(whole, ids)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 2e-4 * np.abs(expected).max()


def test_new_rows_get_gradients_and_old_ones_none():
    config = CONFIGS["tied, grouped heads"]
    network, _ = lora_network(config)
    add_rows(network, 40, {"embedding": np.zeros((2, 16), np.float32)})
    ids = torch.tensor([[3, 40, 5, 41, 2]])
    network(ids, ids).backward()
    assert network.embedding.grad is None
    assert network.new_embedding is not None
    assert (network.new_embedding.grad != 0).any(1).all()


def test_frozen_matrices_in_bfloat16_compute_what_autocast_makes_of_float32(config):
    networks = [lora_network(config, dtype=dtype)[0] for dtype in (torch.float32, torch.bfloat16)]
    assert networks[1].embedding.dtype == torch.bfloat16
    assert networks[1].norm.dtype == torch.float32
    ids = torch.randint(0, config.vocab_size, (1, 8))
    with torch.autocast("cpu", torch.bfloat16):
        losses = [network(ids, ids) for network in networks]
    for loss in losses:
        loss.backward()
    assert torch.equal(losses[0], losses[1])
    for (name, one), other in zip(networks[0].named_parameters(), networks[1].parameters(), strict=True):
        if one.requires_grad:
            assert torch.equal(one.grad, other.grad), name


def test_dropout_of_lora_acts_in_training_only(config):
    network, _ = lora_network(config, replace(ALL, lora_dropout=0.5))
    plain, _ = lora_network(config)
    ids = torch.randint(0, config.vocab_size, (1, 8))
    with torch.no_grad():
        assert torch.equal(network.eval().logits(ids), plain.logits(ids))
        assert not torch.equal(network.train().logits(ids), plain.logits(ids))


def test_a_begins_as_pefts_does_and_by_the_seed_alone():
    config = ModelConfig(256, 1, 4, 4, 128, 50, 8)
    torch.manual_seed(5)
    one, _ = lora_network(config, replace(ALL, lora_rank=16), trained=False)
    torch.manual_seed(6)
    other, _ = lora_network(config, replace(ALL, lora_rank=16), trained=False)
    low, same = (low_rank_of(network.layers[0].get_submodule("attention")).a["query"] for network in (one, other))
    assert torch.equal(low, same)
    assert low.abs().max() <= 256**-0.5  # uniform up to 1 / sqrt(in): nn.Linear's own
    assert low.std().item() == pytest.approx((1 / 3 / 256) ** 0.5, rel=0.05)
