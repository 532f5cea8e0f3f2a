"""The metadata of a GGUF file to ModelConfig and back: which keys make a Llama that we can run.

A key that changes the computation and that we do not compute is refused by name; the rest is passed over. Knows no byte of the
file and no tensor, but for the factors of RoPE, which GGUF keeps in one. Source: llama.cpp's llama-model.cpp, load_hparams.
"""

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np

from llamita.config import LIMITS, ModelConfig, RopeScaling
from llamita.errors import ModelFileError
from llamita.formats.gguf_types import ARCHITECTURE
from llamita.formats.json_text import shown
from llamita.model import rope_frequencies

_COUNTS = {
    "embedding_length": "width",
    "block_count": "n_layers",
    "attention.head_count": "n_heads",
    "attention.head_count_kv": "n_kv_heads",
    "feed_forward_length": "mlp_width",
    "context_length": "context",
}
_HEAD_SIZES = ("attention.key_length", "attention.value_length", "rope.dimension_count")

ROPE_FACTORS = "rope_freqs.weight"  # the tensor of those of Llama 3

# What a key may say where it is there; anything else is another computation
_ONLY = {
    "expert_count": (0, "a model without experts"),
    "attention.causal": (True, "a model whose tokens see no later ones"),
    "rope.scaling.attn_factor": (1.0, "1"),
}


def parse_config(
    metadata: Mapping[str, object], path: str | PathLike[str], vocab_size: int, rope_factors: np.ndarray | None = None
) -> ModelConfig:
    """The config of a Llama, untied; path is for messages, rope_factors is float32 (K / 2).

    Raises ModelFileError, naming the key, for another architecture, what llamita does not compute, and absurd numbers.
    """
    architecture = metadata.get("general.architecture")
    if architecture != ARCHITECTURE:
        remedy = "llamita runs no other models"
        raise ModelFileError(path, "general.architecture", shown(architecture), ARCHITECTURE, remedy)
    for key, (allowed, expected) in _ONLY.items():
        if (value := metadata.get(f"{ARCHITECTURE}.{key}", allowed)) != allowed:
            raise ModelFileError(path, f"{ARCHITECTURE}.{key}", shown(value), expected, "llamita does not run such a model")
    sizes: dict[str, Any] = {}
    for key, field in _COUNTS.items():
        sizes[field] = _count(metadata, key, path, LIMITS[field], sizes["n_heads"] if field == "n_kv_heads" else None)
    if sizes["n_heads"] % sizes["n_kv_heads"]:
        expected = f"a divisor of head_count {sizes['n_heads']}"
        raise ModelFileError(path, f"{ARCHITECTURE}.attention.head_count_kv", sizes["n_kv_heads"], expected)
    config = ModelConfig(
        **sizes,
        vocab_size=vocab_size,
        head_size=_head_size(metadata, path, sizes["width"], sizes["n_heads"]),
        rope_theta=_number(metadata, "rope.freq_base", path, 1e12, default=10000.0),
        norm_epsilon=_number(metadata, "attention.layer_norm_rms_epsilon", path, 1.0),
        tied_embedding=False,
    )
    if metadata.get(f"{ARCHITECTURE}.attention.sliding_window", 0) != 0:  # up to so many tokens attention is that of a Llama
        window = _count(metadata, "attention.sliding_window", path, LIMITS["context"])
        config = replace(config, context=min(config.context, window))
    return replace(config, rope_scaling=_rope_scaling(metadata, path, config, rope_factors))


def config_metadata(config: ModelConfig) -> dict[str, object]:
    """The keys of the GGUF file of this config; llama3 and factors of RoPE are a tensor, see rope_factors."""
    values: dict[str, object] = {"vocab_size": config.vocab_size}
    values |= {key: getattr(config, field) for key, field in _COUNTS.items()}
    values |= dict.fromkeys(_HEAD_SIZES, config.head_size)
    values |= {"attention.layer_norm_rms_epsilon": float(config.norm_epsilon), "rope.freq_base": float(config.rope_theta)}
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(config.rope_scaling.factor)}
    return {f"{ARCHITECTURE}.{key}": value for key, value in values.items()}


def rope_factors(config: ModelConfig) -> np.ndarray | None:
    """The numbers by which plain frequencies are divided, float32 (K / 2); None where the keys say all."""
    if config.rope_scaling is None or config.rope_scaling.kind == "linear":
        return None
    if config.rope_scaling.kind == "factors":
        return np.array(config.rope_scaling.factors, np.float32)
    plain = rope_frequencies(replace(config, rope_scaling=None))
    return (plain / rope_frequencies(config).astype(np.float64)).astype(np.float32)


def _count(metadata: Mapping[str, object], key: str, path: str | PathLike[str], limit: int, default: int | None = None) -> int:
    """A key that counts. Some may be a list, one number for each layer: such as are all the same are one number."""
    name = f"{ARCHITECTURE}.{key}"
    value = metadata.get(name, default)
    if isinstance(value, list) and value and value.count(value[0]) == len(value):
        value = value[0]
    if isinstance(value, list):
        raise ModelFileError(path, name, shown(value), "the same number for all layers", "llamita runs no mixed layers")
    if type(value) is not int or not 1 <= value <= limit:
        raise ModelFileError(path, name, "nothing" if value is None else shown(value), f"1 to {limit}")
    return value


def _head_size(metadata: Mapping[str, object], path: str | PathLike[str], width: int, n_heads: int) -> int:
    """The size of a head, which three keys may state, and all must state alike."""
    key_name, value_name, rope_name = _HEAD_SIZES
    limit, default = LIMITS["head_size"], max(width // n_heads, 1)
    head_size = _count(metadata, key_name, path, limit, default)
    for key, other in ((value_name, default), (rope_name, head_size)):
        if (size := _count(metadata, key, path, limit, other)) != head_size:
            raise ModelFileError(path, f"{ARCHITECTURE}.{key}", size, f"{head_size} as the size of a key")
    if width % n_heads and f"{ARCHITECTURE}.{key_name}" not in metadata:
        raise ModelFileError(path, f"{ARCHITECTURE}.attention.head_count", n_heads, f"a divisor of embedding_length {width}")
    if head_size % 2:
        raise ModelFileError(path, "size of a head", head_size, "an even number, as RoPE turns pairs")
    return head_size


def _number(
    metadata: Mapping[str, object], key: str, path: str | PathLike[str], below: float, default: float | None = None
) -> float:
    name = f"{ARCHITECTURE}.{key}"
    value = metadata.get(name, default)
    if type(value) in (int, float) and isinstance(value, int | float) and 0 < value < below:
        number = float(str(np.float32(value)))  # the number of few digits that was meant: 1e-05, not 9.999999747378752e-06
        if 0 < number < below:
            return number
    raise ModelFileError(path, name, "nothing" if value is None else shown(value), f"a positive number below {below:g}")


def _rope_scaling(
    metadata: Mapping[str, object], path: str | PathLike[str], config: ModelConfig, factors: np.ndarray | None
) -> RopeScaling | None:
    """Linear stretching by key, factors by tensor; where a file has both, ggml divides by both."""
    name = f"{ARCHITECTURE}.rope.scaling.type"
    kind = metadata.get(name, "linear")
    if kind not in ("none", "linear"):
        raise ModelFileError(path, name, shown(kind), "none or linear", "llamita stretches RoPE in no such way")
    factor = 1.0
    key = next((key for key in ("rope.scaling.factor", "rope.scale_linear") if f"{ARCHITECTURE}.{key}" in metadata), None)
    if key is not None and kind == "linear" and metadata[f"{ARCHITECTURE}.{key}"] != 0:
        factor = _number(metadata, key, path, 1e6)
    if factors is None or (factors == 1).all():
        return None if factor == 1 else RopeScaling("linear", factor)
    numbers = tuple(factor * float(number) for number in factors)
    if len(numbers) != config.head_size // 2:
        raise ModelFileError(path, ROPE_FACTORS, f"{len(numbers)} numbers", f"{config.head_size // 2}, one for each pair")
    if not all(0 < number < 1e12 for number in numbers):
        raise ModelFileError(path, ROPE_FACTORS, "one that is not positive", "positive numbers")
    return RopeScaling("factors", factors=numbers)
