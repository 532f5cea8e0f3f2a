"""Loss after the same tokens: llama2.c's model, optimizer and schedule beside ours, on the same batches of a prepared folder.

    python benchmarks/training_loss.py TOKENS --llama2c FOLDER_OF_LLAMA2C [--steps 600] [--out curves.json]

llama2.c: its model.py with its initialisation, AdamW (weight decay 0.1, betas 0.9 and 0.95) and cosine to 0 after warm-up,
as in its train.py, at several learning rates, of which its best counts. Ours: the same network with the same settings, and with
Muon and wsd. All see the same sequences in the same order, in float32; validation is measured on the same windows.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from llamita.config import ModelConfig
from llamita.data.shards import Dataset, open_dataset
from llamita.formats.meta_weights import meta_name
from llamita.train.batches import Batches
from llamita.train.config import Recipe, TrainConfig
from llamita.train.evaluate import evaluate
from llamita.train.network import Llama, build_network
from llamita.train.objective import NextToken
from llamita.train.schedule import learning_rate
from llamita.train.update import Updater
from llamita.train.world import World, open_world

Curve = list[tuple[int, float]]  # tokens seen, validation loss


def own_curve(recipe: Recipe, dataset: Dataset, world: World, every: int) -> Curve:
    """Train our network by our loop."""
    training = recipe.training
    batches = Batches(dataset.train, recipe.model.context, training.sequences_per_update, training.seed)
    updater = Updater(training, build_network(recipe.model, 0.0, training.seed), NextToken(batches), world)
    return list(measured(lambda step: updater.run(step) and None, updater.network, recipe, dataset, world, every))


def llama2c_curve(recipe: Recipe, dataset: Dataset, world: World, every: int) -> Curve:
    """Train llama2.c's network by the lines of its train.py."""
    from model import ModelArgs, Transformer  # pyright: ignore[reportMissingImports]

    config, training = recipe.model, recipe.training
    torch.manual_seed(training.seed)
    arguments = ModelArgs(
        config.width, config.n_layers, config.n_heads, config.n_kv_heads, config.vocab_size, config.mlp_width, 32,
        config.norm_epsilon, config.context, 0.0,
    )  # fmt: skip
    model = Transformer(arguments)
    optimizer = model.configure_optimizers(
        training.weight_decay, training.learning_rate, (training.beta1, training.beta2), "cpu"
    )
    batches = Batches(dataset.train, config.context, training.sequences_per_update, training.seed)
    shadow = build_network(config)  # measures the weights of the other with one and the same code

    def step(number: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, number)
        arrays = batches.read(number, 0, training.sequences_per_update)
        ids, targets = (torch.from_numpy(array.copy()) for array in arrays)
        model(ids, targets)
        model.last_loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (number + 1) % every == 0:
            copy_weights(model, shadow)

    return list(measured(step, shadow, recipe, dataset, world, every))


def copy_weights(theirs: torch.nn.Module, ours: Llama) -> None:
    """Copy the weights of llama2.c's module into a network of the same shape."""
    state = theirs.state_dict()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(state[meta_name(name)])


def measured(
    step: Callable[[int], None], network: Llama, recipe: Recipe, dataset: Dataset, world: World, every: int
) -> Iterator[tuple[int, float]]:
    """Take all steps, and measure now and then."""
    per_step = recipe.training.sequences_per_update * recipe.model.context
    for number in range(recipe.training.n_steps):
        step(number)
        if (number + 1) % every == 0:
            found = evaluate(network, dataset.validation, recipe.training.eval_tokens, recipe.training.batch, "float32", world)
            yield (number + 1) * per_step, found.loss


def tokens_to(curve: Curve, loss: float) -> float | None:
    """Tokens after which a curve first reaches a loss, on the straight line between two measurements."""
    for (tokens_before, before), (tokens, after) in pairwise(curve):
        if after <= loss:
            return (
                tokens_before + (tokens - tokens_before) * (before - loss) / (before - after)
                if before > loss
                else tokens_before
            )
    return None


def main() -> None:
    """Parse the command line, train all, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=Path, help="a folder that `llamita prepare` made")
    parser.add_argument("--llama2c", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    sys.path.insert(0, str(wanted.llama2c))
    world, dataset = open_world("cpu"), open_dataset(wanted.tokens)
    model = ModelConfig(64, 5, 8, 4, 172, dataset.manifest.vocab_size, 256)
    cosine = TrainConfig(
        wanted.steps, 16, 1, 1e-3, wanted.steps // 20, schedule="cosine", optimizer="adamw", eval_tokens=1 << 15
    )  # fmt: skip
    runs: dict[str, tuple[Callable[..., Curve], TrainConfig]] = {
        f"llama2.c, AdamW, cosine, {rate:g}": (llama2c_curve, replace(cosine, learning_rate=rate)) for rate in (1e-3, 4e-3)
    }
    runs["llamita, AdamW, cosine, 0.004"] = own_curve, replace(cosine, learning_rate=4e-3)
    runs["llamita, Muon, wsd, 0.008"] = own_curve, replace(cosine, learning_rate=8e-3, optimizer="muon", schedule="wsd")
    curves = {}
    for name, (curve_of, training) in runs.items():
        started = time.monotonic()
        curves[name] = curve_of(Recipe(model, training), dataset, world, wanted.every)
        print(f"{name}: {curves[name][-1][1]:.4f} after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if wanted.out:
        wanted.out.write_text(json.dumps(curves))
    best = min(curve[-1][1] for name, curve in curves.items() if name.startswith("llama2.c"))
    total = curves[next(iter(curves))][-1][0]
    print(f"| {model.n_parameters:,} parameters, {total:,} tokens | validation loss | tokens to llama2.c's best, {best:.4f} |")
    print("|---|---|---|")
    for name, curve in curves.items():
        needed = tokens_to(curve, best)
        print(f"| {name} | {curve[-1][1]:.4f} | {'-' if needed is None else f'{needed / total:.0%}'} |")


if __name__ == "__main__":
    main()
