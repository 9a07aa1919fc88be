"""A critic that knows the task, in training only (Pinto et al. 2018, arXiv:1710.06542)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.core.types import Params
from metarl.nn.mlp import MLP


@dataclass(frozen=True)
class PrivilegedCritic:
    """A network of its own on what the policy has read and on the task row.

    So values need not infer the task, whose differences would drown the credit of exploring.
    """

    feature_width: int
    task_width: int
    hidden_sizes: tuple[int, ...]

    def init(self, generator: torch.Generator) -> Params:
        """The first parameters; the first values are close to zero."""
        return self._network.init(generator)

    def __call__(self, params: Params, features: Tensor, task: Tensor) -> Tensor:
        """[T, N, M] values of features [T, N, M, F] and rows [1, N, P]; features learn nothing."""
        task = task.unsqueeze(2).expand(*features.shape[:-1], -1)
        return self._network(params, torch.cat([features.detach(), task], -1)).squeeze(-1)

    @property
    def _network(self) -> MLP:
        return MLP(self.feature_width + self.task_width, self.hidden_sizes, 1)
