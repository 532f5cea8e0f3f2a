"""GGUF models: what the metadata say is what the engine runs, blocks are views of the file, others are refused by name."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest

import gguf_bytes as hand
from llamita.config import RopeScaling
from llamita.errors import ModelFileError
from llamita.files import mapping_of
from llamita.formats import gguf, llama2c, read_model, weight_paths
from llamita.formats.gguf_file import tensor_bytes
from llamita.formats.gguf_types import TENSOR_TYPES_BY_NAME
from llamita.model import Model
from llamita.quant import GGML_DTYPES
from smollm2 import smollm2_file

WIDE = {  # a Llama whose rows are whole blocks of every type
    "llama.embedding_length": (hand.UINT32, 256),
    "llama.feed_forward_length": (hand.UINT32, 256),
    "llama.attention.head_count": (hand.UINT32, 4),
}
STORIES = "models/stories260K"


def read(tmp_path: Path, keys=(), tensors=(), **options) -> Model:
    path = tmp_path / "model.gguf"
    path.write_bytes(hand.model_file(keys, tensors, **options))
    return gguf.read(path).validate()


def wide_tensors(name: str) -> dict:
    """The tensors of WIDE, its matrices in one type, made of random bytes whose floats are small."""
    kind, rng = TENSOR_TYPES_BY_NAME[name], np.random.default_rng(1)
    tensors = {}
    for tensor_name, (dims, _) in hand.TENSORS.items():
        dims = tuple(5 if n == 5 else 256 for n in dims)
        chosen = kind if len(dims) == 2 else TENSOR_TYPES_BY_NAME["f32"]
        n_bytes = tensor_bytes(chosen, dims)
        tensors[tensor_name] = dims, chosen.code, rng.integers(0, 0x38, n_bytes, np.uint8).tobytes()
    return tensors


def test_the_smallest_llama_is_read(tmp_path):
    model = read(tmp_path)
    config = model.config
    assert (config.width, config.n_layers, config.n_heads, config.n_kv_heads) == (8, 1, 2, 2)
    assert (config.mlp_width, config.vocab_size, config.context, config.head_size) == (12, 5, 16, 4)
    assert (config.rope_theta, config.norm_epsilon, config.tied_embedding, config.rope_scaling) == (10000.0, 1e-5, True, None)
    assert (model.source_format, model.tokenizer, model.chat_template, model.stop_ids) == ("GGUF v3", None, "", ())
    assert weight_paths(model) == [tmp_path / "model.gguf"]


def test_numbers_that_float32_does_not_have_become_infinite_or_nan(tmp_path):
    signaling = b"\1\0\0\0\0\0\xf0\x7f"
    numbers = struct.pack("<5d", *[1e300] * 4, -1e300) + signaling * 3
    model = read(tmp_path, tensors={"output_norm.weight": ((8,), hand.F64, numbers)})
    np.testing.assert_array_equal(model.tensors["norm"].dequantize(), [np.inf] * 4 + [-np.inf] + [np.nan] * 3)
    halves = struct.pack("<8H", *[0x7C01] * 8)
    assert np.isnan(read(tmp_path, tensors={"output_norm.weight": ((8,), hand.F16, halves)}).tensors["norm"].dequantize()).all()


def test_keys_say_what_the_model_is(tmp_path):
    keys = {
        "llama.attention.head_count": (hand.UINT32, 4),
        "llama.attention.head_count_kv": (hand.UINT32, 2),
        "llama.attention.key_length": (hand.UINT32, 6),
        "llama.attention.value_length": (hand.UINT32, 6),
        "llama.rope.dimension_count": (hand.UINT64, 6),
        "llama.rope.freq_base": (hand.FLOAT32, 500000.0),
        "llama.attention.layer_norm_rms_epsilon": (hand.FLOAT32, 1e-6),
        "tokenizer.chat_template": (hand.STRING, "{{ messages }}"),
    }
    shapes = {"attn_q": (8, 24), "attn_k": (8, 12), "attn_v": (8, 12), "attn_output": (24, 8)}
    tensors = {f"blk.0.{name}.weight": (dims, hand.F32) for name, dims in shapes.items()}
    model = read(tmp_path, keys, tensors | {"output.weight": ((8, 5), hand.F32)})
    config = model.config
    assert (config.n_heads, config.n_kv_heads, config.head_size) == (4, 2, 6)
    assert (config.rope_theta, config.norm_epsilon, config.tied_embedding) == (500000.0, 1e-6, False)
    assert model.chat_template == "{{ messages }}"


def test_one_number_for_each_layer_may_be_a_list_of_the_same(tmp_path):
    keys = {"llama.feed_forward_length": (hand.ARRAY, (hand.INT32, [12])), "llama.attention.head_count": (hand.ARRAY, (4, [2]))}
    assert read(tmp_path, keys).config.mlp_width == 12


@pytest.mark.parametrize(("window", "context"), [(8, 8), (4096, 16)])
def test_a_window_of_attention_bounds_the_context(tmp_path, window, context):
    assert read(tmp_path, {"llama.attention.sliding_window": (hand.UINT32, window)}).config.context == context


@pytest.mark.parametrize(
    ("keys", "factors", "expected"),
    [
        ({"type": (hand.STRING, "none"), "factor": (hand.FLOAT32, 4.0)}, None, None),
        ({"type": (hand.STRING, "linear"), "factor": (hand.FLOAT32, 4.0)}, None, RopeScaling("linear", 4.0)),
        ({"factor": (hand.FLOAT32, 2.5)}, None, RopeScaling("linear", 2.5)),
        ({"factor": (hand.FLOAT32, 0.0)}, None, None),
        ({}, [1.0, 1.0], None),
        ({}, [1.0, 8.0], RopeScaling("factors", factors=(1.0, 8.0))),
        ({"factor": (hand.FLOAT32, 2.0)}, [1.0, 8.0], RopeScaling("factors", factors=(2.0, 16.0))),
    ],
)
def test_stretched_rope_is_read(tmp_path, keys, factors, expected):
    keys = {f"llama.rope.scaling.{key}": value for key, value in keys.items()}
    tensors = {} if factors is None else {"rope_freqs.weight": ((2,), hand.F32, struct.pack("<2f", *factors))}
    assert read(tmp_path, keys, tensors).config.rope_scaling == expected


def test_query_key_and_value_in_one_tensor_are_taken_apart(tmp_path):
    keys = {"llama.attention.head_count_kv": (hand.UINT32, 1)}
    rows = struct.pack("<128f", *range(128))
    apart = dict.fromkeys(("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"))
    tensors = read(tmp_path, keys, apart | {"blk.0.attn_qkv.weight": ((8, 16), hand.F32, rows)}).tensors
    read_rows = [tensors[f"layers.0.attention.{part}"].data.tobytes() for part in ("query", "key", "value")]
    assert read_rows == [rows[:256], rows[256:384], rows[384:]]


def test_a_head_that_repeats_the_embedding_is_none(tmp_path):
    embedding = struct.pack("<40f", *range(40))
    same = dict.fromkeys(("token_embd.weight", "output.weight"), ((8, 5), hand.F32, embedding))
    model = read(tmp_path, {}, same)
    assert model.config.tied_embedding
    assert "head" not in model.tensors
    same["output.weight"] = (8, 5), hand.F32, embedding[:-1] + b"\1"
    assert not read(tmp_path, {}, same).config.tied_embedding


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", *GGML_DTYPES])
def test_matrices_of_every_type_are_views_of_the_file_and_mean_what_the_gguf_library_says(tmp_path, name):
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    hand_tensors = wide_tensors(name)
    model = read(tmp_path, WIDE, hand_tensors)
    for canonical in ("embedding", "layers.0.mlp.down"):
        tensor = model.tensors[canonical]
        dims, _, data = hand_tensors[gguf.gguf_name(canonical)]
        assert tensor.dtype == name
        assert tensor.n_bytes == len(data)
        for part in (tensor.data, tensor.scales, tensor.offsets):
            assert part is None or mapping_of(part) is not None
        rows = np.frombuffer(data, np.uint8).reshape(dims[1], -1)
        with np.errstate(all="ignore"):
            assert np.array_equal(tensor.dequantize(), dequantize(rows, GGMLQuantizationType[name.upper()]), equal_nan=True)


def test_double_precision_becomes_single_and_half_norms_become_whole(tmp_path):
    tensors = {
        "token_embd.weight": ((8, 5), hand.F64, struct.pack("<40d", *np.linspace(0, 1, 40))),
        "output_norm.weight": ((8,), hand.F16, struct.pack("<8e", *range(8))),
    }
    model = read(tmp_path, {}, tensors)
    assert np.array_equal(model.tensors["embedding"].data, np.linspace(0, 1, 40, dtype=np.float32).reshape(5, 8))
    assert model.tensors["norm"].dtype == "f32"
    assert np.array_equal(model.tensors["norm"].data, np.arange(8))


@pytest.mark.parametrize("name", ["f32", "q8_0", "q4_1"])
def test_numbers_at_odd_places_are_copied(tmp_path, name):
    tensors = wide_tensors(name)
    aligned = {canonical: tensor.dequantize().copy() for canonical, tensor in read(tmp_path, WIDE, tensors).tensors.items()}
    for odd in ("x", "xx"):
        keys = WIDE | {"general.alignment": (hand.UINT32, 1), "general.name": (hand.STRING, odd)}
        model = read(tmp_path, keys, tensors, alignment=1)
        for canonical, tensor in model.tensors.items():
            assert tensor.data.flags.aligned
            assert tensor.scales is None or tensor.scales.flags.aligned
            assert np.array_equal(tensor.dequantize(), aligned[canonical])


REFUSED_KEYS = {
    "general.architecture: found qwen2, expected llama": {"general.architecture": (hand.STRING, "qwen2")},
    "general.architecture: found None": {"general.architecture": None},
    "llama.expert_count: found 8, expected a model without experts": {"llama.expert_count": (hand.UINT32, 8)},
    "llama.attention.causal: found False": {"llama.attention.causal": (hand.BOOL, False)},
    "llama.rope.scaling.type: found yarn, expected none or linear": {"llama.rope.scaling.type": (hand.STRING, "yarn")},
    "llama.rope.scaling.attn_factor: found 0.5": {"llama.rope.scaling.attn_factor": (hand.FLOAT32, 0.5)},
    "llama.rope.scaling.factor: found -1.0": {"llama.rope.scaling.factor": (hand.FLOAT32, -1.0)},
    "llama.attention.sliding_window: found -1": {"llama.attention.sliding_window": (hand.INT32, -1)},
    "llama.block_count: found nothing": {"llama.block_count": None},
    "llama.block_count: found 0": {"llama.block_count": (hand.UINT32, 0)},
    "llama.block_count: found 1.0": {"llama.block_count": (hand.FLOAT32, 1.0)},
    "llama.block_count: found True": {"llama.block_count": (hand.BOOL, True)},
    "llama.block_count: found 4294967295, expected 1 to 1024": {"llama.block_count": (hand.UINT32, 2**32 - 1)},
    "llama.feed_forward_length: found [12, 8], expected the same number": {
        "llama.feed_forward_length": (hand.ARRAY, (hand.INT32, [12, 8]))
    },
    "llama.feed_forward_length: found []": {"llama.feed_forward_length": (hand.ARRAY, (hand.INT32, []))},
    "llama.attention.head_count: found 3, expected a divisor of embedding_length 8": {
        "llama.attention.head_count": (hand.UINT32, 3)
    },
    "llama.attention.head_count_kv: found 3, expected a divisor of head_count 2": {
        "llama.attention.head_count_kv": (hand.UINT32, 3)
    },
    "llama.attention.value_length: found 2, expected 4": {"llama.attention.value_length": (hand.UINT32, 2)},
    "llama.rope.dimension_count: found 2, expected 4": {"llama.rope.dimension_count": (hand.UINT32, 2)},
    "size of a head: found 1, expected an even number": {"llama.attention.head_count": (hand.UINT32, 8)},
    "llama.rope.freq_base: found nan": {"llama.rope.freq_base": (hand.FLOAT32, float("nan"))},
    "llama.rope.freq_base: found 10000": {"llama.rope.freq_base": (hand.STRING, "10000")},
    "llama.attention.layer_norm_rms_epsilon: found nothing": {"llama.attention.layer_norm_rms_epsilon": None},
    "llama.attention.layer_norm_rms_epsilon: found 1.0": {"llama.attention.layer_norm_rms_epsilon": (hand.FLOAT32, 1.0)},
    "shape of token_embd.weight: found (5, 8), expected (5, 16)": {"llama.embedding_length": (hand.UINT32, 16)},
    "tokenizer.chat_template: found 1, expected a text": {"tokenizer.chat_template": (hand.UINT32, 1)},
    "tokenizer.ggml.model: found bert": {"tokenizer.ggml.model": (hand.STRING, "bert")},
    "split.no: found None, expected 0": {"split.count": (hand.UINT16, 2)},
}
REFUSED_TENSORS = {
    "tensors: found no token_embd.weight": {"token_embd.weight": None},
    "tensors: found no blk.0.ffn_up.weight": {"blk.0.ffn_up.weight": None},
    "tensors: found blk.0.attn_q.bias, expected only those of a Llama": {"blk.0.attn_q.bias": ((8,), hand.F32)},
    "tensors: found blk.1.ffn_up.weight": {"blk.1.ffn_up.weight": ((8, 12), hand.F32)},
    "tensors: found blk.0.ffn_gate_exps.weight": {"blk.0.ffn_gate_exps.weight": ((8, 12, 2), hand.F32)},
    "shape of blk.0.ffn_up.weight: found (8, 12), expected (12, 8)": {"blk.0.ffn_up.weight": ((12, 8), hand.F32)},
    "shape of blk.0.ffn_up.weight: found (1, 12, 8)": {"blk.0.ffn_up.weight": ((8, 12, 1), hand.F32)},
    "shape of token_embd.weight: found (40,)": {"token_embd.weight": ((40,), hand.F32)},
    "shape of blk.0.attn_qkv.weight: found (8, 8), expected (24, 8)": {"blk.0.attn_qkv.weight": ((8, 8), hand.F32)},
    "tensor type: found I8, expected floats or blocks": {"blk.0.ffn_up.weight": ((8, 12), hand.I8)},
    "rope_freqs.weight: found 3 numbers, expected 2": {"rope_freqs.weight": ((3,), hand.F32)},
    "rope_freqs.weight: found one that is not positive": {"rope_freqs.weight": ((2,), hand.F32, struct.pack("<2f", 1, 0))},
    "shape of rope_freqs.weight: found (70000,)": {"rope_freqs.weight": ((70000,), hand.F16, bytes(140000))},
}


@pytest.mark.parametrize("message", REFUSED_KEYS)
def test_what_llamita_does_not_compute_is_refused_by_name(tmp_path, message):
    with pytest.raises(ModelFileError, match=re.escape(message)):
        read(tmp_path, REFUSED_KEYS[message])


@pytest.mark.parametrize("message", REFUSED_TENSORS)
def test_tensors_that_are_not_a_llamas_are_refused_by_name(tmp_path, message):
    with pytest.raises(ModelFileError, match=re.escape(message)):
        read(tmp_path, {}, REFUSED_TENSORS[message])


def test_buffers_of_old_versions_are_passed_over(tmp_path):
    read(tmp_path, {}, {"blk.0.attn_rot_embd": ((2,), hand.F32), "rope.freqs": ((2,), hand.F32)})


def shards(folder: Path, n_shards: int = 3) -> list[Path]:
    """The smallest Llama as llama-gguf-split would split it, by hand."""
    names = list(hand.TENSORS)
    paths = []
    for i in range(n_shards):
        keys = {"split.no": (hand.UINT16, i), "split.count": (hand.UINT16, n_shards), "split.tensors.count": (hand.INT32, 11)}
        left_out = dict.fromkeys(name for name in names if names.index(name) % n_shards != i)
        if i:
            keys |= dict.fromkeys(hand.KEYS)
        paths.append(folder / f"m-{i + 1:05d}-of-{n_shards:05d}.gguf")
        paths[-1].write_bytes(hand.model_file(keys, left_out, seed=i))
    return paths


def test_shards_are_one_model(tmp_path):
    paths = shards(tmp_path)
    model = read_model(paths[0]).validate()
    assert weight_paths(model) == paths
    assert read_model(tmp_path).name == str(paths[0])
    expected = gguf.read(paths[0]).tensors["layers.0.mlp.up"].data
    assert np.array_equal(model.tensors["layers.0.mlp.up"].data, expected)


def test_shards_that_do_not_fit_are_refused(tmp_path):
    paths = shards(tmp_path)
    with pytest.raises(ModelFileError, match=r"split.no: found 1, expected 0, the first shard; name that one"):
        gguf.read(paths[1])
    good = paths[2].read_bytes()
    paths[2].write_bytes(paths[1].read_bytes())
    with pytest.raises(ModelFileError, match=r"00003-of-00003.gguf: split.no: found 1, expected 2"):
        gguf.read(paths[0])
    paths[2].unlink()
    with pytest.raises(ModelFileError, match=r"split.count: found 2 shards .* expected 3; is the download complete"):
        gguf.read(paths[0])
    paths[2].write_bytes(good)
    paths[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(ModelFileError, match=r"split.count: found 1 shards named renamed.gguf and on"):
        gguf.read(tmp_path / "renamed.gguf")


def test_a_folder_with_one_gguf_file_is_that_model(tmp_path):
    read(tmp_path)
    assert read_model(tmp_path).source_format == "GGUF v3"
    (tmp_path / "other.gguf").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"found 2 \*.gguf, expected .*name the model file itself"):
        read_model(tmp_path)


def test_ids_that_end_a_text_are_those_of_the_file(tmp_path):
    vocabulary = {
        "tokenizer.ggml.model": (hand.STRING, "llama"),
        "tokenizer.ggml.tokens": (hand.ARRAY, (hand.STRING, ["<unk>", "<s>", "</s>", "a", "b"])),
        "tokenizer.ggml.scores": (hand.ARRAY, (hand.FLOAT32, [0.0] * 5)),
        "tokenizer.ggml.token_type": (hand.ARRAY, (hand.INT32, [2, 3, 3, 1, 1])),
        "tokenizer.ggml.eos_token_id": (hand.UINT32, 2),
        "tokenizer.ggml.padding_token_id": (hand.UINT32, 2**32 - 1),
    }
    assert read(tmp_path, vocabulary).stop_ids == (2,)
    keys = vocabulary | {
        "tokenizer.ggml.eot_token_id": (hand.UINT32, 4),
        "tokenizer.ggml.eom_token_id": (hand.UINT32, 2**32 - 1),
    }
    model = read(tmp_path, keys)
    assert model.stop_ids == (2, 4)
    assert model.tokenizer is not None
    assert gguf.read(tmp_path / "model.gguf", vocabulary=False).tokenizer is None


def test_a_tokenizer_that_is_named_replaces_the_one_inside(tmp_path, toy_sentencepiece_bytes):
    keys = {"tokenizer.ggml.model": (hand.STRING, "bert")}  # which llamita does not know
    read_bytes = hand.model_file(keys, {"token_embd.weight": ((8, 400), hand.F32)})
    (tmp_path / "model.gguf").write_bytes(read_bytes)
    (tmp_path / "toy.model").write_bytes(toy_sentencepiece_bytes)
    assert read_model(tmp_path / "model.gguf", tmp_path / "toy.model").tokenizer is not None


def test_every_cut_of_a_model_is_refused(tmp_path):
    data = hand.model_file()
    path = tmp_path / "model.gguf"
    end = len(data.rstrip(b"\0"))
    for n_bytes in [*range(0, len(data) - 2400, 3), *range(len(data) - 2400, end - 3, 61)]:
        path.write_bytes(data[:n_bytes])
        with pytest.raises(ModelFileError):
            gguf.read(path)


@pytest.mark.parametrize(("name", "tolerance"), [("stories260K", 0), ("F16", 2**-11), ("Q8_0", 1 / 220), ("Q4_0", 1 / 7)])
def test_the_stories_model_is_that_of_llama2c(shared_data, name, tolerance):
    folder = shared_data / STORIES
    path = folder / f"{name}.gguf" if name == "stories260K" else folder / f"derived/stories260K.{name}.gguf"
    model, original = read_model(path).validate(), llama2c.read(folder / "stories260K.bin")
    assert model.config.context == 2048  # of a header that is wrong about the model
    for canonical, tensor in original.tensors.items():
        exact, read_numbers = tensor.dequantize(), model.tensors[canonical].dequantize()
        largest = np.abs(exact).max(axis=-1, keepdims=True)
        assert (np.abs(exact - read_numbers) <= tolerance * largest).all()
    assert model.tokenizer is not None
    assert model.stop_ids == (2,)


def test_the_stories_model_has_the_logits_of_llama2c(shared_data):
    from llamita.engine import Engine

    ids = [1, 403, 407, 261, 378, 13, 60]
    logits = []
    for name in ("stories260K.gguf", "stories260K.bin"):
        engine = Engine(read_model(shared_data / STORIES / name), n_threads=1)
        logits.append(engine.logits(ids))
        engine.close()
    assert np.array_equal(*logits)


def test_a_real_chat_model_is_read():
    path = smollm2_file()
    model = read_model(path).validate()
    config = model.config
    assert (config.n_heads, config.n_kv_heads, config.rope_theta, config.tied_embedding) == (9, 3, 100000.0, True)
    assert {tensor.dtype for tensor in model.tensors.values()} == {"f32", "q8_0", "q4_1"}
    assert "<|im_start|>" in model.chat_template
    assert model.tokenizer is not None
    assert model.tokenizer.vocab_size == 49152
