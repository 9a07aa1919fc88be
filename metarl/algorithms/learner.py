"""What every engine holds: parameters with their optimizer, and checkpoints of both."""

import copy
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from metarl.algorithms.adam import Adam
from metarl.algorithms.gradients import Gradients
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
        self.optimizer.zero_grad()
        loss.backward()
        return self._descend(learning_rate, max_grad_norm)

    def descend_along(
        self, gradients: Gradients, learning_rate: float, max_grad_norm: float
    ) -> Tensor:
        """The same with the gradient of a loss."""
        for name, gradient in gradients.items():
            self.params[name].grad = None if gradient is None else gradient.to(self.device)
        return self._descend(learning_rate, max_grad_norm)

    def _descend(self, learning_rate: float, max_grad_norm: float) -> Tensor:
        set_learning_rate(self.optimizer, learning_rate)
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
        """Continue where `state_dict` was taken.

        Raises:
            ConfigError: a state of another form.
        """
        self.warm_start(state)
        load_optimizer(self.optimizer, state["optimiser"])

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take over an acting state; all else is as it was before training.

        Raises:
            ConfigError: a state of another form, such as parameters of another architecture.
        """
        own = self.acting_state()
        check_state({key: state.get(key) for key in own}, own)
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


def load_optimizer(optimizer: Optimizer, state: Any) -> None:
    """Take over a copy of the moments and the step size of an Adam optimizer; the rest is code's.

    Raises:
        ConfigError: moments of other parameters, or a step size that is none.
    """
    parameters = [x for group in optimizer.param_groups for x in group["params"]]
    moments = copy.deepcopy(state["state"])  # torch would share its tensors
    step = torch.zeros(())
    known = {
        place: {"step": step, "exp_avg": x.detach(), "exp_avg_sq": x.detach()}
        for place, x in enumerate(parameters)
    }
    check_state(moments, {place: known.get(place) for place in moments}, "optimizer")
    groups = optimizer.state_dict()["param_groups"]
    for own, given in zip(groups, state["param_groups"], strict=True):
        own["lr"] = given["lr"]
        if not isinstance(own["lr"], float) or not isfinite(own["lr"]):
            raise ConfigError(f"optimizer.lr is {_form(given['lr'])} in the checkpoint, no number")
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def check_state(given: object, own: object, place: str = "state") -> None:
    """Raises a ConfigError unless `given` may take the place of a new agent's `own` state.

    Tensors that are empty in `own` may be of any length.
    """
    if isinstance(given, Tensor) and not given.is_sparse and not given.isfinite().all():
        raise ConfigError(f"{place} is not finite in the checkpoint; use another")
    if isinstance(given, Tensor) and isinstance(own, Tensor):
        fits = given.dim() == own.dim() if own.numel() == 0 else given.shape == own.shape
        widened = place.endswith(".var") and given.dtype == torch.float32  # before version 0.9
        fits &= given.dtype == own.dtype or widened
        fits &= given.layout == torch.strided
    elif isinstance(given, dict) and isinstance(own, dict):
        for key in own | given:  # in their order
            check_state(given.get(key), own.get(key), f"{place}.{key}")
        return
    else:
        fits = type(given) is type(own)
    if not fits:
        raise ConfigError(
            f"{place} is {_form(given)} in the checkpoint and {_form(own)} in this agent; "
            "use the same agent and family"
        )


def _form(x: object) -> str:
    if isinstance(x, Tensor):
        layout = "" if x.layout == torch.strided else f" and layout {x.layout}"
        return f"{x.dtype} of shape {list(x.shape)}{layout}"
    return "absent" if x is None else type(x).__name__
