"""Sampling: how the next token is chosen, as the user says it. engine/sampler.py does it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from llamita.errors import SettingError

LARGEST_BIAS = 1e6
COLDEST = 1e-30  # a temperature below is one of 0: logits divided by it would leave float32


def seed_of_sample(seed: int, i: int) -> int:
    """The seed of the i-th of several samples: seed + i as 64 bits, and 1 where that is 0, which xorshift never leaves."""
    return (seed + i) % (1 << 64) or 1


@dataclass(frozen=True)
class Sampling:
    """How to draw tokens. The defaults are llama2.c's.

    temperature: 0 takes the most likely token; 1 draws as the model says.
    top_p: only the most likely tokens whose probabilities sum up to this (arXiv:1904.09751); 0 or 1: all.
    top_k: only the k most likely; 0: all.
    min_p: only tokens at least this times as likely as the most likely (arXiv:2407.01082).
    repetition_penalty: divides the (positive) logits of the last repetition_window ids (arXiv:1909.05858).
    presence_penalty, frequency_penalty: taken from the logits of ids drawn since the prompt, the one once, the other as often
    as they were drawn (OpenAI's definition).
    logit_bias: id -> number added to its logit, -inf forbids it.
    seed: the state of the xorshift64* generator, 64 bits, not 0; equal seeds draw equal tokens.
    """

    temperature: float = 1.0
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 1

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is taken, without a random number."""
        return self.temperature < COLDEST

    def check_ids(self, vocab_size: int) -> None:
        """Raise SettingError for a bias of an id that the vocabulary has not."""
        if unknown := [i for i in self.logit_bias if not 0 <= i < vocab_size]:
            raise SettingError(f"logit_bias: found id {unknown[0]}, expected 0 to {vocab_size - 1}")

    def validate(self) -> "Sampling":
        """Return the settings; raise SettingError at one outside its range."""
        ranges = {
            "temperature": (self.temperature, 0.0, 1e6),
            "top_p": (self.top_p, 0.0, 1.0),
            "top_k": (self.top_k, 0, 1 << 31),
            "min_p": (self.min_p, 0.0, 1.0),
            "repetition_penalty": (self.repetition_penalty, 1e-6, 1e6),
            "repetition_window": (self.repetition_window, 0, 1 << 31),
            "presence_penalty": (self.presence_penalty, -1e6, 1e6),
            "frequency_penalty": (self.frequency_penalty, -1e6, 1e6),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:  # NaN fails too
                raise SettingError(f"{name}: found {value}, expected {low:g} to {high:g}")
        for token_id, bias in self.logit_bias.items():
            if not (-LARGEST_BIAS <= bias <= LARGEST_BIAS or bias == -math.inf):
                raise SettingError(f"logit_bias: found {bias} for id {token_id}, expected -1e6 to 1e6, or -inf")
        if self.seed % (1 << 64) == 0:
            raise SettingError(f"seed: found {self.seed}, expected one that is not 0 as 64 bits (xorshift never leaves 0)")
        return self
