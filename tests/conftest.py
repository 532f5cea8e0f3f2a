"""What tests of every stage share: the folder of real files, a tokenizer trained on the spot, tiny models from a seed."""

import io
import os
import signal
from pathlib import Path

import pytest

from llamita.config import ModelConfig

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch: or its threads spin against those of other processes
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as `make test &` and nohup leave it, for every process below
    signal.signal(signal.SIGINT, signal.default_int_handler)
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# Sentences enough for a few hundred pieces, with characters of one to four bytes.
TOY_TEXT = [
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high!",
    'Tom said: "Let\'s play, Lily!" They played together and were very happy at the end of the day.',
    "The café was closed, so they went home. Äpfel, Öl und Übermut; 日本語 and 😀 were there too.",
    "He counted 1, 2, 3, 10, 25 and 100; then she said: I can count to 1000!",
]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real files that none of us wrote, beside the repository; tests that need them are skipped elsewhere."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real files lie beside the developers' checkout only (../shared/data)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def toy_sentencepiece_bytes() -> bytes:
    """A tokenizer.model of 400 byte pairs, trained with the options of llama2.c's tinystories.py."""
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(TOY_TEXT * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture
def tiny_config() -> ModelConfig:
    """Two layers with fewer key/value heads than query heads, and rows that no large group divides."""
    return ModelConfig(width=16, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=24, vocab_size=40, context=12)
