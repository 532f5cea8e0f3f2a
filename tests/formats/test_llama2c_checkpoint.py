"""ckpt.pt of llama2.c's train.py: the model is that of its .bin, the optimizer is passed over, other checkpoints are named."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamita.config import ModelConfig
from llamita.errors import ModelFileError
from llamita.formats import read_model, weight_paths, write_model
from llamita.formats.meta_weights import meta_name
from llamita.model import Model, random_model
from llamita.quant import Tensor
from torch_files import Opcodes, call, name, pickled, saved, storage, tensor, wrapped

CONFIG = ModelConfig(16, 2, 4, 2, 44, 40, 12)
ARGS = {"dim": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 40, "multiple_of": 4, "max_seq_len": 12}


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(CONFIG)


def state_of(model: Model, prefix: str = "") -> OrderedDict[str, Tensor]:
    """The state of llama2.c's Transformer: a tied head is there once more."""
    state = OrderedDict((prefix + meta_name(key), tensor) for key, tensor in model.tensors.items())
    state[f"{prefix}output.weight"] = model.head
    return state


def checkpoint(model: Model, prefix: str = "", **changes: object) -> dict[str, object]:
    """All that train.py saves."""
    content = {
        "model": state_of(model, prefix),
        "optimizer": {"state": {0: {"exp_avg": model.tensors["norm"]}}, "param_groups": [{"lr": 5e-4, "betas": (0.9, 0.95)}]},
        "model_args": ARGS | {"dropout": 0.0},
        "iter_num": 1000,
        "best_val_loss": Tensor.from_array(np.array(1.5, np.float32)),
        "config": {"out_dir": "out", "compile": True, "max_iters": 100000},
    }
    return content | changes


def write(path: Path, content: dict[str, object]) -> Path:
    path.write_bytes(saved(content))
    return path


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_is_the_model_that_train_py_exports(tmp_path, prefix, tied):
    model = random_model(replace(CONFIG, tied_embedding=tied))
    path = write(tmp_path / "ckpt.pt", checkpoint(model, prefix))
    read = read_model(path)
    assert read.config == model.config
    assert read.source_format == "llama2.c checkpoint"
    assert weight_paths(read) == [path]
    assert all(not tensor.data.flags.owndata for tensor in read.tensors.values())
    write_model(model, tmp_path / "model.bin", "llama2c-v0")
    write_model(read, tmp_path / "again.bin", "llama2c-v0")
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "model.bin").read_bytes()


def test_the_content_decides_not_the_name_and_a_folder_may_hold_one(tmp_path, model):
    path = write(tmp_path / "anything.bin", checkpoint(model))
    assert read_model(path).config == CONFIG
    path.rename(tmp_path / "ckpt.pt")
    assert read_model(tmp_path).config == CONFIG
    write_model(random_model(replace(CONFIG, context=7)), tmp_path / "model.bin", "llama2c-v0")
    assert read_model(tmp_path).config.context == 7


def test_tables_and_masks_that_old_versions_saved_are_passed_over(tmp_path, model):
    state = state_of(model)
    state["freqs_cos"] = state["freqs_sin"] = state["layers.1.attention.mask"] = model.tensors["norm"]
    assert read_model(write(tmp_path / "ckpt.pt", checkpoint(model) | {"model": state})).config == CONFIG


def test_a_storage_of_the_optimizer_that_does_not_fit_is_refused(tmp_path, model):
    moments = tensor(storage("DoubleStorage", "77", 1), ())
    with pytest.raises(ModelFileError, match=r"data.pkl: found storage 77 with no such member"):
        read_model(write(tmp_path / "ckpt.pt", checkpoint(model, optimizer={"state": moments})))


STATE = state_of(random_model(CONFIG))
OTHERS = [
    ({"state_dict": {}, "epoch": 3}, "content: found 2 entries, state_dict, epoch, expected model and model_args"),
    (STATE, r"content: found 21 entries, tok_embeddings.weight, .*; of a model of Meta or Hugging Face, name the folder"),
    ([1], "content: found a list, expected model and model_args"),
    ({"model": {}, "model_args": ARGS}, "model: found an empty dict, expected a dict of tensors"),
    ({"model": STATE, "model_args": [1]}, "model_args: found a list, expected a dict of numbers"),
    ({"model": STATE, "model_args": {"n_embd": 16}}, "dim: found None, expected 1 to"),
    ({"model": STATE, "model_args": ARGS | {"n_heads": 3}}, "n_heads: found 3 heads"),
    ({"model": STATE, "model_args": ARGS | {"multiple_of": 64}}, "found 44 rows of w1, expected 64"),
]


@pytest.mark.parametrize(("content", "message"), OTHERS, ids=range(len(OTHERS)))
def test_another_checkpoint_is_refused_with_what_it_is(tmp_path, content, message):
    (tmp_path / "ckpt.pt").write_bytes(saved(content))
    with pytest.raises(ModelFileError, match=message):
        read_model(tmp_path / "ckpt.pt")


def test_a_whole_module_is_refused_with_the_remedy(tmp_path):
    module = Opcodes(name("model", "Transformer") + b")\x81}b")
    (tmp_path / "ckpt.pt").write_bytes(wrapped(pickled({"model": module})))
    with pytest.raises(ModelFileError, match=r"found the name model.Transformer, .*; save the weights alone with torch.save"):
        read_model(tmp_path / "ckpt.pt")
    (tmp_path / "ckpt.pt").write_bytes(wrapped(pickled({"config": call("argparse", "Namespace")})))
    with pytest.raises(ModelFileError, match=r"found the name argparse.Namespace"):
        read_model(tmp_path / "ckpt.pt")


def test_the_real_checkpoint_is_the_model_of_its_bin(shared_data):
    read = read_model(shared_data / "models/stories260K/derived/stories260K_repack.pt")
    expected = read_model(shared_data / "models/stories260K/stories260K.bin")
    assert read.config == expected.config
    for key, one in expected.tensors.items():
        np.testing.assert_array_equal(read.tensors[key].data, one.data)
