"""A model read with an adapter: its tokenizer, template and ends of texts, copies in the cache, files that are neither."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from llamita.config import ModelConfig
from llamita.errors import ModelError, ModelFileError
from llamita.formats import read_model, write_model
from llamita.formats.adapter import Adapter
from llamita.formats.adapter_writer import write_adapter
from llamita.formats.tokenizer_files import huggingface_files
from llamita.language_model import load
from llamita.model import Model, random_model
from llamita.quant import ComputedTensor
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.added_tokens import with_special_tokens
from llamita.tokenizer.sentencepiece import parse_sentencepiece

CONFIG = ModelConfig(width=64, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=96, vocab_size=400, context=64)
MARKS = ("<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture
def toy_model(toy_sentencepiece_bytes: bytes) -> Model:
    return replace(random_model(CONFIG), tokenizer=parse_sentencepiece(toy_sentencepiece_bytes, "toy"), chat_template="base's")


@pytest.fixture
def base(toy_model: Model, tmp_path: Path) -> Path:
    write_model(toy_model, tmp_path / "base.gguf", "gguf")
    return tmp_path / "base.gguf"


def write_pairs(folder: Path, seed: int = 0, size: float = 0.3, **fields) -> Path:
    rng = np.random.default_rng(seed)
    pairs = {"layers.1.mlp.up": (rng.normal(0, size, (2, 64)), rng.normal(0, size, (96, 2)))}
    write_adapter(
        Adapter(2, 4.0, pairs={name: (a.astype("f4"), b.astype("f4")) for name, (a, b) in pairs.items()}, **fields),
        folder,
        CONFIG,
    )
    return folder


@pytest.fixture
def chatty(toy_model: Model, tmp_path: Path) -> Path:
    """An adapter that brings two tokens, and the tokenizer and the template that go with them."""
    rows = np.random.default_rng(3).normal(size=(2, 64)).astype(np.float32)
    folder = write_pairs(tmp_path / "chatty", rows={"embedding": (np.array([400, 401]), rows)})
    grown = with_special_tokens(cast(Tokenizer, toy_model.tokenizer), MARKS)
    for name, content in huggingface_files(grown, 64, TEMPLATE).items():
        (folder / name).write_bytes(content)
    return folder


def up(model: Model) -> np.ndarray:
    return model.tensors["layers.1.mlp.up"].dequantize()


def test_an_adapter_without_files_of_a_tokenizer_leaves_the_models(base, tmp_path):
    plain, model = read_model(base), read_model(base, adapter=write_pairs(tmp_path / "a"))
    assert (model.chat_template, model.stop_ids, model.config) == (plain.chat_template, plain.stop_ids, plain.config)
    assert cast(Tokenizer, model.tokenizer).encode("Tom said") == cast(Tokenizer, plain.tokenizer).encode("Tom said")
    assert np.abs(up(model) - up(plain)).max() > 0.1
    assert not isinstance(model.tensors["embedding"], ComputedTensor), "what it does not touch stays in the file"
    assert model.name == plain.name


def test_tokens_template_and_ends_of_the_adapter_come_first(base, chatty):
    model = read_model(base, adapter=chatty)
    tokenizer = cast(Tokenizer, model.tokenizer)
    assert model.config.vocab_size == tokenizer.vocab_size == 402
    assert tokenizer.encode_marked("<|im_end|>") == [401]
    assert model.chat_template == TEMPLATE
    assert 401 in model.stop_ids
    (chatty / "generation_config.json").write_text(json.dumps({"eos_token_id": [400]}))
    assert read_model(base, adapter=chatty).stop_ids == (400, 401)


def test_a_tokenizer_that_is_named_comes_before_the_adapters(base, chatty, tmp_path, toy_model):
    grown = with_special_tokens(cast(Tokenizer, toy_model.tokenizer), ("<|one|>", "<|two|>"))
    (tmp_path / "named").mkdir()
    for name, content in huggingface_files(grown, 64).items():
        (tmp_path / "named" / name).write_bytes(content)
    [path] = (tmp_path / "named").glob("tokenizer.model")
    assert "<|two|>" in cast(Tokenizer, read_model(base, path, adapter=chatty).tokenizer).special_tokens
    small = tmp_path / "small.model"
    small.write_bytes((tmp_path / "named" / "tokenizer.model").read_bytes())
    with pytest.raises(ModelError, match="the tokenizer has 402 tokens, the model 400"):
        read_model(base, small, adapter=write_pairs(tmp_path / "a"))


def test_a_tokenizer_of_another_size_beside_the_adapter_is_an_error(base, chatty, toy_model):
    grown = with_special_tokens(cast(Tokenizer, toy_model.tokenizer), (*MARKS, "<|three|>"))
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer.bin"):
        (chatty / name).unlink(missing_ok=True)
    (chatty / "tokenizer.model").write_bytes(huggingface_files(grown, 64)["tokenizer.model"])
    with pytest.raises(ModelFileError, match=r"tokenizer: found one of another size, expected one of 402 tokens, as the model"):
        read_model(base, adapter=chatty)


def test_everything_goes_into_every_format_and_comes_back(base, chatty, tmp_path):
    model = read_model(base, adapter=chatty)
    ids = cast(Tokenizer, model.tokenizer).encode_marked("<|im_start|>user\nHello<|im_end|>")
    for name, to in (("out", "safetensors"), ("out.gguf", "gguf")):
        write_model(model, tmp_path / name, to)
        read = read_model(tmp_path / name)
        assert read.config == model.config
        assert cast(Tokenizer, read.tokenizer).encode_marked("<|im_start|>user\nHello<|im_end|>") == ids
        assert read.chat_template == TEMPLATE
        np.testing.assert_allclose(up(read), up(model), atol=1e-6)
        np.testing.assert_allclose(read.head.dequantize(), model.head.dequantize(), atol=1e-6)


@pytest.mark.parametrize("stored", ["q8_0", "q4_0"])
def test_quantized_models_take_adapters_and_say_what_becomes_larger(base, chatty, tmp_path, stored, capfd):
    write_model(read_model(base), tmp_path / "small.gguf", "gguf", dtype=stored)
    model = read_model(tmp_path / "small.gguf", adapter=chatty)
    said = capfd.readouterr().err
    assert ("2 matrices that the adapter changes are q8_0 instead of q4_0" in said) == (stored == "q4_0")
    assert model.tensors["layers.1.mlp.up"].dtype == model.head.dtype == "q8_0"
    assert model.tensors["layers.0.mlp.up"].dtype == stored
    with load(tmp_path / "small.gguf", adapter=chatty, n_threads=1) as opened:
        assert opened.logits([1, 2, 401]).shape == (3, 402)


def test_a_quantized_copy_belongs_to_its_adapter(base, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("LLAMITA_CACHE_DIR", str(tmp_path / "cache"))
    one, other = write_pairs(tmp_path / "one"), write_pairs(tmp_path / "other", seed=1)
    copies = {adapter: read_model(base, dtype="q8_0", adapter=adapter) for adapter in (None, one, other)}
    assert len(list((tmp_path / "cache" / "models").iterdir())) == 3
    for adapter, copy in copies.items():
        np.testing.assert_allclose(up(copy), up(read_model(base, adapter=adapter)), atol=0.02)
    capfd.readouterr()
    times = (one / "adapter_model.safetensors").stat()
    read_model(base, dtype="q8_0", adapter=one)
    assert capfd.readouterr().err == "", "the copy was there"
    write_pairs(one, seed=2)
    assert (one / "adapter_model.safetensors").stat().st_size == times.st_size

    os.utime(one / "adapter_model.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    np.testing.assert_allclose(up(read_model(base, dtype="q8_0", adapter=one)), up(read_model(base, adapter=one)), atol=0.02)


def test_an_adapter_in_the_place_of_a_model_is_told_from_one(chatty):
    with pytest.raises(
        ModelFileError,
        match=r"found an adapter, expected a model; name its base as the model, with --adapter .*, or export both",
    ):
        read_model(chatty)
