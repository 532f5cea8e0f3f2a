"""How one weight tensor is stored, and how numbers become blocks of small integers and come back: plain numpy.

A Tensor is what a file holds, usually a view of the mapped file; the engine packs it for speed, the tests take
`dequantize` as the truth. Knows no file layout and no model. Source of q4_0 and q4_1: ggml's quantize_row_q4_0_ref, _q4_1_ref.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

FLOAT_DTYPES = ("f32", "f16", "bf16")
QUANTIZED_DTYPES = ("q8_0", "q4_0", "q4_1")
Q4_GROUP = 32
# those of GGUF files that the engine has no form for: it takes them by way of q8_0
GGML_DTYPES = (
    "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "tq1_0", "tq2_0", "mxfp4", "nvfp4",
    "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq1_s", "iq1_m", "iq4_nl", "iq4_xs",
)  # fmt: skip
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Tensor:
    """A weight tensor as it is stored.

    dtype f32: data float32[shape]; f16: float16[shape]; bf16: uint16[shape], the upper halves of float32 numbers.
    dtype q8_0: data int8[rows, columns/group, group], scales float32 or float16 [rows, columns/group];
    weight = data * scale.
    dtype q4_0: data uint8[rows, columns/32, 16], byte j of a group holds weight j in its lower half and j + 16 in its upper;
    weight = (half - 8) * scale. dtype q4_1: also offsets [rows, columns/32] as the scales; weight = half * scale + offset.
    One of GGML_DTYPES: data uint8[rows, bytes of a row], blocks as GGUF has them.
    data, scales and offsets may be read-only views with any strides, except that the last axis of data is dense.
    data of float dtypes may have more axes than shape, which it takes by reshape: rows that a file has in another order.
    """

    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray
    scales: np.ndarray | None = None
    offsets: np.ndarray | None = None

    @property
    def group(self) -> int:
        """Weights that share a scale; 1 for tensors without scales of their own."""
        if self.scales is None:
            return 1
        return self.data.shape[-1] if self.dtype == "q8_0" else Q4_GROUP

    @property
    def n_bytes(self) -> int:
        """Bytes of the stored numbers, scales included."""
        return sum(part.nbytes for part in (self.data, self.scales, self.offsets) if part is not None)

    @property
    def has_rows(self) -> bool:
        """Whether `rows` gives any rows: not of a view in another order."""
        return self.data.shape[:1] == self.shape[:1]

    def loaded(self) -> "Tensor":
        """The tensor with numbers that lie somewhere: itself, unless they are computed whenever somebody asks."""
        return self

    def rows(self, first: int, last: int) -> "Tensor":
        """The rows first to last - 1 of a matrix, a view: tensors of any size are converted piece by piece."""
        if not self.has_rows:
            raise ValueError("rows of a view in another order have no slices")
        shape = (len(range(*slice(first, last).indices(self.shape[0]))), *self.shape[1:])
        parts = (None if part is None else part[first:last] for part in (self.scales, self.offsets))
        return Tensor(self.dtype, shape, self.data[first:last], *parts)

    @classmethod
    def from_array(cls, array: np.ndarray) -> "Tensor":
        """Wrap a float32 or float16 array without a copy."""
        return cls({"float32": "f32", "float16": "f16"}[array.dtype.name], array.shape, array)

    def dequantize(self) -> np.ndarray:
        """The tensor as float32[shape]; a view where it is float32 already."""
        if self.dtype == "f32":
            return self.data.reshape(self.shape)
        if self.dtype == "f16":
            return self.data.astype(np.float32).reshape(self.shape)
        if self.dtype == "bf16":
            return (self.data.astype(np.uint32) << 16).view(np.float32).reshape(self.shape)
        if self.dtype in GGML_DTYPES:
            from gguf import GGMLQuantizationType
            from gguf.quants import dequantize

            return dequantize(self.data, GGMLQuantizationType[self.dtype.upper()]).reshape(self.shape)
        assert self.scales is not None
        scales = self.scales.astype(np.float32)[..., None]
        if self.dtype == "q8_0":
            return (self.data.astype(np.float32) * scales).reshape(self.shape)
        halves = np.concatenate([self.data & 15, self.data >> 4], axis=-1).astype(np.float32)
        if self.dtype == "q4_0":
            return ((halves - np.float32(8)) * scales).reshape(self.shape)
        assert self.dtype == "q4_1", self.dtype
        assert self.offsets is not None
        return (halves * scales + self.offsets.astype(np.float32)[..., None]).reshape(self.shape)


class ComputedTensor(Tensor):
    """A matrix whose float32 rows are computed when they are asked for, such as W + B A; nothing of it is kept.

    dtype, group: what `loaded` makes of it, for the engine; writers convert the float32 rows to their own dtype. Whoever
    touches data, scales or offsets gets those of `loaded`, which stay in memory then.
    """

    compute: Callable[[int, int], np.ndarray]  # first, last -> float32 (last - first, columns)

    @classmethod
    def of(
        cls, dtype: str, shape: tuple[int, ...], compute: Callable[[int, int], np.ndarray], group: int = 1
    ) -> "ComputedTensor":
        """A matrix of this shape."""
        tensor = cls.__new__(cls)
        tensor.__dict__.update(dtype=dtype, shape=shape, compute=compute, _group=group)
        return tensor

    @property
    def group(self) -> int:
        """Weights that share a scale once it is loaded."""
        return self.__dict__["_group"]

    @property
    def n_bytes(self) -> int:
        """Bytes of the numbers once it is loaded."""
        n_weights = self.shape[0] * self.shape[1]
        return (
            n_weights + 4 * n_weights // self.group if self.dtype == "q8_0" else n_weights * (4 if self.dtype == "f32" else 2)
        )

    @property
    def has_rows(self) -> bool:
        """Rows are what it is made of."""
        return True

    def rows(self, first: int, last: int) -> Tensor:
        """The rows first to last - 1, as float32."""
        return Tensor.from_array(self.compute(*slice(first, last).indices(self.shape[0])[:2]))

    def loaded(self) -> Tensor:
        """The tensor in memory."""
        starts = range(0, self.shape[0], _ROWS_AT_ONCE)
        return _joined([convert(self.rows(start, start + _ROWS_AT_ONCE), self.dtype, self.group) for start in starts])

    def dequantize(self) -> np.ndarray:
        """All of it as float32, before any rounding."""
        return self.compute(0, self.shape[0])

    @cached_property
    def _kept(self) -> Tensor:
        return self.loaded()

    @property
    def data(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See the class."""
        return self._kept.data

    @property
    def scales(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See the class."""
        return self._kept.scales

    @property
    def offsets(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See the class."""
        return self._kept.offsets


def quantize_q8_0(weights: np.ndarray, group: int) -> Tensor:
    """Quantize float32[rows, columns] in groups of `group` along a row, as llama2.c's export.py does.

    scale = largest magnitude / 127, weight = round half to even(w / scale) in -127..127, a group of zeros has scale 0.
    Raises ValueError when the group does not divide the row.
    """
    rows, columns = weights.shape
    if group < 1 or columns % group:
        raise ValueError(f"group {group} does not divide rows of {columns}")
    grouped = np.ascontiguousarray(weights, np.float32).reshape(rows, columns // group, group)
    scales = np.abs(grouped).max(axis=2) / np.float32(127.0)
    safe = np.where(scales > 0, scales, np.float32(1.0))
    return Tensor("q8_0", (rows, columns), np.rint(grouped / safe[..., None]).astype(np.int8), scales)


def quantize_q4_0(weights: np.ndarray) -> Tensor:
    """Quantize float32[rows, columns] in groups of 32 to 4 bits: scale = number of largest magnitude / -8, as float16.

    The scale keeps the sign, so that the largest number of a group is held exactly. Raises ValueError when 32 does not divide
    the row.
    """
    groups = _groups_of_32(weights)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=2)[..., None], axis=2)  # (rows, groups, 1)
    scales = largest / np.float32(-8)
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)
    halves = np.minimum((groups * inverse + np.float32(8.5)).astype(np.int8), 15).astype(np.uint8)
    return Tensor("q4_0", weights.shape, _join_halves(halves), scales[..., 0].astype(np.float16))


def quantize_q4_1(weights: np.ndarray) -> Tensor:
    """Quantize float32[rows, columns] in groups of 32 to 4 bits between the least and the greatest number of a group.

    Raises ValueError when 32 does not divide the row.
    """
    groups = _groups_of_32(weights)
    least = groups.min(axis=2, keepdims=True)
    scales = (groups.max(axis=2, keepdims=True) - least) / np.float32(15)
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)
    halves = np.minimum(((groups - least) * inverse + np.float32(0.5)).astype(np.int8), 15).astype(np.uint8)
    scales, offsets = (part[..., 0].astype(np.float16) for part in (scales, least))
    return Tensor("q4_1", weights.shape, _join_halves(halves), scales, offsets)


def _groups_of_32(weights: np.ndarray) -> np.ndarray:
    rows, columns = weights.shape
    if columns % Q4_GROUP:
        raise ValueError(f"group {Q4_GROUP} does not divide rows of {columns}")
    return np.ascontiguousarray(weights, np.float32).reshape(rows, -1, Q4_GROUP)


def _join_halves(halves: np.ndarray) -> np.ndarray:
    """uint8 0..15 [rows, groups, 32] to [rows, groups, 16], as ggml lays them."""
    return halves[..., : Q4_GROUP // 2] | halves[..., Q4_GROUP // 2 :] << 4


def to_bf16(weights: np.ndarray) -> Tensor:
    """Round float32 to bfloat16, half to even; NaN stays NaN."""
    bits = np.ascontiguousarray(weights, np.float32).view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    if (unknown := np.isnan(weights)).any():
        rounded[unknown] = (bits[unknown] >> 16) | 0x40
    return Tensor("bf16", weights.shape, rounded.astype(np.uint16))


def fitting_dtype(dtype: str, columns: int, group: int) -> str:
    """The dtype itself; f16 instead of integers for rows that groups do not fill, as llama.cpp does. group: that of q8_0."""
    return "f16" if dtype in QUANTIZED_DTYPES and columns % (group if dtype == "q8_0" else Q4_GROUP) else dtype


def convert(tensor: Tensor, dtype: str, group: int = 64) -> Tensor:
    """The tensor in another dtype, by way of float32; itself when it has that dtype already (and group, if q8_0).

    group: weights per scale of q8_0; those of q4_0 and q4_1 are 32. Raises ValueError where a group does not divide the row.
    """
    if tensor.dtype == dtype and (dtype != "q8_0" or tensor.group == group):
        return tensor
    if dtype in QUANTIZED_DTYPES and tensor.has_rows and tensor.shape[0] > _ROWS_AT_ONCE:
        starts = range(0, tensor.shape[0], _ROWS_AT_ONCE)  # what lies between stays in the cache, and takes little memory
        return _joined([convert(tensor.rows(start, start + _ROWS_AT_ONCE), dtype, group) for start in starts])
    weights = tensor.dequantize()
    if dtype == "f32":
        return Tensor("f32", tensor.shape, weights)
    if dtype == "f16":
        return Tensor("f16", tensor.shape, weights.astype(np.float16))
    if dtype == "bf16":
        return to_bf16(weights)
    if dtype == "q8_0":
        return quantize_q8_0(weights, group)
    if dtype == "q4_0":
        return quantize_q4_0(weights)
    if dtype == "q4_1":
        return quantize_q4_1(weights)
    raise ValueError(f"unknown dtype {dtype}")


def _joined(pieces: list[Tensor]) -> Tensor:
    """One tensor of pieces of one dtype, one below the other."""

    def joined(name: str) -> np.ndarray | None:
        parts = [getattr(piece, name) for piece in pieces]
        return None if parts[0] is None else np.concatenate(parts)

    shape = (sum(piece.shape[0] for piece in pieces), *pieces[0].shape[1:])
    data = np.concatenate([piece.data for piece in pieces])
    return Tensor(pieces[0].dtype, shape, data, joined("scales"), joined("offsets"))
