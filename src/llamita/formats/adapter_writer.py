"""An adapter's folder in PEFT's format, written: adapter_model.safetensors, then adapter_config.json. adapter.py reads it.

B of queries and keys gets its rows in Hugging Face's order, as huggingface_writer.py does with the weights. Rows of tokens
become PEFT's trainable tokens: few numbers, but whoever opens them with PEFT must first resize the embedding of a model with
fewer rows. Holds what we train: pairs in the layers, and rows. Writes no tokenizer.
"""

import json
from os import PathLike

import numpy as np

from llamita.config import ModelConfig
from llamita.errors import ModelError
from llamita.files import atomic_file, atomic_folder
from llamita.formats.adapter import HIGH, LOW, ROWS, Adapter, module_name, stored_name
from llamita.formats.adapter_config import AdapterConfig, adapter_config_values
from llamita.formats.file_names import ADAPTER_CONFIG_NAME, ADAPTER_TORCH_NAME, ADAPTER_WEIGHTS_NAME
from llamita.formats.huggingface import rotated_heads
from llamita.formats.huggingface_writer import to_halves
from llamita.formats.safetensors import write_tensors
from llamita.model import tensor_shapes


def write_adapter(adapter: Adapter, folder: str | PathLike[str], config: ModelConfig) -> None:
    """Write an adapter for models of this config; its float32 numbers come back from read_adapter bit for bit.

    A new folder appears whole or not at all; in one that is there each file is replaced whole, adapter_config.json last, and
    other files stay. Raises ModelError for an adapter that does not fit the config, ModelFileError where it cannot be written.
    """
    arrays = _arrays(adapter, config)
    values = adapter_config_values(_described(adapter, config))
    with atomic_folder(folder) as target:
        write_tensors(target / ADAPTER_WEIGHTS_NAME, arrays)
        (target / ADAPTER_TORCH_NAME).unlink(missing_ok=True)
        with atomic_file(target / ADAPTER_CONFIG_NAME) as file:
            file.write(json.dumps(values, indent=2).encode() + b"\n")


def _arrays(adapter: Adapter, config: ModelConfig) -> dict[str, np.ndarray]:
    """Name in the file -> numbers."""
    if adapter.whole or adapter.unties:
        raise ModelError(f"{adapter.name}: found whole tensors or an untied head, expected pairs and rows only")
    shapes = {name: shape for name, shape in tensor_shapes(config).items() if len(shape) == 2}
    arrays = {}
    for name, (low, high) in adapter.pairs.items():
        if not name.startswith("layers.") or (len(high), low.shape[1]) != shapes.get(name) or high.shape[1] != len(low):
            raise ModelError(f"{adapter.name}: {name}: found A {low.shape}, B {high.shape}, expected those of a layer's matrix")
        arrays[stored_name(name, LOW)] = low
        is_turned = rotated_heads(config, name) > 0
        arrays[stored_name(name, HIGH)] = to_halves(high, config.head_size).reshape(high.shape) if is_turned else high
    for name, (ids, rows) in adapter.rows.items():
        if name.startswith("layers.") or name not in shapes or rows.shape != (len(ids), config.width):
            raise ModelError(f"{adapter.name}: rows of {name}: found {rows.shape}, expected {(len(ids), config.width)}")
        arrays[stored_name(name, ROWS)] = rows
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def _described(adapter: Adapter, config: ModelConfig) -> AdapterConfig:
    modules = {name: module_name(name) for name in adapter.pairs}
    ranks = {module: rank for name, module in modules.items() if (rank := len(adapter.pairs[name][0])) != adapter.rank}
    return AdapterConfig(
        rank=adapter.rank,
        alpha=adapter.alpha,
        dropout=adapter.dropout,
        use_rslora=adapter.use_rslora,
        base=adapter.base,
        ranks=ranks,
        alphas={modules[name]: alpha for name, alpha in adapter.alphas.items()},
        targets=_targets(set(modules.values()), config),
        token_ids={module_name(name).rpartition(".")[2]: tuple(ids.tolist()) for name, (ids, _) in adapter.rows.items()},
    )


def _targets(modules: set[str], config: ModelConfig) -> tuple[str, ...]:
    """The last parts of the modules' names where all layers have the same ones, else the whole names."""
    ends = {module.rpartition(".")[2] for module in modules}
    of_ends = {module_name(name) for name in tensor_shapes(config) if module_name(name).rpartition(".")[2] in ends}
    return tuple(sorted(ends if of_ends == modules else modules))
