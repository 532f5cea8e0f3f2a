"""llama2.c's model files: reading v0, v1 and v2, and one line for every header that lies."""

import re
import struct
from dataclasses import replace

import numpy as np
import pytest

from llamita.config import LIMITS, PRESETS, ModelConfig
from llamita.errors import ModelFileError
from llamita.formats import llama2c, llama2c_writer
from llamita.model import Model, random_model

HEADER_NAMES = list(llama2c.HEADER_FIELDS)


@pytest.fixture(params=[0, 1, 2])
def version(request) -> int:
    return request.param


@pytest.fixture
def tiny_file(tmp_path, tiny_config, version):
    """A file of each version, with its content."""
    path = tmp_path / f"v{version}.bin"
    llama2c_writer.write(random_model(tiny_config), path, version)
    return path, path.read_bytes()


def equal(one: Model, other: Model) -> bool:
    """Whether two models have the same tensors, bit for bit and stored alike."""
    assert one.tensors.keys() == other.tensors.keys()
    return all(
        tensor.dtype == other.tensors[name].dtype
        and np.array_equal(tensor.data, other.tensors[name].data)
        and np.array_equal(tensor.dequantize(), other.tensors[name].dequantize())
        for name, tensor in one.tensors.items()
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
def test_what_is_written_is_read_back(tmp_path, tiny_config, version, tied, dtype):
    model = random_model(replace(tiny_config, tied_embedding=tied), dtype, group=4)
    llama2c_writer.write(model, tmp_path / "m.bin", version)
    again = llama2c.read(tmp_path / "m.bin").validate()
    assert again.config == model.config
    assert again.source_format == f"llama2.c v{version}"
    assert again.name == str(tmp_path / "m.bin")
    for name, tensor in again.tensors.items():
        original = model.tensors[name].dequantize()
        if dtype == "f32" and version == 2 and original.ndim == 2:
            assert np.abs(tensor.dequantize() - original).max() <= tensor.dequantize().max() / 100
        else:
            assert np.array_equal(tensor.dequantize(), original)


def test_tensors_are_views_of_the_file_that_cannot_be_written(tiny_file):
    model = llama2c.read(tiny_file[0])
    for tensor in model.tensors.values():
        assert not tensor.data.flags.owndata
        assert not tensor.data.flags.writeable


def test_scales_behind_an_odd_count_of_weights_are_aligned(tmp_path):
    config = ModelConfig(width=2, n_layers=1, n_heads=1, n_kv_heads=1, mlp_width=3, vocab_size=5, context=4)
    model = random_model(config)
    llama2c_writer.write(model, tmp_path / "odd.bin", 2)
    again = llama2c.read(tmp_path / "odd.bin")
    for name, tensor in again.tensors.items():
        assert (tensor.data if tensor.scales is None else tensor.scales).flags.aligned
        assert np.allclose(tensor.dequantize(), model.tensors[name].dequantize(), atol=1e-6)  # groups of 1 keep all


def test_every_cut_is_refused_and_so_are_bytes_too_many(tiny_file, tmp_path):
    data = tiny_file[1]
    ends = [*range(300), *range(300, len(data), 37), len(data) - 1]
    for content in [*(data[:end] for end in ends), data + b"\0", data + data]:
        (tmp_path / "cut.bin").write_bytes(content)
        with pytest.raises(ModelFileError) as caught:
            llama2c.read(tmp_path / "cut.bin")
        assert str(caught.value).startswith(f"{tmp_path / 'cut.bin'}: file size: found {len(content)} bytes, expected")


EXTREMES = [0, -1, -(1 << 31), (1 << 31) - 1, 1 << 30]


@pytest.mark.parametrize("field", range(7))
@pytest.mark.parametrize("value", EXTREMES)
def test_an_absurd_header_is_refused_before_anything_is_sized_by_it(tiny_file, tmp_path, version, field, value):
    offset = 4 * field + (8 if version else 0)
    data = bytearray(tiny_file[1])
    struct.pack_into("<i", data, offset, value)
    (tmp_path / "bad.bin").write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        llama2c.read(tmp_path / "bad.bin")
    assert "\n" not in str(caught.value)
    limit = LIMITS[list(llama2c.HEADER_FIELDS.values())[field]]
    shown = abs(value) if version == 0 and HEADER_NAMES[field] == "vocab_size" else value
    if not 1 <= shown <= limit:
        assert f"header field {HEADER_NAMES[field]}: found {shown}, expected 1 to {limit}" in str(caught.value)


def test_a_file_larger_than_any_integer_of_64_bits_is_only_a_number(tmp_path):
    numbers = [LIMITS[field] for field in llama2c.HEADER_FIELDS.values()]
    (tmp_path / "huge.bin").write_bytes(struct.pack("<7i", *numbers).ljust(4096, b"\0"))
    with pytest.raises(ModelFileError, match=r"file size: found 4096 bytes, expected [0-9]{15,} as its v0 header says"):
        llama2c.read(tmp_path / "huge.bin")


@pytest.mark.parametrize(
    ("offset", "code", "value", "message"),
    [
        (4, "i", 0, "version: found 0, expected 1 or 2"),
        (4, "i", 3, "version: found 3, expected 1 or 2"),
        (4, "i", -1, "version: found -1, expected 1 or 2"),
        (20, "i", 3, "header field n_heads: found 3, expected a divisor of dim 16"),
        (20, "i", 16, "header field n_heads: found 16, expected a divisor of dim 16 that leaves an even head size"),
        (24, "i", 3, "header field n_kv_heads: found 3, expected a divisor of n_heads 4"),
        (28, "i", -40, "header field vocab_size: found -40, expected 1 to"),
        (36, "B", 2, "shared_classifier: found 2, expected 0 or 1"),
        (37, "i", 0, "header field group_size: found 0, expected at least 1"),
        (37, "i", -8, "header field group_size: found -8, expected at least 1"),
        (37, "i", 64, "header field group_size: found 64, expected a divisor of dim 16 and of hidden_dim 24"),
        (255, "B", 1, "header padding: found other bytes, expected zeros"),
    ],
)
def test_a_header_that_lies_is_refused_with_the_field_named(tmp_path, tiny_config, offset, code, value, message):
    llama2c_writer.write(random_model(tiny_config), tmp_path / "bad.bin", 2)
    data = bytearray((tmp_path / "bad.bin").read_bytes())
    struct.pack_into(f"<{code}", data, offset, value)
    (tmp_path / "bad.bin").write_bytes(data)
    with pytest.raises(ModelFileError, match=re.escape(message)):
        llama2c.read(tmp_path / "bad.bin")


def test_a_wrong_magic_is_read_as_v0_and_refused(tmp_path):
    for magic in (b"GGUF", b"PK\3\4", b"ak42", b"\x89PNG"):
        (tmp_path / "other.bin").write_bytes(magic.ljust(400, b"\1"))
        with pytest.raises(ModelFileError, match=r"header field dim: found .*; is it a llama2.c model at all"):
            llama2c.read(tmp_path / "other.bin")


@pytest.mark.parametrize(("name", "group"), [("260K", 4), ("42M", 32)])
def test_groups_that_straddle_rows_are_refused_with_the_remedy(tmp_path, name, group):
    config = PRESETS[name]  # llama2.c's export.py writes these two shapes with groups of 64, and runq reads nonsense
    header = llama2c_writer._header(config, 2, 64)
    (tmp_path / "straddling.bin").write_bytes(header)
    with pytest.raises(ModelFileError, match=f"group_size: found 64, .* export again with group size {group} "):
        llama2c.read(tmp_path / "straddling.bin")


@pytest.mark.parametrize(
    ("name", "v0_bytes", "v1_bytes", "v2_bytes", "group"),
    [
        ("260K", 1_056_540, 1_040_384, 521_728, 4),
        ("15M", 60_816_028, 60_767_104, 17_101_696, 32),
        ("110M", 438_381_596, 438_119_680, 116_432_128, 64),
    ],
)
def test_the_published_models_have_llama2_cs_sizes(name, v0_bytes, v1_bytes, v2_bytes, group):
    config = PRESETS[name]
    assert llama2c.largest_group(config) == group
    assert llama2c.layout(config, 0, 1)[1] == v0_bytes
    assert llama2c.layout(config, 1, 1)[1] == v1_bytes
    assert llama2c.layout(config, 2, group)[1] == v2_bytes


def test_the_real_model_is_the_same_in_all_versions(shared_data):
    folder = shared_data / "models/stories260K"
    v0 = llama2c.read(folder / "stories260K.bin").validate()
    v1 = llama2c.read(folder / "derived/stories260K_v1_fp32.bin").validate()
    v2 = llama2c.read(folder / "derived/stories260K_v2_q80_gs4.bin").validate()
    assert v0.config == v1.config == v2.config == PRESETS["260K"]
    assert equal(v0, v1)
    for name, tensor in v2.tensors.items():
        exact = v0.tensors[name].dequantize()
        error = np.abs(tensor.dequantize() - exact).max()
        assert error == 0 if tensor.scales is None else error <= tensor.scales.max() / 2 * 1.001
