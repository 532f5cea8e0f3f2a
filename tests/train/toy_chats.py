"""A toy model in a folder and files of chats for it, for tests of whole runs of fine-tuning."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llamita.config import ModelConfig
from llamita.formats import write_model
from llamita.model import random_model
from llamita.tokenizer.sentencepiece import parse_sentencepiece

CONFIG = ModelConfig(width=32, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=64, vocab_size=400, context=64)
ANSWER = "She said: I am Lily!"
WORSE = "He was 10."
QUESTION = "Lily, can you say {}?"


def write_base(folder: Path, tokenizer_bytes: bytes) -> Path:
    """Write the toy model with a tokenizer and no chat template, and return its folder."""
    model = replace(random_model(CONFIG), tokenizer=parse_sentencepiece(tokenizer_bytes, "toy"))
    write_model(model, folder / "base", "safetensors")
    return folder / "base"


def write_chats(path: Path, n: int = 24) -> Path:
    """Write n questions with the same answer, and return the file."""
    chats = [{"prompt": QUESTION.format(i), "completion": ANSWER} for i in range(n)]
    return write_records(path, chats)


def write_pairs(path: Path, n: int = 24) -> Path:
    """Write n questions with a better and a worse answer, and return the file."""
    return write_records(path, [{"prompt": QUESTION.format(i), "chosen": ANSWER, "rejected": WORSE} for i in range(n)])


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """Write JSON lines, and return the file."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def logged(out: Path, kind: str) -> list[dict[str, Any]]:
    """What a run has logged of one kind, without the times."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    of_time = ("unix_time", "seconds", "data_seconds")
    return [{name: line[name] for name in line if name not in of_time} for line in lines if line["kind"] == kind]


def checkpoint_bytes(out: Path, step: int) -> dict[str, bytes]:
    """Name and content of the weights and the optimizer state after a step."""
    folder = out / "checkpoints" / f"step-{step:08d}"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}
