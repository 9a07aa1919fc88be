"""Two-dimensional navigation: the family to copy for one of your own."""

import torch
from torch import Tensor
from torch.linalg import vector_norm

from metarl.core.rng import Rng
from metarl.core.types import Scene, Spec, Tasks
from metarl_envs.config import PointConfig
from metarl_envs.episodes import TensorEnv, Transition

_STARTS = 32  # along each axis, where the optimum is a mean over starts


class Point:
    """A point moves to a goal that it does not observe; the reward is the negative distance.

    ============  ==================================================================================
    observation   [2] position
    action        [2] move, in units of `step_size`, clipped to [−1, 1]
    reward        −‖position − goal‖₂ after the move
    start         uniform on the square [−s, s]², another one in every episode; s = 0: the origin
    episode       terminates at the goal (closer than `arrival` along both axes), truncated after H
                  steps
    metrics       distance: ‖position − goal‖₂ after the move
    task row      [2] goal: uniform on the square [−g, g]²; in the split ood outside it, on the rim
                  of a square of half-width between g and 2 g
    variants      maml: start in the origin, g = ½, terminates at the goal, H = 100 (Finn et al.
                  2017, section 5.2); pearl: s = g = 1, never terminates, H = 20 (Rakelly et al.
                  2019, the authors' code)
    ============  ==================================================================================
    """

    Settings = PointConfig

    def __init__(self, config: PointConfig):
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
            metrics=("distance",),
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` goals."""
        uniform = rng.child(split).rows(count, 3)
        goal = self.config.goal_range * (2 * uniform[:, :2] - 1)
        if split == "ood":
            rim = goal / goal.abs().max(-1, keepdim=True).values
            goal = self.config.goal_range * (1 + uniform[:, 2:]) * rim
        return Tasks.numbered(goal, split)

    def make(self, lanes: int) -> TensorEnv:
        """N tasks × `lanes` lanes."""
        return _Points(self, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the mean return over starts, moving as far towards the goal as each axis allows."""
        along = _STARTS if self.config.start_range else 1
        middle = (2 * torch.arange(along, device=tasks.params.device) + 1) / along - 1
        start = self.config.start_range * torch.cartesian_prod(middle, middle)
        gap = (start - tasks.params.unsqueeze(1)).abs()  # [N, S, 2]

        total = torch.zeros_like(gap[..., 0])
        running = torch.ones_like(total)
        for _ in range(self.config.horizon):
            gap = (gap - self.config.step_size).clamp(min=0)
            total -= running * vector_norm(gap, dim=-1)
            running *= (gap >= self.config.arrival).any(-1)
        return total.mean(1)

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """[...]: the reward at `achieved` [..., 2] where `desired` [..., 2] is the goal."""
        return -vector_norm(achieved - desired, dim=-1)

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The point's path."""
        edge = 1.1 * max(self.config.start_range, 2 * self.config.goal_range)
        return Scene(
            obs,
            limits=(-edge, edge, -edge, edge),
            goal=params.unsqueeze(0),
            goal_radius=self.config.arrival,
        )


class _Points(TensorEnv):
    """N goals × M lanes; the state is the position [N, M, 2]."""

    family: Point

    def load(self, tasks: Tasks, rng: Rng) -> None:
        self._goal = tasks.params.unsqueeze(1)  # [N, 1, 2]
        self._starts = tasks.streams(rng, self.lanes)

    def start(self) -> Tensor:
        return self.family.config.start_range * (2 * self._starts.uniform(self.time, 2) - 1)

    def move(self, state: Tensor, action: Tensor) -> Transition:
        config = self.family.config
        position = state + config.step_size * action.clamp(-1, 1)
        gap = position - self._goal
        distance = vector_norm(gap, dim=-1)
        arrived = gap.abs().amax(-1) < config.arrival
        return Transition(
            position,
            reward=-distance,
            terminated=arrived,
            success=arrived if config.arrival else None,
            metrics={"distance": distance},
        )
