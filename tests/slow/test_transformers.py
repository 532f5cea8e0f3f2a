"""transformers, which shares no line with us, reads our folders and writes ours to read: same logits, same ids.

It takes seconds to import and comes with torch, so it is no dependency of the ordinary tests.
"""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from llamita.cli import main
from llamita.config import ModelConfig, RopeScaling
from llamita.engine import Engine
from llamita.formats import huggingface_writer, read_model
from llamita.language_model import BUNDLED
from llamita.model import Model, random_model
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.conversion import to_llama2c
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.sentencepiece import parse_sentencepiece
from mixed_text import mixed_text
from small_vocabularies import byte_level

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # their warnings are not ours to mend

IDS = [1, 5, 7, 2, 39, 5, 5, 11, 0, 3]
CONFIGS = {
    "tied": ModelConfig(16, 2, 4, 4, 24, 40, 32),
    "untied": ModelConfig(16, 2, 4, 4, 24, 40, 32, tied_embedding=False),
    "grouped queries": ModelConfig(32, 3, 8, 2, 40, 40, 32, rope_theta=500.0, norm_epsilon=1e-3),
    "wide heads": ModelConfig(16, 2, 4, 2, 24, 40, 32, head_size=10, tied_embedding=False),
    "linear": ModelConfig(32, 2, 4, 2, 24, 40, 32, rope_scaling=RopeScaling("linear", 2.5)),
    # stretched so that the ten positions below tell: some pairs as they are, some between, some by the factor
    "llama3": ModelConfig(64, 2, 2, 1, 24, 40, 32, rope_theta=500.0, rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 16)),
}


def our_logits(model: Model, ids: list[int] = IDS) -> np.ndarray:
    engine = Engine(model, n_threads=1)
    try:
        return engine.logits(ids)
    finally:
        engine.close()


def their_logits(folder, ids: list[int] = IDS) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_computes_our_logits_from_our_folder(tmp_path, name, dtype):
    model = random_model(CONFIGS[name])
    huggingface_writer.write(model, tmp_path / "model", dtype)
    read = read_model(tmp_path / "model")
    assert read.config == CONFIGS[name]
    np.testing.assert_allclose(our_logits(read), their_logits(tmp_path / "model"), atol=1e-4)
    if dtype == "f32":
        np.testing.assert_allclose(our_logits(model), their_logits(tmp_path / "model"), atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shard_size", ["1GB", "8KB"])
@pytest.mark.parametrize("tied", [True, False])
def test_we_compute_the_logits_of_a_folder_of_transformers(tmp_path, tied, shard_size, dtype):
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=40,
        max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors").exists() == (shard_size == "1GB")
    np.testing.assert_allclose(our_logits(read_model(tmp_path)), their_logits(tmp_path), atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "llama3"])
def test_stretching_makes_a_difference_that_these_tests_would_see(name):
    stretched = random_model(CONFIGS[name])
    plain = replace(stretched, config=replace(CONFIGS[name], rope_scaling=None))
    assert np.abs(our_logits(stretched) - our_logits(plain)).max() > 0.01


LLAMA_3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
THEIRS = {
    "linear": ("LlamaConfig", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}}),
    "llama3": ("LlamaConfig", {"rope_parameters": {**LLAMA_3, "rope_type": "llama3", "rope_theta": 500.0}}),
    "linear of transformers 4": ("LlamaConfig", {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 500.0}),
    "wide heads": ("LlamaConfig", {"head_dim": 12}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "mistral with a window": ("MistralConfig", {"sliding_window": 6}),
}


@pytest.mark.parametrize("name", THEIRS)
def test_we_compute_the_logits_of_their_configs_from_their_file_of_torch(tmp_path, name):
    kind, fields = THEIRS[name]
    config = getattr(transformers, kind)(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=40,
        max_position_embeddings=64, initializer_range=0.3, **fields,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    read = read_model(tmp_path)
    ids = IDS[: read.config.context]
    assert len(ids) == (6 if "window" in name else 10)
    np.testing.assert_allclose(our_logits(read, ids), their_logits(tmp_path, ids), atol=1e-4)


def test_a_head_of_its_own_counts_whatever_the_config_says_as_in_transformers(tmp_path):
    huggingface_writer.write(random_model(CONFIGS["untied"]), tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    np.testing.assert_allclose(our_logits(read_model(tmp_path)), their_logits(tmp_path), atol=1e-4)


@pytest.mark.parametrize("convert", [lambda tokenizer: tokenizer, to_llama2c], ids=["sentencepiece", "llama2c"])
def test_auto_tokenizer_gives_our_ids_and_texts(tmp_path, toy_sentencepiece_bytes, convert):
    tokenizer = convert(parse_sentencepiece(toy_sentencepiece_bytes, "toy.model"))
    config = ModelConfig(16, 1, 2, 2, 24, tokenizer.vocab_size, 32)
    model = random_model(config)
    huggingface_writer.write(Model(config, model.tensors, tokenizer), tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.bos_token_id, theirs.eos_token_id, len(theirs)) == (1, 2, tokenizer.vocab_size)
    for text in ["Once upon a time, Lily saw a ball.", "  a  b ", "😀 日本語 café\n\n", "", "12,000", "</ s> <0x41>"]:
        ids = tokenizer.encode(text, bos=True)
        assert theirs.encode(text) == ids
        assert theirs.decode(ids, skip_special_tokens=True) == text


def test_auto_tokenizer_gives_the_ids_of_byte_level_vocabularies_and_reads_chats_alike(tmp_path):
    template = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    for adds_bos in (True, False):
        tokenizer = LibraryTokenizer(byte_level()).with_ends(700, 703, adds_bos)
        config = ModelConfig(16, 1, 2, 2, 24, tokenizer.vocab_size, 32)
        model = Model(config, random_model(config).tensors, tokenizer, chat_template=template)
        huggingface_writer.write(model, tmp_path)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        text = mixed_text(20_000, seed=9)
        assert theirs.encode(text) == tokenizer.encode(text, bos=adds_bos)
        assert theirs.decode(tokenizer.encode(text), skip_special_tokens=True) == text
        chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}]
        rendered = theirs.apply_chat_template(chat, tokenize=False)
        assert theirs.apply_chat_template(chat, tokenize=True)["input_ids"] == tokenizer.encode_marked(rendered)
        assert tokenizer.encode_marked(rendered)[:2] == [700, 702]


def test_generate_takes_what_the_tokenizer_gives_and_ends_where_llamita_does(tmp_path, toy_sentencepiece_bytes):
    tokenizer = parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")
    config = ModelConfig(16, 1, 2, 2, 24, tokenizer.vocab_size, 32)
    huggingface_writer.write(Model(config, random_model(config).tensors, tokenizer), tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = transformers.AutoTokenizer.from_pretrained(tmp_path)("Once", return_tensors="pt")
    assert theirs.generation_config.eos_token_id == [2, 1]
    assert theirs.generate(**prompt, max_new_tokens=2).shape[1] > prompt["input_ids"].shape[1]


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_an_exported_folder_gives_our_logits_and_ids(tmp_path, dtype, capsys):
    assert main(["export", "stories", str(tmp_path / "stories"), "--dtype", dtype, "--verify"]) == 0
    assert "bounds of q8_0" in capsys.readouterr().out
    read = read_model(tmp_path / "stories")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "stories")
    text = (BUNDLED / "tales.txt").read_text(encoding="utf-8")
    ids = cast(Tokenizer, read.tokenizer).encode(text, bos=True)
    assert theirs.encode(text) == ids
    np.testing.assert_allclose(our_logits(read, ids[:300]), their_logits(tmp_path / "stories", ids[:300]), atol=1e-4)
