"""Meta's folders: of one file or many the model is the same, nothing is joined before it is touched, no number is believed."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamita.cli.inspect import describe
from llamita.config import ModelConfig, RopeScaling
from llamita.engine import Engine
from llamita.errors import ModelFileError
from llamita.formats import meta, read_model, weight_paths, write_model, write_tokenizer
from llamita.formats.joined_tensor import JoinedTensor
from llamita.formats.meta_weights import meta_name
from llamita.model import Model, random_model, tensor_shapes, with_dtype
from llamita.quant import Tensor, convert
from llamita.tokenizer.llama2c import BOS_PIECE, EOS_PIECE, Llama2cTokenizer
from torch_files import saved

CONFIG = ModelConfig(64, 2, 8, 4, 192, 40, 2048, tied_embedding=False)
PARAMS = {"dim": 64, "n_layers": 2, "n_heads": 8, "n_kv_heads": 4, "multiple_of": 64, "norm_eps": 1e-5, "vocab_size": -1}
COLUMNS = ("attention.output", "mlp.down")


def split(tensor: Tensor, axis: int, n: int) -> list[Tensor]:
    """The pieces of a matrix as each of n devices has them; all of a vector."""
    if len(tensor.shape) == 1:
        return [tensor] * n
    return [Tensor(tensor.dtype, part.shape, np.ascontiguousarray(part)) for part in np.split(tensor.data, n, axis)]


def write_folder(folder: Path, model: Model, n_files: int = 1, embedding_axis: int = 1, **params: object) -> Path:
    """Write a model as Meta would; params change params.json, ... takes one out."""
    folder.mkdir(parents=True)
    files: list[dict[str, Tensor]] = [{} for _ in range(n_files)]
    for name, tensor in model.tensors.items():
        axis = embedding_axis if name == "embedding" else 1 if name.endswith(COLUMNS) else 0
        for file, piece in zip(files, split(tensor, axis, n_files), strict=True):
            file[meta_name(name)] = piece
    for i, file in enumerate(files):
        file["rope.freqs"] = Tensor.from_array(np.ones(4, np.float32))
        (folder / f"consolidated.{i:02d}.pth").write_bytes(saved(file))
    values = {name: value for name, value in (PARAMS | params).items() if value is not ...}
    (folder / "params.json").write_text(json.dumps(values))
    return folder


def assert_equal(found: Model, expected: Model) -> None:
    assert found.config == expected.config
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found.tensors[name].dequantize(), tensor.dequantize(), err_msg=name)


def untouched(model: Model) -> bool:
    return not any("data" in vars(tensor) for tensor in model.tensors.values() if isinstance(tensor, JoinedTensor))


@pytest.fixture(scope="module")
def model() -> Model:
    made = random_model(CONFIG)
    return replace(made, tensors={name: convert(tensor, "bf16") for name, tensor in made.tensors.items()})


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_one_file_is_read_as_views(tmp_path, model, dtype):
    model = replace(model, tensors={name: convert(tensor, dtype) for name, tensor in model.tensors.items()})
    read = read_model(write_folder(tmp_path / "7B", model))
    assert_equal(read, model)
    assert read.source_format == "Meta"
    assert not any(tensor.data.flags.owndata or tensor.data.flags.writeable for tensor in read.tensors.values())


@pytest.mark.parametrize("embedding_axis", [0, 1])
@pytest.mark.parametrize("n_files", [2, 4])
def test_many_files_are_the_same_model_joined_when_touched(tmp_path, model, n_files, embedding_axis):
    folder = write_folder(tmp_path / "13B", model, n_files, embedding_axis)
    read = read_model(folder)
    assert read.n_bytes == model.n_bytes
    assert untouched(read)
    for name, tensor in read.tensors.items():
        for first, last in ((0, 1), (7, 33), (-5, 1000)):
            np.testing.assert_array_equal(tensor.rows(first, last).data, model.tensors[name].rows(first, last).data)
            assert tensor.rows(first, last).shape == model.tensors[name].rows(first, last).shape
    assert untouched(read)
    assert_equal(read, model)
    assert weight_paths(read) == [folder / f"consolidated.{i:02d}.pth" for i in range(n_files)]


def test_writers_join_some_rows_at_a_time(tmp_path, model):
    read = read_model(write_folder(tmp_path / "13B", model, 2))
    for to in ("llama2c-v0", "llama2c-v2", "safetensors"):
        write_model(read, tmp_path / f"{to} of many", to)
        write_model(model, tmp_path / to, to)
        paths = [tmp_path / to, tmp_path / f"{to} of many"]
        one, other = ((path / "model.safetensors" if path.is_dir() else path).read_bytes() for path in paths)
        assert one == other
    assert untouched(read)


def test_inspect_joins_nothing(tmp_path, model):
    folder = write_folder(tmp_path / "13B", model, 2)
    read = read_model(folder)
    rows = describe(read, 100)["file"]
    assert untouched(read)
    assert sum(row["bytes"] for row in rows) == sum(path.stat().st_size for path in folder.glob("*.pth"))
    n_norms = 5 * 64  # each vector is in both files, and counts once
    assert [(row["what"], row["count"]) for row in rows] == [
        ("bfloat16 weights of matrices", CONFIG.n_parameters - n_norms),
        ("bfloat16 weights of norms", n_norms),
        ("headers of 2 files", rows[-1]["bytes"]),
    ]


def test_the_engine_runs_what_is_joined(tmp_path, model):
    read = read_model(write_folder(tmp_path / "13B", model, 2))
    logits = []
    for one in (read, model, with_dtype(read, "q8_0", 16), with_dtype(model, "q8_0", 16)):
        engine = Engine(one, n_threads=1)
        logits.append(engine.logits([1, 2, 3]))
        engine.close()
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[2], logits[3])


@pytest.mark.parametrize("name", ["params.json", "consolidated.00.pth", "consolidated.01.pth"])
def test_a_file_of_the_folder_names_it(tmp_path, model, name):
    folder = write_folder(tmp_path / "13B", model, 2)
    assert read_model(folder / name).name == str(folder)


@pytest.mark.parametrize("n_files", [1, 2])
def test_a_head_that_is_absent_or_the_embedding_once_more_is_tied(tmp_path, model, n_files):
    embedding = model.tensors["embedding"]
    twice = replace(model, tensors=model.tensors | {"head": embedding})
    once = {name: tensor for name, tensor in model.tensors.items() if name != "head"}
    tied = replace(model, config=replace(CONFIG, tied_embedding=True), tensors=once)
    assert_equal(read_model(write_folder(tmp_path / "twice", twice, n_files)), tied)
    assert_equal(read_model(write_folder(tmp_path / "once", tied, n_files)), tied)


CONTEXTS = {
    "Llama 2": ({}, {"context": 2048}),
    "Llama 2 as it says itself": ({"max_seq_len": 4096}, {"context": 4096}),
    "Llama 3": ({"rope_theta": 500000.0}, {"context": 8192}),
    "Llama 3.1": (
        {"rope_theta": 500000, "use_scaled_rope": True},
        {"context": 131072, "rope_scaling": RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)},
    ),
    "Code Llama": ({"rope_theta": 1000000}, {"context": 16384}),
    "Mistral": ({"hidden_dim": 192, "head_dim": 8, "sliding_window": 1024, "multiple_of": ...}, {"context": 1024}),
    "a multiplier": ({"ffn_dim_multiplier": 1.0, "multiple_of": 192}, {"context": 2048}),
    "LLaMA": ({"norm_eps": 1e-6, "vocab_size": 40}, {"norm_epsilon": 1e-6}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTEXTS)
def test_the_config_follows_from_params_and_tensors(tmp_path, model, name):
    params, expected = CONTEXTS[name]
    theta = {"rope_theta": float(params["rope_theta"])} if "rope_theta" in params else {}
    assert read_model(write_folder(tmp_path / "7B", model, **params)).config == replace(CONFIG, **theta, **expected)


def test_a_scaled_and_tied_model_is_llama_3_2_with_its_factor(tmp_path, model):
    twice = replace(model, tensors=model.tensors | {"head": model.tensors["embedding"]})
    scaling = read_model(write_folder(tmp_path / "1B", twice, use_scaled_rope=True)).config.rope_scaling
    assert scaling == RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)


def test_the_mlp_is_as_wide_as_meta_rounds_it(tmp_path):
    config = ModelConfig(48, 1, 2, 2, 192, 40, 2048)  # int(1.3 * int(8 * 48 / 3)) = 166, rounded up to a multiple of 64
    model = random_model(config)
    params: dict = {"dim": 48, "n_layers": 1, "n_heads": 2, "n_kv_heads": None}
    assert read_model(write_folder(tmp_path / "good", model, **params, ffn_dim_multiplier=1.3)).config == config
    with pytest.raises(
        ModelFileError, match=r"params.json: width of the MLP: found 192 rows of w1, expected 128 as the numbers"
    ):
        read_model(write_folder(tmp_path / "bad", model, **params))


def test_the_tokenizer_is_found_in_the_folder_or_one_up(tmp_path, model):
    folder = write_folder(tmp_path / "llama-2-7b", model)
    pieces = [b"<unk>", BOS_PIECE, EOS_PIECE, *(b"%d" % i for i in range(37))]
    write_tokenizer(Llama2cTokenizer(pieces, [0.0] * 40), tmp_path / "tokenizer.model")
    assert read_model(folder).tokenizer is not None
    write_tokenizer(Llama2cTokenizer(pieces, [0.0] * 40), folder / "tokenizer.bin")
    assert isinstance(read_model(folder).tokenizer, Llama2cTokenizer)


REFUSED = {
    "dim": [..., 0, -64, 64.0, "64", True, 1 << 20],
    "n_layers": [..., 0, 3, 1 << 20],
    "n_heads": [..., 0, 7, 128, "8"],
    "n_kv_heads": [0, 3, "4"],
    "head_dim": [0, 5, 7, "8"],
    "norm_eps": [0, -1, 1, "1e-5", True],
    "rope_theta": [0, -1, "1e4", 1e12, [1]],
    "use_scaled_rope": [1, "true", [], {}],
    "multiple_of": [-1, "64", 1 << 30],
    "ffn_dim_multiplier": [0, -1, "1", 1e9],
    "hidden_dim": [0, 100],
    "max_seq_len": [0, "2048", 1 << 30],
    "sliding_window": [0, "4096"],
    "moe": [{"num_experts": 8}],
    "quantization_args": [{"group_size": 32}],
    "lora_args": [{"rank": 16}],
    "rope_high_freq_factor": [1],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_params_that_make_no_sense_are_refused(tmp_path, model, name, value):
    folder = write_folder(tmp_path / "7B", model, **{name: value})
    with pytest.raises(ModelFileError, match=r"(params.json|7B): .*found .*, expected "):
        read_model(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"dim": NaN}', '{"dim": 64, "dim": 64}'])
def test_params_that_are_no_object_are_refused(tmp_path, model, text):
    folder = write_folder(tmp_path / "7B", model)
    (folder / "params.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"params.json: "):
        read_model(folder)


def test_a_missing_file_is_named(tmp_path, model):
    folder = write_folder(tmp_path / "13B", model, 4)
    (folder / "consolidated.01.pth").unlink()
    with pytest.raises(ModelFileError, match=r"13B: weights: found .*02.pth.*, expected consolidated.01.pth; is the folder"):
        read_model(folder)
    for path in folder.glob("*.pth"):
        path.unlink()
    with pytest.raises(ModelFileError, match=r"found no consolidated.\*.pth, expected consolidated.00.pth"):
        read_model(folder)


def test_files_that_do_not_fit_each_other_are_refused(tmp_path, model):
    folder = write_folder(tmp_path / "13B", model, 2)
    write_folder(tmp_path / "other", with_dtype(model, "f16"), 2)
    (folder / "consolidated.01.pth").write_bytes((tmp_path / "other" / "consolidated.01.pth").read_bytes())
    with pytest.raises(ModelFileError, match=r"pieces of .*: found f16 .* beside bf16"):
        read_model(folder)
    (folder / "consolidated.01.pth").write_bytes(saved({"norm.weight": model.tensors["norm"]}))
    with pytest.raises(ModelFileError, match=r"in some files only, expected the same names in all files"):
        read_model(folder)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "vector", "nothing"])
def test_tensors_that_are_not_those_of_a_llama_are_refused(tmp_path, model, change):
    tensors = {meta_name(name): tensor for name, tensor in model.tensors.items()}
    vector, nothing = model.tensors["norm"], Tensor.from_array(np.zeros((0, 64), np.float32))
    changes = {
        "missing": ({"norm.weight": None}, "no norm.weight, expected one, under Meta's name"),
        "extra": ({"layers.0.attention.wq.bias": vector}, "found layers.0.attention.wq.bias, expected only those of a Llama"),
        "shape": ({"norm.weight": tensors["output.weight"]}, r"shape of norm.weight: found \(40, 64\), expected \(64,\)"),
        "vector": ({"tok_embeddings.weight": vector}, r"shape of tok_embeddings.weight: found \(64,\), expected 1 to"),
        "nothing": ({"layers.0.feed_forward.w1.weight": nothing}, r"shape of .*w1.weight: found \(0, 64\), expected 1 to"),
    }
    fields, message = changes[change]
    folder = write_folder(tmp_path / "7B", model)
    changed = {name: tensor for name, tensor in (tensors | fields).items() if tensor is not None}
    (folder / "consolidated.00.pth").write_bytes(saved(changed))
    with pytest.raises(ModelFileError, match=message):
        read_model(folder)


def counted_model() -> Model:
    """A model whose weights follow from their places, in float16: the same on every machine."""
    tensors = {}
    for i, (name, shape) in enumerate(tensor_shapes(CONFIG).items()):
        numbers = (np.arange(math.prod(shape), dtype=np.int64) * 7919 + i * 104729) % 2001 - 1000
        tensors[name] = Tensor.from_array((numbers / 1024).astype(np.float16).reshape(shape))
    return Model(CONFIG, tensors)


# SHA-256 of what `export.py --meta-llama` of llama2.c (commit 350e04f, torch 2.13) makes of counted_model in two files
EXPORTED = {
    "llama2c-v1": "3333f3b9c0dfbe4d5fcbf21691670489b1f0fd10e0f592422b451b07f269d49a",
    "llama2c-v2": "7b0125f07525148c878757b8c1e60ac026212b4750f82ea94bfbb66bdf4b26e2",
}


@pytest.mark.parametrize("to", EXPORTED)
@pytest.mark.parametrize("n_files", [1, 2, 4])
def test_the_export_is_that_of_llama2c_byte_for_byte(tmp_path, to, n_files):
    folder = write_folder(tmp_path / "7B", counted_model(), n_files)
    write_model(read_model(folder), tmp_path / "model.bin", to)
    assert hashlib.sha256((tmp_path / "model.bin").read_bytes()).hexdigest() == EXPORTED[to]


def test_a_folder_of_torch_is_read_as_torch_has_it(tmp_path, model):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    weights = {meta_name(name): torch.randn(tensor.shape, dtype=torch.bfloat16) for name, tensor in model.tensors.items()}
    folder = write_folder(tmp_path / "13B", model, 2)
    for i in range(2):
        pieces = {"rope.freqs": torch.ones(4)}
        for name, weight in weights.items():
            axis = 1 if name.endswith((".wo.weight", ".w2.weight", "tok_embeddings.weight")) else 0
            pieces[name] = weight.chunk(2, axis)[i].clone() if weight.ndim > 1 else weight
        torch.save(pieces, folder / f"consolidated.{i:02d}.pth")
    for name, tensor in meta.read(folder).tensors.items():
        np.testing.assert_array_equal(tensor.dequantize(), weights[meta_name(name)].float().numpy())
