"""Bring a Model's tensors into the form that the kernels read: a table of matrices, int8 packed in panels, floats as they lie.

Nothing is copied but int8 weights (into panels), norms, and what has no fast form: a float tensor in the file is the memory
that the kernels read.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from llamita.engine.memory import address_of, aligned, drop_pages
from llamita.engine.state import KIND_OF_DTYPE, MATRIX, PANELS_Q8, ROWS_Q8
from llamita.model import LAYER_MATRICES, Model
from llamita.quant import Tensor
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
        matrix["group"], matrix["n_groups"] = tensor.group, columns // tensor.group
        matrix["padded_group"] = -(-tensor.group // 4) * 4
        matrix["group_bytes"], matrix["scales"] = tensor.data.strides[1], address_of(tensor.scales)
        matrix["scale_row_bytes"], matrix["scale_group_bytes"] = tensor.scales.strides
        matrix["scale_is_half"] = tensor.scales.dtype == np.float16
    return matrix


def dense_rows(tensor: Tensor) -> Tensor:
    """The tensor itself where kernels can read it in place: rows of dense numbers, 4-byte aligned floats; otherwise a copy.

    Rows that the file has in another order are copied, and its pages given back.
    """
    if tensor.scales is None and tensor.data.shape != tensor.shape:
        data = tensor.data.reshape(tensor.shape)
        drop_pages(tensor.data)
        tensor = replace(tensor, data=data)
    data = tensor.data
    dense = data.strides[-1] == data.itemsize and data.dtype.isnative
    if dense and (tensor.scales is None or tensor.scales.dtype.isnative):
        return tensor
    scales = (
        None if tensor.scales is None else np.ascontiguousarray(tensor.scales.astype(tensor.scales.dtype.newbyteorder("=")))
    )
    return Tensor(tensor.dtype, tensor.shape, np.ascontiguousarray(data.astype(data.dtype.newbyteorder("="))), scales)


def packed_sizes(tensor: Tensor) -> tuple[int, int]:
    """Bytes of weights and of scales of a tensor in panels; each matrix begins on a cache line."""
    rows, columns = tensor.shape
    padded_rows, n_groups = padded(rows), columns // tensor.group
    scale_bytes = 2 if is_blocked(current_isa(), tensor.group) else 4
    return padded_rows * n_groups * (-(-tensor.group // 4) * 4), -(-padded_rows * n_groups * scale_bytes // 64) * 64


def scale_multiplier(scales: np.ndarray) -> float:
    """The power of two by which scales are divided before they become float16."""
    largest = float(np.abs(scales).max(initial=0.0))
    return 2.0 ** (math.frexp(largest)[1] - HALF_TOP) if 0 < largest < math.inf else 1.0


def matrix_names(model: Model) -> Iterator[str]:
    """Tensor names in the order of the table: those of each layer, then the classifier."""
    for i in range(model.config.n_layers):
        yield from (f"layers.{i}.{name}" for name in LAYER_MATRICES)
    yield "embedding" if model.config.tied_embedding else "head"


class Weights:
    """The table of matrices and what its addresses point to.

    table: MATRIX[7 L + 1], embedding: MATRIX[1] (rows as stored), norms float32[2 L + 1][x_stride],
    n_token_bytes: bytes that are read to make one token. `pack` is called with (source record, target record) of each int8
    matrix.
    """

    def __init__(self, model: Model, pack: Callable[[np.ndarray, np.ndarray], None]) -> None:
        names = list(matrix_names(model))
        tensors = {name: dense_rows(model.tensors[name]) for name in {*names, "embedding"}}
        self.keep_alive = list(tensors.values())
        self.embedding = describe(tensors["embedding"])
        self.table = np.zeros(len(names), MATRIX)
        quantized = [name for name in names if tensors[name].scales is not None]
        sizes = [packed_sizes(tensors[name]) for name in quantized]
        self.packed = aligned(sum(n for n, _ in sizes), np.uint8)
        self.scales = aligned(sum(n for _, n in sizes), np.uint8)
        places = dict(zip(quantized, _running_sums(sizes), strict=True))
        self.n_token_bytes = 0
        for i, name in enumerate(names):
            self.table[i] = source = describe(tensors[name])
            if name in places:
                self._pack(i, source, tensors[name], places[name], pack)
            self.n_token_bytes += tensors[name].n_bytes if name not in places else packed_bytes(tensors[name])
        self.norms = self._norms(model)

    def _pack(
        self, i: int, source: np.ndarray, tensor: Tensor, place: tuple[int, int], pack: Callable[[np.ndarray, np.ndarray], None]
    ) -> None:
        assert tensor.scales is not None
        assert source["kind"] == ROWS_Q8
        target = self.table[i : i + 1]
        target["kind"], target["multiplier"] = PANELS_Q8, 1.0
        if is_blocked(current_isa(), tensor.group):
            target["multiplier"] = scale_multiplier(tensor.scales)
        target["weights"], target["scales"] = address_of(self.packed) + place[0], address_of(self.scales) + place[1]
        pack(source, target)
        drop_pages(tensor.data)
        drop_pages(tensor.scales)

    def regions(self) -> list[tuple[int, int]]:
        """(address, bytes) of the memory that one token reads: the packed weights at once, other matrices one by one."""
        floats = self.table[self.table["kind"] != PANELS_Q8]
        regions = [(int(m["weights"]), int(m["rows"] * m["row_bytes"])) for m in floats]
        return [(address_of(array), array.nbytes) for array in (self.packed, self.scales) if array.nbytes >= 64] + regions

    @staticmethod
    def _norms(model: Model) -> np.ndarray:
        config = model.config
        norms = aligned((2 * config.n_layers + 1) * padded(config.width), np.float32).reshape(-1, padded(config.width))
        for i in range(config.n_layers):
            norms[2 * i, : config.width] = model.tensors[f"layers.{i}.attention_norm"].dequantize()
            norms[2 * i + 1, : config.width] = model.tensors[f"layers.{i}.mlp_norm"].dequantize()
        norms[-1, : config.width] = model.tensors["norm"].dequantize()
        return norms


def packed_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor in panels, scales included."""
    return sum(packed_sizes(tensor))


def padded(n: int) -> int:
    """n rounded up to whole vectors."""
    return -(-n // LANES) * LANES


def _running_sums(sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    places, at = [], (0, 0)
    for weights, scales in sizes:
        places.append(at)
        at = at[0] + weights, at[1] + scales
    return places
