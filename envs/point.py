"""Two-dimensional navigation: the family to copy for one of your own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm

from metarl.core.rng import Rng
from metarl.core.types import Scene, Spec, Step, Tasks
from metarl_envs.config import PointConfig

_STARTS = 32  # along each axis, where the optimum is a mean over starts


class Point:
    """A point is paid for being close to a goal that it does not see.

    ============  =====================================================================================
    observation   [2] position
    action        [2] move, in units of `step_size`, clipped to [−1, 1]
    reward        −‖position − goal‖₂ after the move
    start         uniform on the square [−s, s]², another one in every episode; s = 0: the origin
    episode       terminates at the goal (closer than `arrival` along both axes), truncated after H steps
    task row      [2] goal: uniform on the square [−g, g]²; in the split ood outside it, on the rim of a square of
                  half-width between g and 2 g
    variants      maml: start in the origin, g = ½, ends on arrival, H = 100 (Finn et al. 2017, section 5.2);
                  pearl: s = g = 1, never ends on arrival, H = 20 (Rakelly et al. 2019, the authors' code)
    ============  =====================================================================================
    """

    def __init__(self, config: PointConfig) -> None:
        self.config = config
        self.spec = Spec(
            "point",
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
        uniform = rng.child(split).rows(count, 3)
        goal = self.config.goal_range * (2 * uniform[:, :2] - 1)
        if split == "ood":
            rim = goal / goal.abs().max(-1, keepdim=True).values
            goal = self.config.goal_range * (1 + uniform[:, 2:]) * rim
        return Tasks(goal, torch.arange(count), split)

    def make(self, lanes: int) -> _Points:
        return _Points(self.config, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the mean return, over starts, of the largest useful move along each axis at every step."""
        along = _STARTS if self.config.start_range else 1
        middle = (2 * torch.arange(along, device=tasks.params.device) + 1) / along - 1
        start = self.config.start_range * torch.cartesian_prod(middle, middle)
        gap = (start - tasks.params.unsqueeze(1)).abs()  # [N, S, 2]
        total, running = torch.zeros_like(gap[..., 0]), torch.ones_like(gap[..., 0])
        for _ in range(self.config.horizon):
            gap = (gap - self.config.step_size).clamp(min=0)
            total -= running * vector_norm(gap, dim=-1)
            running *= (gap >= self.config.arrival).any(-1)
        return total.mean(1)

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """[...]: the reward at the position `achieved` [..., 2] where `desired` [..., 2] is the goal."""
        distance: Tensor = vector_norm(achieved - desired, dim=-1)
        return -distance

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The point's way."""
        edge = 1.1 * max(self.config.start_range, 2 * self.config.goal_range)
        return Scene(
            obs,
            (-edge, edge, -edge, edge),
            goal=params.unsqueeze(0),
            goal_radius=self.config.arrival,
        )


class _Points:
    """N goals × M lanes."""

    def __init__(self, config: PointConfig, lanes: int) -> None:
        self._config = config
        self._lanes = lanes

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        self._goal = tasks.params.unsqueeze(1)  # [N, 1, 2]
        self._starts = tasks.streams(rng, self._lanes)
        self._time = 0
        self._position = self._start()
        self._end = torch.full(
            self._position.shape[:2], self._config.horizon, device=self._goal.device
        )
        return self._position

    def step(self, action: Tensor) -> Step:
        self._time += 1
        next_obs = self._position + self._config.step_size * action.clamp(-1, 1)
        gap = next_obs - self._goal
        arrived = gap.abs().amax(-1) < self._config.arrival
        truncated = (self._end == self._time) & ~arrived
        done = arrived | truncated
        self._position = next_obs
        if done.any():
            self._position = torch.where(done.unsqueeze(-1), self._start(), next_obs)
            self._end = torch.where(done, self._time + self._config.horizon, self._end)
        return Step(
            obs=self._position,
            next_obs=next_obs,
            reward=-vector_norm(gap, dim=-1),
            terminated=arrived,
            truncated=truncated,
            success=arrived if self._config.arrival else None,
        )

    def _start(self) -> Tensor:
        """[N, M, 2]: where an episode starts that begins now."""
        return self._config.start_range * (2 * self._starts.uniform(self._time, 2) - 1)
