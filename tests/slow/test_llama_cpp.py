"""llama.cpp, which shares no line with us, opens our GGUF: same ids, same logits within its precision, same greedy text.

llama-cpp-python is a build of some minutes, so it is no dependency of the ordinary tests.
"""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from llamita.config import ModelConfig, RopeScaling
from llamita.engine import Engine
from llamita.formats import gguf_writer, read_model
from llamita.model import Model, random_model, with_dtype
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.sentencepiece import parse_sentencepiece
from smollm2 import smollm2_file

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # their warnings are not ours to mend

CONTEXT = 64
F32 = 0  # ggml's number of it: keys and values are float16 there by default
CONFIG = ModelConfig(64, 2, 4, 2, 96, 400, CONTEXT, tied_embedding=False)
CONFIGS = {
    "grouped queries": CONFIG,
    "tied": replace(CONFIG, tied_embedding=True),
    "wide heads": replace(CONFIG, head_size=32),
    "other theta and epsilon": replace(CONFIG, rope_theta=500.0, norm_epsilon=1e-2),
    "linear rope": replace(CONFIG, rope_scaling=RopeScaling("linear", 4.0)),
    "Llama 3's rope": replace(CONFIG, rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 32)),
}
# Largest difference of logits, in deviations: both round activations to int8 where weights are quantized; llama.cpp also rounds
# them to f16 and bf16 where weights are
TOLERANCE = {"f32": 1e-5, "f16": 5e-3, "bf16": 4e-2, "q8_0": 0.1, "q4_0": 0.1, "q4_1": 0.1}


def our_logits(model: Model, ids: list[int]) -> np.ndarray:
    engine = Engine(model, n_threads=1)
    try:
        return engine.logits(ids)
    finally:
        engine.close()


def open_llama(path: Path):
    return llama_cpp.Llama(str(path), n_ctx=CONTEXT, logits_all=True, verbose=False, n_threads=1, type_k=F32, type_v=F32)


def their_logits(path: Path, ids: list[int]) -> np.ndarray:
    llama = open_llama(path)
    llama.eval(ids)
    return np.array(llama.scores[: len(ids)])


def assert_close(found: np.ndarray, expected: np.ndarray, dtype: str = "f32") -> None:
    assert np.abs(found - expected).max() < TOLERANCE[dtype] * expected.std()


@pytest.fixture
def tokenizer(toy_sentencepiece_bytes):
    return parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")


@pytest.mark.parametrize("name", CONFIGS)
def test_llama_cpp_computes_our_logits_from_our_file(tmp_path, tokenizer, name):
    model = replace(random_model(CONFIGS[name]), tokenizer=tokenizer)
    gguf_writer.write(model, tmp_path / "model.gguf", "f32")
    ids = [1, *range(5, 5 + 3 * (CONTEXT - 1), 3)]
    assert_close(their_logits(tmp_path / "model.gguf", ids), our_logits(model, ids))


@pytest.mark.parametrize("dtype", gguf_writer.FILE_TYPES)
def test_every_type_means_the_same_numbers_there(tmp_path, tokenizer, dtype):
    path = tmp_path / "model.gguf"
    gguf_writer.write(replace(random_model(CONFIG), tokenizer=tokenizer), path, dtype)
    ids = [1, *range(5, 35)]
    exact = our_logits(with_dtype(read_model(path), "f32"), ids)
    assert_close(their_logits(path, ids), exact, dtype)
    assert_close(our_logits(read_model(path), ids), exact, dtype)


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0", "q4_0"])
def test_the_stories_model_tells_the_same_story_there(tmp_path, shared_data, dtype):
    import llamita

    path = tmp_path / "stories.gguf"
    gguf_writer.write(read_model(shared_data / "models/stories260K/stories260K.bin"), path, dtype)
    llama = open_llama(path)
    prompt = "Once upon a time"
    theirs = llama.create_completion(prompt, max_tokens=40, temperature=0)["choices"][0]["text"]
    with llamita.load(path) as model:
        assert model.generate(prompt, n_tokens=40, temperature=0) == theirs
        assert model.tokenizer.encode(prompt, bos=True) == llama.tokenize(prompt.encode())


def test_a_model_without_a_vocabulary_opens_there(tmp_path):
    model = random_model(CONFIG)
    gguf_writer.write(model, tmp_path / "model.gguf", "f32")
    ids = list(range(5, 25))
    assert_close(their_logits(tmp_path / "model.gguf", ids), our_logits(model, ids))


@pytest.mark.parametrize(
    "text", ["Once upon a time, Lily saw a ball.", "  a  b ", "😀 日本語 café\n\n", "12,000", "</s> <0x41>"]
)
def test_the_vocabulary_gives_the_same_ids_there(tmp_path, tokenizer, text):
    gguf_writer.write(replace(random_model(CONFIG), tokenizer=tokenizer), tmp_path / "model.gguf", "f16")
    ids = open_llama(tmp_path / "model.gguf").tokenize(text.encode(), add_bos=True, special=False)
    assert ids == tokenizer.encode(text, bos=True)


def test_a_real_chat_model_written_again_is_the_same_there(tmp_path):
    original, again = smollm2_file(), tmp_path / "again.gguf"
    model = read_model(original)
    gguf_writer.write(model, again, None)
    text = "<|im_start|>user\nWhat's 12,000 + 1? 😀 naïve   spaces<|im_end|>\n"
    opened = [llama_cpp.Llama(str(path), n_ctx=CONTEXT, verbose=False, n_threads=2) for path in (original, again)]
    ids, ids_again = (llama.tokenize(text.encode(), add_bos=False, special=True) for llama in opened)
    assert ids == ids_again == cast(Tokenizer, model.tokenizer).encode_marked(text)
    assert opened[0].metadata["tokenizer.chat_template"] == opened[1].metadata["tokenizer.chat_template"]
    first, second = (llama.create_completion("The sky is", max_tokens=16, temperature=0) for llama in opened)
    assert first["choices"][0]["text"] == second["choices"][0]["text"]
