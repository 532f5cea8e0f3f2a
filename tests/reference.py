"""The naive twin of the engine: a Llama in a few lines of numpy float64. What every kernel and every path is compared with."""

from typing import Any

import numpy as np

from llamita.model import Model, rope_frequencies
from llamita.quant import Tensor


def round_activations(x: np.ndarray, group: int) -> np.ndarray:
    """What quantizing rows to int8 in groups and back makes of them."""
    grouped = x.reshape(len(x), -1, group)
    step = np.abs(grouped).max(2, keepdims=True) / 127
    return (np.rint(grouped / np.where(step > 0, step, 1)) * step).reshape(x.shape)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities, float64 (..., V)."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def reference_logits(
    model: Model, ids: list[int] | np.ndarray, quantize_activations: bool = True, half_cache: bool = False
) -> np.ndarray:
    """Logits float64 (T, V). With quantize_activations, int8 matrices get their input rounded as the engine rounds it; with
    half_cache, so do keys and values.
    """
    c, n_tokens = model.config, len(ids)

    def linear(tensor: Tensor, x: np.ndarray) -> np.ndarray:
        if tensor.scales is not None and quantize_activations:
            x = round_activations(x, tensor.group)
        return x @ tensor.dequantize().astype(np.float64).T

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(1, keepdims=True) + c.norm_epsilon) * model.tensors[name].dequantize()

    def rope(x: np.ndarray) -> np.ndarray:
        # float32 as in the code that Llamas were trained with
        angles = np.arange(n_tokens, dtype=np.float32)[:, None] * rope_frequencies(c)
        turned: Any = x.reshape(n_tokens, -1, c.head_size // 2, 2) @ np.array([1, 1j]) * np.exp(1j * angles)[:, None]
        return np.stack([turned.real, turned.imag], -1).reshape(n_tokens, -1, c.head_size)

    x = model.tensors["embedding"].dequantize()[np.asarray(ids)].astype(np.float64)
    for i in range(c.n_layers):
        layer = {name: model.tensors[f"layers.{i}.{name}"] for name in
                 ("attention.query", "attention.key", "attention.value", "attention.output", "mlp.gate", "mlp.up",
                 "mlp.down")}  # fmt: skip
        h = norm(x, f"layers.{i}.attention_norm")
        q, k = rope(linear(layer["attention.query"], h)), rope(linear(layer["attention.key"], h))
        v = linear(layer["attention.value"], h).reshape(n_tokens, c.n_kv_heads, c.head_size)
        if half_cache:
            k, v = k.astype(np.float16).astype(np.float64), v.astype(np.float16).astype(np.float64)
        k, v = (np.repeat(a, c.n_heads // c.n_kv_heads, axis=1) for a in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(c.head_size)
        scores = np.where(np.tri(n_tokens, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(2, keepdims=True))
        weights /= weights.sum(2, keepdims=True)
        x = x + linear(layer["attention.output"], np.einsum("hqk,khd->qhd", weights, v).reshape(n_tokens, -1))
        h = norm(x, f"layers.{i}.mlp_norm")
        gate = linear(layer["mlp.gate"], h)
        x = x + linear(layer["mlp.down"], gate / (1 + np.exp(-gate)) * linear(layer["mlp.up"], h))
    return linear(model.head, norm(x, "norm"))
