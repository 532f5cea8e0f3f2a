"""llama2.c's model files: equal to export.py's to the byte, and no file at all for a model that they cannot hold."""

import re
import struct
from dataclasses import replace

import numpy as np
import pytest

from llamita.config import ModelConfig, RopeScaling
from llamita.errors import ModelError, ModelFileError
from llamita.formats import llama2c, llama2c_writer
from llamita.model import Model, random_model, with_dtype

ROPE_START_V0 = 28 + 260_032 * 4  # of the real 260K model, whose tables are the end of the file


def written_by_the_specification(model: Model, version: int, group: int) -> bytes:
    """The file as export.py writes it, tensor by tensor in its names and order; without the tables of v0."""
    config, weights = model.config, {name: tensor.dequantize() for name, tensor in model.tensors.items()}

    def stack(name: str) -> list[np.ndarray]:
        return [weights[f"layers.{i}.{name}"] for i in range(config.n_layers)]

    attention_norm, mlp_norm, norm = stack("attention_norm"), stack("mlp_norm"), [weights["norm"]]
    embedding, head = [weights["embedding"]], [] if config.tied_embedding else [weights["head"]]
    wq, wk, wv, wo = (stack(f"attention.{name}") for name in ("query", "key", "value", "output"))
    w1, w2, w3 = (stack(f"mlp.{name}") for name in ("gate", "down", "up"))
    header = [
        config.width,
        config.mlp_width,
        config.n_layers,
        config.n_heads,
        config.n_kv_heads,
        config.vocab_size,
        config.context,
    ]
    if version == 0:
        header[5] *= 1 if config.tied_embedding else -1
        tensors = embedding + attention_norm + wq + wk + wv + wo + mlp_norm + w1 + w2 + w3 + norm
        return (
            struct.pack("<7i", *header)
            + b"".join(t.tobytes() for t in tensors)
            + b"TABLES"
            + b"".join(t.tobytes() for t in head)
        )
    start = b"24ka" + struct.pack("<8iB", version, *header, config.tied_embedding)
    start += struct.pack("<i", group) if version == 2 else b""
    norms = b"".join(t.tobytes() for t in attention_norm + mlp_norm + norm)
    content = b""
    for tensor in embedding + wq + wk + wv + wo + w1 + w2 + w3 + head:
        if version == 1:
            content += tensor.tobytes()
            continue
        groups = tensor.reshape(-1, group)
        scales = np.abs(groups).max(axis=1) / np.float32(127)
        content += np.round(groups / scales[:, None]).astype(np.int8).tobytes() + scales.tobytes()
    return start.ljust(256, b"\0") + norms + content


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_every_tensor_lies_where_the_specification_puts_it(tmp_path, tiny_config, version, tied):
    model = random_model(replace(tiny_config, tied_embedding=tied))
    llama2c_writer.write(model, tmp_path / "m.bin", version)
    tables = llama2c_writer.rope_tables(model.config).tobytes()
    expected = written_by_the_specification(model, version, group=8).replace(b"TABLES", tables)
    assert (tmp_path / "m.bin").read_bytes() == expected


def test_a_file_written_again_is_the_same_to_the_byte(tmp_path, tiny_config):
    for version in (0, 1, 2):
        first, second = tmp_path / f"first{version}.bin", tmp_path / f"second{version}.bin"
        llama2c_writer.write(random_model(replace(tiny_config, tied_embedding=False)), first, version)
        llama2c_writer.write(llama2c.read(first), second, version)
        assert first.read_bytes() == second.read_bytes()


def test_a_model_may_be_written_over_its_own_file(tmp_path, tiny_config):
    path = tmp_path / "m.bin"
    llama2c_writer.write(random_model(tiny_config), path, 0)
    model, before = llama2c.read(path), path.read_bytes()
    llama2c_writer.write(model, path, 0)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("stored", "asked", "written"), [(4, None, 4), (2, None, 2), (4, 8, 8), (None, None, 8), (None, 1, 1)])
def test_the_group_is_the_one_asked_for_else_the_stored_one_else_the_largest(tmp_path, tiny_config, stored, asked, written):
    model = random_model(tiny_config, "q8_0", stored) if stored else random_model(tiny_config)
    llama2c_writer.write(model, tmp_path / "m.bin", 2, group=asked)
    again = llama2c.read(tmp_path / "m.bin")
    assert again.tensors["embedding"].group == written
    if stored == written:
        for name, tensor in again.tensors.items():
            assert np.array_equal(tensor.data, model.tensors[name].data)


def test_half_precision_is_widened(tmp_path, tiny_config):
    for dtype in ("f16", "bf16"):
        model = with_dtype(random_model(tiny_config), dtype)
        llama2c_writer.write(model, tmp_path / "m.bin", 1)
        for name, tensor in llama2c.read(tmp_path / "m.bin").tensors.items():
            assert np.array_equal(tensor.data, model.tensors[name].dequantize())


@pytest.mark.parametrize("group", [0, -1, 3, 16, 64])
def test_a_group_that_straddles_rows_is_refused(tmp_path, tiny_config, group):
    with pytest.raises(ModelFileError, match=f"group: found {group}, expected a divisor of the width 16 .* take 8"):
        llama2c_writer.write(random_model(tiny_config), tmp_path / "m.bin", 2, group=group)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_theta": 500000.0}, "rope_theta: found 500000.0, expected 10000"),
        (
            {"norm_epsilon": 1e-6},
            "norm_epsilon: found 1e-06, expected 1e-05; llama2.c's files cannot say otherwise: choose another ",
        ),
        ({"norm_epsilon": 1e-6}, "early downloads say 1e-06 by mistake: then write 1e-05 into its params.json"),
        ({"head_size": 8}, "head_size: found 8, expected 4"),
        ({"rope_scaling": RopeScaling("linear", 2.0)}, "rope_scaling: found linear, expected none"),
    ],
)
@pytest.mark.parametrize("version", [0, 1, 2])
def test_what_the_format_cannot_hold_is_refused(tmp_path, tiny_config, change, message, version):
    with pytest.raises(ModelFileError, match=re.escape(message)):
        llama2c_writer.write(random_model(replace(tiny_config, **change)), tmp_path / "m.bin", version)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_model_is_refused(tmp_path, tiny_config):
    model = random_model(tiny_config)
    tensors = {name: tensor for name, tensor in model.tensors.items() if name != "norm"}
    with pytest.raises(ModelError, match="norm is missing"):
        llama2c_writer.write(replace(model, tensors=tensors), tmp_path / "m.bin", 0)
    assert list(tmp_path.iterdir()) == []


def test_rope_tables_hold_the_cosine_and_sine_of_every_angle():
    config = ModelConfig(width=48, n_layers=1, n_heads=1, n_kv_heads=1, mlp_width=8, vocab_size=5, context=300)
    tables = llama2c_writer.rope_tables(config)
    assert tables.shape == (2, 300, 24)
    assert tables.dtype == np.float32
    angles = np.outer(np.arange(300), 10000.0 ** (-np.arange(0, 48, 2) / 48))
    assert np.abs(tables - np.stack([np.cos(angles), np.sin(angles)])).max() < 1e-4


@pytest.mark.parametrize(("version", "name"), [(1, "stories260K_v1_fp32.bin"), (2, "stories260K_v2_q80_gs4.bin")])
def test_v1_and_v2_equal_export_pys_files_to_the_byte(shared_data, tmp_path, version, name):
    folder = shared_data / "models/stories260K"
    llama2c_writer.write(llama2c.read(folder / "stories260K.bin"), tmp_path / "m.bin", version)
    assert (tmp_path / "m.bin").read_bytes() == (folder / "derived" / name).read_bytes()


def test_v0_of_the_published_file_read_again_equals_it_to_the_byte(shared_data, tmp_path):
    original = shared_data / "models/stories260K/stories260K.bin"
    llama2c_writer.write(llama2c.read(original), tmp_path / "m.bin", 0)
    assert (tmp_path / "m.bin").read_bytes() == original.read_bytes()


def test_computed_rope_tables_are_those_of_the_published_file_but_for_the_last_bit(shared_data):
    model = llama2c.read(shared_data / "models/stories260K/stories260K.bin")
    computed = llama2c_writer.rope_tables(model.config)
    assert (computed == model.rope_tables).mean() > 0.95
    assert np.abs(computed - model.rope_tables).max() <= 2**-24
