"""RoPE as the kernels read it: for each position a row of cosines and a row of signed sines (arXiv:2104.09864)."""

import numpy as np

from llamita.config import ModelConfig
from llamita.engine.memory import aligned
from llamita.engine.weights import padded
from llamita.model import rope_angles


def rotary_tables(config: ModelConfig, n_positions: int) -> tuple[np.ndarray, np.ndarray]:
    """Tables of RoPE float32 [n_positions * padded head]: cos cos and -sin sin of each pair's angle."""
    head_size, angles = config.head_size, rope_angles(config, n_positions)
    cosines = aligned(n_positions * padded(head_size), np.float32).reshape(n_positions, -1)
    sines = aligned(n_positions * padded(head_size), np.float32).reshape(n_positions, -1)
    cosines[:, :head_size] = np.repeat(np.cos(angles), 2, axis=1)
    sines[:, :head_size:2] = -np.sin(angles)
    sines[:, 1:head_size:2] = np.sin(angles)
    return cosines, sines
