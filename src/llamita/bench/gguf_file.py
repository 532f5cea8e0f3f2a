"""Write a Model as GGUF for llama.cpp to run: weights and config, no vocabulary. For benchmarks only.

Needs the package gguf (pip install gguf), which the rest of llamita does not.
"""

from importlib import import_module
from pathlib import Path

import numpy as np

from llamita.errors import SettingError
from llamita.model import LAYER_MATRICES, Model
from llamita.quant import Tensor

MATRIX_NAMES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")  # of LAYER_MATRICES
LAYER_NAMES = dict(zip(LAYER_MATRICES, MATRIX_NAMES, strict=True)) | {"attention_norm": "attn_norm", "mlp_norm": "ffn_norm"}
OUTER_NAMES = {"embedding": "token_embd", "norm": "output_norm", "head": "output"}
BLOCK = 32  # weights that share a scale in GGUF's Q8_0


def write_gguf(model: Model, path: Path) -> None:
    """Write the model with its weights as they are. Raises SettingError without the package or for odd groups."""
    try:
        gguf = import_module("gguf")
    except ImportError:
        raise SettingError("the package gguf is missing, which writes the model for llama.cpp: pip install gguf") from None
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    for name, tensor in model.tensors.items():
        data, kind = gguf_data(tensor)
        writer.add_tensor(gguf_name(name), data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    """The name that llama.cpp has for a canonical tensor."""
    if not name.startswith("layers."):
        return f"{OUTER_NAMES[name]}.weight"
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{LAYER_NAMES[rest]}.weight"


def gguf_data(tensor: Tensor) -> tuple[np.ndarray, str]:
    """(the numbers as GGUF lays them out, the name of their type); raw bytes [rows, bytes] for BF16 and blocks."""
    if tensor.scales is None:
        data = np.asarray(tensor.data).reshape(tensor.shape)
        return data.view(np.uint8) if tensor.dtype == "bf16" else data, tensor.dtype.upper()
    rows, columns = tensor.shape
    if tensor.dtype != "q8_0":
        numbers = [part for part in (tensor.scales, tensor.offsets) if part is not None]
        parts = [part.astype(np.float16)[..., None].view(np.uint8) for part in numbers]
        return np.concatenate([*parts, tensor.data], axis=2).reshape(rows, -1), tensor.dtype.upper()
    if tensor.group % BLOCK:
        raise SettingError(f"groups: found {tensor.group} weights, expected a multiple of {BLOCK} for llama.cpp's Q8_0")
    scales = np.repeat(tensor.scales.astype(np.float16), tensor.group // BLOCK, axis=1)
    blocks = np.empty((rows, columns // BLOCK, 2 + BLOCK), np.uint8)
    blocks[..., :2] = scales[..., None].view(np.uint8)
    blocks[..., 2:] = np.ascontiguousarray(tensor.data).reshape(rows, columns // BLOCK, BLOCK).view(np.uint8)
    return blocks.reshape(rows, -1), "Q8_0"
