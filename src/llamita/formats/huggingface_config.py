"""config.json of a Hugging Face folder to ModelConfig and back: which of its many fields make a Llama that we can run.

A field that changes the computation and that we do not compute is refused by name; the rest, such as dropout, is passed over.
Knows no tensor. Source: transformers' LlamaConfig, whose defaults count where a field is missing.
"""

from os import PathLike
from typing import Any

from llamita.config import LIMITS, ModelConfig
from llamita.errors import ModelFileError
from llamita.formats.huggingface_rope import parse_rope, positive_number, rope_values
from llamita.formats.json_text import shown
from llamita.tokenizer import Tokenizer

TORCH_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}  # quant.Tensor.dtype -> torch's name

_COUNTS = {
    "hidden_size": "width",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "head_dim": "head_size",
    "intermediate_size": "mlp_width",
    "vocab_size": "vocab_size",
    "max_position_embeddings": "context",
}

# model_type -> its architecture, and what counts where a field is missing
_ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}
_DEFAULTS: dict[str, dict[str, object]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
}

# What a field may say, first as the default is; anything else is another computation
_ONLY = {
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1.0, None),
    "quantization_config": (None,),
}
_NOT_OURS = "llamita runs models of Llama's architecture only"


def parse_config(values: dict[str, object], path: str | PathLike[str]) -> ModelConfig:
    """The config of a Llama from the fields of config.json; path is for messages.

    Raises ModelFileError, naming the field, for another architecture, what llamita does not compute, and absurd numbers.
    """
    values = _DEFAULTS[_model_type(values, path)] | values
    _check_computation(values, path)
    defaults = {"num_key_value_heads": values.get("num_attention_heads"), "max_position_embeddings": 2048}
    counts = {name: _count(values, name, path, defaults.get(name)) for name in _COUNTS if name != "head_dim"}
    width, n_heads, n_kv_heads = (counts[name] for name in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    if width % n_heads:
        raise ModelFileError(path, "num_attention_heads", n_heads, f"a divisor of hidden_size {width}")
    if n_heads % n_kv_heads:
        raise ModelFileError(path, "num_key_value_heads", n_kv_heads, f"a divisor of num_attention_heads {n_heads}")
    counts["head_dim"] = _count(values, "head_dim", path, width // n_heads)
    if counts["head_dim"] % 2:
        raise ModelFileError(path, "head_dim", counts["head_dim"], "an even number, as RoPE turns pairs")
    tied = values.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise ModelFileError(path, "tie_word_embeddings", shown(tied), "true or false")
    if values.get("sliding_window") is not None:
        # attention to the last tokens only is attention to all of them, as long as there are no more
        window = _count(values, "sliding_window", path, None)
        counts["max_position_embeddings"] = min(counts["max_position_embeddings"], window)
    rope_theta, rope_scaling = parse_rope(values, path)
    sizes: dict[str, Any] = {_COUNTS[name]: count for name, count in counts.items()}
    return ModelConfig(
        **sizes,
        rope_theta=rope_theta,
        norm_epsilon=positive_number(values, "rms_norm_eps", path, 1, default=1e-6),
        tied_embedding=tied,
        rope_scaling=rope_scaling,
    )


def config_values(config: ModelConfig, dtype: str, tokenizer: Tokenizer | None) -> dict[str, object]:
    """The fields of the config.json of this config: those that transformers 4 looks at, and those of transformers 5.

    Raises ModelError for a stretching of RoPE that has no name there.
    """
    bos_id, eos_id = _special_ids(tokenizer)
    values: dict[str, object] = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": bos_id,
        "dtype": TORCH_DTYPES[dtype],
        "eos_token_id": eos_id,
        "hidden_act": "silu",
        "mlp_bias": False,
        "model_type": "llama",
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied_embedding,
        "torch_dtype": TORCH_DTYPES[dtype],
        "use_cache": True,
    }
    counts = {name: getattr(config, field) for name, field in _COUNTS.items()}
    return dict(sorted((values | counts | rope_values(config)).items()))


def generation_values(tokenizer: Tokenizer | None, stop_ids: tuple[int, ...] = ()) -> dict[str, object]:
    """The fields of generation_config.json, where stop_ids end a text.

    Without them EOS does, and BOS, as a story's end is the beginning of the next.
    """
    bos_id, eos_id = _special_ids(tokenizer)
    ends = list(stop_ids) or [token_id for token_id in (eos_id, bos_id) if token_id is not None]
    return {"_from_model_config": True, "bos_token_id": bos_id, "eos_token_id": ends or None}


def _special_ids(tokenizer: Tokenizer | None) -> tuple[int | None, int | None]:
    """BOS and EOS as the files have them: null where there is none, or no tokenizer that could tell."""
    bos_id, eos_id = (-1, -1) if tokenizer is None else (tokenizer.bos_id, tokenizer.eos_id)
    return bos_id if bos_id >= 0 else None, eos_id if eos_id >= 0 else None


def _model_type(values: dict[str, object], path: str | PathLike[str]) -> str:
    """The kind of model, whose computation is that of a Llama."""
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in _ARCHITECTURES:
        raise ModelFileError(path, "model_type", shown(kind), " or ".join(_ARCHITECTURES), _NOT_OURS)
    found = values.get("architectures")
    if found is not None and found != [_ARCHITECTURES[kind]]:
        raise ModelFileError(path, "architectures", shown(found), f"[{_ARCHITECTURES[kind]}]", _NOT_OURS)
    return kind


def _check_computation(values: dict[str, object], path: str | PathLike[str]) -> None:
    for name, allowed in _ONLY.items():
        value = values.get(name, allowed[0])
        if not any(type(value) is type(choice) and value == choice for choice in allowed):
            raise ModelFileError(path, name, shown(value), shown(allowed[0]), "llamita does not run such a model")


def _count(values: dict[str, object], name: str, path: str | PathLike[str], default: object) -> int:
    """A field that counts; null and a missing field stand for the default."""
    value = values.get(name)
    value = default if value is None else value
    limit = LIMITS[_COUNTS.get(name, "context")]
    if type(value) is not int or not 1 <= value <= limit:
        raise ModelFileError(path, name, shown(value), f"1 to {limit}")
    return value
