"""What Llama changed against GPT-2, one component at a time: the same text, batches, optimizer and budget for each network.

    python examples/llama_vs_gpt.py stories.txt --out llama_vs_gpt.svg
    python examples/llama_vs_gpt.py tokens/ --steps 2000 --seeds 5 --out llama_vs_gpt.png

The text is a file, or a folder that `llamita prepare` made. A plot goes to --out, its numbers to a .json beside it, a table to
the terminal. docs/architecture.md explains the components. Letters in comments are the legend of model.py: B batch, T tokens,
D width, H heads, K head size, F mlp width, V vocabulary, L layers. Needs llamita[train].
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
import torch.nn.functional as F
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from llamita.config import ModelConfig
from llamita.data.shards import Dataset, open_dataset
from llamita.train.attention import causal_attention
from llamita.train.batches import Batches
from llamita.train.company import Company
from llamita.train.config import Recipe, TrainConfig
from llamita.train.evaluate import evaluate
from llamita.train.loss import linear_cross_entropy
from llamita.train.network import Llama, build_network, draw_matrices
from llamita.train.objective import NextToken
from llamita.train.session import Wish, make_dataset
from llamita.train.update import Updater
from llamita.train.world import World

WIDTH, N_LAYERS, N_HEADS, CONTEXT = 96, 4, 3, 128
LLAMA_MLP_WIDTH = 8 * WIDTH // 3  # three matrices of 8/3 D hold what two of 4 D hold
EVALUATIONS = 10
INK = "#767d86"  # as readable on white as on black
COLOURS = ("#767d86", "#2f80d0", "#c2751a", "#8a6fd1", "#1f9a6b", "#d6455d")


@dataclass(frozen=True)
class Components:
    """Which of Llama's components a network has; where it has not, it has GPT-2's."""

    rope: bool = False  # else learned positions
    swiglu: bool = False  # else GELU
    rms_norm: bool = False  # else LayerNorm
    no_biases: bool = False  # else each linear map adds one, and LayerNorm too


GPT_2, LLAMA = Components(), Components(rope=True, swiglu=True, rms_norm=True, no_biases=True)
VARIANTS = {
    "GPT-2": GPT_2,
    "RoPE": Components(rope=True),
    "SwiGLU": Components(swiglu=True),
    "RMSNorm": Components(rms_norm=True),
    "no biases": Components(no_biases=True),
    "Llama": LLAMA,
}


class Attention(nn.Module):
    """Causal attention: a token mixes the values of itself and those before it, by how well its query fits their keys."""

    def __init__(self, config: ModelConfig, components: Components) -> None:
        super().__init__()
        self.n_heads, self.head_size = config.n_heads, config.head_size
        self.query, self.key, self.value, self.output = (
            nn.Linear(config.width, config.width, bias=not components.no_biases) for _ in range(4)
        )

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)"""
        qkv = torch.cat((self.query(x), self.key(x), self.value(x)), -1).unflatten(-1, (-1, self.head_size))  # (B, T, 3H, K)
        return self.output(causal_attention(qkv, cosines, sines, self.n_heads, self.n_heads).flatten(2))


class GELUMLP(nn.Module):
    """GPT-2's: down(gelu(up(x))), F = 4 D (arXiv:1606.08415)."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias)
        self.down = nn.Linear(4 * width, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)"""
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class SwiGLUMLP(nn.Module):
    """Llama's: down(silu(gate(x)) * up(x)), F = 8/3 D (arXiv:2002.05202)."""

    def __init__(self, width: int, mlp_width: int, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(width, mlp_width, bias)
        self.up = nn.Linear(width, mlp_width, bias)
        self.down = nn.Linear(mlp_width, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)"""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """Attention and MLP, each reading a normalized copy of the stream and adding to it: pre-norm, in GPT-2 as in Llama."""

    def __init__(self, config: ModelConfig, components: Components) -> None:
        super().__init__()
        bias = not components.no_biases
        self.attention_norm = norm(config, components)
        self.attention = Attention(config, components)
        self.mlp_norm = norm(config, components)
        self.mlp = SwiGLUMLP(config.width, config.mlp_width, bias) if components.swiglu else GELUMLP(config.width, bias)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)"""
        x = x + self.attention(self.attention_norm(x), cosines, sines)
        return x + self.mlp(self.mlp_norm(x))


class Network(nn.Module):
    """A GPT-2 with any of Llama's components. With all of them it is llamita's own Llama: a test compares the logits."""

    def __init__(self, config: ModelConfig, components: Components) -> None:
        """config: the Llama's; heads share no keys, the classifier is the embedding."""
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.position = None if components.rope else nn.Embedding(config.context, config.width)
        self.layers = nn.ModuleList(Layer(config, components) for _ in range(config.n_layers))
        self.norm = norm(config, components)
        pairs = torch.arange(0, config.head_size, 2) / config.head_size  # (K / 2,)
        angles = torch.outer(torch.arange(config.context), config.rope_theta**-pairs)  # (context, K / 2)
        if not components.rope:
            angles = torch.zeros_like(angles)  # an angle of 0 turns nothing
        self.cosines, self.sines = angles.cos(), angles.sin()

    def hidden(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> what the classifier sees (B, T, D)."""
        n_tokens = ids.shape[1]
        x = self.embedding(ids)
        if self.position is not None:
            x = x + self.position.weight[:n_tokens]
        for layer in self.layers:
            x = layer(x, self.cosines[:n_tokens], self.sines[:n_tokens])
        return self.norm(x)

    def logits(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> the scores of every token after each (B, T, V)."""
        return F.linear(self.hidden(ids), self.embedding.weight)

    def forward(self, ids: Tensor, targets: Tensor, document_starts: None = None) -> Tensor:  # noqa: ARG002
        """Mean cross entropy, in nats, of targets (B, T) after ids (B, T)."""
        return linear_cross_entropy(self.hidden(ids).flatten(0, 1), self.embedding.weight, targets.flatten())


def norm(config: ModelConfig, components: Components) -> nn.Module:
    """RMSNorm (arXiv:1910.07467), or LayerNorm (arXiv:1607.06450) with a bias or without."""
    if components.rms_norm:
        return nn.RMSNorm(config.width, config.norm_epsilon)
    return nn.LayerNorm(config.width, config.norm_epsilon, bias=not components.no_biases)


def build_variant(config: ModelConfig, components: Components, seed: int) -> Network:
    """A network with fresh weights, drawn as train/network.py draws them: small normal matrices, biases 0, norms 1."""
    network = Network(config, components)
    draw_matrices(network, config.n_layers, seed)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    return network


def build(config: ModelConfig, components: Components, seed: int) -> Network | Llama:
    """The network of a variant; all of Llama's components together are llamita's own network."""
    return build_network(config, seed=seed) if components == LLAMA else build_variant(config, components, seed)


@dataclass(frozen=True)
class Point:
    """A measurement on the validation text after so many tokens of training."""

    n_tokens: int
    loss: float  # nats per token
    bits_per_byte: float


@dataclass(frozen=True)
class Run:
    """One variant trained from one seed."""

    variant: str
    seed: int
    n_parameters: int
    tokens_per_cpu_second: float  # of training alone; processor time, so that busy neighbours count less
    curve: list[Point]


def train(variant: str, dataset: Dataset, config: ModelConfig, training: TrainConfig) -> Run:
    """Train a variant as llamita trains: its batches, its AdamW, its clipping, its learning rate."""
    network = build(config, VARIANTS[variant], training.seed)
    llama = cast(Llama, network)  # all that llamita's loop asks of one: layers, config, and a loss of ids and targets
    world = World(rank=0, n_ranks=1, device=torch.device("cpu"), parallel="ddp")
    batches = Batches(dataset.train, config.context, training.sequences_per_update, training.seed)
    updater = Updater(Recipe(config, training).validate().training, llama, NextToken(batches), world)
    curve, cpu_seconds, n_tokens = [], 0.0, 0
    for step in range(training.n_steps):
        started = time.process_time()
        updater.run(step)
        cpu_seconds += time.process_time() - started
        n_tokens += training.sequences_per_update * config.context
        if (step + 1) % training.eval_every == 0 or step + 1 == training.n_steps:
            found = evaluate(llama, dataset.validation, training.eval_tokens, training.batch, training.dtype, world)
            curve.append(Point(n_tokens, found.loss, found.bits_per_byte))
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    return Run(variant, training.seed, n_parameters, n_tokens / cpu_seconds, curve)


def training_of(n_steps: int, learning_rate: float, seed: int) -> TrainConfig:
    """The same for every variant: AdamW, 2,048 tokens an update, a tenth of warm-up, then a cosine down to a tenth."""
    return TrainConfig(
        n_steps, batch=16, accumulation=1, learning_rate=learning_rate, warmup_steps=n_steps // 10, schedule="cosine",
        final_share=0.1, optimizer="adamw", eval_every=max(1, n_steps // EVALUATIONS), eval_tokens=16384, seed=seed,
    )  # fmt: skip


def table(runs: Sequence[Run]) -> str:
    """The ends of all curves as a Markdown table; differences are those of equal seeds."""
    lines = [
        "| variant | parameters | validation loss, nats per token | bits per byte | against GPT-2, by seed | tokens/s |",
        "|---|---|---|---|---|---|",
    ]
    for variant, own in by_variant(runs).items():
        losses = [run.curve[-1].loss for run in own]
        spread = f" ± {stdev(losses):.3f}" if len(losses) > 1 else ""
        bits = mean(run.curve[-1].bits_per_byte for run in own)
        against = " ".join(f"{difference:+.3f}" for difference in differences(runs, variant)) if variant != "GPT-2" else ""
        speed = mean(run.tokens_per_cpu_second for run in own)
        lines.append(
            f"| {variant} | {own[0].n_parameters:,} | {mean(losses):.3f}{spread} | {bits:.3f} | {against} | {speed:,.0f} |"
        )
    return "\n".join(lines)


def by_variant(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of each variant, in the order of VARIANTS."""
    return {variant: [run for run in runs if run.variant == variant] for variant in VARIANTS}


def differences(runs: Sequence[Run], variant: str) -> list[float]:
    """Last validation loss of a variant less that of GPT-2 with the same seed and so the same batches."""
    base = {run.seed: run.curve[-1].loss for run in runs if run.variant == "GPT-2"}
    return [run.curve[-1].loss - base[run.seed] for run in runs if run.variant == variant]


def plot(runs: Sequence[Run], path: Path) -> None:
    """Draw the loss on the way, and where each variant ended against GPT-2; a clear background, inks for light and dark."""
    inks = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    style: Any = dict.fromkeys(inks, INK) | {"font.size": 11, "svg.fonttype": "none", "svg.hashsalt": "llama_vs_gpt"}
    with rc_context(style):
        figure = Figure(figsize=(10, 4.2), layout="constrained", facecolor="none")
        left, right = figure.subplots(1, 2)
        _draw_curves(left, runs)
        _draw_ends(right, runs)
        for axes in (left, right):
            axes.set_facecolor("none")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color=INK, alpha=0.25)
        figure.savefig(path, transparent=True, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=160)


def _draw_curves(axes: Axes, runs: Sequence[Run]) -> None:
    for (variant, own), colour in zip(by_variant(runs).items(), COLOURS, strict=True):
        points = list(zip(*(run.curve for run in own), strict=True))  # of one time, by seed
        x = [points_then[0].n_tokens / 1e6 for points_then in points]
        y = [mean(point.loss for point in points_then) for points_then in points]
        line, order = ("--", 3) if variant == "GPT-2" else ("-", 2)  # the dashes above what they are compared with
        axes.plot(x, y, color=colour, label=variant, linewidth=1.8, linestyle=line, zorder=order)
    axes.set(xlabel="million tokens of training", ylabel="validation loss, nats per token")
    axes.legend(frameon=False, labelcolor=INK)


def _draw_ends(axes: Axes, runs: Sequence[Run]) -> None:
    changed = [variant for variant in VARIANTS if variant != "GPT-2"]
    for row, (variant, colour) in enumerate(zip(changed, COLOURS[1:], strict=True)):
        found = differences(runs, variant)
        axes.plot(found, [row] * len(found), "o", color=colour, alpha=0.7)
        axes.plot(mean(found), row, "|", color=colour, markersize=22, markeredgewidth=2.5)
    axes.axvline(0, color=INK, linestyle="--", linewidth=1.8)
    axes.set_yticks(range(len(changed)), changed)
    axes.set_ylim(len(changed) - 0.5, -0.5)
    axes.set_xlabel("last loss less GPT-2's, nats; a dot is a seed")


def prepared(text: str, vocab_size: int, folder: Path) -> Dataset:
    """Open a prepared folder, or learn a vocabulary from a text and prepare it in `folder`."""
    world = World(rank=0, n_ranks=1, device=torch.device("cpu"), parallel="ddp")
    return open_dataset(make_dataset(Wish(folder, (text,), overrides={"vocab_size": vocab_size}), world, Company()))


def compare(
    dataset: Dataset, n_steps: int, learning_rate: float, n_seeds: int, on_run: Callable[[Sequence[Run]], None]
) -> list[Run]:
    """Train every variant from every seed; on_run sees the runs so far after each of them."""
    vocab_size = dataset.manifest.vocab_size
    config = ModelConfig(WIDTH, N_LAYERS, N_HEADS, N_HEADS, LLAMA_MLP_WIDTH, vocab_size, CONTEXT)
    runs: list[Run] = []
    for seed in range(1, n_seeds + 1):
        for variant in VARIANTS:
            runs.append(train(variant, dataset, config, training_of(n_steps, learning_rate, seed)))
            on_run(runs)
    return runs


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the flags, compare, write plot and numbers, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("text", help="a file of text, or a folder that `llamita prepare` made")
    parser.add_argument("--out", type=Path, default=Path("llama_vs_gpt.svg"), help="the plot, .svg or .png (%(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="updates of 2,048 tokens (%(default)s)")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each variant (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="the highest (%(default)s)")
    parser.add_argument("--vocab-size", type=int, default=1024, help="pieces, where a text is given (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    flags = parser.parse_args(arguments)

    def tell(runs: Sequence[Run]) -> None:
        run = runs[-1]
        print(f"{run.variant}, seed {run.seed}: {run.curve[-1].loss:.4f} nats", flush=True)

    torch.set_num_threads(flags.threads)
    with TemporaryDirectory() as folder:
        dataset = prepared(flags.text, flags.vocab_size, Path(folder))
        runs = compare(dataset, flags.steps, flags.learning_rate, flags.seeds, tell)
    flags.out.with_suffix(".json").write_text(json.dumps([asdict(run) for run in runs], indent=1), encoding="utf-8")
    plot(runs, flags.out)
    print(table(runs))


if __name__ == "__main__":
    main()
