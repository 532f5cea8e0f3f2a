"""Adapters on disk: what PEFT's files say, what comes back of what we write, what is refused, each by its name."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamita.config import LAYER_MATRICES, ModelConfig
from llamita.errors import ModelError, ModelFileError
from llamita.formats.adapter import Adapter, adapter_digest, read_adapter
from llamita.formats.adapter_writer import write_adapter
from llamita.model import tensor_shapes
from llamita.quant import Tensor, to_bf16
from peft_files import PREFIX, pairs_of, shapes_of, write_folder
from torch_files import saved

ENDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Q, EMBED, HEAD = "model.layers.0.self_attn.q_proj", "model.embed_tokens", "lm_head"


def random_adapter(config: ModelConfig, **fields) -> Adapter:
    rng = np.random.default_rng(1)
    pairs = {}
    for name, shape in tensor_shapes(config).items():
        if name.split(".", 2)[-1] in LAYER_MATRICES:
            pairs[name] = (rng.normal(size=(3, shape[1])).astype(np.float32), rng.normal(size=(shape[0], 3)).astype(np.float32))
    return Adapter(**{"rank": 3, "alpha": 5.0, "dropout": 0.1, "pairs": pairs, "base": "some/base"} | fields)


def assert_same(found: Adapter, expected: Adapter) -> None:
    for field in ("rank", "alpha", "dropout", "base", "use_rslora", "alphas", "unties"):
        assert getattr(found, field) == getattr(expected, field), field
    assert found.pairs.keys() == expected.pairs.keys()
    for name, arrays in expected.pairs.items():
        assert found.scale(name) == expected.scale(name)
        for one, other in zip(found.pairs[name], arrays, strict=True):
            np.testing.assert_array_equal(one, other)
    assert found.rows.keys() == expected.rows.keys()
    for name, arrays in expected.rows.items():
        for one, other in zip(found.rows[name], arrays, strict=True):
            np.testing.assert_array_equal(one, other)


def refusal(folder: Path, config: ModelConfig) -> str:
    with pytest.raises(ModelFileError) as caught:
        read_adapter(folder, config)
    return str(caught.value)


def test_what_is_written_comes_back_bit_for_bit(tmp_path, tiny_config):
    adapter = random_adapter(tiny_config)
    write_adapter(adapter, tmp_path / "a", tiny_config)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert_same(read_adapter(tmp_path / "a", tiny_config), adapter)
    assert_same(read_adapter(tmp_path / "a" / "adapter_config.json", tiny_config), adapter)


def test_ranks_alphas_rslora_and_rows_come_back(tmp_path, tiny_config):
    config = replace(tiny_config, tied_embedding=False)
    adapter = random_adapter(config, use_rslora=True, alphas={"layers.1.mlp.up": 7.5})
    low, high = adapter.pairs["layers.0.mlp.down"]
    adapter.pairs["layers.0.mlp.down"] = low[:1], high[:, :1]
    del adapter.pairs["layers.1.attention.key"]
    for name in ("embedding", "head"):
        adapter.rows[name] = np.array([41, 3]), np.arange(32, dtype=np.float32).reshape(2, 16)
    write_adapter(adapter, tmp_path / "a", config)
    assert_same(read_adapter(tmp_path / "a", config), adapter)
    assert adapter.scale("layers.0.mlp.down") == 5.0
    assert adapter.scale("layers.1.mlp.up") == 7.5 / 3**0.5
    said = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert said["rank_pattern"] == {"model.layers.0.mlp.down_proj": 1}
    assert said["alpha_pattern"] == {"model.layers.1.mlp.up_proj": 7.5}
    assert said["trainable_token_indices"] == {"embed_tokens": [41, 3], "lm_head": [41, 3]}
    assert len(said["target_modules"]) == 13, "a layer has no key"


def test_the_same_adapter_makes_the_same_bytes_and_another_one_others(tmp_path, tiny_config):
    digests = []
    for name, alpha in (("a", 5.0), ("b", 5.0), ("c", 6.0)):
        write_adapter(random_adapter(tiny_config, alpha=alpha), tmp_path / name, tiny_config)
        digests.append(adapter_digest(tmp_path / name))
    assert digests[0] == digests[1] != digests[2]


def test_a_folder_that_is_written_over_keeps_other_files(tmp_path, tiny_config):
    write_adapter(random_adapter(tiny_config), tmp_path / "a", tiny_config)
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    (tmp_path / "a" / "adapter_model.bin").write_bytes(b"old")
    write_adapter(random_adapter(tiny_config, alpha=9.0), tmp_path / "a", tiny_config)
    assert (tmp_path / "a" / "tokenizer.json").exists()
    assert not (tmp_path / "a" / "adapter_model.bin").exists(), "PEFT would not look at it, but people would"
    assert read_adapter(tmp_path / "a", tiny_config).alpha == 9.0


@pytest.mark.parametrize(
    "fields",
    [
        {"unties": True},
        {"whole": {"norm": np.ones(16, np.float32)}},
        {"pairs": {"layers.0.mlp.gate": (np.ones((2, 15)), np.ones((24, 2)))}},
        {"pairs": {"layers.0.mlp.gate": (np.ones((2, 16)), np.ones((24, 3)))}},
        {"pairs": {"layers.7.mlp.gate": (np.ones((2, 16)), np.ones((24, 2)))}},
        {"pairs": {"embedding": (np.ones((2, 16)), np.ones((40, 2)))}},
        {"rows": {"embedding": (np.array([1]), np.ones((2, 16)))}},
        {"rows": {"head": (np.array([1]), np.ones((1, 16)))}},
    ],
)
def test_what_does_not_fit_is_not_written(tmp_path, tiny_config, fields):
    with pytest.raises(ModelError, match="expected"):
        write_adapter(random_adapter(tiny_config, **fields), tmp_path / "a", tiny_config)
    assert not (tmp_path / "a").exists()


# ---- what PEFT writes ---------------------------------------------------------------------------------------------------


def test_rows_of_queries_and_keys_are_brought_into_our_order(tmp_path, tiny_config):
    arrays = pairs_of(tiny_config, ENDS)
    adapter = read_adapter(write_folder(tmp_path / "a", arrays), tiny_config)
    assert set(adapter.pairs) == {name for name in tensor_shapes(tiny_config) if name.split(".", 2)[-1] in LAYER_MATRICES}
    there = arrays[f"{PREFIX}{Q}.lora_B.weight"]
    head = tiny_config.head_size
    ours = [head * h + i // 2 + i % 2 * (head // 2) for h in range(tiny_config.n_heads) for i in range(head)]
    np.testing.assert_array_equal(adapter.pairs["layers.0.attention.query"][1], there[ours])
    np.testing.assert_array_equal(
        adapter.pairs["layers.0.attention.value"][1], arrays[f"{PREFIX}{Q.replace('q_', 'v_')}.lora_B.weight"]
    )
    np.testing.assert_array_equal(adapter.pairs["layers.0.attention.query"][0], arrays[f"{PREFIX}{Q}.lora_A.weight"])
    assert (adapter.rank, adapter.alpha, adapter.dropout, adapter.base) == (4, 6.0, 0.05, "/models/base")


@pytest.mark.parametrize("dtype", ["f16", "bf16", "bin"])
def test_other_dtypes_and_torch_files_are_read_too(tmp_path, tiny_config, dtype):
    arrays = pairs_of(tiny_config, ("q_proj", "down_proj"))
    folder = write_folder(tmp_path / "a", arrays)
    expected = read_adapter(folder, tiny_config)
    if dtype == "bin":
        (folder / "adapter_model.safetensors").unlink()
        (folder / "adapter_model.bin").write_bytes(saved({name: Tensor.from_array(array) for name, array in arrays.items()}))
        assert_same(read_adapter(folder, tiny_config), expected)
        return
    forms = {"f16": lambda a: a.astype(np.float16), "bf16": lambda a: to_bf16(a).data}
    write_folder(folder, {name: forms[dtype](array) for name, array in arrays.items()})
    found = read_adapter(folder, tiny_config)
    for name, (low, high) in expected.pairs.items():
        np.testing.assert_allclose(found.pairs[name][0], low, rtol=0.01)
        np.testing.assert_allclose(found.pairs[name][1], high, rtol=0.01)


@pytest.mark.parametrize(
    ("fields", "rank", "alpha"),
    [
        ({"rank_pattern": {"q_proj": 2}}, 2, 6.0),
        ({"rank_pattern": {"layers.0.self_attn.q_proj": 2, "q_proj": 4}}, 2, 6.0),
        ({"rank_pattern": {"model.layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"self_attn.q_proj": 3}}, 2, 3.0),
        (
            {"rank_pattern": {r"^model\.layers\.[0-1]\.self_attn\.(q_proj|v_proj)": 2}, "alpha_pattern": {".*q_proj": 1.5}},
            2,
            1.5,
        ),
        ({"rank_pattern": {r"layers.\d+.self_attn.q_proj": 2, "proj": 9, "1.self_attn.q_proj": 8}}, 2, 6.0),
    ],
)
def test_patterns_of_ranks_and_alphas_are_matched_as_peft_does(tmp_path, tiny_config, fields, rank, alpha):
    arrays = {name: array for name, array in pairs_of(tiny_config, ("q_proj",), rank).items() if "layers.0" in name}
    folder = write_folder(tmp_path / "a", arrays, target_modules=[Q], **fields)
    adapter = read_adapter(folder, tiny_config)
    assert adapter.scale("layers.0.attention.query") == alpha / rank
    assert adapter.rank == 4


def test_layers_that_are_left_out_and_patterns_of_targets_are_no_missing_tensors(tmp_path, tiny_config):
    arrays = {name: array for name, array in pairs_of(tiny_config, ("q_proj", "up_proj")).items() if "layers.1" in name}
    for fields in (
        {"layers_to_transform": [1]},
        {"layers_to_transform": 1},
        {"target_modules": r".*layers\.1\.(?:self_attn|mlp)\.(?:q_proj|up_proj)"},
        {"exclude_modules": ["layers.0.self_attn.q_proj", "layers.0.mlp.up_proj"]},
        {"exclude_modules": ".*0.*"},
    ):
        assert len(read_adapter(write_folder(tmp_path / "a", arrays, **fields), tiny_config).pairs) == 2


@pytest.mark.parametrize(
    ("tied", "arrays_for", "fields", "unties", "whole", "pairs"),
    [
        # (LoRA of the embedding; PEFT saves the embedding itself beside it)
        (True, "embed base", {}, True, {"embedding", "head"}, {"embedding"}),
        (True, "embed base head", {}, True, {"embedding", "head"}, {"embedding", "head"}),
        (
            True,
            "embed base head",
            {"ensure_weight_tying": True, "target_modules": ["q_proj", EMBED]},
            False,
            {"embedding"},
            {"embedding"},
        ),
        (False, "embed base", {}, False, {"embedding"}, {"embedding"}),
        (False, "embed head", {}, False, set(), {"embedding", "head"}),
        # (embeddings that were resized, saved without a word in the config)
        (True, "resized", {}, False, {"embedding"}, set()),
        (False, "resized", {}, False, {"embedding", "head"}, set()),
        # (whole modules)
        (True, "saved", {"modules_to_save": ["embed_tokens"]}, True, {"embedding"}, set()),
        (False, "saved", {"modules_to_save": ["embed_tokens"]}, False, {"embedding"}, set()),
        (True, "resized", {"modules_to_save": ["embed_tokens", "lm_head"]}, True, {"embedding", "head"}, set()),
        (
            True,
            "resized",
            {"modules_to_save": ["embed_tokens", EMBED], "ensure_weight_tying": True},
            False,
            {"embedding"},
            set(),
        ),
    ],
)
def test_embedding_and_head_part_where_peft_parts_them(tmp_path, tiny_config, tied, arrays_for, fields, unties, whole, pairs):
    config = replace(tiny_config, tied_embedding=tied)
    rng = np.random.default_rng(0)
    arrays = pairs_of(config, ("q_proj",))
    for word in arrays_for.split():
        if word in ("embed", "head"):
            arrays |= pairs_of(config, ({"embed": "embed_tokens", "head": HEAD}[word],))
        if word == "base":
            arrays[f"{PREFIX}{EMBED}.base_layer.weight"] = rng.normal(size=(40, 16)).astype(np.float32)
        if word in ("resized", "saved"):
            n_rows = 44 if word == "resized" else 40
            arrays[f"{PREFIX}{EMBED}.weight"] = rng.normal(size=(n_rows, 16)).astype(np.float32)
        if word == "resized":
            arrays[f"{PREFIX}{HEAD}.weight"] = arrays[f"{PREFIX}{EMBED}.weight"]
    targets = {} if "embed" in arrays_for else {"target_modules": ["q_proj"]}
    adapter = read_adapter(write_folder(tmp_path / "a", arrays, **targets | fields), config)
    assert (adapter.unties, set(adapter.whole)) == (unties, whole)
    assert {name for name in adapter.pairs if not name.startswith("layers")} == pairs
    assert adapter.vocab_size(40) == (44 if "resized" in arrays_for else 40)
    if "embedding" in pairs:
        low, high = adapter.pairs["embedding"]
        np.testing.assert_array_equal(low, arrays[f"{PREFIX}{EMBED}.lora_embedding_B"].T)
        np.testing.assert_array_equal(high, arrays[f"{PREFIX}{EMBED}.lora_embedding_A"].T)


@pytest.mark.parametrize(
    ("tied", "said", "unties", "rows"),
    [
        (True, [40, 2], False, {"embedding"}),
        (True, {"embed_tokens": [40, 2], "lm_head": [40, 2]}, False, {"embedding"}),
        (True, {"embed_tokens": [40, 2], "lm_head": [3]}, True, {"embedding", "head"}),
        (True, {"lm_head": [3]}, True, {"head"}),
        (False, {"model.embed_tokens": [40, 2], "lm_head": [40, 2]}, False, {"embedding", "head"}),
        (False, [40, 2], False, {"embedding"}),
    ],
)
def test_rows_of_tokens_are_read(tmp_path, tiny_config, tied, said, unties, rows):
    config = replace(tiny_config, tied_embedding=tied)
    arrays = pairs_of(config, ("q_proj",))
    by_module = {"embed_tokens": said} if isinstance(said, list) else {key.split(".")[-1]: ids for key, ids in said.items()}
    for module, end in ((EMBED, "embed_tokens"), (HEAD, "lm_head")):
        if end in by_module:
            numbers = np.full((len(by_module[end]), 16), len(arrays), np.float32)
            arrays[f"{PREFIX}{module}.token_adapter.trainable_tokens_delta"] = numbers
    folder = write_folder(tmp_path / "a", arrays, target_modules=["q_proj"], trainable_token_indices=said)
    adapter = read_adapter(folder, config)
    assert (adapter.unties, set(adapter.rows)) == (unties, rows)
    for ids, values in adapter.rows.values():
        assert ids.dtype == np.int64
        assert values.shape == (len(ids), 16)
    assert adapter.vocab_size(40) == (41 if "embedding" in rows else 40)


def test_norms_and_turned_matrices_come_as_a_whole(tmp_path, tiny_config):
    rng = np.random.default_rng(0)
    norm, query = (rng.normal(size=shape).astype(np.float32) for shape in ((16,), (16, 16)))
    arrays = {f"{PREFIX}model.norm.weight": norm, f"{PREFIX}{Q}.weight": query}
    folder = write_folder(tmp_path / "a", arrays, modules_to_save=["model.norm", "layers.0.self_attn.q_proj"])
    adapter = read_adapter(folder, tiny_config)
    np.testing.assert_array_equal(adapter.whole["norm"], norm)
    np.testing.assert_array_equal(adapter.whole["layers.0.attention.query"][:4], query[[0, 2, 1, 3]])


# ---- what cannot be applied ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type: found IA3, expected LORA"),
        ({"peft_type": None}, "peft_type: found None, expected LORA"),
        ({"use_dora": True}, "use_dora: found True, expected False"),
        ({"bias": "all"}, "bias: found all, expected none"),
        ({"lora_bias": True}, "lora_bias: found True"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out: found True"),
        ({"use_qalora": True}, "use_qalora: found True"),
        ({"layer_replication": [[0, 2]]}, "layer_replication: found"),
        ({"target_parameters": ["w"]}, "target_parameters: found"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens: found"),
        ({"kasa_config": {}}, "kasa_config: found"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights: found pissa_niter_16, expected true, or a beginning"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights: found loftq"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(tmp_path, tiny_config, fields, says):
    line = refusal(write_folder(tmp_path / "a", pairs_of(tiny_config, ("q_proj",)), **fields), tiny_config)
    assert line.startswith(f"{tmp_path / 'a' / 'adapter_config.json'}: {says}"), line


def test_the_adapter_of_another_model_is_refused_with_both_shapes(tmp_path, tiny_config):
    folder = write_folder(tmp_path / "a", pairs_of(tiny_config, ("q_proj",)))
    for other, says in (
        (
            replace(tiny_config, width=32, head_size=4),
            f"shape of {PREFIX}{Q}.lora_A.weight: found (4, 16), expected (4, 32) beside ",
        ),
        (
            replace(tiny_config, n_heads=8),
            f"shape of {PREFIX}{Q}.lora_B.weight: found (16, 4), expected (32, 4) beside the model's ",
        ),
        (
            replace(tiny_config, n_layers=1),
            "tensors: found base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight, expected",
        ),
        (replace(tiny_config, n_layers=3), "tensors: found no base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight"),
    ):
        line = refusal(folder, other)
        assert line.startswith(f"{folder / 'adapter_model.safetensors'}: {says}"), line
    assert "layers.0.attention.query, 32 x 16" in refusal(folder, replace(tiny_config, n_heads=8))


def test_a_folder_without_an_adapter_is_refused(tmp_path, tiny_config):
    assert "adapter: found no adapter_config.json, expected a folder with" in refusal(tmp_path, tiny_config)
    assert "adapter: found no such folder" in refusal(tmp_path / "nowhere", tiny_config)
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    assert "adapter: found a file" in refusal(tmp_path / "some.gguf", tiny_config)
    folder = write_folder(tmp_path / "a", {})
    (folder / "adapter_model.safetensors").unlink()
    assert refusal(folder, tiny_config).startswith(f"{folder / 'adapter_model.safetensors'}: file: found No such file")


def test_every_matrix_of_a_llama_has_a_name(tiny_config):
    config = replace(tiny_config, tied_embedding=False)
    assert len(shapes_of(config)) == sum(len(shape) == 2 for shape in tensor_shapes(config).values())
