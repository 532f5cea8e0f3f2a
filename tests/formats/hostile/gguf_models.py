"""Hostile GGUF files in a sound container: metadata, tensors and vocabularies that make no Llama, or a huge one."""

import struct

import gguf_bytes as hand
from hostile.case import Case
from hostile.gguf_containers import array, file

LLAMA = {
    "tokenizer.ggml.model": (hand.STRING, "llama"),
    "tokenizer.ggml.tokens": (hand.ARRAY, (hand.STRING, ["<unk>", "<s>", "</s>", "\u2581", "a"])),
    "tokenizer.ggml.scores": (hand.ARRAY, (hand.FLOAT32, [0, 0, 0, -1, -2])),
    "tokenizer.ggml.token_type": (hand.ARRAY, (hand.INT32, [2, 3, 3, 1, 1])),
}
GPT2 = {
    "tokenizer.ggml.model": (hand.STRING, "gpt2"),
    "tokenizer.ggml.pre": (hand.STRING, "gpt-2"),
    "tokenizer.ggml.tokens": (hand.ARRAY, (hand.STRING, ["a", "b", "ab", "Ġ", "<|end|>"])),
    "tokenizer.ggml.token_type": (hand.ARRAY, (hand.INT32, [1, 1, 1, 1, 3])),
    "tokenizer.ggml.merges": (hand.ARRAY, (hand.STRING, ["a b"])),
}
NORM = "output_norm.weight"
QUERY = "blk.0.attn_q.weight"
ROPE = "rope_freqs.weight"
F32, F16, U32, TEXT = hand.F32, hand.F16, hand.UINT32, hand.STRING


def case(fault: str, field: str, keys: dict[str, object] | None = None, tensors: dict[str, object] | None = None) -> Case:
    """The sound file with other keys and tensors; None takes one out."""
    content = lambda: {"model.gguf": hand.model_file(keys or {}, tensors or {})}  # noqa: E731
    return Case(fault, field, content, "model.gguf")


def key(fault: str, name: str, kind: int, value: object, says: str = "") -> Case:
    """The sound file with one key, of those of a Llama, changed."""
    return case(fault, f"llama.{name}: found {says}", {f"llama.{name}": (kind, value)})


def tensor(fault: str, field: str, name: str, *form: object) -> Case:
    """The sound file with one tensor of another shape, type and content."""
    return case(fault, field, tensors={name: form or None})


def vocabulary(fault: str, field: str, kind: dict[str, object], **changes: object) -> Case:
    """The sound file with a vocabulary, of which keys behind tokenizer.ggml are changed."""
    return case(fault, f"tokenizer.ggml.{field}", kind | {f"tokenizer.ggml.{name}": value for name, value in changes.items()})


def huge(fault: str, field: str, name: str, others: dict[str, object], kind: int) -> Case:
    """The sound file with a key of a million items, all zeros or empty, and some other keys."""
    n_bytes = 8 if kind == TEXT else struct.calcsize(hand.FORMATS[kind])
    entries = [hand.entry(key, *value) for key, value in others.items() if key != name]  # pyright: ignore[reportGeneralTypeIssues]

    def content() -> bytes:
        return file(b"".join([*entries, array(kind, 1_000_000, bytes(1_000_000 * n_bytes), name)]), n_keys=8 + len(entries))

    return Case(fault, field, lambda: {"model.gguf": content()}, "model.gguf")


def many_shards() -> bytes:
    return hand.model_file({"split.count": (U32, 99_999), "split.no": (hand.UINT16, 0)})


def texts(*items: str | bytes) -> tuple[int, object]:
    return hand.ARRAY, (hand.STRING, list(items))


def numbers(kind: int, *items: float) -> tuple[int, object]:
    return hand.ARRAY, (kind, list(items))


SOUND = {
    "no vocabulary": case("", ""),
    "vocabulary of sentencepiece's kind": case("", "", LLAMA),
    "vocabulary of bytes": case("", "", GPT2),
    "stretched": case("", "", tensors={ROPE: ((2,), F32, struct.pack("<2f", 1, 8))}),
}

SHARD = "model-00001-of-99999.gguf"
_ARCHITECTURE = "general.architecture"
CASES = [
    case("no architecture", f"{_ARCHITECTURE}: found None", {_ARCHITECTURE: None}),
    case("another architecture", f"{_ARCHITECTURE}: found mamba", {_ARCHITECTURE: (TEXT, "mamba")}),
    case("an architecture that is a number", f"{_ARCHITECTURE}: found 7", {_ARCHITECTURE: (U32, 7)}),
    case("an architecture that is a list", rf"{_ARCHITECTURE}: found \[", {_ARCHITECTURE: texts("llama")}),
    case("an architecture that is no UTF-8", f"{_ARCHITECTURE}: found b'", {_ARCHITECTURE: (TEXT, b"\xff\xfe")}),
    case("an architecture of a million characters", ".*architecture: found", {_ARCHITECTURE: (TEXT, "x" * 1_000_000)}),
    case("an architecture of ten million characters", "length of general", {_ARCHITECTURE: (TEXT, "x" * 10_000_000)}),
    case("no layers, by name", "llama.block_count: found nothing", {"llama.block_count": None}),
    key("no layers", "block_count", U32, 0, "0"),
    key("2^32 - 1 layers", "block_count", U32, (1 << 32) - 1, "4294967295"),
    key("layers as a text", "block_count", TEXT, "1", "1"),
    key("-1 layers", "block_count", hand.INT32, -1, "-1"),
    key("half a layer", "block_count", hand.FLOAT32, 0.5, "0.5"),
    key("layers that are true", "block_count", hand.BOOL, True, "True"),
    huge("a million numbers of layers", "length of llama.block_count2", "llama.block_count2", {}, hand.UINT64),
    case("a layer that is not there", "tensors: found no blk.1.attn_norm.weight", {"llama.block_count": (U32, 2)}),
    case("a thousand layers that are not there", "tensors: found no blk.1", {"llama.block_count": (U32, 1000)}),
    key("a width of 0", "embedding_length", U32, 0, "0"),
    key("a width of 2^63", "embedding_length", hand.UINT64, 1 << 63, "9223372036854775808"),
    case("a width that the weights do not have", "shape of token_embd.weight", {"llama.embedding_length": (U32, 16)}),
    key("no heads, by which the width is divided", "attention.head_count", U32, 0, "0"),
    key("three heads in a width of eight", "attention.head_count", U32, 3, "3"),
    key("more heads than numbers", "attention.head_count", U32, 16),
    key("layers with heads of their own", "attention.head_count", *numbers(U32, 2, 4), r"\[2, 4\]"),
    key("an empty list of heads", "attention.head_count", *numbers(U32), r"\[\]"),
    key("no key heads, by which the heads are divided", "attention.head_count_kv", U32, 0, "0"),
    key("three key heads", "attention.head_count_kv", U32, 3, "3"),
    case("heads of one number, which RoPE cannot turn", "size of a head: found 1", {"llama.attention.head_count": (U32, 8)}),
    key("keys of no size", "attention.key_length", U32, 0, "0"),
    key("keys and values of different sizes", "attention.value_length", U32, 8, "8"),
    key("half of a head turned", "rope.dimension_count", U32, 2, "2"),
    key("a mlp of no width", "feed_forward_length", U32, 0, "0"),
    key("a context of no tokens", "context_length", U32, 0, "0"),
    key("a context of 2^40 tokens", "context_length", hand.UINT64, 1 << 40, "1099511627776"),
    case("no epsilon", ".*rms_epsilon: found nothing", {"llama.attention.layer_norm_rms_epsilon": None}),
    key("an epsilon that is not a number", "attention.layer_norm_rms_epsilon", hand.FLOAT32, float("nan"), "nan"),
    key("a negative epsilon", "attention.layer_norm_rms_epsilon", hand.FLOAT32, -1e-5),
    key("an epsilon as a text", "attention.layer_norm_rms_epsilon", TEXT, "1e-5", "1e-5"),
    key("an epsilon too small for 32 bits, which becomes 0", "attention.layer_norm_rms_epsilon", hand.FLOAT64, 1e-60),
    key("an infinite theta", "rope.freq_base", hand.FLOAT32, float("inf"), "inf"),
    key("a theta of 0", "rope.freq_base", hand.FLOAT32, 0.0, "0.0"),
    key("a scaling of a kind that we do not know", "rope.scaling.type", TEXT, "yarn", "yarn"),
    key("a negative scaling", "rope.scaling.factor", hand.FLOAT32, -2.0, "-2.0"),
    key("a scaling that is not a number", "rope.scaling.factor", hand.FLOAT32, float("nan"), "nan"),
    key("experts", "expert_count", U32, 8, "8"),
    key("attention to the last 0 tokens, says a text", "attention.sliding_window", TEXT, "0", "0"),
    key("attention to the last 2^40 tokens", "attention.sliding_window", hand.UINT64, 1 << 40, "1099511627776"),
    key("an epsilon that 32 bits round to 1", "attention.layer_norm_rms_epsilon", hand.FLOAT64, 1 - 1e-12),
    key("tokens that see later ones", "attention.causal", hand.BOOL, False, "False"),
    tensor("no embedding", "tensors: found no token_embd.weight", "token_embd.weight"),
    tensor("no query", f"tensors: found no {QUERY}", QUERY),
    tensor("a query on its side", "shape of blk.0.ffn_up.weight", "blk.0.ffn_up.weight", (12, 8), F32),
    tensor("a query in three axes", f"shape of {QUERY}", QUERY, (8, 4, 2), F32),
    tensor("a vector for a matrix", f"shape of {QUERY}", QUERY, (64,), F32),
    tensor("an embedding in one row", "shape of token_embd.weight", "token_embd.weight", (40,), F32),
    tensor("an embedding of no rows", "rows of token_embd.weight: found 0", "token_embd.weight", (8, 0), F32),
    tensor("a bias more", "tensors: found blk.0.attn_q.bias", "blk.0.attn_q.bias", (8,), F32),
    tensor("an expert's matrix", "tensors: found blk.0.ffn_gate_exps", "blk.0.ffn_gate_exps.weight", (8, 12, 2), F32),
    tensor("a tensor with an unprintable name", r"tensors: found \\x07", "\7", (8,), F32),
    tensor("a head of another vocabulary", "shape of output.weight", "output.weight", (8, 6), F32),
    tensor("query, key and value in one, too small", "shape of blk.0.attn_qkv", "blk.0.attn_qkv.weight", (8, 23), F32),
    tensor("integers for weights", "tensor type: found I8", QUERY, (8, 8), hand.I8),
    tensor("three factors for two pairs", f"{ROPE}: found 3 numbers", ROPE, (3,), F32),
    tensor("no factors", f"shape of {ROPE}: found", ROPE, (0,), F32),
    tensor("a factor of 0, by which a frequency is divided", f"{ROPE}: found", ROPE, (2,), F32, struct.pack("<2f", 1, 0)),
    tensor("a factor that is not a number", f"{ROPE}: found", ROPE, (2,), F32, struct.pack("<2f", float("nan"), 1)),
    tensor("a negative factor", f"{ROPE}: found", ROPE, (2,), F16, struct.pack("<2e", 1, -1)),
    tensor("a hundred thousand factors", f"shape of {ROPE}", ROPE, (100_000,), F16, bytes(200_000)),
    case("a template that is a list", "tokenizer.chat_template: found", {"tokenizer.chat_template": texts("{{ bos_token }}")}),
    case("a template that is no UTF-8", "tokenizer.chat_template: found", {"tokenizer.chat_template": (TEXT, b"\xff{{ x }}")}),
    case("a template of two megabytes", "length of tokenizer.chat", {"tokenizer.chat_template": (TEXT, "a" * 2_000_000)}),
    case("the second of two shards", "split.no: found", {"split.count": (hand.UINT16, 2), "split.no": (hand.UINT16, 1)}),
    case("the first of 65,535 shards", "split.", {"split.count": (hand.UINT16, 65535), "split.no": (hand.UINT16, 0)}),
    case("shards that are counted by a text", "split.", {"split.count": (TEXT, "2")}),
    Case("a hundred thousand shards", "split.count: found 1 shards", lambda: {SHARD: many_shards()}, SHARD),
    vocabulary("a vocabulary of another kind", "model: found t5", LLAMA, model=(TEXT, "t5")),
    vocabulary("a kind that is a number", "model: found 1", LLAMA, model=(U32, 1)),
    vocabulary("no tokens", "tokens: found None", LLAMA, tokens=None),
    vocabulary("an empty list of tokens", r"tokens: found 0|tokens: found \[\]", LLAMA, tokens=texts()),
    vocabulary("tokens that are one text", "tokens: found", LLAMA, tokens=(TEXT, "abcde")),
    vocabulary("tokens that are numbers", "tokens: found", LLAMA, tokens=numbers(U32, 1, 2, 3, 4, 5)),
    vocabulary("a token that is no UTF-8", "tokens: found b'", LLAMA, tokens=texts("<unk>", "<s>", "</s>", b"\xc3\x28", "a")),
    vocabulary("a token twice", "tokens: found", LLAMA, tokens=texts("<unk>", "<s>", "</s>", "a", "a")),
    vocabulary("an empty token", "tokens: found", LLAMA, tokens=texts("<unk>", "<s>", "</s>", "", "a")),
    vocabulary("a token more than rows", "tokens: found 6", LLAMA, tokens=texts("<unk>", "<s>", "</s>", "\u2581", "a", "b")),
    huge("a million tokens for five rows", "tokenizer.ggml.tokens: found 1000000", "tokenizer.ggml.tokens", LLAMA, TEXT),
    vocabulary("a token of a million characters", "tokens: found 1000000 b", LLAMA, tokens=texts(*[""] * 4, "a" * 1_000_000)),
    vocabulary("four scores for five tokens", "scores: found 4", LLAMA, scores=numbers(hand.FLOAT32, 0, 0, 0, -1)),
    huge("a million scores", "tokenizer.ggml.scores: found 1000000", "tokenizer.ggml.scores", LLAMA, hand.FLOAT64),
    huge("a million types", "tokenizer.ggml.token_type: found 1000000", "tokenizer.ggml.token_type", LLAMA, hand.INT64),
    vocabulary("a score that is not a number", "tokens: found", LLAMA, scores=numbers(hand.FLOAT32, 0, 0, 0, float("nan"), 0)),
    vocabulary("scores that are integers", "scores: found 0", LLAMA, scores=numbers(hand.INT32, 0, 0, 0, -1, -2)),
    vocabulary("a type of 7", "tokens: found piece types", LLAMA, token_type=numbers(hand.INT32, 2, 3, 3, 1, 7)),
    vocabulary("a type of -2^31", "tokens: found piece types", LLAMA, token_type=numbers(hand.INT32, 2, 3, 3, 1, -1 << 31)),
    vocabulary("two unknown tokens", "tokens: found unknown piece", LLAMA, token_type=numbers(hand.INT32, 2, 2, 3, 1, 1)),
    vocabulary("a byte token that spells no byte", "tokens: found byte", LLAMA, token_type=numbers(hand.INT32, 2, 3, 3, 1, 6)),
    vocabulary("a flag that is a number", "add_bos_token: found 1", LLAMA, add_bos_token=(U32, 1)),
    vocabulary("a flag that is a text", "add_space_prefix: found no", LLAMA, add_space_prefix=(TEXT, "no")),
    vocabulary("words cut in an unknown way", "pre: found mystery", GPT2, pre=(TEXT, "mystery")),
    vocabulary("words cut in no way", "pre: found None", GPT2, pre=None),
    vocabulary("no merges", "merges: found None", GPT2, merges=None),
    vocabulary("merges that are numbers", "merges: found 1", GPT2, merges=numbers(U32, 1)),
    vocabulary("a merge of one part", "tokens: found", GPT2, merges=texts("ab")),
    vocabulary("a merge of three parts", "tokens: found", GPT2, merges=texts("a b a")),
    vocabulary("a merge of an unknown token", "tokens: found", GPT2, merges=texts("a x")),
    vocabulary("a merge that makes no token", "tokens: found", GPT2, merges=texts("b a")),
    huge("a million merges", "tokenizer.ggml.merges: found 1000000", "tokenizer.ggml.merges", GPT2, TEXT),
    vocabulary("a token twice, among bytes", "tokens: found", GPT2, tokens=texts("a", "b", "ab", "a", "<|end|>")),
]
