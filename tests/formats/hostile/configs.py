"""Hostile config.json files beside sound weights: other models, absurd numbers, fields of the wrong kind, no JSON at all."""

import json
from collections.abc import Callable

from hostile.case import Case
from hostile.safetensors import CONFIG, file


def case(fault: str, field: str, content: Callable[[], bytes]) -> Case:
    return Case(fault, field, lambda: {"config.json": content(), "model.safetensors": file()}, ".")


def changed(fault: str, field: str, **changes: object) -> Case:
    """The sound config with some fields changed; ... takes one out."""
    values = {name: value for name, value in (CONFIG | changes).items() if value is not ...}
    return case(fault, field, lambda: json.dumps(values).encode())


def beside(fault: str, field: str, name: str, content: bytes) -> Case:
    """The sound folder with a file more."""
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": file(), name: content}
    return Case(fault, field, lambda: files, ".")


def scaled(fault: str, field: str, **scaling: object) -> Case:
    """The sound config with such a rope_scaling."""
    return changed(fault, field, rope_scaling=scaling)


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CONTEXT = {"original_max_position_embeddings": 16}

GENERATION = "generation_config.json"

SOUND = {"config.json": case("", "", lambda: json.dumps(CONFIG).encode())}

CASES = [
    case("nothing in it", "file size: found 0 bytes", lambda: b""),
    case("cut off", "content: found", lambda: json.dumps(CONFIG).encode()[:-20]),
    case("a list of one config", r"content: found \[", lambda: json.dumps([CONFIG]).encode()),
    case("a text", "content: found llama", lambda: b'"llama"'),
    case("YAML", "content: found", lambda: b"model_type: llama\nhidden_size: 4\n"),
    case("UTF-16", "content: found", lambda: json.dumps(CONFIG).encode("utf-16")),
    case(
        "Latin-1",
        "content: found 'utf-8'",
        lambda: json.dumps(CONFIG | {"note": "Ünglück"}, ensure_ascii=False).encode("latin-1"),
    ),
    case("objects nine thousand deep", "content: found brackets", lambda: b'{"a":' * 9_000),
    case("more than a megabyte", "file size", lambda: json.dumps(CONFIG).encode() + b" " * (1 << 20)),
    case("a hundred thousand labels", "content: found 100", lambda: json.dumps(CONFIG | {"labels": [0] * 100_000}).encode()),
    case("a field twice", "content: found the name hidden_size twice", lambda: b'{"hidden_size": 8, "hidden_size": 4}'),
    case("a number of a million digits", "content: found Exceeds", lambda: b'{"vocab_size": ' + b"9" * 1_000_000 + b"}"),
    case("weights instead", "content: found", file),
    changed("no model type", "model_type: found None", model_type=...),
    changed("a model type in capitals", "model_type: found LLAMA", model_type="LLAMA"),
    changed("a model type that is a list", r"model_type: found \['llama'\]", model_type=["llama"]),
    changed("another model", "model_type: found gpt2", model_type="gpt2"),
    changed("a mixture of experts", "model_type: found mixtral", model_type="mixtral"),
    changed("a type that would break the line", r"model_type: found llama\\n", model_type="llama\n\x1b[31m"),
    changed("a model type of fifty thousand characters", "model_type: found llama", model_type="llama" * 10_000),
    changed("a Llama that classifies", "architectures: found", architectures=["LlamaForSequenceClassification"]),
    changed("an architecture that is a text", "architectures: found Llama", architectures="LlamaForCausalLM"),
    changed("another activation", "hidden_act: found gelu", hidden_act="gelu"),
    changed("biases in attention", "attention_bias: found True", attention_bias=True),
    changed("biases as a text", "attention_bias: found false", attention_bias="false"),
    changed("biases in the mlp", "mlp_bias: found True", mlp_bias=True),
    changed("quantized weights", "quantization_config: found", quantization_config={"quant_method": "gptq", "bits": 4}),
    changed("half of each head turned", "partial_rotary_factor: found 0.5", partial_rotary_factor=0.5),
    changed("no width", "hidden_size: found None", hidden_size=...),
    changed("a width of 0", "hidden_size: found 0", hidden_size=0),
    changed("a negative width", "hidden_size: found -4", hidden_size=-4),
    changed("a width as a text", "hidden_size: found 4", hidden_size="4"),
    changed("a width of 4.0", "hidden_size: found 4.0", hidden_size=4.0),
    changed("a width that is true", "hidden_size: found True", hidden_size=True),
    changed("a width that is a list", r"hidden_size: found \[4\]", hidden_size=[4]),
    changed("a width of 2^63", "hidden_size: found 9223372036854775808", hidden_size=1 << 63),
    changed("a width of 10^4000", "hidden_size: found 1000", hidden_size=10**4000),
    changed("no layers", "num_hidden_layers: found 0", num_hidden_layers=0),
    changed("2^40 layers", "num_hidden_layers", num_hidden_layers=1 << 40),
    changed("a layer more than there is", "tensors: found no model.layers.1", num_hidden_layers=2),
    changed("a thousand layers more than there are", "tensors: found no model.layers.1", num_hidden_layers=1001),
    changed("no heads, by which the width is divided", "num_attention_heads: found 0", num_attention_heads=0),
    changed("three heads in a width of four", "num_attention_heads: found 3", num_attention_heads=3),
    changed("heads of one number, which RoPE cannot turn", "head_dim: found 1", num_attention_heads=4),
    changed("no key heads, by which the heads are divided", "num_key_value_heads: found 0", num_key_value_heads=0),
    changed("more key than query heads", "num_key_value_heads: found 4", num_key_value_heads=4),
    changed("key heads as an object", "num_key_value_heads: found {}", num_key_value_heads={}),
    changed("an odd head size", "head_dim: found 3", head_dim=3),
    changed("heads larger than the weights", "shape of model.layers.0.self_attn.q_proj.weight", head_dim=4),
    changed("a negative head size", "head_dim: found -2", head_dim=-2),
    changed("a mlp of no width", "intermediate_size: found 0", intermediate_size=0),
    changed("a mlp wider than the weights", "shape of model.layers.0.mlp", intermediate_size=7),
    changed("a mlp of 2^30", "intermediate_size: found 1073741824", intermediate_size=1 << 30),
    changed("no vocabulary", "vocab_size: found None", vocab_size=...),
    changed("a vocabulary of -1", "vocab_size: found -1", vocab_size=-1),
    changed("a vocabulary one larger than the embedding", "shape of model.embed_tokens.weight", vocab_size=6),
    changed("a vocabulary of 2^32 + 5, which wraps to the right one", "vocab_size", vocab_size=(1 << 32) + 5),
    changed("a context of no tokens", "max_position_embeddings: found 0", max_position_embeddings=0),
    changed("a context of 2^62 tokens", "max_position_embeddings", max_position_embeddings=1 << 62),
    changed("an untied head that is not there", "tensors: found no lm_head.weight", tie_word_embeddings=False),
    changed("ties as a text", "tie_word_embeddings: found false", tie_word_embeddings="false"),
    changed("ties as a number", "tie_word_embeddings: found 1", tie_word_embeddings=1),
    changed("an epsilon of 0", "rms_norm_eps: found 0", rms_norm_eps=0),
    changed("a negative epsilon", "rms_norm_eps: found -1e-05", rms_norm_eps=-1e-5),
    changed("an epsilon as a text", "rms_norm_eps: found 1e-5", rms_norm_eps="1e-5"),
    changed("an epsilon of 10^6", "rms_norm_eps: found 1000000", rms_norm_eps=1_000_000),
    changed("a theta of 0", "rope_theta: found 0", rope_theta=0),
    changed("a theta of -10000", "rope_theta: found -10000", rope_theta=-10000.0),
    changed("a theta that is a list", "rope_theta: found", rope_theta=[10000.0]),
    case("an infinite theta", "rope_theta: found inf", lambda: json.dumps(CONFIG).encode()[:-1] + b', "rope_theta": 1e999}'),
    changed("a theta of 10^400", "rope_theta: found 1000", rope_theta=10**400),
    case(
        "a theta that is not a number",
        "content: found the number NaN",
        lambda: json.dumps(CONFIG | {"rope_theta": float("nan")}).encode(),
    ),
    changed("a scaling that is a number", "rope_scaling: found 8", rope_scaling=8.0),
    scaled("a scaling of a kind that we do not know", "rope_scaling", rope_type="longrope", factor=4.0),
    scaled("a scaling without its factor", "rope_scaling", rope_type="linear"),
    scaled("a scaling by 0", "rope_scaling", rope_type="linear", factor=0.0),
    scaled("a scaling by -2", "rope_scaling", rope_type="linear", factor=-2.0),
    scaled("a scaling by a text", "rope_scaling", rope_type="linear", factor="2"),
    scaled("Llama 3's scaling of half a token", "rope_scaling", **LLAMA3 | {"original_max_position_embeddings": 0.5}),
    scaled("Llama 3's scaling without its context", "rope_scaling", **LLAMA3),
    scaled("Llama 3's scaling with its bounds exchanged", "rope_scaling", **LLAMA3 | CONTEXT | {"low_freq_factor": 8.0}),
    scaled("Llama 3's scaling with equal bounds", "rope_scaling", **LLAMA3 | CONTEXT | {"low_freq_factor": 4.0}),
    beside("ends of texts beyond the vocabulary", "eos_token_id: found 5", GENERATION, b'{"eos_token_id": 5}'),
    beside("an end of texts in a list that is a text", "eos_token_id: found", GENERATION, b'{"eos_token_id": [1, "2"]}'),
    beside("an end of texts of -2", "eos_token_id: found -2", GENERATION, b'{"eos_token_id": -2}'),
    beside("an end of texts of 10^400", "eos_token_id: found 1000", GENERATION, b'{"eos_token_id": 1%s}' % (b"0" * 400)),
    beside("an end of texts that is an object", "eos_token_id: found", GENERATION, b'{"eos_token_id": {"1": 2}}'),
    beside("generation without an end", "content: found", GENERATION, b'{"eos_token_id": '),
    beside("an empty chat template", "file size: found 0", "chat_template.jinja", b""),
    beside("a chat template of Latin-1", "content: found 'utf-8'", "chat_template.jinja", b"{{ '\xfc' }}"),
    beside("a chat template of two megabytes", "file size", "chat_template.jinja", b"a" * (2 << 20)),
    beside("a chat template that is a number", "chat_template: found 7", "tokenizer_config.json", b'{"chat_template": 7}'),
]
