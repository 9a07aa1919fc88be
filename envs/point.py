"""Two-dimensional navigation: the family to copy for one of your own."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.rng import Rng
from metarl.types import Spec, Step, Tasks

from . import settings


class Point:
    """A point starts at the origin and is paid for being close to a goal that it does not see.

    ============  =====================================================================================
    observation   [2] position
    action        [2] move, in units of `step_size`, clipped to [−1, 1]
    reward        −‖position − goal‖₂ after the move
    episode       terminates at the goal (closer than `arrival` along both axes), truncated after H steps
    task row      [2] goal: uniform on the square [−g, g]²; in the split ood outside it, on the rim of a square of
                  half-width between g and 2 g
    ============  =====================================================================================
    """

    def __init__(self, options: settings.Point) -> None:
        self.options = options
        self.spec = Spec(
            "point", observation={"position": 2}, action_width=2, discrete=False, horizon=options.horizon, task_width=2
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` goals."""
        index = torch.arange(count)
        uniform = rng.child(split).streams(index).uniform(0, 3).squeeze(1)
        goal = self.options.goal_range * (2 * uniform[:, :2] - 1)
        if split == "ood":
            rim = goal / goal.abs().max(-1, keepdim=True).values
            goal = self.options.goal_range * (1 + uniform[:, 2:]) * rim
        return Tasks(goal, index, split)

    def make(self, lanes: int) -> _Points:
        return _Points(self.options, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the return of the straightest way, the largest useful move along each axis at every step."""
        env = self.make(lanes=1)
        position = env.reset(tasks, Rng(0))
        goal = tasks.params.unsqueeze(1)
        total, running = torch.zeros(len(tasks), device=goal.device), torch.ones(len(tasks), device=goal.device)
        for _ in range(self.options.horizon):
            step = env.step((goal - position) / self.options.step_size)
            total += running * step.reward.squeeze(1)
            running *= 1 - step.done.squeeze(1).float()
            position = step.obs
        return total


class _Points:
    """N goals × M lanes."""

    def __init__(self, options: settings.Point, lanes: int) -> None:
        self._options = options
        self._lanes = lanes

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        self._goal = tasks.params.unsqueeze(1)  # [N, 1, 2]
        self._position = torch.zeros(len(tasks), self._lanes, 2, device=self._goal.device)
        self._steps = torch.zeros(self._position.shape[:2], dtype=torch.long, device=self._goal.device)
        return self._position

    def step(self, action: Tensor) -> Step:
        next_obs = self._position + self._options.step_size * action.clamp(-1, 1)
        gap = next_obs - self._goal
        self._steps = self._steps + 1
        arrived = (gap.abs() < self._options.arrival).all(-1)
        truncated = (self._steps >= self._options.horizon) & ~arrived
        done = arrived | truncated
        self._position = next_obs.masked_fill(done.unsqueeze(-1), 0.0)
        self._steps = self._steps.masked_fill(done, 0)
        return Step(
            obs=self._position,
            next_obs=next_obs,
            reward=-gap.norm(dim=-1),
            terminated=arrived,
            truncated=truncated,
            success=arrived,
        )
