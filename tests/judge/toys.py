"""What the tests of judging share: small models of random weights with a vocabulary, with BOS and without."""

from dataclasses import replace

from llamita.config import ModelConfig
from llamita.model import Model, random_model
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.sentencepiece import parse_sentencepiece
from small_vocabularies import byte_level

TEXTS = [
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
    "The café was closed, so they went home. Äpfel, Öl und Übermut; 日本語 and 😀 were there too. " * 3 + "So they slept.",
    "Hi",
    "He counted 1, 2, 3, 10, 25 and 100; then she said: I can count to 1000!",
]


def with_tokenizer(tokenizer: Tokenizer, seed: int = 0, dtype: str = "f32") -> Model:
    """Random weights, loud enough that some tokens are likelier than others, with a context of 48."""
    config = ModelConfig(32, 2, 4, 2, 64, tokenizer.vocab_size, context=48)
    return replace(random_model(config, dtype, group=32, seed=seed), tokenizer=tokenizer)


def sentencepiece_model(content: bytes, seed: int = 0, dtype: str = "f32") -> Model:
    """A model whose tokenizer puts BOS and a space before a text."""
    return with_tokenizer(parse_sentencepiece(content, "toy.model"), seed, dtype)


def byte_level_model(seed: int = 0) -> Model:
    """A model whose tokenizer has no BOS at all."""
    return with_tokenizer(LibraryTokenizer(byte_level()), seed)
