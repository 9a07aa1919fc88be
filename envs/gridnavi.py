"""GridNavi: a small grid whose goal must be searched for once and then be remembered."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from metarl.core.rng import Rng
from metarl.core.types import SPLITS, Scene, Spec, Step, Tasks
from metarl_envs.config import GridNaviConfig
from metarl_envs.grid import DOWN, LEFT, RIGHT, STAY, UP, Cell, successors

SIDE = 5
CELLS = list(itertools.product(range(SIDE), range(SIDE)))
GOALS = [cell for cell in CELLS if max(cell) > 1]  # all but the start and its neighbours
HELD_OUT: dict[str, list[Cell]] = {
    "validation": [(0, 3), (2, 2), (4, 3)],
    "test": [(1, 3), (3, 1), (3, 3)],
}


class GridNavi:
    """A walker on 5 × 5 cells starts in the bottom left corner and is paid for standing on a hidden goal cell.

    ============  =====================================================================================
    observation   [2] the walker's cell: column and row, each from 0 to 4, from which RL² learns faster than from a one-hot
    action        stay, up, right, down or left; a move over the border stays
    reward        1 on the goal after the move, else −0.1
    episode       H steps, then truncated; arriving does not end it
    task row      [2] goal cell, one of the 21 that are not in the 2 × 2 start corner
    variants      all: every split has all 21 goals, as published; held-out: 15 in train, 3 others each in validation
                  and test, which lie among those of train
    ============  =====================================================================================

    Zintgraf et al. 2020 (VariBAD, arXiv:1910.08348), section 5.1.
    """

    def __init__(self, config: GridNaviConfig) -> None:
        held_out = {goal for goals in HELD_OUT.values() for goal in goals}
        self._goals: dict[str, list[Cell]] = (
            dict.fromkeys(SPLITS[:3], GOALS)
            if config.variant == "all"
            else {"train": [goal for goal in GOALS if goal not in held_out], **HELD_OUT}
        )
        self.spec = Spec(
            "gridnavi",
            observation={"position": 2},
            action_width=5,
            discrete=True,
            horizon=config.horizon,
            task_width=2,
            goal_width=2,
            achieved_goal="position",
            splits=tuple(self._goals),
            closed=config.variant == "all",
        )
        if self.spec.closed:  # else every split has another mean
            self.mean_optimum = float(self._best(torch.tensor(GOALS)).mean())

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` goal cells."""
        goals = torch.tensor(self._goals[split], dtype=torch.float32)
        return Tasks(goals, torch.arange(len(goals)), split).draw(count, rng.child(split))

    def make(self, lanes: int) -> _Grids:
        return _Grids(self.spec.horizon, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the return of the shortest way."""
        return self._best(tasks.params)

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """[...]: the reward for standing on the cell `achieved` [..., 2] where `desired` [..., 2] is the goal."""
        return torch.where((achieved == desired).all(-1), 1.0, -0.1)

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The walker's way over the centres of the cells."""
        edge = SIDE - 0.5
        return Scene(
            obs, limits=(-0.5, edge, -0.5, edge), goal=params.unsqueeze(0), goal_radius=0.5
        )

    def _best(self, goals: Tensor) -> Tensor:
        """Goals [N, 2] → [N]: the return of the shortest way; the step that arrives is the first one paid."""
        unpaid = (goals.sum(-1) - 1).clamp(max=self.spec.horizon)
        return (self.spec.horizon - unpaid) - 0.1 * unpaid


class _Grids:
    """N goals × M lanes."""

    def __init__(self, horizon: int, lanes: int) -> None:
        self._horizon = horizon
        self._lanes = lanes

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        device, shape = tasks.params.device, (len(tasks), self._lanes)
        self._successor = (
            successors(CELLS, (STAY, UP, RIGHT, DOWN, LEFT)).flatten().to(device)
        )  # [25 · 5]
        self._position = torch.tensor(CELLS, dtype=torch.float32, device=device)  # [25, 2]
        goal = (SIDE * tasks.params[:, :1] + tasks.params[:, 1:]).long()
        self._reward = torch.full((len(tasks), len(CELLS)), -0.1, device=device).scatter_(
            1, goal, 1.0
        )
        self._never = torch.zeros(shape, dtype=torch.bool, device=device)
        self._start = torch.zeros(shape, dtype=torch.long, device=device)
        self._first_obs = self._position[self._start]
        self._time, self._cell = 0, self._start
        return self._first_obs

    def step(self, action: Tensor) -> Step:
        self._time += 1
        self._cell = self._successor[5 * self._cell + action]
        next_obs = self._position[self._cell]
        reward = self._reward.gather(1, self._cell)
        ended = self._time % self._horizon == 0
        if ended:
            self._cell = self._start
        return Step(
            obs=self._first_obs if ended else next_obs,
            next_obs=next_obs,
            reward=reward,
            terminated=self._never,
            truncated=~self._never if ended else self._never,
            success=reward > 0,
        )
