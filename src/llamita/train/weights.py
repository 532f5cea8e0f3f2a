"""Weights on their way between the network, whose parameters may lie on a GPU or in parts on many ranks, and a Model."""

import torch
from torch.distributed.tensor import DTensor

from llamita.config import ModelConfig
from llamita.model import Model
from llamita.quant import Tensor
from llamita.train.network import Llama


def load_weights(network: Llama, model: Model) -> None:
    """Copy the weights of a model, dequantized, into a network of the same config."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(model.tensors[name].dequantize().copy()))


def model_of(network: Llama, config: ModelConfig, name: str) -> Model:
    """The network as a Model: its own memory on a CPU, copies elsewhere. Every rank has to ask."""
    tensors = {name: Tensor.from_array(whole(p).numpy()) for name, p in network.named_parameters()}
    return Model(config, tensors, name=name, source_format="training")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU, collected from all ranks where they share it out; without a copy where that can be."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()
