"""What a batch is, and what an update makes of batches that count differently much."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="torch comes with llamita[train]")

from llamita.train.network import build_network
from llamita.train.objective import Batch
from llamita.train.update import Updater
from llamita.train.world import World

ALONE = World(0, 1, torch.device("cpu"), "ddp")


class Fixed:
    """An objective of four rows with 1, 3, 0 and 8 counted targets."""

    more: tuple[str, ...] = ("targets_mean",)

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.ids, self.targets = torch.randint(0, 40, (2, 4, 12))
        for row, n_counted in enumerate((1, 3, 0, 8)):
            self.targets[row, n_counted:] = -1

    def read(self, step: int, first: int, last: int) -> Batch:  # noqa: ARG002
        targets = self.targets[first:last]
        return Batch(int((targets >= 0).sum()), self.ids[first:last], targets)

    def weight(self, step: int) -> int:  # noqa: ARG002
        return 12

    def n_tokens(self, step: int) -> int:  # noqa: ARG002
        return 48

    def means(self, forward, batch: Batch) -> list:
        counted = batch.targets[batch.targets >= 0].float()
        mean = counted.mean() if len(counted) else torch.zeros(())
        return [forward(batch.ids, batch.targets, None, "counted"), mean]


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 1), (2, 2), (1, 4)])
def test_an_update_is_of_the_mean_over_all_counted_targets_however_it_is_split(tiny_recipe, batch, accumulation):
    config = replace(tiny_recipe.training, batch=batch, accumulation=accumulation, dropout=0.0)
    network = build_network(tiny_recipe.model, seed=1)
    objective = Fixed()
    logits = network.logits(objective.ids)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), objective.targets.flatten(), ignore_index=-1)
    slopes = torch.autograd.grad(expected, list(network.parameters()))
    norm = torch.stack([slope.norm() for slope in slopes]).norm()

    result = Updater(config, network, objective, ALONE).run(0)
    assert result.loss == pytest.approx(expected.item(), rel=1e-6)
    assert result.gradient_norm == pytest.approx(norm.item(), rel=1e-5)
    counted = objective.targets[objective.targets >= 0].float()
    assert result.more["targets_mean"] == pytest.approx(counted.mean().item(), rel=1e-6)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_gradient_that_overflows_float16_changes_no_weight_and_lowers_the_factor(tiny_recipe, optimizer):
    config = replace(tiny_recipe.training, batch=4, accumulation=1, dropout=0.0, dtype="float16", optimizer=optimizer)
    network = build_network(tiny_recipe.model, seed=1)
    updater = Updater(config, network, Fixed(), ALONE)
    assert updater.scaler is not None
    updater.run(0)  # momenta that are not 0
    factor, before = updater.scaler.get_scale(), {name: p.clone() for name, p in network.named_parameters()}
    overflow = network.embedding.register_hook(lambda slope: torch.full_like(slope, torch.inf))
    result = updater.run(1)
    overflow.remove()
    assert updater.scaler.get_scale() == factor / 2
    assert (result.finite, result.gradient_norm) == (True, torch.inf), "the scaler has seen to it"
    assert all(torch.equal(before[name], p) for name, p in network.named_parameters())
    updater.run(2)
    assert not any(torch.equal(before[name], p) for name, p in network.named_parameters())
