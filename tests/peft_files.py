"""Folders of adapters as PEFT 0.21 writes them, made without it: names, fields and order of rows are those of its files.

tests/slow/test_peft.py compares them with what PEFT itself writes and reads.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llamita.config import ModelConfig

PREFIX = "base_model.model."
PLAIN: dict[str, object] = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": None,
    "base_model_name_or_path": "/models/base",
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "kasa_config": None,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 6,
    "lora_bias": False,
    "lora_dropout": 0.05,
    "lora_ga_config": None,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "monteclora_config": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "r": 4,
    "rank_pattern": {},
    "revision": None,
    "target_modules": [],
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
    "velora_config": None,
}
CODES = {"float32": "F32", "float16": "F16", "uint16": "BF16", "int64": "I64"}


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """(out, in) of every matrix of a Llama that LoRA can change, by the names of its modules in transformers."""
    width, mlp = config.width, config.mlp_width
    shapes = {"model.embed_tokens": (config.vocab_size, width), "lm_head": (config.vocab_size, width)}
    for i in range(config.n_layers):
        layer = f"model.layers.{i}"
        shapes |= {
            f"{layer}.self_attn.q_proj": (config.query_width, width),
            f"{layer}.self_attn.k_proj": (config.kv_width, width),
            f"{layer}.self_attn.v_proj": (config.kv_width, width),
            f"{layer}.self_attn.o_proj": (width, config.query_width),
            f"{layer}.mlp.gate_proj": (mlp, width),
            f"{layer}.mlp.up_proj": (mlp, width),
            f"{layer}.mlp.down_proj": (width, mlp),
        }
    return shapes


def pairs_of(config: ModelConfig, ends: tuple[str, ...], rank: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Random A and B of all modules with these last parts, by their names in the file."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for module, (out, columns) in shapes_of(config).items():
        if module.rpartition(".")[2] in ends:
            shapes = {"lora_A.weight": (rank, columns), "lora_B.weight": (out, rank)}
            if module == "model.embed_tokens":
                shapes = {"lora_embedding_A": (rank, out), "lora_embedding_B": (columns, rank)}
            for kind, shape in shapes.items():
                arrays[f"{PREFIX}{module}.{kind}"] = rng.normal(0, 0.3, shape).astype(np.float32)
    return arrays


def safetensors_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A safetensors file of these arrays."""
    header, data = {}, b""
    for name, array in arrays.items():
        span = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": span}
        data += array.tobytes()
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    return struct.pack("<Q", len(text)) + text + data


def write_folder(folder: Path, arrays: Mapping[str, np.ndarray], **fields: object) -> Path:
    """An adapter's folder: the fields of its config that are not PLAIN's, and its arrays."""
    folder.mkdir(exist_ok=True)
    ends = sorted({name.removeprefix(PREFIX).rpartition(".lora_")[0].rpartition(".")[2] for name in arrays} - {""})
    config = PLAIN | {"target_modules": ends} | fields
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(arrays))
    return folder
