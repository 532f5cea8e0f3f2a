"""safetensors files: the reference library and we read each other's. Files that lie are in hostile/safetensors.py."""

import json
import struct

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from llamita.errors import ModelFileError
from llamita.formats.safetensors import ALIGNMENT_BYTES, parse_header, read_arrays, read_tensors, write_tensors

ARRAYS = {
    "half": np.array([[1.5, -2.0, 0.25]], np.float16),
    "float": np.arange(6, dtype=np.float32).reshape(2, 3),
    "steps": np.array(1234567890123, np.int64),
    "bits": np.array([0x3F80, 0xC000], np.uint16),
    "empty": np.zeros((0, 3), np.float32),
}


def equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    """Whether names, shapes, dtypes and bits are the same; the order may differ."""
    return found.keys() == expected.keys() and all(
        (found[name].dtype, found[name].shape, found[name].tobytes()) == (array.dtype, array.shape, array.tobytes())
        for name, array in expected.items()
    )


def file_of(header: object, n_data_bytes: int = 8) -> bytes:
    """A file with this header, as JSON unless it is bytes already."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(n_data_bytes)


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_what_was_written_is_read(tmp_path):
    write_tensors(tmp_path / "a.safetensors", ARRAYS)
    assert equal(read_arrays(tmp_path / "a.safetensors"), ARRAYS)


def test_the_reference_library_reads_our_files(tmp_path):
    write_tensors(tmp_path / "a.safetensors", ARRAYS, {"step": "7"})
    with safetensors.safe_open(tmp_path / "a.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt", "step": "7"}
        assert set(file.keys()) == set(ARRAYS)
        for name in ("half", "float", "steps", "empty"):
            np.testing.assert_array_equal(file.get_tensor(name), ARRAYS[name])
        assert file.get_slice("bits").get_dtype() == "BF16"


def test_we_read_the_files_of_the_reference_library(tmp_path):
    arrays = {name: array for name, array in ARRAYS.items() if name != "bits"}
    save_file(arrays, tmp_path / "a.safetensors", {"anything": "ü"})
    assert equal(read_arrays(tmp_path / "a.safetensors"), arrays)
    save_file({}, tmp_path / "none.safetensors")
    assert read_arrays(tmp_path / "none.safetensors") == {}


shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
dtypes = st.sampled_from([np.float32, np.float16, np.int64])
forms = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.tuples(dtypes, shapes), max_size=6)


@settings(max_examples=100, deadline=None)
@given(forms=forms.filter(lambda forms: "__metadata__" not in forms))
def test_any_arrays_survive_and_the_reference_library_agrees(tmp_path_factory, forms):
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(-9, 9, shape).astype(dtype) for name, (dtype, shape) in forms.items()}
    path = tmp_path_factory.mktemp("any") / "a.safetensors"
    write_tensors(path, arrays)
    assert equal(read_arrays(path), arrays)
    assert equal(load_file(path), arrays)


def test_the_bytes_depend_on_nothing_but_the_input(tmp_path):
    for name in ("first", "second"):
        write_tensors(tmp_path / name, {name: np.array(array, order="F") for name, array in ARRAYS.items()}, {"a": "b"})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_every_tensor_is_aligned_and_the_data_begin_on_a_cache_line(tmp_path):
    write_tensors(tmp_path / "a.safetensors", ARRAYS)
    data = (tmp_path / "a.safetensors").read_bytes()
    places = parse_header("a", data)
    assert min(place.offset for place in places.values()) % ALIGNMENT_BYTES == 0
    assert all(place.offset % ARRAYS[name].itemsize == 0 for name, place in places.items())


def test_reading_copies_nothing_and_gives_nothing_to_write_to(tmp_path):
    write_tensors(tmp_path / "a.safetensors", ARRAYS)
    for array in read_arrays(tmp_path / "a.safetensors").values():
        assert not array.flags.writeable
        assert not array.flags.owndata


def test_tensors_that_lie_askew_are_copied_into_line(tmp_path):
    (tmp_path / "odd").write_bytes(file_of(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(55)))
    assert read_arrays(tmp_path / "odd")["a"].flags.aligned


def test_weights_are_tensors_and_integers_are_none(tmp_path):
    floats = {name: array for name, array in ARRAYS.items() if name != "steps"}
    write_tensors(tmp_path / "a.safetensors", floats)
    tensors = read_tensors(tmp_path / "a.safetensors")
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {
        "half": "f16", "float": "f32", "bits": "bf16", "empty": "f32"
    }  # fmt: skip
    assert tensors["bits"].dequantize().tolist() == [1.0, -2.0]
    write_tensors(tmp_path / "a.safetensors", ARRAYS)
    with pytest.raises(ModelFileError, match="dtype of steps: found I64, expected weights in F32, F16 or BF16"):
        read_tensors(tmp_path / "a.safetensors")


def test_a_dtype_without_a_name_is_not_written(tmp_path):
    with pytest.raises(ModelFileError, match="dtype of a: found float64"):
        write_tensors(tmp_path / "a.safetensors", {"a": np.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_white_space_around_the_header_is_accepted(tmp_path):
    text = b" \n\t" + json.dumps({"a": entry()}).encode() + b"   "
    (tmp_path / "a").write_bytes(file_of(text))
    assert list(read_arrays(tmp_path / "a")) == ["a"]
