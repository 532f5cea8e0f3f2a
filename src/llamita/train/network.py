"""The Llama of model.py as a torch module: the same tensors under the same names, and a loss to train them by.

Nothing in it that a Llama file cannot hold. Letters in comments are the legend of model.py. Knows no data, optimizer or file.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamita.config import ModelConfig
from llamita.model import rope_angles
from llamita.train.attention import causal_attention
from llamita.train.loss import linear_cross_entropy, linear_log_probabilities
from llamita.train.low_rank import LowRank, adapted_linear

INITIAL_DEVIATION = 0.02


class Attention(nn.Module):
    """Causal attention, a key/value head for each group of query heads (arXiv:2305.13245), with RoPE (arXiv:2104.09864)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_size = config.n_heads, config.n_kv_heads, config.head_size
        self.query = nn.Parameter(torch.empty(config.query_width, config.width))
        self.key = nn.Parameter(torch.empty(config.kv_width, config.width))
        self.value = nn.Parameter(torch.empty(config.kv_width, config.width))
        self.output = nn.Parameter(torch.empty(config.width, config.query_width))
        self.low_rank: LowRank | None = None  # see lora.py

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, document_starts: Tensor | None) -> Tensor:
        """x (B, T, D) -> (B, T, D); one product for query, key and value, whose input is the same."""
        qkv = adapted_linear(x, self, ("query", "key", "value"))
        qkv = qkv.unflatten(-1, (-1, self.head_size))  # (B, T, H + 2G, K)
        mixed = causal_attention(qkv, cosines, sines, self.n_heads, self.n_kv_heads, document_starts)
        return adapted_linear(mixed.flatten(2), self, ("output",))


class MLP(nn.Module):
    """SwiGLU (arXiv:2002.05202): down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.empty(config.mlp_width, config.width))
        self.up = nn.Parameter(torch.empty(config.mlp_width, config.width))
        self.down = nn.Parameter(torch.empty(config.width, config.mlp_width))
        self.low_rank: LowRank | None = None  # see lora.py

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)"""
        gate, up = adapted_linear(x, self, ("gate", "up")).chunk(2, -1)
        return adapted_linear(F.silu(gate) * up, self, ("down",))


class Layer(nn.Module):
    """Attention and MLP, each reading a normalized copy (arXiv:1910.07467) of the stream and adding to it."""

    def __init__(self, config: ModelConfig, dropout: float) -> None:
        super().__init__()
        self.norm_epsilon, self.dropout = config.norm_epsilon, dropout
        self.attention_norm = nn.Parameter(torch.ones(config.width))
        self.attention = Attention(config)
        self.mlp_norm = nn.Parameter(torch.ones(config.width))
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, document_starts: Tensor | None) -> Tensor:
        """x (B, T, D) -> (B, T, D)"""
        mixed = self.attention(rms_norm(x, self.attention_norm, self.norm_epsilon), cosines, sines, document_starts)
        x = x + F.dropout(mixed, self.dropout, self.training)
        return x + F.dropout(self.mlp(rms_norm(x, self.mlp_norm, self.norm_epsilon)), self.dropout, self.training)


class Llama(nn.Module):
    """The whole network; state_dict() has exactly the names and shapes of model.tensor_shapes(config)."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, config: ModelConfig, dropout: float = 0.0, n_positions: int | None = None) -> None:
        """n_positions: the longest row; without it the context. Rows may be longer where each of their documents is not."""
        super().__init__()
        self.config, self.dropout = config, dropout
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.layers = nn.ModuleList(Layer(config, dropout) for _ in range(config.n_layers))
        self.norm = nn.Parameter(torch.ones(config.width))
        if not config.tied_embedding:
            self.head = nn.Parameter(torch.empty(config.vocab_size, config.width))
        # rows, from first_new on, that take the place of those of a frozen embedding and head, or follow them; see lora.py
        self.new_embedding: nn.Parameter | None = None
        self.new_head: nn.Parameter | None = None
        self.first_new = 0
        angles = torch.from_numpy(rope_angles(config, n_positions or config.context))  # (context, K / 2)
        self.register_buffer("cosines", angles.cos().float(), persistent=False)
        self.register_buffer("sines", angles.sin().float(), persistent=False)

    @property
    def classifier(self) -> Tensor:
        """The matrix (V, D) that scores the next token: the embedding itself when the two are tied."""
        tied = self.config.tied_embedding
        matrix, new_rows = (self.embedding, self.new_embedding) if tied else (self.head, self.new_head)
        if new_rows is None:
            return matrix
        before, behind = matrix[: self.first_new], matrix[self.first_new + len(new_rows) :]
        return torch.cat((before, new_rows.to(matrix.dtype), behind))

    def embedded(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> their rows of the embedding (B, T, D)."""
        if self.new_embedding is None:
            return F.embedding(ids, self.embedding)
        places = ids - self.first_new
        is_new = (places >= 0) & (places < len(self.new_embedding))
        known = F.embedding(torch.where(is_new, 0, ids), self.embedding)
        new = F.embedding(torch.where(is_new, places, 0), self.new_embedding)
        return torch.where(is_new[..., None], new.to(known.dtype), known)

    def hidden(self, ids: Tensor, document_starts: Tensor | None = None) -> Tensor:
        """ids (B, T), T at most the longest row -> what the classifier sees (B, T, D)."""
        n_tokens = ids.shape[1]
        x = self.embedded(ids)
        if torch.is_autocast_enabled(x.device.type) and torch.get_autocast_dtype(x.device.type) == torch.bfloat16:
            x = x.bfloat16()  # the stream too: half the bytes; float16 would overflow here
        x = F.dropout(x, self.dropout, self.training)
        cosines, sines = self.cosines[:n_tokens], self.sines[:n_tokens]
        for layer in self.layers:
            x = layer(x, cosines, sines, document_starts)
        return rms_norm(x, self.norm, self.config.norm_epsilon)

    def logits(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> the scores of every token after each (B, T, V)."""
        return F.linear(self.hidden(ids), self.classifier)

    def forward(
        self,
        ids: Tensor,
        targets: Tensor,
        document_starts: Tensor | None = None,
        over: Literal["all", "counted", "each"] = "all",
    ) -> Tensor:
        """Mean cross entropy, in nats, of targets (B, T) after ids (B, T).

        document_starts int32 (B, T): the first position that each token may see; None: all before it. over: whether the mean is
        that of all targets, or of the counted ones, which are not NO_TARGET; each: no mean, but the logarithms of the
        probabilities of the targets (B, T), 0 where there is none.
        """
        x, targets_in_a_row = self.hidden(ids, document_starts).flatten(0, 1), targets.flatten()
        if over == "each":
            return linear_log_probabilities(x, self.classifier, targets_in_a_row).unflatten(0, ids.shape)
        return linear_cross_entropy(x, self.classifier, targets_in_a_row, masked=over == "counted")


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(mean(x * x) + epsilon) * weight, over the last axis."""
    return F.rms_norm(x, x.shape[-1:], weight.to(x.dtype), epsilon)


def build_network(config: ModelConfig, dropout: float = 0.0, seed: int = 0) -> Llama:
    """A network with fresh weights on the CPU, the same for a seed whatever the machine it will train on.

    Normal with a deviation of 0.02; the two matrices that add to the stream, 2L in all, by 1 / sqrt(2L) less, so that its
    variance does not grow with depth (GPT-2). llama2.c means to do this too, but scales mlp.up instead of mlp.down.
    """
    network = Llama(config, dropout)
    draw_matrices(network, config.n_layers, seed)
    return network


def draw_matrices(network: nn.Module, n_layers: int, seed: int) -> None:
    """Fill the matrices of a network in place, as build_network says; its vectors stay."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2:
            adds_to_stream = name.removesuffix(".weight").endswith(("attention.output", "mlp.down"))
            share = (2 * n_layers) ** -0.5 if adds_to_stream else 1.0
            nn.init.normal_(parameter, std=INITIAL_DEVIATION * share, generator=generator)


def document_starts_of(ids: Tensor, bos_id: int) -> Tensor:
    """int32 (B, T): for each token of ids (B, T) the position of the last BOS up to it, or 0 where none precedes."""
    positions = torch.arange(ids.shape[1], dtype=torch.int32, device=ids.device)
    return torch.where(ids == bos_id, positions, 0).cummax(1).values
