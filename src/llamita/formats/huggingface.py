"""A Hugging Face folder of a Llama, read: config.json and the weights in one file or shards, safetensors or torch's.

huggingface_writer.py is the other direction. Tensors keep their dtype and stay views of mapped files. Query and key rows lie in
another order there: RoPE pairs row i of a head with row i + K/2, where canonical pairs are neighbours. Reading turns the view,
not the rows: whoever needs dense rows copies them. Source: transformers' modeling_llama.py.
"""

from collections.abc import Callable
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np

from llamita.config import ModelConfig
from llamita.errors import ModelFileError
from llamita.files import read_file
from llamita.formats.file_names import CONFIG_NAME, INDEX_NAME, TORCH_INDEX_NAME, TORCH_WEIGHTS_NAME, WEIGHTS_NAME
from llamita.formats.huggingface_config import parse_config
from llamita.formats.huggingface_extras import read_chat_template, read_stop_ids
from llamita.formats.json_text import MAX_TEXT_BYTES, parse_object, shown
from llamita.formats.safetensors import read_tensors
from llamita.formats.tied_head import have_same_bits
from llamita.formats.torch_file import read_weights
from llamita.model import Model, tensor_shapes
from llamita.quant import Tensor


class _Storage(NamedTuple):
    """One of the ways in which weights lie in a folder: a file, or else shards that an index lists."""

    file_name: str
    index_name: str
    read: Callable[[Path], dict[str, Tensor]]


_STORAGES = (  # the first that is there counts, as in transformers
    _Storage(WEIGHTS_NAME, INDEX_NAME, read_tensors),
    _Storage(TORCH_WEIGHTS_NAME, TORCH_INDEX_NAME, read_weights),
)

_NAMES = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
_LAYER_NAMES = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}
_OLD_BUFFER = ".rotary_emb.inv_freq"  # which old versions saved, and all recompute


def read(folder: str | PathLike[str]) -> Model:
    """Read a folder with config.json and model.safetensors, or its shards, as a Model of read-only views without a tokenizer.

    Raises ModelFileError for anything but a Llama whose tensors are all there, and nothing else is.
    """
    folder = Path(folder)
    config = read_config(folder / CONFIG_NAME)
    stored = {name: tensor for name, tensor in _stored(folder).items() if not name.endswith(_OLD_BUFFER)}
    config = _tie(config, stored)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        stored_name = huggingface_name(name)
        tensor = stored.pop(stored_name, None)
        if tensor is None:
            raise ModelFileError(folder, "tensors", f"no {stored_name}", "one, as config.json says")
        if tensor.shape != shape:
            raise ModelFileError(folder, f"shape of {stored_name}", tensor.shape, f"{shape} as config.json says")
        n_heads = rotated_heads(config, name)
        tensors[name] = replace(tensor, data=to_neighbours(tensor.data, n_heads)) if n_heads else tensor
    if stored:
        raise ModelFileError(folder, "tensors", shown(min(stored)), "only those of a Llama without biases")
    return Model(
        config,
        tensors,
        name=fspath(folder),
        source_format="Hugging Face",
        chat_template=read_chat_template(folder),
        stop_ids=read_stop_ids(folder, config.vocab_size),
    )


def read_config(path: str | PathLike[str]) -> ModelConfig:
    """Read the config.json of a Llama; raise ModelFileError."""
    return parse_config(read_json(path), path)


def read_json(path: str | PathLike[str]) -> dict[str, object]:
    """Read a file that holds one JSON object; raise ModelFileError."""
    return parse_object(read_file(path, MAX_TEXT_BYTES), path)


def weight_paths(folder: str | PathLike[str]) -> list[Path]:
    """The files that hold the weights of a folder: safetensors before torch's, one file before shards, as in transformers."""
    folder = Path(folder)
    storage = _storage(folder)
    if (folder / storage.file_name).exists() or not (folder / storage.index_name).exists():
        return [folder / storage.file_name]
    return sorted({folder / shard for shard in _weight_map(folder, storage).values()})


def huggingface_name(name: str) -> str:
    """The name of a canonical tensor in the folder.

    >>> huggingface_name("layers.3.mlp.gate")
    'model.layers.3.mlp.gate_proj.weight'
    """
    if name in _NAMES:
        return _NAMES[name]
    _, layer, part = name.split(".", 2)
    return f"model.layers.{layer}.{_LAYER_NAMES[part]}.weight"


def rotated_heads(config: ModelConfig, name: str) -> int:
    """How many heads a tensor has whose rows RoPE turns; 0 where it turns none."""
    return {"attention.query": config.n_heads, "attention.key": config.n_kv_heads}.get(name.split(".", 2)[-1], 0)


def to_neighbours(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """View rows (heads * K, D) of Hugging Face's order in the canonical one: (heads, K/2, 2, D)."""
    return rows.reshape(n_heads, 2, len(rows) // n_heads // 2, -1).swapaxes(1, 2)


def _tie(config: ModelConfig, stored: dict[str, Tensor]) -> ModelConfig:
    """The config with tied_embedding as the tensors have it; a head that repeats the embedding is taken out of `stored`.

    As in transformers, a head with numbers of its own counts, whatever config.json says about ties.
    """
    name, embedding = huggingface_name("head"), stored.get(huggingface_name("embedding"))
    head = stored.get(name)
    if not config.tied_embedding or head is None or embedding is None:
        return config
    if not have_same_bits(head, embedding):
        return replace(config, tied_embedding=False)
    del stored[name]
    return config


def _storage(folder: Path) -> _Storage:
    there = (storage for storage in _STORAGES if any((folder / name).exists() for name in storage[:2]))
    return next(there, _STORAGES[0])


def _stored(folder: Path) -> dict[str, Tensor]:
    """All tensors by their names in the files."""
    paths, storage = weight_paths(folder), _storage(folder)
    if paths == [folder / storage.file_name]:
        return storage.read(paths[0])
    places = _weight_map(folder, storage)
    tensors: dict[str, Tensor] = {}
    for path in paths:
        found = storage.read(path)
        expected = {name for name, shard in places.items() if shard == path.name}
        if differing := sorted(expected ^ set(found)):
            state = "lies there unlisted" if differing[0] in found else "is missing"
            lists = f"those that {storage.index_name} lists"
            raise ModelFileError(path, "tensors", f"{shown(differing[0])}, which {state}", lists)
        tensors |= found
    return tensors


def _weight_map(folder: Path, storage: _Storage) -> dict[str, str]:
    """Tensor name -> name of its shard in the same folder."""
    path, suffix = folder / storage.index_name, Path(storage.file_name).suffix
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(path, "weight_map", shown(weight_map), "an object of file names")
    for name, shard in weight_map.items():
        is_name = isinstance(shard, str) and PureWindowsPath(shard).name == shard  # on any system: no folder, no drive
        if not is_name or not shard.endswith(suffix) or not shard.isprintable():
            raise ModelFileError(path, f"weight_map of {shown(name)}", shown(shard), f"the name of a {suffix} file beside it")
    return weight_map
