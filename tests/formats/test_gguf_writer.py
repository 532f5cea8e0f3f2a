"""Our GGUF files: read back equal, equal to llama.cpp's own quantization to the bit, and the same to the gguf library."""

import os
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamita.config import ModelConfig, RopeScaling
from llamita.errors import ModelError, ModelFileError
from llamita.formats import gguf, gguf_writer, huggingface, huggingface_writer, llama2c, read_model
from llamita.formats.gguf_config import rope_factors
from llamita.model import Model, random_model, rope_frequencies, with_dtype
from llamita.quant import Tensor, convert
from llamita.tokenizer.sentencepiece import SentencePieceTokenizer, parse_sentencepiece

CONFIG = ModelConfig(64, 2, 4, 2, 96, 40, 16, tied_embedding=False)
DTYPES = tuple(gguf_writer.FILE_TYPES)
# Largest error of a weight, in the largest of its row
ERROR = {"f32": 0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 1 / 220, "q4_0": 1 / 7, "q4_1": 1 / 7}


def written(model: Model, path: Path, dtype: str | None) -> Model:
    gguf_writer.write(model, path, dtype)
    return gguf.read(path).validate()


def assert_same_bits(left: Tensor, right: Tensor) -> None:
    assert (left.dtype, left.shape) == (right.dtype, right.shape)
    for name in ("data", "scales", "offsets"):
        one, other = getattr(left, name), getattr(right, name)
        assert (one is None) == (other is None)
        assert one is None or np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_is_read_as_it_was_written(tmp_path, dtype):
    model = random_model(CONFIG)
    again = written(model, tmp_path / "m.gguf", dtype)
    assert again.config == CONFIG
    for name, tensor in model.tensors.items():
        exact, largest = tensor.dequantize(), np.abs(tensor.dequantize()).max(axis=-1, keepdims=True)
        assert (np.abs(again.tensors[name].dequantize() - exact) <= ERROR[dtype] * largest).all()
        assert again.tensors[name].dtype == (dtype if tensor.data.ndim == 2 else "f32")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_file_written_again_is_the_same_to_the_byte(tmp_path, dtype):
    path, again = tmp_path / "m.gguf", tmp_path / "again" / "m.gguf"
    again.parent.mkdir()
    first = written(random_model(CONFIG), path, dtype)
    gguf_writer.write(first, again, dtype)
    assert again.read_bytes() == path.read_bytes()
    gguf_writer.write(first, again, None)
    assert again.read_bytes() == path.read_bytes()


CONFIGS = {
    "tied": replace(CONFIG, tied_embedding=True),
    "other numbers": replace(CONFIG, rope_theta=500000.0, norm_epsilon=1e-6, context=131072),
    "wide heads": replace(CONFIG, head_size=24),
    "one key/value head": replace(CONFIG, n_kv_heads=1),
    "linear": replace(CONFIG, rope_scaling=RopeScaling("linear", 4.0)),
    "factors": replace(CONFIG, rope_scaling=RopeScaling("factors", factors=(1.0, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 8.0))),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_of_all_kinds_come_back(tmp_path, name):
    assert written(random_model(CONFIGS[name]), tmp_path / "m.gguf", "f16").config == CONFIGS[name]


def test_llama_3s_rope_becomes_factors_that_give_the_same_frequencies(tmp_path):
    config = replace(CONFIG, head_size=64, rope_theta=500000.0, rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 8192))
    again = written(random_model(config), tmp_path / "m.gguf", "f16").config
    assert again.rope_scaling is not None
    assert again.rope_scaling.kind == "factors"
    assert again.rope_scaling.factors[0] == 1
    assert again.rope_scaling.factors[-1] == 8
    np.testing.assert_allclose(rope_frequencies(again), rope_frequencies(config), rtol=2e-7)
    assert rope_factors(CONFIG) is None


def test_rows_that_are_no_whole_blocks_become_f16_as_in_llama_cpp(tmp_path):
    again = written(random_model(replace(CONFIG, mlp_width=72)), tmp_path / "m.gguf", "q4_0")
    assert {again.tensors[f"layers.{i}.mlp.down"].dtype for i in range(2)} == {"f16"}
    assert again.tensors["layers.0.mlp.up"].dtype == "q4_0"


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"])
def test_the_gguf_library_reads_the_same_weights_and_quantizes_alike(tmp_path, dtype):
    from gguf import GGMLQuantizationType, GGUFReader
    from gguf.quants import dequantize, quantize

    model = random_model(CONFIG)
    again = written(model, tmp_path / "m.gguf", dtype)
    theirs = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    assert theirs.keys() == set(map(gguf.gguf_name, model.tensors))
    for name, tensor in model.tensors.items():
        found = theirs[gguf.gguf_name(name)]
        assert tuple(found.shape) == tensor.shape[::-1]
        assert np.array_equal(dequantize(found.data, found.tensor_type), again.tensors[name].dequantize())
        if len(tensor.shape) == 2:
            assert found.data.tobytes() == quantize(tensor.data, GGMLQuantizationType[dtype.upper()]).tobytes()


def test_the_gguf_library_reads_the_same_metadata(tmp_path, toy_sentencepiece_bytes):
    from gguf import GGUFReader

    tokenizer = parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")
    model = random_model(replace(CONFIG, vocab_size=400, rope_theta=10000, rope_scaling=RopeScaling("linear", 2)))
    model = replace(model, tokenizer=tokenizer, chat_template="{{ messages }}", stop_ids=(2, 7, 9))
    again = written(model, tmp_path / "toy.gguf", "q8_0")
    reader = GGUFReader(tmp_path / "toy.gguf")
    fields = {key: field.contents() for key, field in reader.fields.items()}
    expected = {
        "general.architecture": "llama",
        "general.name": "toy",
        "general.file_type": 7,
        "general.quantization_version": 2,
        "llama.context_length": 16,
        "llama.embedding_length": 64,
        "llama.block_count": 2,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 16,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10000.0,
        "llama.rope.scaling.type": "linear",
        "llama.rope.scaling.factor": 2.0,
        "llama.vocab_size": 400,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.eot_token_id": 7,
        "tokenizer.ggml.eom_token_id": 9,
        "tokenizer.chat_template": "{{ messages }}",
    }
    assert {key: fields.get(key) for key in expected} == expected
    assert fields["tokenizer.ggml.tokens"] == tokenizer.pieces
    counts_and_numbers = {
        "llama.block_count": "UINT32",
        "llama.rope.freq_base": "FLOAT32",
        "tokenizer.ggml.token_type": "INT32",
    }
    assert {key: reader.fields[key].types[-1].name for key in counts_and_numbers} == counts_and_numbers
    assert (again.chat_template, again.stop_ids) == ("{{ messages }}", (2, 7, 9))
    assert isinstance(again.tokenizer, SentencePieceTokenizer)
    for text in ("Once upon a time", "  a  b ", "😀 日本語\n"):
        assert again.tokenizer.encode(text, bos=True) == tokenizer.encode(text, bos=True)


@pytest.mark.parametrize(("stored", "group"), [("q8_0", 32), ("q4_0", 32), ("q4_1", 32)])
def test_blocks_that_a_model_has_are_copied(tmp_path, stored, group):
    model = written(random_model(CONFIG, stored, group), tmp_path / "m.gguf", stored)
    again = written(model, tmp_path / "again.gguf", stored)
    for name, tensor in model.tensors.items():
        assert_same_bits(tensor, again.tensors[name])


def test_larger_groups_of_int8_keep_their_numbers(tmp_path):
    model = random_model(replace(CONFIG, mlp_width=128), "q8_0", 64)
    tensor = model.tensors["embedding"]
    found = written(model, tmp_path / "m.gguf", "q8_0").tensors["embedding"]
    assert np.array_equal(found.data.reshape(40, 64), tensor.data.reshape(40, 64))
    assert tensor.scales is not None
    assert found.scales is not None
    assert np.array_equal(found.scales, np.repeat(tensor.scales.astype(np.float16), 2, axis=1))


def test_matrices_of_mixed_types_stay_as_they_are_stored(tmp_path):
    model = random_model(CONFIG, "q4_1")
    dtypes = {"embedding": "q8_0", "head": "bf16"}
    model = replace(model, tensors=model.tensors | {name: convert(model.tensors[name], to, 32) for name, to in dtypes.items()})
    again = written(model, tmp_path / "m.gguf", None)
    assert {name: tensor.dtype for name, tensor in again.tensors.items()} == {
        name: tensor.dtype for name, tensor in model.tensors.items()
    }
    for name, tensor in model.tensors.items():
        np.testing.assert_allclose(again.tensors[name].dequantize(), tensor.dequantize(), rtol=2e-3, atol=1e-3)
    twice = written(again, tmp_path / "twice.gguf", None)
    for name, tensor in again.tensors.items():
        assert_same_bits(tensor, twice.tensors[name])


def test_rows_in_hugging_faces_order_are_turned(tmp_path):
    model = random_model(CONFIG)
    huggingface_writer.write(model, tmp_path / "folder")
    again = written(huggingface.read(tmp_path / "folder"), tmp_path / "m.gguf", "f32")
    for name, tensor in model.tensors.items():
        assert np.array_equal(again.tensors[name].data, tensor.data)


def test_progress_is_told_of_every_byte_of_the_tensors(tmp_path):
    told: list[int] = []
    model = random_model(CONFIG)
    gguf_writer.write(model, tmp_path / "m.gguf", "q4_0", told.append)
    assert sum(told) == gguf_writer.weight_bytes(model, "q4_0")
    assert (tmp_path / "m.gguf").stat().st_size - sum(told) < 4096


@pytest.mark.parametrize("dtype", ["f16", "q8_0", "q4_0", "q4_1"])
def test_weights_that_a_type_cannot_hold_are_refused_and_leave_no_file(tmp_path, dtype):
    model = random_model(CONFIG)
    weights = model.tensors["head"].data.copy()
    weights[3, 5] = 1e30
    model = replace(model, tensors=model.tensors | {"head": Tensor.from_array(weights)})
    with pytest.raises(ModelFileError, match=r"m.gguf: output.weight: found a weight too large"):
        gguf_writer.write(model, tmp_path / "m.gguf", dtype)
    assert list(tmp_path.iterdir()) == []
    assert written(model, tmp_path / "m.gguf", "bf16").tensors["head"].dequantize()[3, 5] == pytest.approx(1e30, rel=1e-2)


def test_groups_of_tiny_numbers_become_zeros(tmp_path):
    model = random_model(CONFIG)
    weights = model.tensors["head"].data.copy()
    weights[0] = 1e-42
    model = replace(model, tensors=model.tensors | {"head": Tensor.from_array(weights)})
    for dtype in ("q8_0", "q4_0"):
        assert not written(model, tmp_path / "m.gguf", dtype).tensors["head"].dequantize()[0].any()


def test_other_types_and_broken_models_are_refused(tmp_path):
    model = random_model(CONFIG)
    with pytest.raises(ModelFileError, match=re.escape("dtype: found q6_k, expected f32, f16, q4_0, q4_1, q8_0, bf16")):
        gguf_writer.write(model, tmp_path / "m.gguf", "q6_k")
    tensors = {name: tensor for name, tensor in model.tensors.items() if name != "norm"}
    with pytest.raises(ModelError, match="norm is missing"):
        gguf_writer.write(replace(model, tensors=tensors), tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_a_large_matrix_takes_the_memory_of_a_piece(tmp_path, dtype):
    large = Tensor.from_array(np.ones((1 << 16, 64), np.float16))
    model = random_model(replace(CONFIG, tied_embedding=True))
    model = replace(model, config=replace(model.config, vocab_size=1 << 16), tensors=model.tensors | {"embedding": large})
    gguf_writer.write(random_model(CONFIG), tmp_path / "m.gguf", dtype)  # loads the library
    tracemalloc.start()
    gguf_writer.write(model, tmp_path / "m.gguf", dtype)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < large.n_bytes * 2  # the matrix in float32, before anything is made of it


@pytest.mark.parametrize(("dtype", "name"), [("f16", "F16"), ("q8_0", "Q8_0"), ("q4_0", "Q4_0")])
def test_quantized_stories_equal_llama_cpps_to_the_bit(shared_data, tmp_path, dtype, name):
    folder = shared_data / "models/stories260K"
    theirs = gguf.read(folder / f"derived/stories260K.{name}.gguf")
    ours = written(read_model(folder / "stories260K.bin"), tmp_path / "m.gguf", dtype)
    for canonical, tensor in ours.tensors.items():
        assert_same_bits(tensor, theirs.tensors[canonical])


def test_a_model_of_llama2c_comes_back_from_gguf_to_the_byte(shared_data, tmp_path):
    from llamita.formats import llama2c_writer

    original = shared_data / "models/stories260K/derived/stories260K_v1_fp32.bin"
    again = written(llama2c.read(original), tmp_path / "m.gguf", "f32")
    llama2c_writer.write(again, tmp_path / "m.bin", 1)
    assert (tmp_path / "m.bin").read_bytes() == original.read_bytes()


def test_bf16_rounds_as_the_rest_of_llamita(tmp_path):
    model = random_model(CONFIG)
    again = written(model, tmp_path / "m.gguf", "bf16")
    for name, tensor in with_dtype(model, "bf16").tensors.items():
        assert_same_bits(tensor, again.tensors[name])


def test_a_file_whose_name_is_no_utf8_gets_a_name_that_is(tmp_path):
    path = tmp_path / os.fsdecode(b"bad\xff.gguf")
    written(random_model(CONFIG), path, "f32")
    assert "bad\N{REPLACEMENT CHARACTER}".encode() in path.read_bytes()[:1000]
