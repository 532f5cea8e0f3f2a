"""llama2.c's model files, written: any Model as v0, v1 (float32) or v2 (int8 groups). The other direction is llama2c.py.

Tensors are converted and written piece by piece. These files hold neither rope_theta, nor the epsilon of the norms, nor a head
size: a model where they differ from llama2.c's is refused. Source: export.py.
"""

import struct
from os import PathLike
from typing import BinaryIO

import numpy as np

from llamita.config import ModelConfig
from llamita.errors import ModelFileError
from llamita.files import atomic_file
from llamita.formats.llama2c import HEADER_BYTES, HEADER_FIELDS, MAGIC, ROPE_TABLES, Place, largest_group, layout
from llamita.formats.pieces import Progress, pieces, write_array
from llamita.model import Model

ROPE_THETA = 10000.0  # written into run.c, as is
NORM_EPSILON = 1e-5
# github.com/meta-llama/llama, issue 771
_EPSILON_SLIP = "of Llama 2 7B-chat, early downloads say 1e-06 by mistake: then write 1e-05 into its params.json or config.json"


def write(
    model: Model, path: str | PathLike[str], version: int, group: int | None = None, progress: Progress | None = None
) -> None:
    """Write a model as llama2.c v0, v1 or v2, whole or not at all.

    group: weights per scale of v2; left out, the groups of a model that has fitting ones, else the largest power of two up to
    64 that divides every row. Raises ModelFileError for a model that the format cannot hold, ModelError for a broken one.
    """
    config = model.validate().config
    _check_holds(config, path)
    group = (group if group is not None else fitting_group(model)) if version == 2 else 1
    if group < 1 or config.width % group or config.mlp_width % group:
        expected = f"a divisor of the width {config.width} and of the mlp width {config.mlp_width}"
        raise ModelFileError(path, "group", group, expected, f"leave it out, or take {largest_group(config)}")
    with atomic_file(path) as file:
        file.write(_header(config, version, group))
        for place in layout(config, version, group)[0]:
            _write_tensor(file, place, model, group, progress)


def fitting_group(model: Model) -> int:
    """Weights per scale of v2 that fit a model: those that it has if they divide every row, else the largest that do."""
    return _stored_group(model) or largest_group(model.config)


def rope_tables(config: ModelConfig) -> np.ndarray:
    """The angles of every position as export.py writes them: float32 (2, context, head_size / 2), cosines, then sines.

    Angles in float32 steps as there; cosine and sine correctly rounded, the same on every machine. export.py leaves the last
    bit to its machine's vector library, and about one value in twenty differs by it. No reader looks at them.
    """
    exponents = np.arange(0, config.head_size, 2, dtype=np.float32)[: config.head_size // 2] / np.float32(config.head_size)
    powers = (config.rope_theta ** exponents.astype(np.float64)).astype(np.float32)
    angles = np.outer(np.arange(config.context, dtype=np.float32), np.float32(1.0) / powers).astype(np.float64)
    return np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def _check_holds(config: ModelConfig, path: str | PathLike[str]) -> None:
    remedy = "llama2.c's files cannot say otherwise: choose another format"
    fixed = {"rope_theta": ROPE_THETA, "norm_epsilon": NORM_EPSILON, "head_size": config.width / config.n_heads}
    for name, expected in fixed.items():
        if (found := getattr(config, name)) != expected:
            slip = f"; {_EPSILON_SLIP}" if name == "norm_epsilon" and found == 1e-6 else ""
            raise ModelFileError(path, name, found, f"{expected:g}", remedy + slip)
    if config.rope_scaling is not None:
        raise ModelFileError(path, "rope_scaling", config.rope_scaling.kind, "none", remedy)


def _stored_group(model: Model) -> int | None:
    """The group that all quantized matrices share, if it divides every row: they need no second rounding then."""
    groups = {tensor.group for tensor in model.tensors.values() if tensor.dtype == "q8_0"}
    group = groups.pop() if len(groups) == 1 else 0
    return group if group and not model.config.width % group and not model.config.mlp_width % group else None


def _header(config: ModelConfig, version: int, group: int) -> bytes:
    numbers = {name: getattr(config, field) for name, field in HEADER_FIELDS.items()}
    if version == 0:
        numbers["vocab_size"] *= 1 if config.tied_embedding else -1
        return struct.pack("<7i", *numbers.values())
    header = struct.pack("<Ii7iB", MAGIC, version, *numbers.values(), config.tied_embedding)
    if version == 2:
        header += struct.pack("<i", group)
    return header.ljust(HEADER_BYTES, b"\0")


def _write_tensor(file: BinaryIO, place: Place, model: Model, group: int, progress: Progress | None) -> None:
    if place.name == ROPE_TABLES:
        tables = model.rope_tables
        if tables is None or tables.size != place.n_bytes // 4:
            tables = rope_tables(model.config)
        write_array(file, tables, "<f4", progress)
        return
    scales = []  # of the whole tensor: they follow all of its weights
    for piece in pieces(model.tensors[place.name], place.dtype, group):
        write_array(file, piece.data, "<f4" if piece.scales is None else "i1", progress)
        scales += [] if piece.scales is None else [piece.scales.astype("<f4")]
    for part in scales:
        write_array(file, part, "<f4", progress)
