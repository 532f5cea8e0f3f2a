"""LoRA in a network (arXiv:2106.09685): its own weights stay as they are, and beside its matrices narrow ones are trained.

Between low_rank.py, which computes, and formats/adapter.py, which keeps the numbers on disk. Tokens that the model did not know
are trained whole: rows that take the place of those of embedding and head. Knows no data and no file.
"""

import math

import numpy as np
import torch
from torch import nn

from llamita.formats.adapter import Adapter
from llamita.train.config import FinetuneConfig
from llamita.train.low_rank import LowRank
from llamita.train.network import Llama
from llamita.train.weights import whole


def freeze(network: Llama, dtype: torch.dtype) -> None:
    """Take no more gradients of a network, in place, and hold its matrices in dtype; their content may be lost."""
    for parameter in network.parameters():
        parameter.requires_grad_(False)
        if parameter.ndim == 2:
            parameter.data = parameter.data.to(dtype)


def add_lora(network: Llama, config: FinetuneConfig, seed: int) -> None:
    """Put A and B beside the matrices of a network that config names, in place, as PEFT begins them.

    A is drawn as nn.Linear draws its weights, from the seed alone, and B is zero: so the network computes what it did before.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in network.layers:
        for part_name in ("attention", "mlp"):
            part = layer.get_submodule(part_name)
            names = [target.partition(".")[2] for target in config.lora_targets if target.startswith(f"{part_name}.")]
            if names:
                shapes = {name: (len(matrix := part.get_parameter(name)), matrix.shape[1]) for name in names}
                part.low_rank = LowRank(shapes, config.lora_rank, config.lora_alpha / config.lora_rank, config.lora_dropout)
                for low in part.low_rank.a.values():
                    nn.init.kaiming_uniform_(low, a=math.sqrt(5), generator=generator)
                for high in part.low_rank.b.values():
                    nn.init.zeros_(high)


def add_rows(network: Llama, first_new: int, rows: dict[str, np.ndarray]) -> None:
    """Train the rows of some tokens whole, in place. rows: of "embedding", and of "head" where that is another, (n, D) each."""
    network.first_new = first_new
    for name, values in rows.items():
        setattr(network, f"new_{name}", nn.Parameter(torch.from_numpy(values.copy())))


def adapter_of(network: Llama, config: FinetuneConfig, base: str) -> Adapter:
    """What training has made beside the frozen weights. Every rank has to ask. base: the model's name."""
    pairs = {
        f"layers.{i}.{part_name}.{name}": (whole(low_rank.a[name]).numpy(), whole(low_rank.b[name]).numpy())
        for i, layer in enumerate(network.layers)
        for part_name in ("attention", "mlp")
        if isinstance(low_rank := layer.get_submodule(part_name).low_rank, LowRank)
        for name in low_rank.a
    }
    new = {"embedding": network.new_embedding, "head": network.new_head}
    rows = {name: whole(parameter).numpy() for name, parameter in new.items() if parameter is not None}
    ids = {name: np.arange(network.first_new, network.first_new + len(values)) for name, values in rows.items()}
    numbered = {name: (ids[name], values) for name, values in rows.items()}
    return Adapter(config.lora_rank, config.lora_alpha, config.lora_dropout, pairs, base, rows=numbered, name="adapter")


def load_adapter(network: Llama, adapter: Adapter) -> None:
    """Give A, B and new rows of a network the numbers of an adapter that adapter_of made of such a network."""
    arrays = {f"{name}/{part}": array for name, pair in adapter.pairs.items() for part, array in zip("ab", pair, strict=True)}
    arrays |= {f"new_{name}": values for name, (_, values) in adapter.rows.items()}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                module, _, matrix = name.rpartition(".")  # layers.0.mlp.low_rank.a, gate
                module, _, part = module.rpartition(".low_rank.")
                parameter.copy_(torch.from_numpy(arrays[f"{module}.{matrix}/{part}" if part else name].copy()))
