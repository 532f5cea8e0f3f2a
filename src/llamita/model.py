"""Model: a config, its canonical tensors and perhaps a tokenizer. What formats/ read and write and the engine runs.

Legend of shape letters, used in every comment of this project:
    B batch   T tokens   D width   H query heads   G key/value heads   K head size   F mlp width   V vocabulary   L layers
Weights are (out, in), row-major. RoPE pairs are neighbours (0, 1), (2, 3), ... as in Meta's and llama2.c's files.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from llamita.config import ModelConfig
from llamita.errors import ModelError, one_line
from llamita.quant import FLOAT_DTYPES, GGML_DTYPES, Tensor, convert, fitting_dtype


class Vocabulary(Protocol):
    """All that a Model asks of its tokenizer; see tokenizer/ for the rest."""

    @property
    def vocab_size(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Model:
    """One Llama in memory: config, canonical tensors by name, tokenizer (None where no tokenizer was found)."""

    config: ModelConfig
    tensors: dict[str, Tensor]
    tokenizer: Vocabulary | None = None
    name: str = "model"  # for messages: the file it came from
    source_format: str = "memory"  # such as "llama2.c v2"
    # float32 (2, context, K / 2), cosines and sines as a llama2.c v0 file held them, whose writer alone looks at them: so a
    # file that is read and written again is the same, whatever vector library its first writer had
    rope_tables: np.ndarray | None = None
    chat_template: str = ""  # Jinja source that the model came with; "" where it came with none
    stop_ids: tuple[int, ...] = ()  # ids that end a text, as the model's files say; () leaves it to the tokenizer's BOS and EOS

    @property
    def n_bytes(self) -> int:
        """Bytes of all stored tensors."""
        return sum(tensor.n_bytes for tensor in self.tensors.values())

    @property
    def head(self) -> Tensor:
        """The classifier (V, D): the embedding itself when the two are tied."""
        return self.tensors["embedding" if self.config.tied_embedding else "head"]

    @property
    def cache_itemsize(self) -> int:
        """Bytes of a number in the cache of keys and values: 2 (float16) where integers in groups of 32 n make them, else 4.

        Inputs of 8 bits have lost more by then. Where the processor has no float16, the engine takes 4.
        """
        maker = self.tensors["layers.0.attention.key"]
        return 4 if maker.dtype in FLOAT_DTYPES or maker.group % 32 else 2

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes of a token's keys and values in all layers."""
        return 2 * self.config.n_layers * self.config.kv_width * self.cache_itemsize

    def validate(self) -> "Model":
        """Return the model; raise ModelError unless config, tensor names, shapes and tokenizer fit each other."""
        self.config.validate()
        expected = tensor_shapes(self.config)
        if missing := sorted(set(expected) - set(self.tensors)):
            raise ModelError(f"{self.name}: tensors: {missing[0]} is missing ({len(missing)} in all)")
        if extra := sorted(set(self.tensors) - set(expected)):
            raise ModelError(f"{self.name}: tensors: {extra[0]} is not part of a Llama ({len(extra)} such tensors)")
        for name, shape in expected.items():
            if self.tensors[name].shape != shape:
                raise ModelError(f"{self.name}: tensor {name}: found shape {self.tensors[name].shape}, expected {shape}")
        check_tokenizer_fits(self)
        return self


def check_tokenizer_fits(model: Model) -> None:
    """Raise ModelError when a tokenizer of another vocabulary came with the model: its text would be gibberish."""
    tokenizer, vocab_size = model.tokenizer, model.config.vocab_size
    if tokenizer is not None and tokenizer.vocab_size != vocab_size:
        found = f"{model.name}: the tokenizer has {tokenizer.vocab_size} tokens, the model {vocab_size}"
        raise ModelError(one_line(f"{found}; name the right one with -z"))


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every tensor, in the order of the forward pass."""
    width, query, kv, mlp = config.width, config.query_width, config.kv_width, config.mlp_width
    shapes: dict[str, tuple[int, ...]] = {"embedding": (config.vocab_size, width)}
    for i in range(config.n_layers):
        shapes |= {
            f"layers.{i}.attention_norm": (width,),
            f"layers.{i}.attention.query": (query, width),
            f"layers.{i}.attention.key": (kv, width),
            f"layers.{i}.attention.value": (kv, width),
            f"layers.{i}.attention.output": (width, query),
            f"layers.{i}.mlp_norm": (width,),
            f"layers.{i}.mlp.gate": (mlp, width),
            f"layers.{i}.mlp.up": (mlp, width),
            f"layers.{i}.mlp.down": (width, mlp),
        }
    shapes["norm"] = (width,)
    if not config.tied_embedding:
        shapes["head"] = (config.vocab_size, width)
    return shapes


def rope_frequencies(config: ModelConfig) -> np.ndarray:
    """Angle per position of each pair of a head, float32 (K / 2): theta ** (-2 pair / K), stretched as rope_scaling says.

    Source of llama3: transformers' modeling_rope_utils.py, which agrees with Meta's apply_scaling.
    """
    exponents = np.arange(0, config.head_size, 2, dtype=np.float32) / np.float32(config.head_size)
    frequencies = np.float32(1) / np.float32(config.rope_theta) ** exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / np.float32(scaling.factor)
    if scaling.kind == "factors":
        return frequencies / np.array(scaling.factors, np.float32)
    assert scaling.kind == "llama3", scaling.kind
    low, high = np.float32(scaling.low_frequency_factor), np.float32(scaling.high_frequency_factor)
    turns = np.float32(scaling.original_context) * frequencies / np.float32(2 * np.pi)  # within the original context
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return ((1 - smooth) * frequencies / np.float32(scaling.factor) + smooth * frequencies).astype(np.float32)


def rope_angles(config: ModelConfig, n_positions: int) -> np.ndarray:
    """Angles by which RoPE (arXiv:2104.09864) turns each pair of a head: float64 (n_positions, K / 2).

    angle(position, pair) = position * frequency(pair), rounded to float32 as in the code that Llamas were trained with (and in
    run.c): at position 1000 that moves an angle by 3e-5, more than all other roundings.
    """
    return (np.arange(n_positions, dtype=np.float32)[:, None] * rope_frequencies(config)).astype(np.float64)


def random_model(config: ModelConfig, dtype: str = "f32", group: int = 64, seed: int = 0) -> Model:
    """A model of random weights that keep activations near 1: for tests and benchmarks. Matrices in `dtype`, norms float32."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        if len(shape) == 1:
            tensors[name] = Tensor.from_array(rng.uniform(0.5, 1.5, shape).astype(np.float32))
            continue
        deviation = 1.0 if name in ("embedding", "head") else shape[1] ** -0.5
        weights = rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
        tensors[name] = convert(Tensor.from_array(weights), fitting_dtype(dtype, shape[1], group), group)
    return Model(config, tensors, name=f"random {dtype}")


def with_more_rows(model: Model, vocab_size: int, n_known: int = 0) -> Model:
    """The model with rows for vocab_size tokens, and without its tokenizer, which has other tokens now.

    Rows from n_known on (0: those that are added) are the mean of the rows before them: a token that nobody knows yet is as
    likely as an average one (the mean resizing of transformers). Other rows keep their bits. Raises ModelError for fewer rows
    than there are.
    """
    n_rows = model.config.vocab_size
    n_known = n_known or n_rows
    if not 0 < n_known <= n_rows <= vocab_size:
        raise ModelError(f"{model.name}: vocabulary: found {n_rows} rows, {n_known} known, expected at most {vocab_size}")
    names = ["embedding"] if model.config.tied_embedding else ["embedding", "head"]
    grown = {name: _with_mean_rows(model.tensors[name], n_known, vocab_size) for name in names}
    config = replace(model.config, vocab_size=vocab_size)
    return replace(model, config=config, tensors=model.tensors | grown, tokenizer=None)


def _with_mean_rows(tensor: Tensor, n_known: int, n_rows: int) -> Tensor:
    """The first n_known rows of a matrix (V, D), and their mean behind them, in the same dtype; float32 for GGML_DTYPES."""
    if tensor.dtype in GGML_DTYPES:
        tensor = convert(tensor, "f32")
    known = tensor.rows(0, n_known)
    mean = known.dequantize().mean(axis=0, dtype=np.float64).astype(np.float32)
    added = convert(Tensor.from_array(np.tile(mean, (n_rows - n_known, 1))), tensor.dtype, tensor.group)

    def joined(name: str) -> np.ndarray | None:
        part = getattr(known, name)
        return None if part is None else np.concatenate([part, getattr(added, name).astype(part.dtype)])

    data = np.concatenate([known.data, added.data])
    return Tensor(tensor.dtype, (n_rows, tensor.shape[1]), data, joined("scales"), joined("offsets"))


def with_dtype(model: Model, dtype: str, group: int = 64) -> Model:
    """The model with its matrices in another dtype, see fitting_dtype; norms stay as they are."""
    matrices = {name: tensor for name, tensor in model.tensors.items() if len(tensor.shape) == 2}
    converted = {name: convert(t, fitting_dtype(dtype, t.shape[1], group), group) for name, t in matrices.items()}
    return replace(model, tensors=model.tensors | converted)
