"""GGUF for peers holds the same weights: read back by hand, and by the package gguf where it is installed."""

from pathlib import Path

import numpy as np
import pytest

from llamita.bench.gguf_file import gguf_data, gguf_name, write_gguf
from llamita.config import ModelConfig
from llamita.errors import SettingError
from llamita.model import random_model

CONFIG = ModelConfig(
    width=64, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=128, vocab_size=40, context=16, tied_embedding=False
)


def test_blocks_of_32_hold_what_groups_of_64_held():
    tensor = random_model(CONFIG, "q8_0", 64).tensors["layers.0.mlp.down"]
    data, kind = gguf_data(tensor)
    blocks = data.reshape(64, 4, 34)
    weights = blocks[..., 2:].view(np.int8).astype(np.float32) * blocks[..., :2].copy().view(np.float16).astype(np.float32)
    assert kind == "Q8_0"
    np.testing.assert_allclose(weights.reshape(64, 128), tensor.dequantize(), rtol=1e-3)


def test_groups_that_no_block_fits_are_refused():
    with pytest.raises(SettingError, match="found 16 weights, expected a multiple of 32"):
        gguf_data(random_model(CONFIG, "q8_0", 16).tensors["embedding"])


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
def test_the_package_gguf_reads_the_same_weights(tmp_path: Path, dtype: str):
    gguf = pytest.importorskip("gguf")
    model = random_model(CONFIG, dtype)
    write_gguf(model, tmp_path / "model.gguf")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert set(tensors) == set(map(gguf_name, model.tensors))
    for name, tensor in model.tensors.items():
        read = tensors[gguf_name(name)]
        np.testing.assert_allclose(gguf.quants.dequantize(read.data, read.tensor_type), tensor.dequantize(), rtol=1e-3)
