"""Hugging Face folders, written: names, order of rows, files of the tokenizer, and nothing left of what was there before."""

import json
from dataclasses import replace

import numpy as np
import pytest

from llamita.config import ModelConfig
from llamita.errors import ModelError, ModelFileError, SettingError, TokenizerError
from llamita.formats import huggingface, huggingface_writer, read_model, read_tokenizer, write_model
from llamita.formats.safetensors import read_arrays
from llamita.model import Model, random_model
from llamita.tokenizer.conversion import to_llama2c
from llamita.tokenizer.llama2c import Llama2cTokenizer
from llamita.tokenizer.sentencepiece import UNUSED, SentencePieceTokenizer, parse_sentencepiece


@pytest.fixture
def toy(toy_sentencepiece_bytes: bytes) -> SentencePieceTokenizer:
    return parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")


def toy_model(tokenizer, tiny_config: ModelConfig) -> Model:
    config = replace(tiny_config, vocab_size=tokenizer.vocab_size)
    return replace(random_model(config), tokenizer=tokenizer)


def test_every_tensor_has_the_name_of_transformers_and_rows_in_halves(tmp_path, tiny_config):
    model = random_model(tiny_config)
    huggingface_writer.write(model, tmp_path)
    arrays = read_arrays(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in arrays
    for ours, theirs, n_heads in (("query", "q_proj", 4), ("key", "k_proj", 2)):
        canonical = model.tensors[f"layers.1.attention.{ours}"].dequantize()
        heads = canonical.reshape(n_heads, 4, -1)  # of 4 rows: two pairs of neighbours
        expected = heads[:, [0, 2, 1, 3]].reshape(canonical.shape)
        np.testing.assert_array_equal(arrays[f"model.layers.1.self_attn.{theirs}.weight"], expected)
    for ours, theirs in (
        ("attention.value", "self_attn.v_proj"),
        ("mlp.up", "mlp.up_proj"),
        ("mlp_norm", "post_attention_layernorm"),
    ):
        np.testing.assert_array_equal(arrays[f"model.layers.1.{theirs}.weight"], model.tensors[f"layers.1.{ours}"].dequantize())


def test_the_dtype_is_that_of_the_model_unless_it_is_quantized(tmp_path, tiny_config):
    for stored, written in (("bf16", "bf16"), ("f16", "f16"), ("q8_0", "f32")):
        write_model(random_model(tiny_config, stored, group=8), tmp_path / stored, "safetensors")
        assert read_model(tmp_path / stored).tensors["embedding"].dtype == written
    with pytest.raises(SettingError, match=r"dtype: found q8_0, expected f32, f16, bf16"):
        write_model(random_model(tiny_config), tmp_path / "no", "safetensors", dtype="q8_0")
    assert not (tmp_path / "no").exists()


def test_the_tokenizer_comes_back_in_every_form(tmp_path, tiny_config, toy):
    write_model(toy_model(toy, tiny_config), tmp_path / "model", "safetensors")
    assert isinstance(read_model(tmp_path / "model").tokenizer, Llama2cTokenizer)
    text = "Once upon a time, Lily saw  a ball 😀"
    for name in ("tokenizer.bin", "tokenizer.model"):
        assert read_tokenizer(tmp_path / "model" / name).encode(text) == toy.encode(text)
    assert (tmp_path / "model" / "tokenizer.json").exists()
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    generation = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], generation["eos_token_id"]) == (1, 2, [2, 1])


def test_a_form_that_would_give_other_ids_is_not_written(tmp_path, tiny_config, toy):
    squeezing = SentencePieceTokenizer(toy.pieces, toy.scores, toy.types, replace(toy.rules, remove_extra_whitespaces=True))
    write_model(toy_model(squeezing, tiny_config), tmp_path / "squeezing", "safetensors")
    assert not (tmp_path / "squeezing" / "tokenizer.bin").exists()
    assert (tmp_path / "squeezing" / "tokenizer.json").exists()
    unused = SentencePieceTokenizer(toy.pieces, toy.scores, [*toy.types[:-1], UNUSED], toy.rules)
    write_model(toy_model(unused, tiny_config), tmp_path / "unused", "safetensors")
    assert not (tmp_path / "unused" / "tokenizer.json").exists()
    assert "LlamaTokenizer" in (tmp_path / "unused" / "tokenizer_config.json").read_text()
    assert isinstance(read_model(tmp_path / "unused").tokenizer, SentencePieceTokenizer)


def test_a_vocabulary_that_no_form_holds_is_refused(tmp_path, tiny_config):
    class Foreign:
        vocab_size = 40

    with pytest.raises(TokenizerError, match="tokenizer: found Foreign"):
        write_model(replace(random_model(tiny_config), tokenizer=Foreign()), tmp_path / "model", "safetensors")
    assert not (tmp_path / "model").exists()


def test_files_of_a_tokenizer_are_copied_to_the_byte(tmp_path, tiny_config, toy, toy_sentencepiece_bytes):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tokenizer.model").write_bytes(toy_sentencepiece_bytes)
    model = random_model(replace(tiny_config, vocab_size=toy.vocab_size))
    huggingface_writer.write(model, tmp_path / "model", tokenizer_folder=tmp_path / "data")
    assert (tmp_path / "model" / "tokenizer.model").read_bytes() == toy_sentencepiece_bytes
    assert (tmp_path / "model" / "tokenizer.json").exists()
    assert json.loads((tmp_path / "model" / "config.json").read_text())["bos_token_id"] == 1
    assert read_model(tmp_path / "model").tokenizer is not None


def test_a_model_written_over_another_leaves_nothing_of_it(tmp_path, tiny_config, toy):
    folder = tmp_path / "model"
    write_model(toy_model(to_llama2c(toy), tiny_config), folder, "safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    (folder / "notes.txt").write_text("mine")
    squeezing = SentencePieceTokenizer(toy.pieces, toy.scores, toy.types, replace(toy.rules, remove_extra_whitespaces=True))
    write_model(toy_model(squeezing, replace(tiny_config, n_layers=1)), folder, "safetensors")
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "notes.txt", "tokenizer.json", "tokenizer.model",
        "tokenizer_config.json",
    }  # fmt: skip
    assert read_model(folder).config.n_layers == 1


def test_a_model_may_be_written_over_its_own_folder(tmp_path, tiny_config):
    folder = tmp_path / "model"
    huggingface_writer.write(random_model(replace(tiny_config, tied_embedding=False)), folder)
    before = (folder / "model.safetensors").read_bytes()
    huggingface_writer.write(huggingface.read(folder), folder)
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_new_folder_is_whole_or_absent(tmp_path, tiny_config, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_writer, "_write_weights", fail)
    with pytest.raises(ModelFileError, match=r"model: writing: found No space left on device"):
        huggingface_writer.write(random_model(tiny_config), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_too_large_for_float16_is_refused_by_name(tmp_path, tiny_config):
    model = random_model(tiny_config)
    model.tensors["layers.1.mlp.up"].data[2, 3] = 1e6
    with pytest.raises(
        ModelFileError, match=r"layers\.1\.mlp\.up_proj\.weight: found a weight too large for f16, expected less"
    ):
        huggingface_writer.write(model, tmp_path / "model", "f16")
    assert list(tmp_path.iterdir()) == []
    huggingface_writer.write(model, tmp_path / "model", "bf16")


def test_a_broken_model_is_not_written(tmp_path, tiny_config):
    model = random_model(tiny_config)
    del model.tensors["norm"]
    with pytest.raises(ModelError, match="norm is missing"):
        huggingface_writer.write(model, tmp_path / "model")
    (tmp_path / "file").touch()
    with pytest.raises(ModelFileError, match=r"file: folder: found a file, expected a folder or a new name"):
        huggingface_writer.write(random_model(tiny_config), tmp_path / "file")
