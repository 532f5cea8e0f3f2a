"""What a Llama costs and which shape a size has, against published numbers and against torch's own bookkeeping."""

import pytest

from llamita.config import PRESETS
from llamita.train.arithmetic import (
    activation_bytes_per_token,
    flops_per_token,
    int8_file_bytes,
    layers_for,
    memory_bytes,
    shape_for,
    state_bytes,
    vocab_size_for,
)
from llamita.train.config import TrainConfig

TRAINING = TrainConfig(n_steps=1, batch=4, accumulation=1, learning_rate=1e-3, warmup_steps=1)


@pytest.mark.parametrize(("preset", "flops"), [("260K", 3.5e6), ("15M", 96e6), ("42M", 300e6), ("110M", 770e6)])
def test_operations_are_6n_and_12_lht(preset: str, flops: float):
    assert flops_per_token(PRESETS[preset]) == pytest.approx(flops, rel=0.02)


def test_an_embedding_that_is_only_looked_up_costs_no_operations():
    config = PRESETS["1.1B"]
    multiplied = config.n_parameters - config.vocab_size * config.width
    assert flops_per_token(config) == 6 * multiplied + 12 * 22 * 2048 * 2048


@pytest.mark.parametrize(
    ("width", "n_layers"),
    [(512, 8), (576, 9), (640, 10), (768, 12), (896, 14), (1024, 16), (1280, 18), (1408, 18), (1536, 19), (4096, 32)],
)
def test_layers_follow_chinchillas_table_and_llama_2(width: int, n_layers: int):
    assert abs(layers_for(width) - n_layers) <= 1


@pytest.mark.parametrize("n", [100_000, 260_000, 1_000_000, 15_000_000, 42_000_000, 110_000_000, 10**9, 7 * 10**9, 7 * 10**10])
def test_a_shape_has_about_the_size_that_was_asked_for(n: int):
    config = shape_for(n, vocab_size_for(n))
    config.validate()
    assert config.n_parameters == pytest.approx(n, rel=0.1)
    assert config.query_width == config.width
    assert config.head_size >= 32
    assert config.mlp_width % 32 == 0
    assert config.vocab_size * config.width < 0.2 * config.n_parameters


def test_adamw_keeps_two_moments_and_muon_one_of_most_weights():
    config = PRESETS["15M"]
    n, vocabulary = config.n_parameters, config.vocab_size * config.width
    adamw = state_bytes(config, TrainConfig(1, 1, 1, 1e-3, 1, optimizer="adamw"))
    assert adamw == {"weights": 4 * n, "gradients": 4 * n, "moments": 8 * n, "copies": 0}
    assert state_bytes(config, TRAINING)["moments"] == 4 * (n - vocabulary) + 8 * vocabulary


def test_memory_grows_with_the_batch_by_the_activations():
    config = PRESETS["15M"]
    larger = TrainConfig(1, 8, 1, 1e-3, 1)
    per_token = activation_bytes_per_token(config, TRAINING)
    assert memory_bytes(config, larger) - memory_bytes(config, TRAINING) == 4 * config.context * per_token


def test_an_int8_file_is_about_a_quarter_of_a_float32_one():
    assert int8_file_bytes(PRESETS["15M"]) == pytest.approx(16.1e6, rel=0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_what_torch_keeps(dtype: str):
    torch = pytest.importorskip("torch")
    from llamita.train.network import build_network
    from llamita.train.update import autocast

    config, training = shape_for(1_000_000, 1024), TrainConfig(1, 4, 1, 1e-3, 1, dtype=dtype)
    network, kept = build_network(config), {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.zeros(4, config.context, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast(dtype, torch.device("cpu")):
        loss = network(ids, ids)
    assert loss.requires_grad
    assert activation_bytes_per_token(config, training) == pytest.approx(sum(kept.values()) / ids.numel(), rel=0.25)
