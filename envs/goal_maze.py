"""A maze whose sparse reward is rarely found at random: the family for hindsight."""

import torch
from torch import Tensor
from torch.linalg import vector_norm

from metarl.core.rng import Rng
from metarl.core.types import Scene, Spec, Tasks
from metarl_envs.config import GoalMazeConfig
from metarl_envs.episodes import TensorEnv, Transition
from metarl_envs.grid import cells, squares

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
# the start cell, and that of the split ood
_STARTS = {"u": ((1, 1), (1, 3)), "medium": ((1, 1), (6, 6))}
_JITTER = 0.1
_GAP = 1e-3  # smallest distance to a wall


class GoalMaze:
    """A point in a maze of cells of side 1 has a sparse reward at a goal, hidden or shown.

    ============  ==================================================================================
    observation   [2] position
    action        [2] move, in units of `step_size`, clipped to [−1, 1]; made along x, then along y,
                  each as far as the walls allow
    reward        0 within the radius of the goal after the move, else −1
    episode       starts within 0.1 of the middle of the start cell, along both axes; H steps, then
                  truncated
    task row      [4] goal, uniform on the free cells, then the middle of the start cell: the lower
                  left one; in the split ood the other end of the maze
    variants      u: 7 cells in the shape of a U, H = 50; medium: 26 of 6 × 6 cells, H = 100
    ============  ==================================================================================

    The reward is that of Andrychowicz et al. 2017 (HER, arXiv:1707.01495), the plans are those of
    the point mazes of Fu et al. 2020 (D4RL, arXiv:2004.07219), in which the point has a mass.
    """

    Settings = GoalMazeConfig

    def __init__(self, config: GoalMazeConfig):
        self.config = config
        plan = _PLANS[config.variant]
        self.walls = cells(plan, "#")
        self.free = cells(plan, ".")
        self.size = len(plan.splitlines())
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
        cell = torch.tensor(self.free)[(len(self.free) * uniform[:, 0]).long()]
        start = torch.tensor(_STARTS[self.config.variant][split == "ood"]) + 0.5
        rows = torch.cat([cell + uniform[:, 1:], start.expand(count, 2)], dim=1)
        return Tasks.numbered(rows, split)

    def make(self, lanes: int) -> TensorEnv:
        """N tasks × `lanes` lanes."""
        return _Mazes(self, lanes)

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """[...]: the reward at `achieved` [..., 2] where `desired` [..., 2] is the goal."""
        return torch.where(vector_norm(achieved - desired, dim=-1) <= self.config.radius, 0.0, -1.0)

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The point's path between the walls."""
        return Scene(
            obs,
            limits=(0.0, float(self.size), 0.0, float(self.size)),
            goal=params[:2].unsqueeze(0),
            goal_radius=self.config.radius,
            walls=squares(self.walls, 0.0),
        )

    def bounds(self) -> Tensor:
        """[4, size · size]: how far left, right, down and up a move may go from each cell."""
        free = torch.zeros(self.size, self.size, dtype=torch.bool)
        free[tuple(torch.tensor(self.free).T)] = True
        side = torch.arange(self.size, dtype=torch.float64)
        x, y = torch.meshgrid(side, side, indexing="ij")

        # one cell further where the neighbor is free, else up to the wall
        left = torch.where(free.roll(1, 0), x - 1, x + _GAP)
        right = torch.where(free.roll(-1, 0), x + 2, x + 1 - _GAP)
        down = torch.where(free.roll(1, 1), y - 1, y + _GAP)
        up = torch.where(free.roll(-1, 1), y + 2, y + 1 - _GAP)
        return torch.stack([left, right, down, up]).flatten(1).float()


class _Mazes(TensorEnv):
    """N goals × M lanes; the state is the position [N, M, 2]."""

    family: GoalMaze

    def load(self, tasks: Tasks, rng: Rng) -> None:
        self._goal = tasks.params[:, None, :2]  # [N, 1, 2]
        self._middle = tasks.params[:, None, 2:]  # [N, 1, 2]
        self._jitter = tasks.streams(rng, self.lanes)
        bounds = self.family.bounds().to(tasks.params.device)
        self._left, self._right, self._down, self._up = bounds

    def start(self) -> Tensor:
        uniform = self._jitter.uniform(self.time // self.horizon, 2)
        return self._middle + _JITTER * (2 * uniform - 1)

    def move(self, state: Tensor, action: Tensor) -> Transition:
        config = self.family.config
        x, y = state.unbind(-1)
        dx, dy = (config.step_size * action.clamp(-1, 1)).unbind(-1)
        cell = self._cell(x, y)
        x = (x + dx).clamp(self._left[cell], self._right[cell])
        cell = self._cell(x, y)
        y = (y + dy).clamp(self._down[cell], self._up[cell])

        position = torch.stack([x, y], dim=-1)
        arrived = vector_norm(position - self._goal, dim=-1) <= config.radius
        return Transition(position, reward=arrived.float() - 1, success=arrived)

    def _cell(self, x: Tensor, y: Tensor) -> Tensor:
        """[N, M] int64: the column of the bounds for a position."""
        return x.long() * self.family.size + y.long()
