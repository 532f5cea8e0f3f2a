"""config.json by itself: configs as they are published are read, others are refused by name.

Every field with hostile values is in test_huggingface.py.
"""

import pytest

from llamita.config import ModelConfig
from llamita.errors import ModelFileError
from llamita.formats.huggingface_config import parse_config

SIZES: dict[str, object] = {
    "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_hidden_layers": 30,
    "num_key_value_heads": 3, "vocab_size": 49152,
}  # fmt: skip
SMOLLM2 = SIZES | {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
    "eos_token_id": [2, 0], "hidden_act": "silu", "initializer_range": 0.041666666666666664, "is_llama_config": True,
    "max_position_embeddings": 8192, "mlp_bias": False, "model_type": "llama", "pad_token_id": 2, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers.js_config": {"dtype": "q4"}, "use_cache": True,
}  # fmt: skip
MISTRAL = SIZES | {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "bos_token_id": 1, "eos_token_id": None,
    "head_dim": None, "max_position_embeddings": 32768, "sliding_window": None, "rope_theta": 1000000.0,
}  # fmt: skip


def test_the_config_of_smollm2_is_read():
    expected = ModelConfig(576, 30, 9, 3, 1536, 49152, 8192, head_size=64, rope_theta=100000.0)
    assert parse_config(SMOLLM2, "config.json") == expected


def test_a_mistral_is_a_llama():
    expected = ModelConfig(
        576, 30, 9, 3, 1536, 49152, 32768, rope_theta=1000000.0, norm_epsilon=1e-6, tied_embedding=False
    )  # fmt: skip
    assert parse_config(MISTRAL, "config.json") == expected


def test_a_mistral_sees_no_more_than_its_window():
    assert parse_config(MISTRAL | {"sliding_window": 4096}, "config.json").context == 4096
    assert parse_config(MISTRAL | {"sliding_window": 1 << 20}, "config.json").context == 32768


def test_what_a_mistral_leaves_out_is_as_its_own_config_has_it():
    absent = ("sliding_window", "max_position_embeddings", "num_key_value_heads")
    bare = {name: value for name, value in MISTRAL.items() if name not in absent}
    config = parse_config(bare | {"num_attention_heads": 16}, "config.json")
    assert (config.context, config.n_kv_heads) == (4096, 8)


@pytest.mark.parametrize("kind", ["qwen2", "gemma", "phi3", "mixtral", "gpt2", "llama4"])
def test_another_architecture_is_refused_by_name(kind):
    with pytest.raises(ModelFileError, match=rf"model_type: found {kind}, expected llama or mistral; llamita runs"):
        parse_config(SMOLLM2 | {"model_type": kind}, "config.json")


def test_an_architecture_that_is_not_that_of_the_type_is_refused():
    with pytest.raises(ModelFileError, match=r"architectures: found \['LlamaForSequenceClassification'\], expected"):
        parse_config(SMOLLM2 | {"architectures": ["LlamaForSequenceClassification"]}, "config.json")
