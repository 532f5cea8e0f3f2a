"""How one weight tensor is stored, and how numbers become blocks of small integers and come back: plain numpy.

A Tensor is what a file holds, usually a view of the mapped file; the engine packs it for speed, the tests take
`dequantize` as the truth. Knows no file layout and no model.
"""

from dataclasses import dataclass

import numpy as np

FLOAT_DTYPES = ("f32", "f16", "bf16")
QUANTIZED_DTYPES = ("q8_0",)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A weight tensor as it is stored.

    dtype f32: data float32[shape]; f16: float16[shape]; bf16: uint16[shape], the upper halves of float32 numbers.
    dtype q8_0: data int8[rows, columns/group, group], scales float32 or float16 [rows, columns/group];
    weight = data * scale. data and scales may be read-only views with any strides, except that the last axis of data is dense.
    data of float dtypes may have more axes than shape, which it takes by reshape: rows that a file has in another order.
    """

    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray
    scales: np.ndarray | None = None

    @property
    def group(self) -> int:
        """Weights that share a scale; 1 for float tensors."""
        return self.data.shape[-1] if self.scales is not None else 1

    @property
    def n_bytes(self) -> int:
        """Bytes of the stored numbers, scales included."""
        return self.data.nbytes + (self.scales.nbytes if self.scales is not None else 0)

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
        assert self.dtype == "q8_0", self.dtype
        assert self.scales is not None
        return (self.data.astype(np.float32) * self.scales.astype(np.float32)[..., None]).reshape(self.shape)


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


def to_bf16(weights: np.ndarray) -> Tensor:
    """Round float32 to bfloat16, half to even; NaN stays NaN."""
    bits = np.ascontiguousarray(weights, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    rounded = np.where(np.isnan(weights), (bits >> 16) | 0x40, rounded)
    return Tensor("bf16", weights.shape, rounded.astype(np.uint16))


def convert(tensor: Tensor, dtype: str, group: int = 64) -> Tensor:
    """The tensor in another dtype, by way of float32; itself when it has that dtype already (and group, if quantized)."""
    if tensor.dtype == dtype and (dtype in FLOAT_DTYPES or tensor.group == group):
        return tensor
    weights = tensor.dequantize()
    if dtype == "f32":
        return Tensor("f32", tensor.shape, weights)
    if dtype == "f16":
        return Tensor("f16", tensor.shape, weights.astype(np.float16))
    if dtype == "bf16":
        return to_bf16(weights)
    if dtype == "q8_0":
        return quantize_q8_0(weights, group)
    raise ValueError(f"unknown dtype {dtype}")
