"""Muon against its definition by singular values, which matrices get it, and state that goes out and in."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="torch comes with llamita[train]")

from llamita.errors import ModelError
from llamita.train.network import build_network
from llamita.train.optimizer import Muon, Optimizers, orthogonalized


def test_orthogonalized_keeps_singular_vectors_and_brings_singular_values_near_one():
    torch.manual_seed(0)
    matrices = torch.randn(3, 16, 40)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    inside = u.mT @ orthogonalized(matrices) @ v.mT
    singular = inside.diagonal(dim1=1, dim2=2)
    assert (singular > 0.6).all()
    assert (singular < 1.3).all()
    assert (inside - torch.diag_embed(singular)).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (12, 12)])
def test_an_update_has_the_size_of_adamws_and_decay_is_decoupled(shape):
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(shape))
    before = parameter.detach().clone()
    parameter.grad = torch.randn(shape)
    Muon([parameter], lr=0.1, weight_decay=0.5).step()
    update = (before * (1 - 0.1 * 0.5) - parameter.detach()) / 0.1
    assert 0.12 < update.square().mean().sqrt().item() < 0.25  # 0.2 where all singular values are 1


def test_matrices_of_one_shape_are_updated_as_if_alone():
    torch.manual_seed(0)
    together = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 24), (24, 8), (8, 24), (8, 8))]
    alone = [torch.nn.Parameter(p.detach().clone()) for p in together]
    optimizers = [Muon(together, 0.1, 0.0), *(Muon([p], 0.1, 0.0) for p in alone)]
    for _ in range(3):
        for a, b in zip(together, alone, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_restored_optimizers_go_on_bit_for_bit(tiny_recipe, kind):
    config = replace(tiny_recipe.training, optimizer=kind)

    def train(network, optimizers, steps):
        for step in steps:
            torch.manual_seed(step)
            ids = torch.randint(0, 40, (2, 12))
            network(ids, ids).backward()
            optimizers.step(1e-2)
            network.zero_grad()

    network = build_network(tiny_recipe.model)
    optimizers = Optimizers(network, config)
    train(network, optimizers, range(3))
    saved = {name: value.clone() for name, value in optimizers.state().items()}
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    train(network, optimizers, range(3, 6))

    again = build_network(tiny_recipe.model)
    again.load_state_dict(weights)
    restored = Optimizers(again, config)
    restored.restore(saved)
    train(again, restored, range(3, 6))
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert all(torch.equal(value, restored.state()[name]) for name, value in optimizers.state().items())


def test_muon_takes_the_matrices_of_layers_only(tiny_recipe):
    network = build_network(tiny_recipe.model)
    optimizers = Optimizers(network, tiny_recipe.training)
    ids = torch.zeros(1, 4, dtype=torch.int64)
    network(ids, ids).backward()
    optimizers.step(1e-3)
    by_muon = {name.rpartition("/")[0] for name in optimizers.state() if name.endswith("/momentum")}
    assert by_muon == {name for name, p in network.named_parameters() if p.ndim == 2 and name != "embedding"}


def test_state_of_another_model_is_refused(tiny_recipe):
    optimizers = Optimizers(build_network(tiny_recipe.model), tiny_recipe.training)
    with pytest.raises(ModelError, match=r"layers\.9\.mlp\.up"):
        optimizers.restore({"layers.9.mlp.up/momentum": torch.zeros(2, 2)})
