"""ChatOptions: how files of chats become examples. Each field is a flag of `llamita finetune`; its help is written here."""

import math
from dataclasses import dataclass, field
from typing import Any

from llamita.errors import SettingError

SHAPES = ("openai", "sharegpt", "alpaca", "completion", "pairs")
CHOICES = {
    "kind": ("chats", "pairs"),
    "shape": ("", *SHAPES),
    "system_messages": ("keep", "fold", "drop"),
    "too_long": ("cut", "drop"),
    "on_bad": ("stop", "skip"),
    "mask": ("assistant", "all"),
}


def _option(help: str, default: Any) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class ChatOptions:
    """How to read and to render. kind: "chats", or "pairs" of a chosen and a rejected answer. context: tokens of an example."""

    kind: str = "chats"
    context: int = 1 << 20
    shape: str = _option("What the records are; else found out from the first of each file.", "")
    columns: dict[str, str] = field(
        default_factory=dict,
        metadata={"help": "A field with another name in the records, such as prompt=question. May be repeated."},
    )
    values: dict[str, str] = field(
        default_factory=dict, metadata={"help": "What stands for {{NAME}} in the chats, such as name=Tiny. May be repeated."}
    )
    system: str = _option("What the model is told first in chats that do not say it.", "")
    system_messages: str = _option("Keep system messages, fold them into the question that follows, or drop them.", "keep")
    alpaca_prompt: bool = _option("Write the prompt of Stanford's Alpaca around instructions.", False)
    too_long: str = _option("Chats longer than the context: cut their end off, or drop them.", "cut")
    on_bad: str = _option("At a broken line, or what is no chat: stop, or skip it and count it.", "stop")
    mask: str = _option("What is learned: what the assistant says, or all.", "assistant")
    validation_share: float = _option("Share of the chats that is kept to measure on.", 0.05)
    seed: int = _option("Decides which chats are kept to measure on.", 1337)

    def validate(self) -> "ChatOptions":
        """Return the options; raise SettingError at the first that is out of range."""
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                expected = " or ".join(choice or "nothing" for choice in choices)
                raise SettingError(f"{name}: found {getattr(self, name)!r}, expected {expected}")
        if self.kind == "pairs" and self.mask == "all":
            raise SettingError("mask: found all, expected assistant: of pairs only the answers differ")
        if self.context < 2:
            raise SettingError(f"context: found {self.context}, expected at least 2 tokens")
        if not 0 < self.validation_share < 1 or not math.isfinite(self.validation_share):
            raise SettingError(f"validation_share: found {self.validation_share}, expected more than 0 and less than 1")
        return self
