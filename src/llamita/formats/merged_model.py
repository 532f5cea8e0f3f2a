"""A model with an adapter applied: W + scale * B A in the place of W, computed some rows at a time whenever they are wanted.

Stands between the readers and everybody who wants a Model: the engine loads one matrix at a time in a form that it runs, a
writer streams rows. What an adapter does not touch stays a view of its file. Knows no format.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from llamita.config import ModelConfig
from llamita.errors import ModelError
from llamita.files import drop_pages
from llamita.formats.adapter import Adapter
from llamita.formats.pieces import head_rows, whole_rows
from llamita.model import Model, tensor_shapes
from llamita.quant import ComputedTensor, Tensor

Rows = Callable[[int, int], np.ndarray]  # first, last -> float32 (last - first, columns)
_ROWS_AT_ONCE = 4096
_LARGEST = {"f16": 65504.0}


def merged(model: Model, adapter: Adapter) -> Model:
    """The model with an adapter applied; its matrices that change are ComputedTensors.

    Rows for new tokens that the adapter does not bring are the mean of the model's. The tokenizer stays; raises ModelError
    where the adapter is another model's.
    """
    config = _config(model.config, adapter)
    if wrong := sorted({*adapter.pairs, *adapter.whole, *adapter.rows} - set(tensor_shapes(config))):
        raise ModelError(f"{adapter.name}: found {wrong[0]}, expected tensors of {model.name}; is it another model's adapter?")
    tensors = dict(model.tensors)
    if adapter.unties and "head" not in tensors:
        tensors["head"] = tensors["embedding"]
    changed = {name: _changed(tensors[name], name, shape, adapter, model.name) for name, shape in tensor_shapes(config).items()}
    return replace(model, config=config, tensors=changed)


def _config(config: ModelConfig, adapter: Adapter) -> ModelConfig:
    is_tied = config.tied_embedding and not adapter.unties
    return replace(config, vocab_size=adapter.vocab_size(config.vocab_size), tied_embedding=is_tied)


def _changed(tensor: Tensor, name: str, shape: tuple[int, ...], adapter: Adapter, model_name: str) -> Tensor:
    """One tensor with all that an adapter says of it; itself where that is nothing."""
    if name in adapter.whole and len(shape) == 1:
        return Tensor.from_array(adapter.whole[name])
    stored = Tensor.from_array(adapter.whole[name]) if name in adapter.whole else tensor
    if stored is tensor and shape == tensor.shape and name not in adapter.pairs and name not in adapter.rows:
        return tensor
    dtype, group = form(tensor)
    compute = rows = _stored_rows(stored)
    if shape[0] > stored.shape[0]:
        compute = _grown(rows, stored.shape)
    if name in adapter.pairs:
        compute = _added(compute, *adapter.pairs[name], adapter.scale(name))
    if name in adapter.rows:
        compute = _replaced(compute, *adapter.rows[name])
    checked = _checked(compute, _LARGEST.get(dtype, np.inf), f"{adapter.name}: with it, {name} of {model_name}")
    return ComputedTensor.of(dtype, shape, checked, group)


def form(tensor: Tensor) -> tuple[str, int]:
    """The dtype and the group in which the engine runs a changed tensor: its own, if that is fine enough for small changes.

    What an adapter adds is a small part of a weight's step in 4 bits, and of bfloat16's: these become q8_0 and float16, which
    takes no more memory.
    """
    if tensor.dtype in ("f32", "f16"):
        return tensor.dtype, 1
    if tensor.dtype == "bf16":
        return "f16", 1
    return "q8_0", tensor.group if tensor.dtype == "q8_0" else 32


def _stored_rows(tensor: Tensor) -> Rows:
    def rows(first: int, last: int) -> np.ndarray:
        unit = head_rows(tensor)
        start = first // unit * unit
        piece = whole_rows(tensor, start, -(-last // unit) * unit)
        found = np.array(piece.dequantize()[first - start : last - start])  # nobody may write into the file's pages
        for part in (piece.data, piece.scales, piece.offsets):
            if part is not None:
                drop_pages(part)
        return found

    return rows


def _grown(rows: Rows, shape: tuple[int, ...]) -> Rows:
    """Rows behind the last of a matrix (rows, columns) are the mean of all before, which is looked for when it is wanted."""
    n_rows, n_columns = shape
    means: list[np.ndarray] = []

    def grown(first: int, last: int) -> np.ndarray:
        found = rows(min(first, n_rows), min(last, n_rows))
        n_new = last - first - len(found)
        if not n_new:
            return found
        if not means:
            total = np.zeros(n_columns)
            for start in range(0, n_rows, _ROWS_AT_ONCE):
                total += rows(start, min(start + _ROWS_AT_ONCE, n_rows)).sum(axis=0, dtype=np.float64)
            means.append((total / n_rows).astype(np.float32))
        return np.concatenate([found, np.tile(means[0], (n_new, 1))])

    return grown


def _added(rows: Rows, low: np.ndarray, high: np.ndarray, scale: float) -> Rows:
    """W + scale * B A, with A (r, in), B (out, r)."""

    def added(first: int, last: int) -> np.ndarray:
        return rows(first, last) + (high[first:last] @ low) * np.float32(scale)

    return added


def _replaced(rows: Rows, ids: np.ndarray, values: np.ndarray) -> Rows:
    """Some rows in the place of others."""

    def replaced(first: int, last: int) -> np.ndarray:
        found = rows(first, last)
        here = (first <= ids) & (ids < last)
        found[ids[here] - first] = values[here]
        return found

    return replaced


def _checked(rows: Rows, largest: float, what: str) -> Rows:
    def checked(first: int, last: int) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            found = rows(first, last)
            if not (np.abs(found) <= min(largest, np.finfo(np.float32).max)).all():
                raise ModelError(f"{what} has a number that is too large or none, expected finite ones; is the file damaged?")
        return found

    return checked
