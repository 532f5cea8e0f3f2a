"""A GGUF file of a Llama, in one piece or in shards, as a Model: weights, config, vocabulary and chat template.

What llama.cpp and all around it run. Float tensors, Q8_0, Q4_0 and Q4_1 are views of the mapped file that the engine reads as
they are; other blocks stay as they lie, too. RoPE pairs are neighbours there as here, so no row moves. Source: llama.cpp's
llama-arch.cpp (names) and docs/gguf.md.
"""

import math
import mmap
import re
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llamita.config import LIMITS, ModelConfig
from llamita.errors import ModelFileError
from llamita.files import map_file
from llamita.formats.gguf_config import ROPE_FACTORS, parse_config
from llamita.formats.gguf_file import Metadata, Place, check_data, parse_header
from llamita.formats.gguf_types import BLOCKS, NUMBER_CODES
from llamita.formats.json_text import shown
from llamita.formats.lfs_pointer import check_no_pointer
from llamita.formats.tied_head import have_same_bits
from llamita.model import Model, tensor_shapes
from llamita.quant import GGML_DTYPES, Tensor
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.marks import end_ids

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")  # as llama-gguf-split names them
END_KEYS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
TEMPLATE_KEY = "tokenizer.chat_template"

_NAMES = {"embedding": "token_embd.weight", "norm": "output_norm.weight", "head": "output.weight"}
_LAYER_NAMES = {
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.output": "attn_output",
    "mlp_norm": "ffn_norm",
    "mlp.gate": "ffn_gate",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
}
_MAX_SHARDS = 1024
_MAX_MERGES = 16  # for each token; Llama 3 has two
_OLD_BUFFER = re.compile(r"rope\.freqs|blk\.\d+\.attn_rot_embd")  # which old versions saved, and all recompute


class _Stored(NamedTuple):
    """A tensor in a file: the mapped file, and the place in it."""

    path: Path
    data: mmap.mmap
    place: Place


@np.errstate(over="ignore", invalid="ignore")  # numbers that become float32 may be anything
def read(path: str | PathLike[str], vocabulary: bool = True) -> Model:
    """Read a GGUF file, or all shards of which it is the first, as a Model of read-only views.

    vocabulary: with the tokenizer that the file holds, if any. Raises ModelFileError for anything but a Llama whose tensors are
    all there, and nothing else is.
    """
    from llamita.formats.gguf_vocabulary import read_vocabulary

    version, metadata, stored = _open(Path(path))
    config = _config(path, metadata, stored)
    _split_fused(stored, config)
    tensors = {name: _take(path, stored, gguf_name(name), shape) for name, shape in tensor_shapes(config).items()}
    if left := [name for name in stored if not _OLD_BUFFER.fullmatch(name.removesuffix(".weight"))]:
        raise ModelFileError(path, "tensors", shown(min(left)), "only those of a Llama without biases and experts")
    if not config.tied_embedding and have_same_bits(tensors["head"], tensors["embedding"]):
        config = replace(config, tied_embedding=True)
        del tensors["head"]
    if vocabulary:
        _check_lengths(path, metadata, config.vocab_size)
    tokenizer = read_vocabulary(metadata, path) if vocabulary else None
    return Model(
        config,
        tensors,
        tokenizer,
        name=fspath(path),
        source_format=f"GGUF v{version}",
        chat_template=_chat_template(path, metadata),
        stop_ids=_stop_ids(metadata, config.vocab_size, tokenizer),
    )


def gguf_name(name: str) -> str:
    """The name of a canonical tensor in the file.

    >>> gguf_name("layers.3.mlp.gate")
    'blk.3.ffn_gate.weight'
    """
    if name in _NAMES:
        return _NAMES[name]
    _, layer, part = name.split(".", 2)
    return f"blk.{layer}.{_LAYER_NAMES[part]}.weight"


def weight_paths(path: str | PathLike[str]) -> list[Path]:
    """The file itself, or where its name is that of a shard, all shards that lie beside it."""
    path = Path(path)
    shard = _SHARD.fullmatch(path.name)
    if shard is None:
        return [path]
    n_shards = min(int(shard[3]), _MAX_SHARDS)
    names = (f"{shard[1]}-{i:05d}-of-{shard[3]}.gguf" for i in range(1, n_shards + 1))
    return [beside for beside in map(path.with_name, names) if beside.exists()] or [path]


def _open(path: Path) -> tuple[int, Metadata, dict[str, _Stored]]:
    """The version and the metadata of a file or of its first shard, and the tensors of all shards by their names there."""
    version, metadata, stored = _open_one(path)
    n_shards = metadata.get("split.count", 1)
    if n_shards in (0, 1):
        return version, metadata, stored
    paths = weight_paths(path)
    if metadata.get("split.no") != 0 or paths[0] != path:
        raise ModelFileError(path, "split.no", shown(metadata.get("split.no")), "0, the first shard", "name that one")
    if len(paths) != n_shards:
        found = f"{len(paths)} shards named {paths[0].name} and on"
        raise ModelFileError(path, "split.count", found, shown(n_shards), "is the download complete?")
    for i, shard_path in enumerate(paths[1:], 1):
        _, shard_metadata, shard = _open_one(shard_path)
        if shard_metadata.get("split.no") != i:
            raise ModelFileError(shard_path, "split.no", shown(shard_metadata.get("split.no")), i)
        if twice := set(shard) & set(stored):
            raise ModelFileError(shard_path, "tensors", f"{shown(min(twice))} in two shards", "each tensor in one")
        stored |= shard
    return version, metadata, stored


def _open_one(path: Path) -> tuple[int, Metadata, dict[str, _Stored]]:
    data = map_file(path)
    check_no_pointer(path, data)
    header = parse_header(path, data)
    check_data(path, data, header)
    return header.version, header.metadata, {name: _Stored(path, data, place) for name, place in header.places.items()}


def _config(path: str | PathLike[str], metadata: Metadata, stored: dict[str, _Stored]) -> ModelConfig:
    """The config as the metadata and the embedding's shape have it, tied where no head is stored; takes RoPE's factors out."""
    embedding = stored.get(_NAMES["embedding"])
    vocab_size = embedding.place.shape[0] if embedding and len(embedding.place.shape) == 2 else 1
    factors, numbers = stored.pop(ROPE_FACTORS, None), None
    if factors is not None:
        if not 1 <= math.prod(factors.place.shape) <= LIMITS["head_size"]:
            raise ModelFileError(path, f"shape of {ROPE_FACTORS}", factors.place.shape, "one number for each pair of a head")
        numbers = _tensor(factors).dequantize().reshape(-1)
    if not 1 <= vocab_size <= LIMITS["vocab_size"]:
        raise ModelFileError(path, f"rows of {_NAMES['embedding']}", vocab_size, f"1 to {LIMITS['vocab_size']}")
    config = parse_config(metadata, path, vocab_size, numbers)
    return replace(config, tied_embedding=_NAMES["head"] not in stored)


def _split_fused(stored: dict[str, _Stored], config: ModelConfig) -> None:
    """Put query, key and value of each layer in the place of one tensor that holds them one behind the other."""
    n_rows = {"query": config.query_width, "key": config.kv_width, "value": config.kv_width}
    for i in range(config.n_layers):
        name = f"blk.{i}.attn_qkv.weight"
        fused = stored.pop(name, None)
        if fused is None:
            continue
        kind, shape, offset, n_bytes = fused.place
        if shape != (expected := (sum(n_rows.values()), config.width)):
            raise ModelFileError(fused.path, f"shape of {name}", shape, f"{expected} as the metadata say")
        for part, n in n_rows.items():
            place = Place(kind, (n, config.width), offset, n_bytes // shape[0] * n)
            stored[gguf_name(f"layers.{i}.attention.{part}")] = fused._replace(place=place)
            offset += place.n_bytes


def _take(path: str | PathLike[str], stored: dict[str, _Stored], name: str, shape: tuple[int, ...]) -> Tensor:
    """Take a tensor out of those stored; norms come as float32."""
    found = stored.pop(name, None)
    if found is None:
        raise ModelFileError(path, "tensors", f"no {name}", "one, as the metadata say", "is it a whole model?")
    if found.place.shape != shape:
        raise ModelFileError(found.path, f"shape of {name}", found.place.shape, f"{shape} as the metadata say")
    tensor = _tensor(found)
    return tensor if len(shape) == 2 else Tensor("f32", shape, tensor.dequantize())


def _tensor(stored: _Stored) -> Tensor:
    """A view of the file, but for numbers that no compiled code can read in place."""
    kind, shape, offset, n_bytes = stored.place
    if kind.name in NUMBER_CODES:
        array = np.frombuffer(stored.data, NUMBER_CODES[kind.name], n_bytes // kind.n_bytes, offset).reshape(shape)
        if kind.name == "f64":
            return Tensor("f32", shape, array.astype(np.float32))
        return Tensor(kind.name, shape, array if array.flags.aligned else array.copy())
    n_rows = shape[0] if len(shape) == 2 else 1
    if kind.name in BLOCKS:
        blocks = np.frombuffer(stored.data, BLOCKS[kind.name], n_bytes // kind.n_bytes, offset).reshape(n_rows, -1)
        blocks = blocks.copy() if offset % 2 else blocks
        return Tensor(kind.name, shape, **{part: blocks[part] for part in BLOCKS[kind.name].names or ()})
    if kind.name not in GGML_DTYPES:
        raise ModelFileError(stored.path, "tensor type", kind.name.upper(), "floats or blocks of weights", "convert it to Q8_0")
    return Tensor(kind.name, shape, np.frombuffer(stored.data, np.uint8, n_bytes, offset).reshape(n_rows, -1))


def _check_lengths(path: str | PathLike[str], metadata: Metadata, vocab_size: int) -> None:
    """Refuse a vocabulary of another size than the model's before it is decoded: a hostile one may be huge."""
    for name in ("tokens", "scores", "token_type"):
        n_items = metadata.n_items(key := f"tokenizer.ggml.{name}")
        if n_items not in (-1, vocab_size):
            raise ModelFileError(path, key, f"{n_items} of them", f"{vocab_size} as the embedding has rows")
    if (n_merges := metadata.n_items(key := "tokenizer.ggml.merges")) > _MAX_MERGES * vocab_size:
        raise ModelFileError(path, key, f"{n_merges} of them", f"at most {_MAX_MERGES} for each token")


def _chat_template(path: str | PathLike[str], metadata: Metadata) -> str:
    template = metadata.get(TEMPLATE_KEY, "")
    if not isinstance(template, str):
        raise ModelFileError(path, TEMPLATE_KEY, shown(template), "a text")
    return template


def _stop_ids(metadata: Metadata, vocab_size: int, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """The ids that end a text: those that the file names, and those that are spelled so, as most files name EOS only."""
    named = (metadata.get(key) for key in END_KEYS)
    ids = [i for i in named if isinstance(i, int) and 0 <= i < vocab_size]  # -1 is stored as 4294967295
    return tuple(dict.fromkeys(ids + list(end_ids(tokenizer) if tokenizer else ())))
