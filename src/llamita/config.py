"""ModelConfig: the numbers that make a Llama, and the shapes that people know by name.

Every stage reads it; it knows no file layout (formats/) and no tensor (model.py). Letters in comments are the legend of
model.py.
"""

import math
from dataclasses import asdict, dataclass

from llamita.errors import ModelError

LAYER_MATRICES = ("attention.query", "attention.key", "attention.value", "attention.output", "mlp.gate", "mlp.up", "mlp.down")

# No real Llama comes near; a file that claims more is broken or hostile.
LIMITS = {
    "width": 1 << 17,
    "n_layers": 1024,
    "n_heads": 4096,
    "n_kv_heads": 4096,
    "head_size": 1 << 16,
    "mlp_width": 1 << 20,
    "vocab_size": 1 << 22,
    "context": 1 << 24,
}


@dataclass(frozen=True)
class RopeScaling:
    """How the rotary frequencies of a model are stretched for a longer context; each frequency is divided by a number.

    kind linear: by `factor` (arXiv:2306.15595). llama3: by `factor` where the wave is longer than original_context /
    low_frequency_factor, not at all where it is shorter than original_context / high_frequency_factor, smoothly between (Llama
    3.1's). factors: by `factors`, one number for each pair of a head, as a GGUF file holds them.
    """

    kind: str
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 8192
    factors: tuple[float, ...] = ()

    def validate(self, head_size: int) -> None:
        """Raise ModelError unless the numbers make sense for heads of this size."""
        if self.kind not in ROPE_KINDS:
            raise ModelError(f"rope_scaling: found kind {self.kind}, expected {', '.join(ROPE_KINDS)}")
        numbers = (self.factor, self.low_frequency_factor, self.high_frequency_factor, self.original_context, *self.factors)
        if not all(0 < number < math.inf for number in numbers):
            raise ModelError("rope_scaling: found a factor that is not positive, expected positive numbers")
        if self.kind == "llama3" and self.low_frequency_factor >= self.high_frequency_factor:
            raise ModelError(
                f"rope_scaling: found low_frequency_factor {self.low_frequency_factor:g}, "
                f"expected less than high_frequency_factor {self.high_frequency_factor:g}"
            )
        if self.kind == "factors" and len(self.factors) != head_size // 2:
            raise ModelError(f"rope_scaling: found {len(self.factors)} factors, expected {head_size // 2}, one for each pair")


ROPE_KINDS = ("linear", "llama3", "factors")


@dataclass(frozen=True)
class ModelConfig:
    """What a Llama is, besides its weights.

    >>> ModelConfig(width=64, n_layers=5, n_heads=8, n_kv_heads=4, mlp_width=172, vocab_size=512, context=512).n_parameters
    260032
    """

    width: int  # D
    n_layers: int  # L
    n_heads: int  # H, query heads
    n_kv_heads: int  # G, key/value heads; H of multi-head attention, 1 of multi-query attention
    mlp_width: int  # F
    vocab_size: int  # V
    context: int  # tokens that the model was trained to see at once
    head_size: int = 0  # K; 0 is replaced by width / n_heads
    rope_theta: float = 10000.0  # base of the rotary frequencies (arXiv:2104.09864)
    norm_epsilon: float = 1e-5  # of RMSNorm (arXiv:1910.07467)
    tied_embedding: bool = True  # the classifier is the embedding
    rope_scaling: RopeScaling | None = None  # None: plain RoPE

    def __post_init__(self) -> None:
        if self.head_size == 0 and self.n_heads > 0:
            object.__setattr__(self, "head_size", self.width // self.n_heads)

    @property
    def query_width(self) -> int:
        """H * K: rows of the query matrix."""
        return self.n_heads * self.head_size

    @property
    def kv_width(self) -> int:
        """G * K: rows of the key and of the value matrix."""
        return self.n_kv_heads * self.head_size

    @property
    def n_parameters(self) -> int:
        """Weights, each counted once, also when embedding and classifier are one."""
        attention = 2 * self.width * self.query_width + 2 * self.width * self.kv_width
        layer = attention + 3 * self.width * self.mlp_width + 2 * self.width
        return self.n_layers * layer + self.width + self.vocab_size * self.width * (1 if self.tied_embedding else 2)

    def validate(self) -> None:
        """Raise ModelError unless the numbers make a Llama that the engine can run."""
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if not 1 <= value <= limit:
                raise ModelError(f"{name}: found {value}, expected 1 to {limit}")
        if self.n_heads % self.n_kv_heads:
            raise ModelError(f"n_kv_heads: found {self.n_kv_heads}, expected a divisor of n_heads = {self.n_heads}")
        if self.head_size % 2:
            raise ModelError(f"head_size: found {self.head_size}, expected an even number (RoPE turns pairs)")
        if not 0 < self.rope_theta < 1e12:
            raise ModelError(f"rope_theta: found {self.rope_theta}, expected a positive number below 1e12")
        if not 0 < self.norm_epsilon < 1:
            raise ModelError(f"norm_epsilon: found {self.norm_epsilon}, expected a number between 0 and 1")
        if self.rope_scaling is not None:
            self.rope_scaling.validate(self.head_size)

    def to_dict(self) -> dict[str, object]:
        """The fields by name, for JSON and TOML; rope_scaling only where there is one."""
        values = asdict(self)
        if self.rope_scaling is None:
            del values["rope_scaling"]
        return values


def _preset(
    width: int, layers: int, heads: int, kv_heads: int, mlp_width: int, context: int, vocab: int = 32000, tied: bool = True
):
    return ModelConfig(width, layers, heads, kv_heads, mlp_width, vocab, context, tied_embedding=tied)


# llama2.c's published models, TinyLlama and Llama 2 7B
PRESETS = {
    "260K": _preset(64, 5, 8, 4, 172, 512, vocab=512),
    "15M": _preset(288, 6, 6, 6, 768, 256),
    "42M": _preset(512, 8, 8, 8, 1376, 1024),
    "110M": _preset(768, 12, 12, 12, 2048, 1024),
    "1.1B": _preset(2048, 22, 32, 4, 5632, 2048, tied=False),
    "7B": _preset(4096, 32, 32, 32, 11008, 2048, tied=False),
}
