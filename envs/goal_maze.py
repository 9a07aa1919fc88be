"""Goals in a maze, which chance hardly ever finds: the family for hindsight."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.linalg import vector_norm

from metarl.core.rng import Rng
from metarl.core.types import Scene, Spec, Step, Tasks
from metarl_envs.config import GoalMazeConfig
from metarl_envs.grid import DOWN, LEFT, RIGHT, UP, Cell

_PLANS = {
    "u": """\
#####
#...#
###.#
#...#
#####""",
    "medium": """\
########
#..##..#
#..#...#
##...###
#..#...#
#.#..#.#
#...#..#
########""",
}
_STARTS: dict[str, tuple[Cell, Cell]] = {
    "u": ((1, 1), (1, 3)),
    "medium": ((1, 1), (6, 6)),
}  # and that of the split ood
_JITTER = 0.1
_GAP = 1e-3  # how near to a wall one gets


class GoalMaze:
    """A point in a maze of cells of side 1 is paid for nothing but being at its goal, hidden or shown.

    ============  =====================================================================================
    observation   [2] position
    action        [2] move, in units of `step_size`, clipped to [−1, 1]; made along x, then along y, each as far as the
                  walls allow
    reward        0 within the radius of the goal after the move, else −1
    episode       starts within 0.1 of the middle of the start cell, along both axes; H steps, then truncated
    task row      [4] goal, uniform on the free cells, then the middle of the start cell: the lower left one; in the
                  split ood the other end of the maze
    variants      u: 7 cells in the shape of a U, H = 50; medium: 26 of 6 × 6 cells, H = 100
    ============  =====================================================================================

    The reward is that of Andrychowicz et al. 2017 (HER, arXiv:1707.01495), the plans are those of the point mazes of
    Fu et al. 2020 (D4RL, arXiv:2004.07219), in which the point has a mass.
    """

    def __init__(self, config: GoalMazeConfig) -> None:
        self.config = config
        lines = _PLANS[config.variant].splitlines()[::-1]
        self.size = len(lines)
        self.walls: list[Cell] = [
            (x, y) for y, line in enumerate(lines) for x, mark in enumerate(line) if mark == "#"
        ]
        self.free: list[Cell] = [
            (x, y) for y, line in enumerate(lines) for x, mark in enumerate(line) if mark == "."
        ]
        self.spec = Spec(
            "goal-maze",
            observation={"position": 2},
            action_width=2,
            discrete=False,
            horizon=config.horizon,
            task_width=4,
            goal_width=2,
            achieved_goal="position",
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` goals and their start."""
        uniform = rng.child(split).rows(count, 3)
        goal = torch.tensor(self.free)[(len(self.free) * uniform[:, 0]).long()] + uniform[:, 1:]
        start = torch.tensor(_STARTS[self.config.variant][split == "ood"]) + 0.5
        return Tasks(torch.cat([goal, start.expand(count, 2)], dim=1), torch.arange(count), split)

    def make(self, lanes: int) -> _Mazes:
        return _Mazes(self, lanes)

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """[...]: the reward at the position `achieved` [..., 2] where `desired` [..., 2] is the goal."""
        return torch.where(vector_norm(achieved - desired, dim=-1) <= self.config.radius, 0.0, -1.0)

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The point's way between the walls."""
        walls = torch.tensor([[x, y, 1.0, 1.0] for x, y in self.walls])
        limits = (0.0, float(self.size), 0.0, float(self.size))
        return Scene(
            obs, limits, goal=params[:2].unsqueeze(0), goal_radius=self.config.radius, walls=walls
        )

    def bounds(self) -> Tensor:
        """[size · size, 4]: how far left, right, down and up one may go from each cell of the plan in one move."""
        rows = []
        for x, y in itertools.product(range(self.size), range(self.size)):
            left, right, down, up = (
                (x + dx, y + dy) in self.free for dx, dy in (LEFT, RIGHT, DOWN, UP)
            )
            rows.append(
                [
                    x - 1.0 if left else x + _GAP,
                    x + 2.0 if right else x + 1 - _GAP,
                    y - 1.0 if down else y + _GAP,
                    y + 2.0 if up else y + 1 - _GAP,
                ]
            )
        return torch.tensor(rows)


class _Mazes:
    """N goals × M lanes."""

    def __init__(self, family: GoalMaze, lanes: int) -> None:
        self._family = family
        self._lanes = lanes

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        device = tasks.params.device
        self._goal = tasks.params[:, None, :2]  # [N, 1, 2]
        self._middle = tasks.params[:, None, 2:]  # [N, 1, 2]
        self._chance = tasks.streams(rng, self._lanes)
        self._left, self._right, self._down, self._up = self._family.bounds().to(device).unbind(1)
        self._never = torch.zeros(len(tasks), self._lanes, dtype=torch.bool, device=device)
        self._time, self._position = 0, self._start(0)
        return self._position

    def step(self, action: Tensor) -> Step:
        config = self._family.config
        x, y = self._position.unbind(-1)
        dx, dy = (config.step_size * action.clamp(-1, 1)).unbind(-1)
        cell = self._cell(x, y)
        x = (x + dx).clamp(self._left[cell], self._right[cell])
        cell = self._cell(x, y)
        y = (y + dy).clamp(self._down[cell], self._up[cell])
        next_obs = torch.stack([x, y], dim=-1)
        arrived = vector_norm(next_obs - self._goal, dim=-1) <= config.radius

        self._time += 1
        ended = self._time % config.horizon == 0
        self._position = self._start(self._time // config.horizon) if ended else next_obs
        return Step(
            obs=self._position,
            next_obs=next_obs,
            reward=arrived.float() - 1,
            terminated=self._never,
            truncated=~self._never if ended else self._never,
            success=arrived,
        )

    def _cell(self, x: Tensor, y: Tensor) -> Tensor:
        """[N, M] int64: the row of the bounds for a place."""
        return x.long() * self._family.size + y.long()

    def _start(self, episode: int) -> Tensor:
        """[N, M, 2]: where every lane's episode starts."""
        return self._middle + _JITTER * (2 * self._chance.uniform(episode, 2) - 1)
