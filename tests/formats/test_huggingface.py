"""Hugging Face folders, read: views stay views, and no config or index is believed.

How they are written is test_huggingface_writer.py; that transformers agrees is tests/slow/test_transformers.py.
"""

import copy
import json
import shutil
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamita.config import ModelConfig
from llamita.errors import ModelFileError
from llamita.formats import (
    huggingface,
    huggingface_writer,
    read_model,
    read_tokenizer,
    weight_paths,
    write_model,
    write_tokenizer,
)
from llamita.formats.safetensors import read_arrays, read_tensors, write_tensors
from llamita.model import Model, random_model
from llamita.quant import convert
from reference import reference_logits
from torch_files import saved

BOTH = pytest.mark.parametrize("tied", [True, False])


@pytest.fixture
def folder(tmp_path: Path, tiny_config: ModelConfig) -> Path:
    """A folder with an untied model of 40 tokens and no tokenizer."""
    huggingface_writer.write(random_model(replace(tiny_config, tied_embedding=False)), tmp_path / "model")
    return tmp_path / "model"


def edit(folder: Path, **fields: object) -> None:
    """Change fields of config.json; ... takes one out."""
    values = json.loads((folder / "config.json").read_text()) | fields
    values = {name: value for name, value in values.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(values))


def shard(folder: Path, n_shards: int = 3) -> dict[str, str]:
    """Turn model.safetensors into shards with an index; return its weight_map."""
    arrays = read_arrays(folder / "model.safetensors")
    names = [f"model-{i + 1:05}-of-{n_shards:05}.safetensors" for i in range(n_shards)]
    weight_map = {name: names[i % n_shards] for i, name in enumerate(arrays)}
    for shard_name in names:
        write_tensors(folder / shard_name, {name: arrays[name] for name in arrays if weight_map[name] == shard_name})
    (folder / "model.safetensors").unlink()
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def assert_equal(found: Model, expected: Model) -> None:
    assert found.config == expected.config
    for name, tensor in expected.tensors.items():
        np.testing.assert_array_equal(found.tensors[name].dequantize(), tensor.dequantize(), err_msg=name)


@BOTH
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_what_was_written_is_read(tmp_path, tiny_config, tied, dtype):
    config = replace(tiny_config, tied_embedding=tied, head_size=6, rope_theta=500.0, norm_epsilon=1e-6)
    model = random_model(config)
    huggingface_writer.write(model, tmp_path / "model", dtype)
    read = huggingface.read(tmp_path / "model")
    assert {tensor.dtype for tensor in read.tensors.values()} == {dtype}
    assert_equal(read, replace(model, tensors={name: convert(tensor, dtype) for name, tensor in model.tensors.items()}))


def test_reading_copies_no_weight(folder):
    for name, tensor in huggingface.read(folder).tensors.items():
        assert not tensor.data.flags.owndata, name
        assert not tensor.data.flags.writeable, name


def test_a_model_that_was_read_runs_and_is_written_again_to_the_same_bytes(folder, tmp_path):
    model = huggingface.read(folder)
    assert reference_logits(model, [1, 2, 3]).shape == (3, 40)
    huggingface_writer.write(model, tmp_path / "again")
    for file in folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_formats_lead_to_each_other(tmp_path, tiny_config):
    model = random_model(tiny_config, "q8_0", group=8)
    write_model(model, tmp_path / "model", "safetensors")
    write_model(read_model(tmp_path / "model"), tmp_path / "model.bin", "llama2c-v1")
    assert_equal(read_model(tmp_path / "model.bin"), model)


@pytest.mark.parametrize("name", ["", "config.json", "model.safetensors"])
def test_the_folder_and_its_files_name_the_model(folder, name):
    model = read_model(folder / name)
    assert model.source_format == "Hugging Face"
    assert model.name == str(folder)


def test_a_folder_with_both_kinds_is_read_as_hugging_face(folder, tiny_config):
    write_model(random_model(tiny_config), folder / "model.bin", "llama2c-v0")
    assert read_model(folder).source_format == "Hugging Face"
    assert read_model(folder / "model.bin").source_format == "llama2.c v0"


def test_shards_are_one_model(folder):
    expected = huggingface.read(folder)
    shard(folder)
    assert_equal(read_model(folder), expected)
    assert len(huggingface.weight_paths(folder)) == 3
    assert read_model(folder / "model.safetensors.index.json").source_format == "Hugging Face"


@pytest.mark.parametrize(
    "shard_name",
    ["../x.safetensors", "/x.safetensors", "a/x.safetensors", "..", "C:x.safetensors", "a\\x.safetensors", "x.bin", 7],
)
def test_a_shard_elsewhere_is_refused(folder, shard_name):
    weight_map = shard(folder)
    write_index(folder, weight_map | {"model.norm.weight": shard_name})
    with pytest.raises(
        ModelFileError, match=r"weight_map of model.norm.weight: found .* expected the name of a .safetensors file"
    ):
        huggingface.read(folder)


def test_shards_and_index_must_fit(folder):
    weight_map = shard(folder)
    first = weight_map["model.norm.weight"]
    write_index(folder, {name: place for name, place in weight_map.items() if name != "model.norm.weight"})
    with pytest.raises(ModelFileError, match=rf"{first}: tensors: found model.norm.weight, which lies there unlisted"):
        huggingface.read(folder)
    write_index(folder, weight_map | {"more": first})
    with pytest.raises(ModelFileError, match=rf"{first}: tensors: found more, which is missing"):
        huggingface.read(folder)
    write_index(folder, [])
    with pytest.raises(ModelFileError, match=r"weight_map: found \[\], expected an object"):
        huggingface.read(folder)
    write_index(folder, weight_map)
    (folder / first).unlink()
    with pytest.raises(ModelFileError, match=rf"{first}: file: found No such file"):
        huggingface.read(folder)


def test_missing_extra_and_misshapen_tensors_are_named(folder):
    arrays = read_arrays(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", {name: arrays[name] for name in arrays if name != "lm_head.weight"})
    with pytest.raises(ModelFileError, match=r"tensors: found no lm_head.weight, expected one, as config.json says"):
        huggingface.read(folder)
    name = "model.layers.0.self_attn.q_proj.bias"
    write_tensors(folder / "model.safetensors", arrays | {name: np.zeros(16, np.float32)})
    with pytest.raises(ModelFileError, match=rf"tensors: found {name}, expected only those of a Llama"):
        huggingface.read(folder)
    write_tensors(folder / "model.safetensors", arrays | {"model.norm.weight": np.zeros((16, 1), np.float32)})
    with pytest.raises(ModelFileError, match=r"shape of model.norm.weight: found \(16, 1\), expected \(16,\)"):
        huggingface.read(folder)


def test_rotary_buffers_of_old_versions_are_passed_over(folder):
    arrays = read_arrays(folder / "model.safetensors")
    arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    write_tensors(folder / "model.safetensors", arrays)
    assert len(huggingface.read(folder).tensors) == len(arrays) - 1


def test_a_tied_config_with_a_head_counts_unless_the_head_has_numbers_of_its_own(folder):
    edit(folder, tie_word_embeddings=True)
    assert not huggingface.read(folder).config.tied_embedding
    arrays = read_arrays(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", arrays | {"lm_head.weight": arrays["model.embed_tokens.weight"]})
    assert huggingface.read(folder).config.tied_embedding
    edit(folder, tie_word_embeddings=False)
    assert not huggingface.read(folder).config.tied_embedding


def test_defaults_are_those_of_transformers(folder):
    absent = (
        "tie_word_embeddings",
        "rms_norm_eps",
        "rope_theta",
        "rope_parameters",
        "hidden_act",
        "attention_bias",
        "architectures",
    )
    edit(folder, head_dim=None, max_position_embeddings=..., **dict.fromkeys(absent, ...))
    config = huggingface.read(folder).config
    assert (config.head_size, config.tied_embedding, config.context) == (4, False, 2048)
    assert (config.norm_epsilon, config.rope_theta) == (1e-6, 10000.0)


def test_the_base_of_rope_is_read_from_either_place(folder):
    edit(folder, rope_theta=500.0, rope_parameters=..., rope_scaling={"type": "default"})
    assert huggingface.read(folder).config.rope_theta == 500.0
    edit(folder, rope_theta=..., rope_parameters={"rope_type": "default", "rope_theta": 7})
    assert huggingface.read(folder).config.rope_theta == 7.0


REFUSED = {
    "model_type": ["qwen2", "llama4", None, ..., 3, ["llama"]],
    "architectures": [["LlamaForSequenceClassification"], ["MistralForCausalLM"], "LlamaForCausalLM", []],
    "hidden_act": ["gelu", None],
    "attention_bias": [True, 0, "no"],
    "mlp_bias": [True],
    "sliding_window": [0, "4096", 4.5],
    "partial_rotary_factor": [0.5],
    "quantization_config": [{"quant_method": "gptq"}],
    "rope_scaling": [{"type": "dynamic", "factor": 2.0}],
    "rope_theta": [0, -1.0, 1e13, "1e4", True, None],
    "rms_norm_eps": [0, 1, "x", None, [1e-5]],
    "hidden_size": [..., 0, -16, 1 << 40, 16.0, "16", True, None, [16]],
    "num_hidden_layers": [..., 0, 1025, 2.5],
    "num_attention_heads": [..., 0, 5, 32, 10**30],
    "num_key_value_heads": [0, 3],
    "head_dim": [0, 5, 1 << 17],
    "intermediate_size": [..., 0, 1 << 21],
    "vocab_size": [..., 0, 1 << 23],
    "max_position_embeddings": [0, 1 << 25],
    "tie_word_embeddings": [1, "true", None],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in REFUSED.items() for value in values])
def test_a_config_that_we_cannot_run_is_refused_by_field(folder, field, value):
    edit(folder, **{field: value})
    with pytest.raises(ModelFileError, match=rf"config.json: {field}: found ") as caught:
        huggingface.read(folder)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN}', '{"a": 1, "a": 1}', "[" * 100_000, '{"rms_norm_eps": 1e999}'])
def test_a_config_that_is_no_object_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"config.json: "):
        read_model(folder)


def test_a_number_beyond_floats_is_refused(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"rms_norm_eps": 1e-05', '"rms_norm_eps": 1e999'))
    with pytest.raises(ModelFileError, match=r"rms_norm_eps: found inf"):
        huggingface.read(folder)


def test_what_is_missing_is_named(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"model.safetensors: file: found No such file"):
        read_model(folder)
    shutil.rmtree(folder)
    with pytest.raises(ModelFileError, match=r"config.json: file: found No such file"):
        read_model(folder / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"folder: found no model, expected config.json or params.json"):
        read_model(tmp_path)


def test_the_real_model_comes_back_and_tells_the_same(shared_data, tmp_path):
    model = read_model(shared_data / "models/stories260K/stories260K.bin")
    write_model(model, tmp_path / "model", "safetensors")
    read = read_model(tmp_path / "model")
    assert_equal(read, model)
    assert read.tokenizer is not None
    write_tokenizer(read.tokenizer, tmp_path / "tok.bin")  # pyright: ignore[reportArgumentType]
    assert (tmp_path / "tok.bin").read_bytes() == (shared_data / "models/stories260K/tok512.bin").read_bytes()


def as_torch_file(folder: Path) -> list[str]:
    """Turn model.safetensors into pytorch_model.bin; return the names of its tensors."""
    tensors = read_tensors(folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(saved(OrderedDict(tensors)))
    (folder / "model.safetensors").unlink()
    return list(tensors)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_weights_in_a_file_of_torch_are_read_as_those_in_safetensors(folder, dtype):
    huggingface_writer.write(huggingface.read(folder), folder, dtype)
    expected = huggingface.read(folder)
    expected = replace(expected, tensors={name: copy.deepcopy(tensor) for name, tensor in expected.tensors.items()})
    as_torch_file(folder)
    assert_equal(read_model(folder), expected)
    assert_equal(read_model(folder / "pytorch_model.bin"), expected)
    assert {tensor.dtype for tensor in read_model(folder).tensors.values()} == {dtype}
    assert all(not tensor.data.flags.owndata for tensor in read_model(folder).tensors.values())


def test_shards_of_torch_are_read_by_their_index_and_safetensors_come_first(folder):
    expected = huggingface.read(folder)
    tensors = read_tensors(folder / "model.safetensors")
    names = sorted(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[:4], "pytorch_model-00002-of-00002.bin": names[4:]}
    for shard_name, part in shards.items():
        (folder / shard_name).write_bytes(saved({name: tensors[name] for name in part}))
    weight_map = {name: shard_name for shard_name, part in shards.items() for name in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "model.safetensors").rename(folder / "elsewhere")
    assert_equal(read_model(folder), expected)
    assert weight_paths(read_model(folder)) == [folder / shard_name for shard_name in shards]
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelFileError, match=r"model.safetensors: file size"):
        read_model(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(ModelFileError, match=r"weight_map of a: found model-1.safetensors, expected the name of a .bin file"):
        read_model(folder)


def test_the_real_model_in_a_file_of_torch_is_the_same(shared_data):
    model = read_model(shared_data / "models/stories260K/derived/hf")
    assert_equal(model, read_model(shared_data / "models/stories260K/stories260K.bin"))


def test_a_shard_stands_for_its_folder(folder):
    expected = read_model(folder)
    shard(folder)
    read = read_model(folder / "model-00002-of-00003.safetensors")
    assert read.name == str(folder)
    assert_equal(read, expected)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelFileError, match=r"model.safetensors: file: found No such file"):
        read_model(folder / "model-00002-of-00003.safetensors")


@pytest.mark.parametrize("name", ["other.safetensors", "model-00001-of-00002.safetensors", "no_ending", "empty.safetensors"])
def test_safetensors_alone_are_no_model_and_that_is_said(folder, name):
    path = folder / name
    (folder / "model.safetensors").rename(path)
    (folder / "config.json").rename(folder / "config.old")
    if name.startswith("empty"):
        path.write_bytes(bytes(100))
    expected = "name the folder that holds config.json and, as model.safetensors or in shards, the weights"
    with pytest.raises(ModelFileError, match=f"file: found safetensors, which are weights without a config, .*; {expected}"):
        read_model(path)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelFileError, match=r"folder: found an adapter, .*; name its base as the model"):
        read_model(path)


def test_a_git_lfs_pointer_is_called_so_wherever_it_lies(folder, tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    said = "content: found a git-lfs pointer, expected the file that it points to; run git lfs pull in its folder"
    for name in ("x.gguf", "x.bin", "tokenizer.model"):
        (tmp_path / name).write_bytes(pointer)
        with pytest.raises(ModelFileError, match=f"{name}: {said}"):
            read_tokenizer(tmp_path / name) if name.startswith("tok") else read_model(tmp_path / name)
    for old, new in (("model.safetensors", "model.safetensors"), ("model.safetensors", "pytorch_model.bin")):
        (folder / old).unlink()
        (folder / new).write_bytes(pointer)
        with pytest.raises(ModelFileError, match=f"{new}: {said}"):
            read_model(folder)
