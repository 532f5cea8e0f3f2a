"""The optimizers of a run: AdamW, or Muon for the matrices of the layers and AdamW for the rest.

Their state goes in and out as named arrays, so that a checkpoint needs no pickle. Knows no file and no schedule.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from llamita.errors import ModelError
from llamita.train.config import TrainConfig

MUON_MOMENTUM = 0.95
MUON_ITERATIONS = 5
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al., 2024: the quintic that lifts small singular values fastest
RMS_OF_ADAMW = 0.2  # an update of AdamW has about this root mean square (arXiv:2502.16982): one learning rate serves both


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal (Jordan et al., 2024), with decoupled weight decay and AdamW's update size (arXiv:2502.16982).

    For matrices only. Matrices of one shape are orthogonalized together: a small model has dozens of them, and one batched
    product costs less than dozens.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # noqa: ARG002
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(sorted(parameter.shape)), []).append(parameter)
            for parameters in by_shape.values():
                self._update_together(parameters, group["lr"], group["weight_decay"])

    def _update_together(self, parameters: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        """Update matrices of one shape, or of its transpose."""
        directions = torch.stack([_wide(self._direction(parameter)) for parameter in parameters])  # (n, short, long)
        directions = orthogonalized(directions) * (RMS_OF_ADAMW * max(directions.shape[1:]) ** 0.5)
        for parameter, direction in zip(parameters, directions, strict=True):
            update = direction.T if parameter.shape[0] > parameter.shape[1] else direction
            parameter.mul_(1 - lr * weight_decay).add_(_like(update.to(parameter.dtype), parameter), alpha=-lr)

    def _direction(self, parameter: nn.Parameter) -> Tensor:
        """Nesterov's look ahead, whole on every rank."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(parameter.grad, 1 - MUON_MOMENTUM)
        direction = parameter.grad.lerp(momentum, MUON_MOMENTUM)
        return direction.full_tensor() if isinstance(direction, DTensor) else direction


def _wide(matrix: Tensor) -> Tensor:
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _like(update: Tensor, parameter: Tensor) -> Tensor:
    """The part of an update that this rank's part of the parameter needs."""
    if isinstance(parameter, DTensor):
        return distribute_tensor(update, parameter.device_mesh, parameter.placements)
    return update


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return matrices (n, short, long) with all singular values near 1: five steps of a Newton-Schulz iteration.

    In bfloat16 on CUDA, where that is many times as fast and as good (Jordan et al., 2024); float32 elsewhere.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(MUON_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.float()


class Optimizers:
    """The optimizers of a network, used as one. Frozen parameters have none."""

    def __init__(self, network: nn.Module, config: TrainConfig) -> None:
        self._parameters = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        in_layers = [p for name, p in self._parameters.items() if p.ndim == 2 and name.startswith("layers.")]
        vocabulary = [p for name, p in self._parameters.items() if p.ndim == 2 and not name.startswith("layers.")]
        norms = [p for p in self._parameters.values() if p.ndim == 1]
        rate, decay, betas = config.learning_rate, config.weight_decay, (config.beta1, config.beta2)
        self._all: list[torch.optim.Optimizer] = []
        if config.optimizer == "muon":
            # Embedding and classifier do not decay: most rows have no gradient in most batches that could resist it.
            self._all.append(Muon(in_layers, rate, decay))
            self._all.append(torch.optim.AdamW(vocabulary + norms, rate, betas, weight_decay=0.0, fused=True))
        else:
            groups = [{"params": in_layers + vocabulary}, {"params": norms, "weight_decay": 0.0}]
            self._all.append(torch.optim.AdamW(groups, rate, betas, weight_decay=decay, fused=True))

    def step(self, learning_rate: float, scaler: torch.amp.GradScaler | None = None) -> None:
        """Update the weights from their gradients."""
        for optimizer in self._all:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)

    def unscale(self, scaler: torch.amp.GradScaler) -> None:
        """Divide the gradients by the scaler's factor."""
        for optimizer in self._all:
            scaler.unscale_(optimizer)

    def state(self) -> dict[str, Tensor]:
        """Everything they remember, by name: "layers.0.mlp.up/exp_avg" and the like; whole, also where ranks share it."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self._parameters.items()}
        return {
            f"{names[parameter]}/{key}": value.full_tensor() if isinstance(value, DTensor) else value
            for optimizer in self._all
            for parameter, values in optimizer.state.items()
            for key, value in values.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned; raises ModelError where it belongs to other parameters or another optimizer."""
        for optimizer in self._all:
            optimizer.state.clear()
        for full_name, value in state.items():
            name, _, key = full_name.rpartition("/")
            if name not in self._parameters:
                raise ModelError(f"optimizer state: found {full_name}, which is no parameter of this model")
            parameter = self._parameters[name]
            owner = next(o for o in self._all if any(p is parameter for group in o.param_groups for p in group["params"]))
            if value.shape == parameter.shape and value.ndim:
                value = _like(value.to(parameter.device), parameter)
            owner.state[parameter][key] = value.clone()
