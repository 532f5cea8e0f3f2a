"""A model with an adapter: W + s B A of every format and dtype, grown and untied vocabularies, written and run."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamita.config import LAYER_MATRICES, ModelConfig
from llamita.engine import Engine
from llamita.errors import ModelError
from llamita.formats import read_model, write_model
from llamita.formats.adapter import Adapter, read_adapter
from llamita.formats.merged_model import form, merged
from llamita.formats.safetensors import read_arrays, write_tensors
from llamita.model import Model, random_model, tensor_shapes
from llamita.quant import ComputedTensor, Tensor, convert
from peft_files import PREFIX, pairs_of, shapes_of, write_folder
from reference import reference_logits

IDS = [1, 5, 7, 2, 39, 5]
ENDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# rows that groups of 32 divide, and more of them than are converted at once
CONFIG = ModelConfig(width=64, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=320, vocab_size=300, context=32)


def random_adapter(config: ModelConfig, names=LAYER_MATRICES, rank: int = 3, size: float = 0.3, **fields) -> Adapter:
    rng = np.random.default_rng(2)
    pairs = {}
    for name, (out, columns) in ((name, shape) for name, shape in tensor_shapes(config).items() if len(shape) == 2):
        if name.split(".", 2)[-1] in names:
            low, high = rng.normal(0, size, (rank, columns)), rng.normal(0, size, (out, rank))
            pairs[name] = low.astype(np.float32), high.astype(np.float32)
    return Adapter(rank, 6.0, pairs=pairs, **fields)


def dense(model: Model, adapter: Adapter) -> Model:
    """The plain numpy twin: every tensor in float32, W + s B A at once."""
    tensors = {name: tensor.dequantize() for name, tensor in model.tensors.items()}
    for name, (low, high) in adapter.pairs.items():
        tensors[name] = tensors[name] + adapter.scale(name) * (high.astype(np.float64) @ low)
    arrays = {name: Tensor.from_array(array.astype(np.float32)) for name, array in tensors.items()}
    return replace(model, tensors=arrays)


def logits(model: Model) -> np.ndarray:
    with Engine(model, n_threads=1) as engine:
        return engine.logits(IDS)


def assert_close(found: Model, expected: Model, **tolerance) -> None:
    for name, tensor in expected.tensors.items():
        np.testing.assert_allclose(found.tensors[name].dequantize(), tensor.dequantize(), **tolerance, err_msg=name)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rslora", [True, False])
def test_merging_in_our_order_is_merging_in_that_of_hugging_face(tmp_path, tiny_config, tied, rslora):
    config = replace(tiny_config, tied_embedding=tied)
    write_model(random_model(config), tmp_path / "base", "safetensors")
    arrays = pairs_of(config, ENDS if tied else (*ENDS, "embed_tokens", "lm_head"))
    folder = write_folder(tmp_path / "adapter", arrays, use_rslora=rslora)
    weights = {name: array.copy() for name, array in read_arrays(tmp_path / "base" / "model.safetensors").items()}
    scale = 6 / (4**0.5 if rslora else 4)
    for module in shapes_of(config):
        if f"{PREFIX}{module}.lora_A.weight" in arrays:
            product = arrays[f"{PREFIX}{module}.lora_B.weight"] @ arrays[f"{PREFIX}{module}.lora_A.weight"]
        elif f"{PREFIX}{module}.lora_embedding_A" in arrays:
            product = (arrays[f"{PREFIX}{module}.lora_embedding_B"] @ arrays[f"{PREFIX}{module}.lora_embedding_A"]).T
        else:
            continue
        weights[f"{module}.weight"] += np.float32(scale) * product
    base = read_model(tmp_path / "base")
    ours = merged(base, read_adapter(folder, config))
    before = logits(base)
    write_tensors(tmp_path / "base" / "model.safetensors", weights)
    expected = read_model(tmp_path / "base")
    assert_close(ours, expected, atol=1e-6)
    np.testing.assert_allclose(logits(ours), logits(expected), atol=1e-4)
    assert np.abs(before - logits(ours)).max() > 0.1


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"])
def test_the_engine_runs_w_plus_b_a_of_every_dtype(dtype):
    base = random_model(CONFIG, dtype, 32)
    adapter = random_adapter(CONFIG, names=("attention.query", "attention.output", "mlp.down"), size=0.05)
    model = merged(base, adapter)
    expected = dense(base, adapter)
    for name, tensor in model.tensors.items():
        assert isinstance(tensor, ComputedTensor) == (name in adapter.pairs)
        if name in adapter.pairs:
            assert tensor.dtype == {"bf16": "f16", "q4_0": "q8_0", "q4_1": "q8_0"}.get(dtype, dtype)
            np.testing.assert_allclose(tensor.dequantize(), expected.tensors[name].dequantize(), atol=1e-6)
            loaded = tensor.loaded()
            assert (loaded.dtype, loaded.group, loaded.shape) == (tensor.dtype, tensor.group, tensor.shape)
            assert loaded.n_bytes == tensor.n_bytes
        else:
            assert tensor is base.tensors[name]
    rounded = {
        name: convert(tensor, model.tensors[name].dtype, model.tensors[name].group)
        if name in adapter.pairs
        else base.tensors[name]
        for name, tensor in expected.tensors.items()
    }
    expected = replace(base, tensors=rounded)
    np.testing.assert_allclose(logits(model), logits(expected), atol=0.02 if dtype.startswith("q") else 1e-4)
    np.testing.assert_allclose(logits(model), reference_logits(expected, IDS), atol=0.5 if dtype.startswith("q") else 2e-3)


def test_blocks_that_only_gguf_has_become_q8_0_where_they_change(tmp_path):
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    config = replace(CONFIG, width=256, head_size=16, mlp_width=256)
    base = random_model(config)
    name = "layers.0.mlp.gate"
    blocks = quantize(base.tensors[name].dequantize(), GGMLQuantizationType.Q5_0)
    base = replace(base, tensors=base.tensors | {name: Tensor("q5_0", base.tensors[name].shape, blocks)})
    adapter = random_adapter(config, names=("mlp.gate",), size=0.05)
    tensor = merged(base, adapter).tensors[name]
    assert (tensor.dtype, tensor.group) == ("q8_0", 32)
    np.testing.assert_allclose(tensor.dequantize(), dense(base, adapter).tensors[name].dequantize(), atol=1e-6)
    write_model(merged(base, adapter), tmp_path / "model.gguf", "gguf")
    assert read_model(tmp_path / "model.gguf").tensors[name].dtype == "q8_0"


@pytest.mark.parametrize(
    ("name", "to", "dtype"),
    [
        ("model.bin", "llama2c-v0", "f32"),
        ("model.bin", "llama2c-v1", "f32"),
        ("model.bin", "llama2c-v2", "q8_0"),
        ("folder", "safetensors", "f32"),
        ("folder", "safetensors", "bf16"),
        ("model.gguf", "gguf", "f32"),
        ("model.gguf", "gguf", "q8_0"),
        ("model.gguf", "gguf", "q4_0"),
    ],
)
@pytest.mark.parametrize("stored", ["f32", "bf16", "q8_0"])
def test_every_writer_writes_it_and_rounds_once(tmp_path, name, to, dtype, stored):
    write_model(random_model(CONFIG, stored, 32), tmp_path / "base.gguf", "gguf")
    base = read_model(tmp_path / "base.gguf")
    adapter = random_adapter(CONFIG)
    group = 32 if to == "llama2c-v2" else None
    write_model(merged(base, adapter), tmp_path / name, to, group, dtype)
    write_model(dense(base, adapter), tmp_path / f"dense-{name}", to, group, dtype)
    found, expected = read_model(tmp_path / name), read_model(tmp_path / f"dense-{name}")
    for key, tensor in expected.tensors.items():
        assert found.tensors[key].dtype == tensor.dtype
        difference = np.abs(found.tensors[key].dequantize() - tensor.dequantize())
        step = {"f32": 1e-6, "bf16": 2e-2, "q8_0": 3e-2, "q4_0": 0.5}[dtype]  # where a sum's last bit turns a rounding
        assert difference.max() <= step, key
        assert difference.mean() <= 1e-3 * step + 1e-7, key


def test_a_base_in_hugging_faces_order_is_merged_head_by_head(tmp_path):
    write_model(random_model(CONFIG), tmp_path / "base", "safetensors")
    base, adapter = read_model(tmp_path / "base"), random_adapter(CONFIG)
    name = "layers.1.attention.query"
    assert not base.tensors[name].has_rows
    tensor, expected = merged(base, adapter).tensors[name], dense(base, adapter).tensors[name].dequantize()
    for first, last in ((0, 64), (0, 1), (5, 23), (16, 32), (63, 64), (64, 64)):
        np.testing.assert_allclose(tensor.rows(first, last).dequantize(), expected[first:last], atol=1e-6)
    write_model(merged(base, adapter), tmp_path / "out", "safetensors")
    assert_close(read_model(tmp_path / "out"), dense(base, adapter), atol=1e-6)


def test_rows_of_new_tokens_stand_behind_the_vocabulary_and_the_rest_is_the_mean(tiny_config):
    base = random_model(tiny_config)
    ids, rows = np.array([43, 2, 41]), np.arange(48, dtype=np.float32).reshape(3, 16)
    model = merged(base, replace(random_adapter(tiny_config, names=()), rows={"embedding": (ids, rows)}))
    assert (model.config.vocab_size, model.config.tied_embedding) == (44, True)
    expected = base.tensors["embedding"].dequantize()
    mean = expected.mean(axis=0, dtype=np.float64).astype(np.float32)
    expected = np.concatenate([expected, np.tile(mean, (4, 1))])
    expected[ids] = rows
    model.validate()
    np.testing.assert_array_equal(model.head.dequantize(), expected)
    np.testing.assert_array_equal(model.head.rows(39, 44).dequantize(), expected[39:])
    assert logits(model).shape == (len(IDS), 44)


def test_an_untied_head_grows_with_the_embedding(tiny_config):
    base = random_model(replace(tiny_config, tied_embedding=False))
    rows = {"embedding": (np.array([40]), np.ones((1, 16), np.float32))}
    model = merged(base, replace(random_adapter(base.config, names=()), rows=rows)).validate()
    head = base.tensors["head"].dequantize()
    np.testing.assert_allclose(model.head.dequantize()[40], head.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(model.tensors["embedding"].dequantize()[40], np.ones(16))


@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
def test_an_adapter_of_the_embedding_alone_unties_the_head(tiny_config, dtype):
    base = random_model(tiny_config, dtype, 8)
    adapter = random_adapter(replace(tiny_config, tied_embedding=False), names=("embedding",), unties=True)
    model = merged(base, adapter).validate()
    assert not model.config.tied_embedding
    np.testing.assert_array_equal(model.head.dequantize(), base.tensors["embedding"].dequantize())
    expected = dense(base, adapter).tensors["embedding"].dequantize()
    np.testing.assert_allclose(model.tensors["embedding"].dequantize(), expected, atol=1e-6)
    logits(model)


def test_whole_tensors_take_the_place_of_the_models(tiny_config):
    base = random_model(tiny_config)
    rng = np.random.default_rng(0)
    whole = {"norm": rng.normal(size=16), "embedding": rng.normal(size=(48, 16)), "layers.0.mlp.up": rng.normal(size=(24, 16))}
    whole = {name: array.astype(np.float32) for name, array in whole.items()}
    model = merged(base, replace(random_adapter(tiny_config, names=("mlp.up",)), whole=whole)).validate()
    assert model.config.vocab_size == 48
    for name in ("norm", "embedding"):
        np.testing.assert_array_equal(model.tensors[name].dequantize(), whole[name])
    low, high = random_adapter(tiny_config, names=("mlp.up",)).pairs["layers.0.mlp.up"]
    np.testing.assert_allclose(
        model.tensors["layers.0.mlp.up"].dequantize(), whole["layers.0.mlp.up"] + 2 * high @ low, atol=1e-6
    )


def test_numbers_that_no_weight_can_have_are_refused_when_they_are_met(tiny_config):
    adapter = random_adapter(tiny_config, names=("mlp.up",), size=1e20)
    with pytest.raises(ModelError, match=r"adapter: with it, layers\.0\.mlp\.up of random f32 has a number that is too large"):
        Engine(merged(random_model(tiny_config), adapter), n_threads=1)
    half = random_model(tiny_config, "f16")
    with pytest.raises(ModelError, match="too large"):
        merged(half, random_adapter(tiny_config, names=("mlp.up",), size=1e3)).tensors["layers.0.mlp.up"].loaded()


def test_an_adapter_of_tensors_that_the_model_has_not_is_refused(tiny_config):
    with pytest.raises(ModelError, match=r"found layers\.1\.attention\.key, expected tensors of random f32; is it another"):
        merged(random_model(replace(tiny_config, n_layers=1)), random_adapter(tiny_config))


def test_writing_holds_some_rows_and_no_whole_matrix(tmp_path: Path):
    config = replace(CONFIG, width=512, mlp_width=4096, vocab_size=64, n_layers=1)
    write_model(random_model(config, "f16"), tmp_path / "base.gguf", "gguf", dtype="f16")
    base, adapter = read_model(tmp_path / "base.gguf"), random_adapter(config)
    model = merged(base, adapter)
    matrix_bytes = 4 * 512 * 4096
    tracemalloc.start()
    write_model(model, tmp_path / "out.gguf", "gguf", dtype="q8_0")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * matrix_bytes, f"{peak / matrix_bytes:.1f} matrices"


def test_the_form_of_a_changed_tensor_is_fine_enough():
    shape = (2, 64)
    weights = Tensor.from_array(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    forms = {dtype: form(convert(weights, dtype, 64)) for dtype in ("f32", "f16", "bf16", "q8_0", "q4_0")}
    assert forms == {"f32": ("f32", 1), "f16": ("f16", 1), "bf16": ("f16", 1), "q8_0": ("q8_0", 64), "q4_0": ("q8_0", 32)}
