"""Bring a Model's tensors into the form that kernels read: a table of matrices, integers packed in panels, floats as they lie.

Nothing is copied but quantized weights (into panels), norms, and what has no fast form: a float tensor in the file is the
memory that the kernels read. Block types of GGUF files without a kernel become int8 in groups of 32, one matrix at a time.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from llamita.config import LAYER_MATRICES
from llamita.engine.memory import address_of, aligned
from llamita.engine.state import (
    FIRST_PANELS,
    GATE,
    KIND_OF_DTYPE,
    MATRICES_PER_LAYER,
    MATRIX,
    PANELS_OF_ROWS,
    QUERY,
    UP,
    VALUE,
)
from llamita.errors import SettingError
from llamita.files import drop_pages
from llamita.model import Model
from llamita.quant import FLOAT_DTYPES, GGML_DTYPES, Q4_GROUP, Tensor, convert
from llamita.simd.isa import LANES, current_isa, is_blocked

HALF_TOP = 14  # the largest scale of a matrix is brought to 2**13 .. 2**14, well inside float16


def describe(tensor: Tensor) -> np.ndarray:
    """A MATRIX record [1] of a tensor as it is stored. The tensor must outlive the record."""
    matrix = np.zeros(1, MATRIX)
    rows, columns = tensor.shape
    matrix["kind"], matrix["rows"], matrix["columns"] = KIND_OF_DTYPE[tensor.dtype], rows, columns
    matrix["weights"], matrix["row_bytes"] = address_of(tensor.data), tensor.data.strides[0]
    matrix["multiplier"] = 1.0
    if tensor.scales is not None:
        n_groups, padded_group = columns // tensor.group, packed_group_bytes("q8_0", tensor.group)
        matrix["group"], matrix["n_groups"], matrix["padded_group"] = tensor.group, n_groups, padded_group
        matrix["panel_row_bytes"] = n_groups * packed_group_bytes(tensor.dtype, tensor.group)
        matrix["group_bytes"], matrix["scales"] = tensor.data.strides[1], address_of(tensor.scales)
        matrix["scale_row_bytes"], matrix["scale_group_bytes"] = tensor.scales.strides
        matrix["scale_is_half"] = tensor.scales.dtype == np.float16
    if tensor.offsets is not None:
        matrix["offsets"] = address_of(tensor.offsets)
    return matrix


def dense_rows(tensor: Tensor) -> Tensor:
    """The tensor itself where kernels can read it in place: rows of dense numbers in this machine's order; otherwise a copy.

    Rows that the file has in another order are copied, and its pages given back; rows that are computed, computed.
    """
    tensor = tensor.loaded()
    if tensor.dtype in GGML_DTYPES:
        converted = convert(tensor, "q8_0", Q4_GROUP)
        drop_pages(tensor.data)
        return converted
    if tensor.scales is None and tensor.data.shape != tensor.shape:
        data = tensor.data.reshape(tensor.shape)
        drop_pages(tensor.data)
        tensor = replace(tensor, data=data)
    parts = [part for part in (tensor.data, tensor.scales, tensor.offsets) if part is not None]
    is_dense = tensor.data.strides[-1] == tensor.data.itemsize and all(part.dtype.isnative for part in parts)
    if is_dense and (tensor.offsets is None or tensor.scales is None or tensor.offsets.strides == tensor.scales.strides):
        return tensor
    copies = [np.ascontiguousarray(part.astype(part.dtype.newbyteorder("="))) for part in parts]
    return Tensor(tensor.dtype, tensor.shape, *copies)


def packed_group_bytes(dtype: str, group: int) -> int:
    """Bytes of a group of weights in a panel: int8 takes whole words of 4, as activations do; 4-bit weights half of that."""
    return -(-group // 4) * 4 // (1 if dtype == "q8_0" else 2)


def packed_sizes(tensor: Tensor) -> tuple[int, int]:
    """Bytes of weights and of scales and offsets of a tensor in panels; each matrix begins on a cache line."""
    rows, columns = tensor.shape
    is_converted = tensor.dtype in GGML_DTYPES
    group, dtype = (Q4_GROUP, "q8_0") if is_converted else (tensor.group, tensor.dtype)
    padded_rows, n_groups = padded(rows), columns // group
    number_bytes = (2 if is_blocked(current_isa(), group) else 4) * (2 if dtype == "q4_1" else 1)
    return padded_rows * n_groups * packed_group_bytes(dtype, group), -(-padded_rows * n_groups * number_bytes // 64) * 64


def scale_multiplier(*numbers: np.ndarray | None) -> float:
    """The power of two by which scales and offsets are divided before they become float16."""
    largest = max(float(np.abs(part).max(initial=0.0)) for part in numbers if part is not None)
    return 2.0 ** (math.frexp(largest)[1] - HALF_TOP) if 0 < largest < math.inf else 1.0


def matrix_names(model: Model) -> Iterator[str]:
    """Tensor names in the order of the table: those of each layer, then the classifier."""
    for i in range(model.config.n_layers):
        yield from (f"layers.{i}.{name}" for name in LAYER_MATRICES)
    yield "embedding" if model.config.tied_embedding else "head"


class Weights:
    """The table of matrices and what its addresses point to.

    table: MATRIX[7 L + 1], embedding: MATRIX[1] (rows as stored), norms float32[2 L + 1][x_stride],
    n_token_bytes: bytes that are read to make one token. `pack` is called with (source record, target record) of each quantized
    matrix.
    """

    def __init__(self, model: Model, pack: Callable[[np.ndarray, np.ndarray], None]) -> None:
        names = list(matrix_names(model))
        embedding = dense_rows(model.tensors["embedding"])
        self.keep_alive = [embedding]
        self.embedding = describe(embedding)
        self.table = np.zeros(len(names), MATRIX)
        quantized = [name for name in names if is_quantized(model.tensors[name])]
        sizes = [packed_sizes(model.tensors[name]) for name in quantized]
        self.packed = aligned(sum(n for n, _ in sizes), np.uint8)
        self.scales = aligned(sum(n for _, n in sizes), np.uint8)
        places = dict(zip(quantized, _running_sums(sizes), strict=True))
        self.n_token_bytes = 0
        for i, name in enumerate(names):
            tensor = embedding if name == "embedding" else dense_rows(model.tensors[name])
            self.table[i] = source = describe(tensor)
            if name in places:
                self._pack(i, source, tensor, places[name], pack)
                self.n_token_bytes += sum(packed_sizes(tensor))
            else:
                self.keep_alive.append(tensor)
                self.n_token_bytes += tensor.n_bytes
        self.norms = self._norms(model)

    def _pack(
        self, i: int, source: np.ndarray, tensor: Tensor, place: tuple[int, int], pack: Callable[[np.ndarray, np.ndarray], None]
    ) -> None:
        target = self.table[i : i + 1]
        target["kind"], target["multiplier"] = PANELS_OF_ROWS[int(source["kind"][0])], 1.0
        if is_blocked(current_isa(), tensor.group):
            target["multiplier"] = scale_multiplier(tensor.scales, tensor.offsets)
        target["weights"], target["scales"] = address_of(self.packed) + place[0], address_of(self.scales) + place[1]
        pack(source, target)
        for part in (tensor.data, tensor.scales, tensor.offsets):
            if part is not None:
                drop_pages(part)

    def regions(self) -> list[tuple[int, int]]:
        """(address, bytes) of the memory that one token reads: the packed weights at once, other matrices one by one."""
        floats = self.table[self.table["kind"] < FIRST_PANELS]
        regions = [(int(m["weights"]), int(m["rows"] * m["row_bytes"])) for m in floats]
        return [(address_of(array), array.nbytes) for array in (self.packed, self.scales) if array.nbytes >= 64] + regions

    def widest_input(self) -> tuple[int, int]:
        """(most bytes, most groups) of a quantized row of activations.

        Raises SettingError where matrices with one input want it in other groups.
        """
        for layer in range(len(self.table) // MATRICES_PER_LAYER):
            table = self.table[MATRICES_PER_LAYER * layer :][:MATRICES_PER_LAYER]
            for fused in (table[QUERY : VALUE + 1], table[GATE : UP + 1]):
                groups = {int(m["group"]) for m in fused if m["kind"] >= FIRST_PANELS}
                if len(groups) > 1:
                    raise SettingError(
                        f"layer {layer}: found groups {sorted(groups)} in matrices of one input, expected one size"
                    )
        panels = self.table[self.table["kind"] >= FIRST_PANELS]
        longest = int((panels["n_groups"] * panels["padded_group"]).max(initial=1))
        return longest, int(panels["n_groups"].max(initial=1))

    @staticmethod
    def _norms(model: Model) -> np.ndarray:
        config = model.config
        norms = aligned((2 * config.n_layers + 1) * padded(config.width), np.float32).reshape(-1, padded(config.width))
        for i in range(config.n_layers):
            norms[2 * i, : config.width] = model.tensors[f"layers.{i}.attention_norm"].dequantize()
            norms[2 * i + 1, : config.width] = model.tensors[f"layers.{i}.mlp_norm"].dequantize()
        norms[-1, : config.width] = model.tensors["norm"].dequantize()
        return norms


def is_quantized(tensor: Tensor) -> bool:
    """Whether a tensor is packed in panels."""
    return tensor.dtype not in FLOAT_DTYPES


def padded(n: int) -> int:
    """n rounded up to whole vectors."""
    return -(-n // LANES) * LANES


def _running_sums(sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    places, at = [], (0, 0)
    for weights, scales in sizes:
        places.append(at)
        at = at[0] + weights, at[1] + scales
    return places
