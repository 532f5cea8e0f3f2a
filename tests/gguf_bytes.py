"""GGUF files made by hand, byte by byte, without a line of llamita: what tests of the reader and of hostile files damage."""

import math
import random
import struct

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
NUMBERS = (UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, UINT64, INT64, FLOAT64)
FORMATS = dict(zip(NUMBERS, "BbHhIif?Qqd", strict=True))
F32, F16, Q4_0, Q4_1, Q8_0, I8, I64, F64, BF16 = 0, 1, 2, 3, 8, 24, 27, 28, 30
BLOCKS = {F32: (1, 4), F16: (1, 2), Q4_0: (32, 18), Q4_1: (32, 20), Q8_0: (32, 34), I8: (1, 1), F64: (1, 8), BF16: (1, 2)}

# The smallest Llama; dims as the file has them, the row first
KEYS = {
    "general.architecture": (STRING, "llama"),
    "llama.block_count": (UINT32, 1),
    "llama.context_length": (UINT32, 16),
    "llama.embedding_length": (UINT32, 8),
    "llama.feed_forward_length": (UINT32, 12),
    "llama.attention.head_count": (UINT32, 2),
    "llama.attention.layer_norm_rms_epsilon": (FLOAT32, 1e-5),
}
TENSORS = {
    "token_embd.weight": ((8, 5), F32),
    "blk.0.attn_norm.weight": ((8,), F32),
    "blk.0.attn_q.weight": ((8, 8), F32),
    "blk.0.attn_k.weight": ((8, 8), F32),
    "blk.0.attn_v.weight": ((8, 8), F32),
    "blk.0.attn_output.weight": ((8, 8), F32),
    "blk.0.ffn_norm.weight": ((8,), F32),
    "blk.0.ffn_gate.weight": ((8, 12), F32),
    "blk.0.ffn_up.weight": ((8, 12), F32),
    "blk.0.ffn_down.weight": ((12, 8), F32),
    "output_norm.weight": ((8,), F32),
}


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(key: str | bytes, kind: int, value) -> bytes:
    """A key and its value; of kind ARRAY, value is (kind of the items, items)."""
    head = text(key) + struct.pack("<I", kind)
    if kind == STRING:
        return head + text(value)
    if kind != ARRAY:
        return head + struct.pack("<" + FORMATS[kind], value)
    item_kind, items = value
    head += struct.pack("<IQ", item_kind, len(items))
    return head + b"".join(text(item) if item_kind == STRING else struct.pack("<" + FORMATS[item_kind], item) for item in items)


def record(name: str | bytes, dims: tuple[int, ...], kind: int = F32, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def header(entries: list[bytes], records: list[bytes], version: int = 3, magic: bytes = b"GGUF") -> bytes:
    return magic + struct.pack("<IQQ", version, len(records), len(entries)) + b"".join(entries + records)


def padded(data: bytes, alignment: int = 32) -> bytes:
    return data + bytes(-len(data) % alignment)


def n_bytes(dims: tuple[int, ...], kind: int) -> int:
    weights, block_bytes = BLOCKS[kind]
    return math.prod(dims) // weights * block_bytes


def model_file(keys=(), tensors=(), alignment: int = 32, seed: int = 0) -> bytes:
    """The smallest Llama with other keys and tensors: (dims, type) or (dims, type, data); those that are None are left out."""
    chosen_keys = {key: value for key, value in (KEYS | dict(keys)).items() if value is not None}
    chosen = {name: value for name, value in (TENSORS | dict(tensors)).items() if value is not None}
    records, data = [], b""
    rng = random.Random(seed)
    for name, (dims, kind, *content) in chosen.items():
        records.append(record(name, dims, kind, len(data)))
        data += padded(content[0] if content else sound_bytes(n_bytes(dims, kind), kind, rng), alignment)
    return padded(header([entry(key, *value) for key, value in chosen_keys.items()], records), alignment) + data


def sound_bytes(n_bytes: int, kind: int, rng: random.Random) -> bytes:
    """Bytes that are finite numbers: floats, or scales of blocks."""
    code = {F32: "f", F64: "d"}.get(kind)
    if code is None:
        return bytes(rng.randrange(0x38) for _ in range(n_bytes))
    n = n_bytes // struct.calcsize(code)
    return struct.pack(f"<{n}{code}", *(rng.uniform(-1, 1) for _ in range(n)))
