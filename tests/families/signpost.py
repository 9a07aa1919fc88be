"""Options as users write them, in a module of their own."""

import torch
from torch import Tensor

from metarl import Spec


class Right:
    """Goes to the right until it is there, as it says."""

    way = 1.0

    def __init__(self, spec: Spec) -> None:
        self.width = spec.action_width

    def act(self, obs: Tensor, noise: object, counter: int) -> Tensor:
        action = torch.zeros(*obs.shape[:2], self.width)
        action[..., 0] = self.way
        return action

    def ends(self, obs: Tensor) -> Tensor:
        return self.way * obs[..., 0] > 0.1


class Left(Right):
    """Goes to the left."""

    way = -1.0
