"""The torch network against the numpy twin of the engine, and what makes it exportable and trainable."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch comes with llamita[train]")

from llamita.config import ModelConfig
from llamita.model import Model, tensor_shapes
from llamita.quant import Tensor
from llamita.train.network import build_network, document_starts_of
from reference import reference_logits

CONFIGS = {
    "tied, grouped heads": ModelConfig(16, 2, 4, 2, 24, 40, 12),
    "own head, one kv head, wide heads": ModelConfig(16, 3, 4, 1, 20, 50, 20, head_size=6, tied_embedding=False),
    "other theta and epsilon": ModelConfig(32, 1, 2, 2, 40, 30, 9, rope_theta=500000.0, norm_epsilon=1e-3),
}


def as_model(network) -> Model:
    tensors = {name: Tensor.from_array(p.detach().numpy()) for name, p in network.named_parameters()}
    return Model(network.config, tensors).validate()


@pytest.fixture(params=list(CONFIGS.values()), ids=list(CONFIGS))
def network(request):
    network = build_network(request.param, seed=3)
    with torch.no_grad():
        for parameter in network.parameters():  # larger than fresh weights, so that attention is not almost uniform
            parameter.mul_(8).add_(torch.randn_like(parameter), alpha=0.05)
    return network.eval()


def test_state_dict_has_the_canonical_names_and_shapes(network):
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == tensor_shapes(network.config)


def test_logits_are_those_of_the_numpy_reference(network):
    ids = np.random.default_rng(0).integers(0, network.config.vocab_size, network.config.context)
    with torch.no_grad():
        found = network.logits(torch.from_numpy(ids)[None])[0].numpy()
    expected = reference_logits(as_model(network), ids)
    assert np.abs(found - expected).max() < 2e-4 * np.abs(expected).max()


def test_the_loss_is_the_mean_cross_entropy_of_the_reference(network):
    rng = np.random.default_rng(1)
    ids, targets = rng.integers(0, network.config.vocab_size, (2, 3, network.config.context))
    with torch.no_grad():
        found = network(torch.from_numpy(ids), torch.from_numpy(targets)).item()
    losses = []
    for row, wanted in zip(ids, targets, strict=True):
        logits = reference_logits(as_model(network), row)
        losses.append(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(row)), wanted])
    assert found == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_masked_document_is_read_as_if_it_stood_alone(network):
    torch.manual_seed(0)
    ids = torch.randint(2, network.config.vocab_size, (1, 9))
    ids[0, [0, 4]] = 1
    starts = document_starts_of(ids, bos_id=1)
    assert starts.tolist() == [[0, 0, 0, 0, 4, 4, 4, 4, 4]]
    with torch.no_grad():
        both = network.hidden(ids, starts)
        alone = network.hidden(ids[:, 4:])  # RoPE sees distances only, so the place in the row does not matter
        unmasked = network.hidden(ids)
    torch.testing.assert_close(both[:, 4:], alone, rtol=1e-4, atol=1e-5)
    assert (both[:, 5:] - unmasked[:, 5:]).abs().max() > 1e-3


def test_matrices_that_add_to_the_stream_begin_smaller_with_depth():
    network = build_network(ModelConfig(256, 8, 4, 4, 512, 300, 16), seed=0)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2:
            expected = 0.02 / 4 if name.endswith(("attention.output", "mlp.down")) else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
        else:
            assert (parameter == 1).all(), name


def test_fresh_weights_depend_on_the_seed_alone():
    config = CONFIGS["tied, grouped heads"]
    torch.manual_seed(99)
    first = build_network(config, seed=5).state_dict()
    assert all(torch.equal(tensor, first[name]) for name, tensor in build_network(config, seed=5).state_dict().items())
    assert not torch.equal(build_network(config, seed=6).state_dict()["embedding"], first["embedding"])


def test_dropout_acts_in_training_only(network):
    with_dropout = build_network(network.config, dropout=0.5, seed=3)
    with_dropout.load_state_dict(network.state_dict())
    ids = torch.randint(0, network.config.vocab_size, (1, 8))
    with torch.no_grad():
        assert torch.equal(with_dropout.eval().logits(ids), network.logits(ids))
        assert not torch.equal(with_dropout.train().logits(ids), network.logits(ids))
