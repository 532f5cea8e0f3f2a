"""Small vocabularies learned on the spot, as the content of a tokenizer.json: byte-level BPE, and pieces with likelihoods."""

import json
from functools import cache
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from llamita.tokenizer.byte_level import added_token, content_of
from mixed_text import mixed_text

MARKS = ("<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>")
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


@cache
def learned() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Pieces with ids, and merges, of 700 byte-level byte pairs: the bytes come first, in the order of their values."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator([mixed_text(60_000, seed=7)], trainer)
    model = json.loads(library.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def byte_level(rule: str = "llama-bpe", marks: tuple[str, ...] = MARKS) -> dict[str, Any]:
    """The content of a tokenizer.json of byte-level BPE that cuts texts by a rule; the marks have the last ids."""
    pieces, merges = learned()
    added = [added_token(len(pieces) + i, mark, is_special=True) for i, mark in enumerate(marks)]
    return json.loads(json.dumps(content_of(pieces, merges, added, rule)))


def unigram() -> dict[str, Any]:
    """The content of a tokenizer.json of a few pieces that are chosen by likelihood, spaces written as sentencepiece does."""
    pieces = [["<unk>", 0.0], ["</s>", 0.0], ["▁", -2.0], ["a", -2.5], ["b", -3], ["▁a", -3.0], ["ab", -3.5], ["▁ab", -6.0]]
    added = [{"id": i, "content": piece, **FLAGS} for i, (piece, _) in enumerate(pieces[:2])]
    model = {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False}
    return {"added_tokens": added, "normalizer": None, "pre_tokenizer": METASPACE, "decoder": METASPACE, "model": model}
