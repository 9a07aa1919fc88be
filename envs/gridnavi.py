"""GridNavi: a small grid whose goal must be searched for once and then be remembered."""

import itertools

import torch
from torch import Tensor

from metarl.core.predictions import Predictions, Questions
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import SPLITS, Scene, Spec, Tasks
from metarl_envs.config import GridNaviConfig
from metarl_envs.episodes import TensorEnv, Transition
from metarl_envs.grid import DOWN, LEFT, RIGHT, STAY, UP, successors
from metarl_envs.posteriors import sums_by_place, visits_by_place

SIDE = 5
CELLS = list(itertools.product(range(SIDE), range(SIDE)))
GOALS = [cell for cell in CELLS if max(cell) > 1]  # all but the start and its neighbors
MOVES = (STAY, UP, RIGHT, DOWN, LEFT)
HELD_OUT = {"validation": [(0, 3), (2, 2), (4, 3)], "test": [(1, 3), (3, 1), (3, 3)]}


class GridNavi:
    """A walker starts in the bottom left of 5 × 5 cells and searches for a hidden goal cell.

    ============  ==================================================================================
    observation   [2] the walker's cell: column and row, each from 0 to 4, from which RL² learns
                  faster than from a one-hot
    action        stay, up, right, down or left; a move over the border stays
    reward        1 on the goal after the move, else −0.1
    episode       H steps, then truncated; the goal does not end it
    task row      [2] goal cell, one of the 21 that are not in the 2 × 2 start corner
    variants      all: every split has all 21 goals, as published; held-out: 15 in train, 3 others
                  each in validation and test, which lie among those of train
    ============  ==================================================================================

    Zintgraf et al. 2020 (VariBAD, arXiv:1910.08348), section 5.1.
    """

    Settings = GridNaviConfig

    def __init__(self, config: GridNaviConfig):
        closed = config.variant == "all"
        if closed:
            self._goals = dict.fromkeys(SPLITS[:3], GOALS)
        else:
            held_out = HELD_OUT["validation"] + HELD_OUT["test"]
            self._goals = {"train": [goal for goal in GOALS if goal not in held_out], **HELD_OUT}
        self.spec = Spec(
            "gridnavi",
            observation={"position": 2},
            action_width=len(MOVES),
            discrete=True,
            horizon=config.horizon,
            task_width=2,
            goal_width=2,
            achieved_goal="position",
            splits=tuple(self._goals),
            closed=closed,
        )
        if closed:  # else every split has another mean
            self.mean_optimum = float(self._best_return(torch.tensor(GOALS)).mean())

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` goal cells."""
        goals = torch.tensor(self._goals[split], dtype=torch.float32)
        return Tasks.listed(goals, split, count, rng)

    def make(self, lanes: int) -> TensorEnv:
        """N tasks × `lanes` lanes."""
        return _Grids(self, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the return of the shortest path."""
        return self._best_return(tasks.params)

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """[...]: the reward on cell `achieved` [..., 2] where `desired` [..., 2] is the goal."""
        return torch.where((achieved == desired).all(-1), 1.0, -0.1)

    def questions(self) -> Questions:
        """Staying on each of the 25 cells."""
        cell = torch.tensor(CELLS, dtype=torch.float32)
        stay = torch.full((len(CELLS),), MOVES.index(STAY))
        return Questions(cell, stay, next_obs=cell, rewards=(-0.1, 1.0))

    def posterior_predictions(self, rollout: Rollout, times: Tensor) -> Predictions:
        """[K, N, M, 25]: the goal is uniform on the cells that may be it.

        With p the probability that it is the cell, the reward has mean −0.1 + 1.1 p and variance
        1.1² p (1 − p).
        """
        possible = self._possible(rollout, times).double()
        chance = possible / possible.sum(-1, keepdim=True)
        variance = 1.1**2 * chance * (1 - chance)
        return Predictions((1.1 * chance - 0.1).float(), variance.float())

    def _possible(self, rollout: Rollout, times: Tensor) -> Tensor:
        """[K, N, M, 25] bool: whether a cell may be the goal, after the first `times` [K] steps.

        Those are train's goals on which no step ended, or the cell that was rewarded; where all of
        train's goals are ruled out, as can happen in the other splits, any cell that no step ended
        on. The last step of an episode tells its cell's reward as well: moves are the same in every
        task, so an observer knows where it led.
        """
        cell = (SIDE * rollout.next_obs[..., 0] + rollout.next_obs[..., 1]).long()  # in `CELLS`
        visited = visits_by_place(rollout, cell, len(CELLS), times) > 0
        rewarded = sums_by_place(rollout, cell, rollout.reward > 0, len(CELLS), times) > 0

        goal = torch.tensor([place in self._goals["train"] for place in CELLS])
        unknown = goal.to(cell.device) & ~visited
        unknown = torch.where(unknown.any(-1, keepdim=True), unknown, ~visited)
        return torch.where(rewarded.any(-1, keepdim=True), rewarded, unknown)

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The walker's path over the centers of the cells."""
        edge = SIDE - 0.5
        limits = (-0.5, edge, -0.5, edge)
        return Scene(obs, limits, goal=params.unsqueeze(0), goal_radius=0.5)

    def _best_return(self, goals: Tensor) -> Tensor:
        """Goals [N, 2] → [N]: −0.1 for each step before the one that arrives, then 1."""
        before = (goals.sum(-1) - 1).clamp(max=self.spec.horizon)
        return (self.spec.horizon - before) - 0.1 * before


class _Grids(TensorEnv):
    """N goals × M lanes; the state is the place of the cell in `CELLS` [N, M]."""

    def load(self, tasks: Tasks, rng: Rng) -> None:
        row = tasks.params
        self._successor = successors(CELLS, MOVES).flatten().to(row.device)  # [25 · 5]
        self._position = row.new_tensor(CELLS)  # [25, 2]
        goal = (SIDE * row[:, :1] + row[:, 1:]).long()
        reward = row.new_full((len(tasks), len(CELLS)), -0.1)
        self._reward = reward.scatter_(1, goal, 1.0)  # [N, 25]

    def start(self) -> Tensor:
        return torch.zeros(self.shape, dtype=torch.long, device=self._reward.device)

    def observe(self, state: Tensor) -> Tensor:
        return self._position[state]

    def move(self, state: Tensor, action: Tensor) -> Transition:
        cell = self._successor[len(MOVES) * state + action]
        reward = self._reward.gather(1, cell)
        return Transition(cell, reward, success=reward > 0)
