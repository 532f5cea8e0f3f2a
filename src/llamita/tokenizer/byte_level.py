"""Byte-level BPE as GPT-2 began it: bytes written as printable characters, and the rules by which texts are cut into words.

A vocabulary becomes the content of the tokenizer.json that holds it; library.py runs it. GGUF files name the rule only, by
llama.cpp's names, several of which are one rule. Knows no file. Source: encoder.py of gpt-2; llama-vocab.cpp of llama.cpp.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_PATTERN = LLAMA3_PATTERN.replace("{1,3}", "")

# Rule -> llama.cpp's names of it. The first is the one that files get; words that are a token stay whole under IGNORE_MERGES.
NAMES = {
    "llama-bpe": ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"),
    "smaug-bpe": ("smaug-bpe", "dbrx"),
    "smollm": ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
    "gpt-2": (
        "gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "a.x-4.0", "mellum", "modern-bert", "exaone4", "trillion",
        "granite-docling", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de",
    ),
    "qwen2": ("qwen2", "stablelm2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "hunyuan", "solar-open", "grok-2"),
}  # fmt: skip
RULE_OF = {name: rule for rule, names in NAMES.items() for name in names}
IGNORE_MERGES = "llama-bpe"
ADDS_BOS = "llama-bpe"  # where a file does not say

_BYTE_LEVEL: dict[str, object] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def _split(pattern: str) -> list[dict[str, object]]:
    cut: dict[str, object] = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [cut, _BYTE_LEVEL | {"use_regex": False}]


_STEPS: dict[str, list[dict[str, object]]] = {
    "llama-bpe": _split(LLAMA3_PATTERN),
    "smaug-bpe": _split(LLAMA3_PATTERN),
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL],
    "gpt-2": [_BYTE_LEVEL],
    "qwen2": _split(_QWEN2_PATTERN),
}


@cache
def byte_of_character() -> dict[str, int]:
    """The character by which a piece writes a byte -> that byte: printable Latin-1 as it is, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def bytes_of(piece: str) -> bytes:
    """The bytes that a piece stands for; of one with other characters, as tokens that were added have, its UTF-8."""
    bytes_by_character = byte_of_character()
    try:
        return bytes(bytes_by_character[character] for character in piece)
    except KeyError:
        return piece.encode("utf-8")


def content_of(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str] | str], added_tokens: list[dict[str, object]], rule: str
) -> dict[str, object]:
    """The content of a tokenizer.json: pieces and their ids, pairs in the order of merging, tokens that are not text.

    added_tokens: see added_token. rule: a key of NAMES.
    """
    steps = _STEPS[rule]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens,
        "normalizer": None,
        "pre_tokenizer": steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": rule == IGNORE_MERGES,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def added_token(token_id: int, text: str, is_special: bool) -> dict[str, object]:
    """One of a tokenizer.json's added tokens. A special one is no text: decoding leaves it out."""
    flags: dict[str, object] = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": text, **flags, "special": is_special}


def rule_of(content: Mapping[str, object]) -> str | None:
    """The rule of NAMES by which the content of a tokenizer.json cuts texts; None for another."""
    model = content["model"]
    assert isinstance(model, dict)
    steps = json.dumps(_essence(content.get("pre_tokenizer")))
    rules = [rule for rule, its_steps in _STEPS.items() if json.dumps(_essence(its_steps)) == steps]
    whole_words = bool(model.get("ignore_merges"))
    return next((rule for rule in rules if (rule == IGNORE_MERGES) == whole_words), None)


def _essence(steps: object) -> list[object]:
    """What of a pre-tokenizer decides ids, in one order."""
    if isinstance(steps, dict) and steps.get("type") == "Sequence":
        steps = steps.get("pretokenizers")
    essence: list[object] = []
    for step in steps if isinstance(steps, list) else [steps]:
        fields = {"add_prefix_space": True, "use_regex": True} | step if isinstance(step, dict) else {}
        essence.append({name: fields[name] for name in sorted(fields) if name != "trim_offsets"})
    return essence
