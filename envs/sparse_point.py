"""Navigation with a reward that must be searched for."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm

from metarl.core.rng import Rng
from metarl.core.types import Scene, Spec, Step, Tasks
from metarl_envs.config import SparsePointConfig

_SHUFFLE = 1337  # PEARL's seed: which of its goals are for test


class SparsePoint:
    """A point starts at the origin, the centre of the unit circle, and its unseen goal is on the upper half of it.

    =================  ================================================================================
    observation        [2] position
    action             [2] move, in units of `step_size`, clipped to [−1, 1]
    reward             1 − d within the radius of the goal, else 0, with d = ‖position − goal‖₂ after the move
    training reward    −d, where `dense`; variant varibad has none
    episode            H steps, then truncated
    task row           [2] goal. Variant pearl: 100 evenly spaced ones, both ends of the half circle among them, of
                       which a fixed shuffle gives 80 to train and 20 to test; validation has the 99 midpoints of
                       neighbours; varibad: uniform on the half circle. In the split ood, goals on the lower half:
                       the midpoints mirrored, or uniform
    =================  ================================================================================

    Rakelly et al. 2019 (PEARL, arXiv:1903.08254), section 6.3, and Zintgraf et al. 2021 (VariBAD), by their code.
    """

    def __init__(self, config: SparsePointConfig) -> None:
        self.config = config
        self.spec = Spec(
            "sparse-point",
            observation={"position": 2},
            action_width=2,
            discrete=False,
            horizon=config.horizon,
            task_width=2,
            goal_width=2,
            achieved_goal="position",
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` goals."""
        if self.config.goals is None:
            angle = math.pi * rng.child(split).rows(count, 1).squeeze(1)
            return Tasks(
                _on_circle(-angle if split == "ood" else angle), torch.arange(count), split
            )
        goals = _on_circle(_angles(self.config.goals, split))
        return Tasks(goals, torch.arange(len(goals)), split).draw(count, rng.child(split))

    def make(self, lanes: int) -> _SparsePoints:
        return _SparsePoints(self, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the return of the largest useful move along each axis at every step."""
        env = self.make(lanes=1)
        position, goal = env.reset(tasks, Rng(0)), tasks.params.unsqueeze(1)
        total = torch.zeros(len(tasks), device=goal.device)
        for _ in range(self.config.horizon):
            step = env.step((goal - position) / self.config.step_size)
            total += step.reward.squeeze(1)
            position = step.next_obs
        return total

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """[...]: the reward at the position `achieved` [..., 2] where `desired` [..., 2] is the goal."""
        return self.reward(vector_norm(achieved - desired, dim=-1))

    def reward(self, distance: Tensor) -> Tensor:
        """[...]: what is paid at this `distance` [...] to the goal."""
        return (1 - distance) * (distance <= self.config.radius)

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The point's way, and the goal among others of the circle."""
        others = _on_circle(torch.linspace(0, math.copysign(math.pi, float(params[1])), 30))
        return Scene(
            obs,
            limits=(-1.5, 1.5, -1.5, 1.5),
            goal=params.unsqueeze(0),
            goal_radius=self.config.radius,
            others=others,
        )


class _SparsePoints:
    """N goals × M lanes."""

    def __init__(self, family: SparsePoint, lanes: int) -> None:
        self._family = family
        self._lanes = lanes

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        self._goal = tasks.params.unsqueeze(1)  # [N, 1, 2]
        self._origin = torch.zeros(len(tasks), self._lanes, 2, device=self._goal.device)
        self._never = torch.zeros(
            self._origin.shape[:2], dtype=torch.bool, device=self._goal.device
        )
        self._position, self._time = self._origin, 0
        return self._position

    def step(self, action: Tensor) -> Step:
        config = self._family.config
        self._time += 1
        ended = self._time % config.horizon == 0
        next_obs = self._position + config.step_size * action.clamp(-1, 1)
        distance = vector_norm(next_obs - self._goal, dim=-1)
        self._position = self._origin if ended else next_obs
        return Step(
            obs=self._position,
            next_obs=next_obs,
            reward=self._family.reward(distance),
            terminated=self._never,
            truncated=~self._never if ended else self._never,
            success=distance <= config.radius,
            training_reward=-distance if config.dense else None,
        )


def _on_circle(angle: Tensor) -> Tensor:
    """[...] → [..., 2] float32."""
    return torch.stack([angle.cos(), angle.sin()], dim=-1).float()


def _angles(goals: int, split: str) -> Tensor:
    """[n]: where the split's goals are, of so many evenly spaced ones."""
    angle = torch.linspace(
        0, math.pi, goals, dtype=torch.float64
    )  # in float32 the sine of π is negative
    middle = (angle[1:] + angle[:-1]) / 2
    shuffled = angle[torch.from_numpy(np.random.RandomState(_SHUFFLE).permutation(goals))]
    tests = goals // 5
    return {
        "train": shuffled[:-tests],
        "validation": middle,
        "test": shuffled[-tests:],
        "ood": -middle,
    }[split]
