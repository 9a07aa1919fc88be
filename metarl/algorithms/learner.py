"""What every engine holds: parameters with their optimizer, and checkpoints of both."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from metarl.core.errors import ConfigError
from metarl.core.types import Params, tree_map


class Learner:
    """Parameters θ with an Adam optimizer."""

    def __init__(self, params: Params, device: torch.device, *, requires_grad: bool = True):
        """`requires_grad`: False where derivatives are not taken with respect to θ itself."""
        self.device = device
        self.requires_grad = requires_grad
        self.set_params(params)

    def set_params(self, params: Params) -> None:
        """Copy parameters, with a fresh optimizer."""
        self.params = copy_params(params, self.device, self.requires_grad)
        self.optimizer = Adam(self.params.values(), lr=1.0, eps=1e-5)

    def descend(self, loss: Tensor, learning_rate: float, max_grad_norm: float) -> Tensor:
        """One step of Adam on `loss` [], its gradient clipped → the gradient's norm [] before."""
        set_learning_rate(self.optimizer, learning_rate)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.params.values(), max_grad_norm)
        self.optimizer.step()
        return norm

    def acting_state(self) -> dict[str, Any]:
        """What acting needs: parameters, and statistics that scale inputs."""
        return {"params": copy_params(self.params, self.device)}

    def state_dict(self) -> dict[str, Any]:
        """The acting state and the optimizer."""
        # the key of version 0.5, whose checkpoints keep loading
        return self.acting_state() | {"optimiser": copy.deepcopy(self.optimizer.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.warm_start(state)
        # a copy: torch would share the state's tensors
        self.optimizer.load_state_dict(copy.deepcopy(state["optimiser"]))

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take over an acting state; all else is as it was before training.

        Raises:
            ConfigError: parameters of another architecture.
        """
        _check_shapes(self.params, state.get("params", {}))
        self.set_params(state["params"])


def copy_params(params: Params, device: torch.device, requires_grad: bool = False) -> Params:
    """Copies on `device`."""
    return tree_map(
        lambda x: x.detach().to(device, copy=True).requires_grad_(requires_grad), params
    )


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """The step size from now on."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _check_shapes(own: Params, loaded: Params) -> None:
    """Raises a ConfigError that names the first parameter that does not fit."""
    for name in own | loaded:
        here = _shape(own, name)
        there = _shape(loaded, name)
        if here != there:
            raise ConfigError(
                f"warm start: parameter {name} is {there} in the checkpoint and {here} in this "
                "agent; use the same agent and family"
            )


def _shape(params: Params, name: str) -> tuple[int, ...] | str:
    return tuple(params[name].shape) if name in params else "absent"
