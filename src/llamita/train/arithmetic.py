"""What a Llama costs, from its shape alone: operations, bytes of memory, bytes on disk; and the shape for a wanted size.

Letters are the legend of model.py, N is the number of parameters. Knows no torch and no machine.
"""

import math
from dataclasses import replace

from llamita.config import ModelConfig
from llamita.errors import SettingError
from llamita.train.config import TrainConfig

FLOAT32_BYTES = 4
INT8_GROUP = 64  # weights that share a float32 scale in llama2.c's int8 files
MOMENTS = {"adamw": 2, "muon": 1}  # float32 numbers that the optimizer keeps for each weight of a layer's matrices
SMALLEST, LARGEST = 100_000, 70_000_000_000


def flops_per_token(config: ModelConfig) -> float:
    """Operations to learn from one token: 6 N + 12 L H K T, N with the classifier but not the embedding that is only looked up.

    Each weight is multiplied and added once forward and twice backward (arXiv:2001.08361, section 2.1; arXiv:2204.02311,
    appendix B). Attention counts as if every token saw the whole context, as published figures do.
    """
    multiplied = config.n_parameters - (0 if config.tied_embedding else config.vocab_size * config.width)
    return 6.0 * multiplied + 12.0 * config.n_layers * config.query_width * config.context


def sequences_of_rank(training: TrainConfig, n_ranks: int) -> int:
    """Sequences of an update that each rank takes; raises SettingError where they cannot share them evenly."""
    n_sequences = training.sequences_per_update
    if n_sequences % n_ranks:
        found = f"batch x accumulation: found {n_sequences} sequences per update"
        raise SettingError(f"{found}, expected a multiple of the {n_ranks} processes")
    return n_sequences // n_ranks


def state_bytes(config: ModelConfig, training: TrainConfig) -> dict[str, int]:
    """Bytes that training holds whatever the batch: float32 weights, gradients, the optimizer's moments, 16-bit copies."""
    n, vocabulary = config.n_parameters, config.vocab_size * config.width * (1 if config.tied_embedding else 2)
    moments = MOMENTS[training.optimizer] * (n - vocabulary) + MOMENTS["adamw"] * vocabulary
    return {
        "weights": FLOAT32_BYTES * n,
        "gradients": FLOAT32_BYTES * n,
        "moments": FLOAT32_BYTES * moments,
        "copies": 0 if training.dtype == "float32" else 2 * n,
    }


def activation_bytes_per_token(config: ModelConfig, training: TrainConfig) -> int:
    """Bytes that the forward pass keeps for the backward pass, per token of a batch.

    Of each layer: its two inputs and their normalized copies, queries, keys, values before and after rotation, what attention
    and MLP return, and gate, up, silu(gate) and their product; at the end the last stream, its copy and its gradient.
    """
    qkv = config.query_width + 2 * config.kv_width
    layer = 6 * config.width + 2 * qkv + config.query_width + 4 * config.mlp_width
    value_bytes = 4 if training.dtype == "float32" else 2
    dropped = 3 * config.width if training.dropout else 0  # masks, a byte each, and what they let through
    return value_bytes * (config.n_layers * (layer + dropped) + 4 * config.width)


def memory_bytes(config: ModelConfig, training: TrainConfig) -> int:
    """All that training holds at once on one device."""
    activations = activation_bytes_per_token(config, training) * training.batch * config.context
    return sum(state_bytes(config, training).values()) + activations


def int8_file_bytes(config: ModelConfig) -> int:
    """About what an int8 file takes: a byte for each weight, a scale for each group."""
    return config.n_parameters + config.n_parameters * FLOAT32_BYTES // INT8_GROUP


def layers_for(width: int) -> int:
    """Layers that suit a width: those of the shallowest model of that width in Chinchilla's table A9 (arXiv:2203.15556).

    There a layer comes with every 64 of width up to 1024 and fewer above; sqrt(D) / 2 goes on from there through Llama 2 7B.
    Below 512, where the table begins, models stay deeper, as llama2.c's do (4 + D / 128).
    """
    if width < 512:
        return round(4 + width / 128)
    return round(width / 64) if width <= 1024 else round(math.sqrt(width) / 2)


def shape_of_width(width: int, n_layers: int, vocab_size: int) -> ModelConfig:
    """A Llama of a width: few wide heads, which CPUs want, and a SwiGLU of 8/3 of the width (arXiv:2002.05202).

    The heads divide the width, and are of an even size.
    """
    head_size = 128 if width > 1024 else 64 if width >= 128 else 32
    n_heads = max((n for n in range(1, width // head_size + 1) if width % (2 * n) == 0), default=1)
    n_kv_heads = n_heads if width <= 1536 else max((n for n in range(1, n_heads // 4 + 1) if n_heads % n == 0), default=1)
    multiple = 32 if width <= 1024 else 64
    mlp_width = math.ceil(8 * width / 3 / multiple) * multiple
    config = ModelConfig(width, n_layers, n_heads, n_kv_heads, mlp_width, vocab_size, context=256)
    tied = config.n_parameters < 300_000_000
    return replace(config, tied_embedding=tied, context=context_for(config.n_parameters))


def context_for(n_parameters: int) -> int:
    """Tokens that a model of this size sees at once: what llama2.c, TinyLlama and Llama took, rounded to a ladder."""
    return next((context for limit, context in ((3e6, 256), (60e6, 512), (500e6, 1024)) if n_parameters < limit), 2048)


def vocab_size_for(n_parameters: int) -> int:
    """A vocabulary whose embedding is no more than about a sixth of a model of this size."""
    ladder = ((1e6, 512), (3e6, 1024), (10e6, 2048), (50e6, 4096), (100e6, 8192), (300e6, 16384))
    return next((vocab_size for limit, vocab_size in ladder if n_parameters < limit), 32000)


def shape_for(n_parameters: int, vocab_size: int) -> ModelConfig:
    """The shape nearest to a size: the nearest width with its usual layers, then up to half as many layers more or less."""
    widths = [*range(32, 128, 32), *range(128, 1024, 64), *range(1024, 1536, 128), *range(1536, 16384 + 1, 512)]

    def distance(config: ModelConfig) -> float:
        return abs(math.log(config.n_parameters / n_parameters))

    width = min((shape_of_width(width, layers_for(width), vocab_size) for width in widths), key=distance).width
    usual = layers_for(width)
    depths = sorted(range(max(2, round(usual / 1.5)), round(usual * 1.5) + 1), key=lambda depth: abs(depth - usual))
    return min((shape_of_width(width, depth, vocab_size) for depth in depths), key=distance)


def sizes() -> list[int]:
    """Numbers of parameters to choose from where time or text decide: ten for each power of ten."""
    first, last = round(10 * math.log10(SMALLEST)), round(10 * math.log10(LARGEST))
    return [int(float(f"{10 ** (tenth / 10):.2g}")) for tenth in range(first, last + 1)]
