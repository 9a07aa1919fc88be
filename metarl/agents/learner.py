"""What the learning agents share: parameters with their optimizer, arrays of tasks, metrics."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from metarl.core.rollout import Rollout
from metarl.core.types import Params, tree_map
from metarl.nn.policy import check_shapes


class Learner:
    """An agent's parameters θ with their optimizer, and checkpoints of both."""

    device: torch.device
    params: Params
    requires_grad = True

    def _set_params(self, params: Params) -> None:
        """Copy parameters, with a fresh optimizer."""
        self.params = copy_params(params, self.device, self.requires_grad)
        self._optimizer = Adam(self.params.values(), lr=1.0, eps=1e-5)

    def state_dict(self) -> dict[str, Any]:
        """Parameters and optimizer."""
        return {
            "params": copy_params(self.params, self.device),
            # the key of version 0.5, whose checkpoints keep loading
            "optimiser": copy.deepcopy(self._optimizer.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.warm_start(state)
        # a copy: torch would share the state's tensors
        self._optimizer.load_state_dict(copy.deepcopy(state["optimiser"]))

    def warm_start(self, state: dict[str, Any]) -> None:
        """Parameters of another run; all else as it was before training.

        Raises:
            ConfigError: parameters of another architecture.
        """
        check_shapes(self.params, state.get("params", {}))
        self._set_params(state["params"])


def copy_params(params: Params, device: torch.device, requires_grad: bool = False) -> Params:
    """Copies on `device`."""
    return tree_map(
        lambda x: x.detach().to(device, copy=True).requires_grad_(requires_grad), params
    )


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """The step size from now on."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def expand_to_lanes(x: Tensor | None, obs: Tensor) -> Tensor | None:
    """What belongs to a task [N, W], beside obs [..., N, M, O] of its lanes: [..., N, M, W]."""
    return None if x is None else x.unsqueeze(1).expand(*obs.shape[:-1], -1)


def next_step(x: Tensor) -> Tensor:
    """x_{t+1} of x [T, ...]; zero, or False, after the last step."""
    return torch.cat([x[1:], torch.zeros_like(x[:1])])


def return_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Mean return of an episode, before any adaptation (the first rollout) and after all of it."""
    first = float(rollouts[0].episode_returns().mean())
    last = float(rollouts[-1].episode_returns().mean())
    return {"return": last, "first_return": first, "last_return": last}
