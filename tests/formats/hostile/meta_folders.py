"""Hostile folders of Meta: params.json and shards of torch.save; and of Hugging Face with a pytorch_model.bin."""

import json
from collections.abc import Callable, Mapping
from math import prod

from hostile import safetensors
from hostile.case import Case
from hostile.torch_layout import ARGS, SHAPES
from torch_files import pickled, storage, tensor, wrapped

NORM = "norm.weight"
QUERY = "layers.0.attention.wq.weight"
PARAMS = {name: ARGS[name] for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "multiple_of")} | {"vocab_size": -1}
LLAMA3 = PARAMS | {"rope_theta": 500000.0, "use_scaled_rope": True}
BY_COLUMNS = ("attention.wo.weight", "feed_forward.w2.weight", "tok_embeddings.weight")


def weights(shapes: dict[str, tuple[int, ...]], kind: str = "FloatStorage", n_bytes: int = 4) -> bytes:
    """A file of torch.save with zeros of these shapes."""
    state = {name: tensor(storage(kind, str(i), prod(shape)), shape) for i, (name, shape) in enumerate(shapes.items())}
    return wrapped(pickled(state), {str(i): bytes(n_bytes * prod(shape)) for i, shape in enumerate(shapes.values())})


def half() -> dict[str, tuple[int, ...]]:
    """The shapes of one of two shards: every matrix cut along its axis."""
    shapes = dict(SHAPES)
    for name, shape in SHAPES.items():
        if len(shape) == 2:
            shapes[name] = (shape[0], shape[1] // 2) if name.endswith(BY_COLUMNS) else (shape[0] // 2, shape[1])
    return shapes


def case(fault: str, field: str, params: object = PARAMS, **shards: Callable[[], bytes]) -> Case:
    """A folder of params and of shards by number; one sound shard where none is given."""

    def files() -> dict[str, bytes]:
        contents = {f"consolidated.{number[1:]}.pth": content() for number, content in shards.items()}
        data = params if isinstance(params, bytes) else json.dumps(params).encode()
        return {"params.json": data, **(contents or {"consolidated.00.pth": weights(SHAPES)})}

    return Case(fault, field, files, ".")


def changed(fault: str, field: str, base: Mapping[str, object] = PARAMS, **params: object) -> Case:
    """The sound folder with other params; ... takes one out."""
    return case(fault, field, {name: value for name, value in (dict(base) | params).items() if value is not ...})


def huggingface(fault: str, field: str, content: Callable[[], bytes], name: str = "pytorch_model.bin") -> Case:
    """A config.json of Hugging Face with weights of torch."""
    return Case(fault, field, lambda: {"config.json": json.dumps(safetensors.CONFIG).encode(), name: content()}, ".")


def with_tensor(name: str, *shape: int) -> Callable[[], bytes]:
    """The sound shard, with one tensor of another shape."""
    return lambda: weights(SHAPES | {name: shape})


INDEX = "pytorch_model.bin.index.json"
HF_SHAPES = {name: tuple(shape) for name, shape in safetensors.SHAPES.items()}
SOUND = {
    "one shard": case("", ""),
    "two shards": case("", "", _00=lambda: weights(half()), _01=lambda: weights(half())),
    "scaled": case("", "", LLAMA3),
    "pytorch_model.bin": huggingface("", "", lambda: weights(HF_SHAPES)),
}

CASES = [
    case("no params", "file size: found 0", b""),
    case("params cut off", "content: found", b'{"dim": 4, "n_layers": 1'),
    case("params that are a list", r"content: found \[", [PARAMS]),
    case("params of Python", "content: found", repr(PARAMS).encode()),
    case("a param twice", "content: found the name dim twice", b'{"dim": 4, "dim": 8}'),
    case("params of a hundred kilobytes", "file size", PARAMS | {"note": "x" * 100_000}),
    changed("no width", "dim: found None", dim=...),
    changed("a width of 0", "dim: found 0", dim=0),
    changed("a width as a text", "dim: found 4", dim="4"),
    changed("a width of 2^64 + 4", "dim: found 18446744073709551620", dim=(1 << 64) + 4),
    changed("a width that the weights do not have", "width of the MLP|shape of", dim=8),
    changed("no layers", "n_layers: found 0", n_layers=0),
    changed("a thousand layers more than there are", "tensors: found no layers.1", n_layers=1001),
    changed("no heads, by which the width is divided", "n_heads: found 0", n_heads=0),
    changed("three heads", "n_heads: found 3 heads", n_heads=3, n_kv_heads=3),
    changed("no key heads, by which the heads are divided", "n_kv_heads: found 0", n_kv_heads=0),
    changed("heads of one number", "n_heads: found 4 heads of 1", n_heads=4),
    changed("a multiple of 0 for the mlp, by which is divided", "width of the MLP|multiple_of", multiple_of=-1),
    changed("a multiple that makes another mlp", "width of the MLP: found 10", multiple_of=32),
    changed("an infinite multiplier", "ffn_dim_multiplier: found|content", ffn_dim_multiplier=1e999),
    changed("a multiplier of 0", "ffn_dim_multiplier: found 0", ffn_dim_multiplier=0),
    changed("a multiplier of 999", "width of the MLP: found 10", ffn_dim_multiplier=999),
    changed("a negative epsilon", "norm_eps: found -1e-05", norm_eps=-1e-5),
    changed("an epsilon as a text", "norm_eps: found 1e-5", norm_eps="1e-5"),
    changed("a theta of 10^400", "rope_theta: found 1000", rope_theta=10**400),
    changed("a theta of 0", "rope_theta: found 0", rope_theta=0),
    changed("scaled as a text", "use_scaled_rope: found true", use_scaled_rope="true"),
    changed("scaled by 0", "rope_scaling_factor: found 0", LLAMA3, rope_scaling_factor=0),
    changed("scaled with a high frequency below the low one", "rope", LLAMA3, rope_high_freq_factor=0.5),
    changed("scaled with equal frequencies, whose difference divides", "rope", LLAMA3, rope_high_freq_factor=1.0),
    changed("experts", "moe: found", moe={"num_experts": 8}),
    changed("a context of 2^50", "max_seq_len: found", max_seq_len=1 << 50),
    case("a first shard of number 1", "weights: found consolidated.01.pth", _01=lambda: weights(SHAPES)),
    case("a shard left out", "weights: found", _00=lambda: weights(half()), _02=lambda: weights(half())),
    case("a shard without a number", "weights: found|consolidated", _=lambda: weights(SHAPES)),
    case("a shard cut off", "end of the zip file", _00=lambda: weights(SHAPES)[:-10]),
    case("a shard of old torch", "content: found a file of torch before", _00=lambda: b"\x80\x02\x8a\x0a" + bytes(99)),
    case("a shard that is JSON", "content: found first bytes", _00=lambda: json.dumps(PARAMS).encode()),
    case("a shard that holds no tensors", "content: found", _00=lambda: wrapped(pickled({}))),
    case("a second shard of other names", "tensors: found", _00=lambda: weights(half()), _01=lambda: weights({NORM: (4,)})),
    case("a second, whole shard", "width of the MLP: found 15", _00=lambda: weights(half()), _01=lambda: weights(SHAPES)),
    case(
        "a second shard in half precision",
        "pieces of",
        _00=lambda: weights(half()),
        _01=lambda: weights(half(), "HalfStorage", 2),
    ),
    case(
        "a vector for a matrix in the second shard",
        f"pieces of {QUERY}",
        _00=lambda: weights(half()),
        _01=lambda: weights(half() | {QUERY: (8,)}),
    ),
    case("an embedding that is a vector", "shape of tok_embeddings.weight", _00=with_tensor("tok_embeddings.weight", 20)),
    case("an embedding of no rows", "shape of tok_embeddings.weight", _00=with_tensor("tok_embeddings.weight", 0, 4)),
    case("a mlp of no rows", "shape of layers.0.feed", _00=with_tensor("layers.0.feed_forward.w1.weight", 0, 4)),
    case("a key on its side", "shape of layers.0.attention.wk", _00=with_tensor("layers.0.attention.wk.weight", 4, 2)),
    case("a tensor more", "tensors: found layers.0.attention.wq.bias", _00=with_tensor("layers.0.attention.wq.bias", 4)),
    case("a tensor less", f"tensors: found no {NORM}", _00=lambda: weights(dict(list(SHAPES.items())[:-1]))),
    case("float64 weights", "dtype of tok_embeddings.weight", _00=lambda: weights(SHAPES, "DoubleStorage", 8)),
    huggingface("a pytorch_model.bin that is safetensors", "content: found first bytes", safetensors.file),
    huggingface("a pytorch_model.bin of Meta's names", "tensors: found no model.embed_tokens.weight", lambda: weights(SHAPES)),
    huggingface("a pytorch_model.bin with a bias", "tensors: found bias", lambda: weights(HF_SHAPES | {"bias": (4,)})),
    huggingface("a longer norm", "shape of model.norm.weight", lambda: weights(HF_SHAPES | {"model.norm.weight": (5,)})),
    huggingface("an index of torch that leads out", "weight_map of", lambda: b'{"weight_map": {"a": "../model.bin"}}', INDEX),
    huggingface("an index of torch without a map", "weight_map: found", lambda: b"{}", INDEX),
    huggingface("no weights at all", "file: found", lambda: b"weights", "weights.txt"),
]
