"""How new an input is: random network distillation (Burda et al. 2019, arXiv:1810.12894)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarl.algorithms.learner import Learner, copy_params
from metarl.algorithms.losses import masked_mean
from metarl.core.rng import Rng
from metarl.nn.mlp import MLP
from metarl.nn.normalizer import Normalizer

_HIDDEN, _OUTPUTS = (256, 256), 128
_GAIN = 1000.0
"""Of the target's outputs beside those of a new network, whose head is a hundredth of a layer: 10
as in HyperX (Zintgraf et al. 2021, arXiv:2010.01062, the authors' code)."""


class Novelty(Learner):
    """A network learns what a random one says: where it errs, it has seldom been."""

    def __init__(self, width: int, rng: Rng, device: torch.device):
        self.network = MLP(width, _HIDDEN, _OUTPUTS)
        super().__init__(self.network.init(rng.child("predictor").generator()), device)
        target = self.network.init(rng.child("target").generator())
        target["head.weight"] = _GAIN * target["head.weight"]
        self.target = copy_params(target, device)
        self.inputs = Normalizer.initial(width, device)

    @torch.no_grad()
    def bonus(self, x: Tensor) -> Tensor:
        """[...]: ‖f(x) − f̂(x)‖² / 128 of inputs [..., W]."""
        return self._error(x)

    def update(self, x: Tensor, valid: Tensor, learning_rate: float) -> dict[str, float]:
        """A gradient step on the `valid` [...] inputs [..., W]."""
        self.inputs = self.inputs.update(x, valid.unsqueeze(-1))
        loss = masked_mean(self._error(x), valid)
        self.descend(loss, learning_rate, max_grad_norm=1.0)
        return {"novelty": float(loss.detach())}

    def _error(self, x: Tensor) -> Tensor:
        x = self.inputs.normalize(x)
        with torch.no_grad():
            target = self.network(self.target, x)
        return (self.network(self.params, x) - target).square().mean(-1)

    # -- checkpoints

    def acting_state(self) -> dict[str, Any]:
        """Both networks, and the statistics of inputs."""
        own = {"target": copy_params(self.target, self.device), "moments": self.inputs.state_dict()}
        return super().acting_state() | own

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take over both; a fresh optimizer.

        Raises:
            ConfigError: parameters of another architecture.
        """
        super().warm_start(state)
        self.target = copy_params(state["target"], self.device)
        self.inputs = Normalizer.from_state_dict(state["moments"], self.device)
