"""PEFT, which shares no line with us, opens our adapters and writes those that we open: the same logits.

Needs transformers and torch beside it, so it is no dependency of the ordinary tests.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamita.cli import main
from llamita.config import LAYER_MATRICES, ModelConfig
from llamita.engine import Engine
from llamita.errors import ModelFileError
from llamita.formats import read_model, write_model
from llamita.formats.adapter import Adapter, read_adapter
from llamita.formats.adapter_writer import write_adapter
from llamita.formats.merged_model import merged
from llamita.formats.safetensors import read_arrays
from llamita.model import Model, random_model, tensor_shapes
from peft_files import PLAIN, pairs_of, write_folder

peft = pytest.importorskip("peft", reason="PEFT is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # their warnings are not ours to mend

IDS = [1, 5, 7, 2, 39, 5, 5, 11, 0, 3]
CONFIGS = {
    "tied": ModelConfig(16, 2, 4, 4, 24, 40, 32),
    "grouped queries": ModelConfig(32, 3, 8, 2, 40, 40, 32, tied_embedding=False),
    "wide heads": ModelConfig(16, 2, 4, 2, 24, 40, 32, head_size=10),
}
ENDS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def our_logits(model: Model, ids: list[int]) -> np.ndarray:
    with Engine(model, n_threads=1) as engine:
        return engine.logits(ids)


def their_logits(model, ids: list[int]) -> np.ndarray:
    model.eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def their_base(folder: Path):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def write_base(folder: Path, config: ModelConfig) -> Path:
    write_model(random_model(config), folder, "safetensors")
    return folder


def random_adapter(config: ModelConfig, **fields) -> Adapter:
    rng = np.random.default_rng(1)
    pairs = {}
    for i, (name, shape) in enumerate(tensor_shapes(config).items()):
        if name.split(".", 2)[-1] in LAYER_MATRICES:
            rank = 4 if i % 3 else 2
            low, high = rng.normal(0, 0.3, (rank, shape[1])), rng.normal(0, 0.3, (shape[0], rank))
            pairs[name] = low.astype(np.float32), high.astype(np.float32)
    return Adapter(**{"rank": 4, "alpha": 6.0, "pairs": pairs} | fields)


# ---- what we write --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rslora", [True, False])
def test_peft_computes_our_logits_from_our_adapter(tmp_path, name, rslora):
    config = CONFIGS[name]
    base = write_base(tmp_path / "base", config)
    adapter = random_adapter(config, base=str(base), use_rslora=rslora, alphas={"layers.1.mlp.up": 2.5})
    del adapter.pairs["layers.0.mlp.gate"]
    write_adapter(adapter, tmp_path / "adapter", config)
    theirs = peft.PeftModel.from_pretrained(their_base(base), tmp_path / "adapter")
    expected = their_logits(theirs, IDS)
    np.testing.assert_allclose(our_logits(merged(read_model(base), adapter), IDS), expected, atol=1e-4)
    np.testing.assert_allclose(our_logits(read_model(base, adapter=tmp_path / "adapter"), IDS), expected, atol=1e-4)
    assert np.abs(expected - our_logits(read_model(base), IDS)).max() > 0.1


@pytest.mark.parametrize("name", CONFIGS)
def test_peft_reads_our_rows_of_tokens(tmp_path, name):
    config = CONFIGS[name]
    base = write_base(tmp_path / "base", config)
    rng = np.random.default_rng(0)
    names = ["embedding"] if config.tied_embedding else ["embedding", "head"]
    rows = {name: (np.array([40, 3, 41]), rng.normal(size=(3, config.width)).astype(np.float32)) for name in names}
    write_adapter(random_adapter(config, rows=rows), tmp_path / "adapter", config)
    their = their_base(base)
    their.resize_token_embeddings(42)
    ids = [*IDS, 40, 41, 3, 2]
    expected = their_logits(peft.PeftModel.from_pretrained(their, tmp_path / "adapter"), ids)
    ours = our_logits(read_model(base, adapter=tmp_path / "adapter"), ids)
    rounding = 1e-5 * np.abs(expected).max()  # logits of up to 23, and two orders of sums: PEFT adds what we merge
    np.testing.assert_allclose(ours, expected, atol=rounding)


def test_what_we_merge_is_what_peft_merges(tmp_path):
    config = CONFIGS["grouped queries"]
    base = write_base(tmp_path / "base", config)
    write_adapter(random_adapter(config), tmp_path / "adapter", config)
    assert main(["export", str(base), str(tmp_path / "ours"), "--adapter", str(tmp_path / "adapter"), "--dtype", "f32"]) == 0
    theirs = peft.PeftModel.from_pretrained(their_base(base), tmp_path / "adapter").merge_and_unload()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = read_arrays(tmp_path / "ours" / "model.safetensors")
    for name, array in read_arrays(tmp_path / "theirs" / "model.safetensors").items():
        np.testing.assert_allclose(ours[name], array, atol=1e-6, err_msg=name)


# ---- what PEFT writes -------------------------------------------------------------------------------------------------------

NEW = [40, 41, 42]
ADAPTERS = {
    "all seven": {"target_modules": ENDS},
    "all-linear": {"target_modules": "all-linear"},
    "a pattern": {"target_modules": r".*layers\.(?:1|2)\.self_attn\.(?:q|v)_proj"},
    "some layers": {"target_modules": ENDS, "layers_to_transform": [1]},
    "all but": {"target_modules": ENDS, "exclude_modules": ["layers.0.mlp.gate_proj", "o_proj"]},
    "rslora": {"target_modules": ENDS, "use_rslora": True},
    "patterns": {
        "target_modules": ENDS,
        "rank_pattern": {"layers.0.self_attn.q_proj": 2, "k_proj": 6, r"^model\.layers\.1\.mlp\.(up|down)_proj": 3},
        "alpha_pattern": {".*q_proj": 2, "model.layers.1.mlp.gate_proj": 9},
    },
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "embedding and head": {"target_modules": ["k_proj", "embed_tokens", "lm_head"]},
    "head": {"target_modules": ["k_proj", "lm_head"]},
    "tied embedding": {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    "saved embedding": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "saved head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "saved both": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "saved and tied": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "saved norms": {"target_modules": ["q_proj"], "modules_to_save": ["norm", "input_layernorm"]},
    "saved matrices": {"target_modules": ["v_proj"], "modules_to_save": ["q_proj", "mlp"]},
    "resized": {"target_modules": ["q_proj"]},
    "resized embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "resized, saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "resized, tokens": {"target_modules": ["q_proj"], "trainable_token_indices": NEW},
    "resized, tokens of both": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": NEW, "lm_head": NEW}},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 2]},
    "other tokens of both": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3, 2], "lm_head": [1]}},
}


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_we_compute_the_logits_of_an_adapter_of_peft(tmp_path, name, tied):
    base = write_base(tmp_path / "base", replace(CONFIGS["wide heads"], n_layers=3, tied_embedding=tied))
    their = their_base(base)
    if name.startswith("resized"):
        their.resize_token_embeddings(44)
    torch.manual_seed(0)
    lora = peft.LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **ADAPTERS[name])
    model = peft.get_peft_model(their, lora)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "adapter")
    ids = [*IDS, *NEW, 43] if name.startswith("resized") else IDS
    expected = their_logits(model, ids)
    if (
        name == "resized embedding" and not tied
    ):  # PEFT does not save the head that was resized, and cannot load its file either
        with pytest.raises(ModelFileError, match="rows: found 44 of embedding and 40 of head, expected as many of both"):
            read_model(base, adapter=tmp_path / "adapter")
        return
    ours = read_model(base, adapter=tmp_path / "adapter")
    np.testing.assert_allclose(our_logits(ours, ids), expected, atol=1e-4)
    assert np.abs(expected[: len(IDS), :40] - our_logits(read_model(base), IDS)).max() > 0.01


def test_adapters_in_half_precision_and_in_torch_files_are_read(tmp_path):
    config = CONFIGS["grouped queries"]
    base = write_base(tmp_path / "base", config)
    model = peft.get_peft_model(their_base(base), peft.LoraConfig(target_modules=ENDS, init_lora_weights=False))
    expected = their_logits(model, IDS)
    model.save_pretrained(tmp_path / "bin", safe_serialization=False)
    np.testing.assert_allclose(our_logits(read_model(base, adapter=tmp_path / "bin"), IDS), expected, atol=1e-4)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    np.testing.assert_allclose(our_logits(read_model(base, adapter=tmp_path / "half"), IDS), expected, atol=0.5)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"use_dora": True}, "use_dora: found True"),
        ({"bias": "lora_only"}, "bias: found lora_only"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: found pissa"),
        ({"init_lora_weights": "olora"}, "init_lora_weights: found olora"),
        ({"target_parameters": ["mlp.gate_proj.weight"]}, "target_parameters: found"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication: found"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens: found"),
    ],
)
def test_kinds_of_lora_that_we_do_not_compute_are_refused(tmp_path, fields, says):
    base = write_base(tmp_path / "base", CONFIGS["tied"])
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **fields)
    peft.get_peft_model(their_base(base), lora).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelFileError, match=says):
        read_model(base, adapter=tmp_path / "adapter")


@pytest.mark.parametrize("kind", ["IA3Config", "LoHaConfig", "OFTConfig", "PromptTuningConfig", "LNTuningConfig"])
def test_other_adapters_are_refused(tmp_path, kind):
    base = write_base(tmp_path / "base", CONFIGS["tied"])
    fields = {
        "IA3Config": {"target_modules": ["q_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
        "PromptTuningConfig": {"num_virtual_tokens": 3},
        "LNTuningConfig": {},
        "OFTConfig": {"target_modules": ["q_proj"], "oft_block_size": 4},
    }.get(kind, {"target_modules": ["q_proj"]})
    config = getattr(peft, kind)(task_type="CAUSAL_LM", **fields)
    peft.get_peft_model(their_base(base), config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelFileError, match=r"peft_type: found .*, expected LORA"):
        read_model(base, adapter=tmp_path / "adapter")


# ---- our imitation of its files, on which the ordinary tests stand ---------------------------------------------------------


def test_our_imitation_has_the_fields_and_names_of_pefts_files(tmp_path):
    config = CONFIGS["tied"]
    base = write_base(tmp_path / "base", config)
    lora = peft.LoraConfig(r=4, target_modules=[*ENDS, "embed_tokens"], task_type="CAUSAL_LM")
    peft.get_peft_model(their_base(base), lora).save_pretrained(tmp_path / "theirs")
    ours = write_folder(tmp_path / "ours", pairs_of(config, (*ENDS, "embed_tokens")))
    said = json.loads((tmp_path / "theirs" / "adapter_config.json").read_text())
    assert {*PLAIN} == {*said}
    theirs, imitated = (read_arrays(folder / "adapter_model.safetensors") for folder in (tmp_path / "theirs", ours))
    shapes = {name: array.shape for name, array in theirs.items() if not name.endswith("base_layer.weight")}
    assert shapes == {name: array.shape for name, array in imitated.items()}
    their = peft.PeftModel.from_pretrained(their_base(base), ours)
    adapter = read_adapter(ours, config)
    np.testing.assert_allclose(our_logits(merged(read_model(base), adapter), IDS), their_logits(their, IDS), atol=1e-4)
