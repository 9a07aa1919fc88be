"""Four rooms joined by doorways, the classical grid for options."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn.functional import embedding

from metarl.core.rng import Rng
from metarl.core.types import Scene, Spec, Step, Tasks
from metarl_envs.config import FourRoomsConfig
from metarl_envs.grid import DOWN, LEFT, RIGHT, UP, Cell, successors

_MAP = """\
#############
#     #     #
#     #     #
#           #
#     #     #
#     #     #
## ####     #
#     ### ###
#     #     #
#     #     #
#           #
#     #     #
#############"""
_PLACES = [
    ((column, 12 - row), mark)
    for row, line in enumerate(_MAP.splitlines())
    for column, mark in enumerate(line)
]
CELLS: list[Cell] = [cell for cell, mark in _PLACES if mark == " "]
WALLS: list[Cell] = [cell for cell, mark in _PLACES if mark == "#"]
EAST_DOORWAY: Cell = (9, 5)
DOORWAYS: list[Cell] = [(6, 9), (2, 6), EAST_DOORWAY, (6, 2)]
LOWER_RIGHT: list[Cell] = [(column, row) for column, row in CELLS if column > 6 and row < 5]
MOVES = (UP, DOWN, LEFT, RIGHT)

_CHANCES = 36  # equally likely outcomes of a move: a third of them is a multiple of every number of neighbours


class FourRooms:
    """A walker searches for a goal cell, and one move in three leads it a cell too far.

    ============  =====================================================================================
    observation   [104] the walker's cell as a one-hot
    action        up, down, left or right; a move into a wall stays
    slip          after a move that left its cell, with probability ⅓, another one to a random free neighbour
    reward        1 on the goal after the move and its slip, else 0
    episode       starts anywhere but on the goal, terminates on it, truncated after H steps
    task row      [2] goal cell, column and row of the 13 × 13 map from its lower left corner
    variants      held-out: train has the doorways and 48 cells of three rooms; validation and test have 16 others
                  each, one of five in every row; ood has the cells of the lower right room, where no goal was before;
                  option-critic: every split has the east doorway alone; option-critic-moved: every split has the cells
                  of the lower right room and its west doorway, to which the goal moves in the paper
    ============  =====================================================================================

    Sutton et al. 1999, section 2; Bacon et al. 2017 (option-critic, arXiv:1609.05140), section 5.1. In the authors'
    code, as here, a slip follows a successful move; by the paper, it replaces it.
    """

    def __init__(self, config: FourRoomsConfig) -> None:
        self._goals = _goals(config.variant)
        self.spec = Spec(
            "four-rooms",
            observation={"cell": len(CELLS)},
            action_width=len(MOVES),
            discrete=True,
            horizon=config.horizon,
            task_width=2,
            goal_width=2,
            splits=tuple(self._goals),
            closed="ood" not in self._goals,
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` goal cells."""
        goals = torch.tensor(self._goals[split], dtype=torch.float32)
        return Tasks(goals, torch.arange(len(goals)), split).draw(count, rng.child(split))

    def make(self, lanes: int) -> _Rooms:
        return _Rooms(self.spec.horizon, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the best chance to meet the goal within the horizon, over starts (backward induction)."""
        goal, which = numbers(tasks.params).unique(return_inverse=True)
        outcomes = _outcomes()
        chance = torch.full(outcomes.shape, 1 / _CHANCES, dtype=torch.float64)
        transition = torch.zeros(len(outcomes), len(CELLS), dtype=torch.float64).scatter_add_(
            1, outcomes, chance
        )
        on_goal = torch.eye(len(CELLS), dtype=torch.float64)[:, goal.cpu()]  # [S, G]
        value, gain = on_goal, 1.0
        for _ in range(self.spec.horizon):
            if gain > 1e-9:
                before = value
                value = (
                    (transition @ before).view(len(CELLS), len(MOVES), -1).amax(1).maximum(on_goal)
                )
                gain = float((value - before).max())
        others = (value.sum(0) - 1) / (len(CELLS) - 1)
        return others.float().to(which.device)[which]

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The walker's way over the centres of the cells."""
        path = torch.tensor(CELLS, dtype=torch.float32, device=obs.device)[obs.argmax(-1)]
        walls = torch.tensor([[column - 0.5, row - 0.5, 1.0, 1.0] for column, row in WALLS])
        return Scene(
            path, (-0.5, 12.5, -0.5, 12.5), goal=params.unsqueeze(0), goal_radius=0.5, walls=walls
        )


class _Rooms:
    """N goals × M lanes."""

    def __init__(self, horizon: int, lanes: int) -> None:
        self._horizon = horizon
        self._lanes = lanes

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        device = tasks.params.device
        self._goal = numbers(tasks.params).unsqueeze(1)  # [N, 1]
        self._outcomes = _outcomes().flatten().to(device)  # [S · A · 36]
        self._looks = torch.eye(len(CELLS), device=device)
        self._slips = tasks.streams(rng.child("slip"), self._lanes)
        self._starts = tasks.streams(rng.child("start"), self._lanes)
        self._time = 0
        self._cell = self._start()
        self._end = torch.full_like(self._cell, self._horizon)
        return embedding(self._cell, self._looks)

    def step(self, action: Tensor) -> Step:
        chance = (_CHANCES * self._slips.uniform(self._time, 1).squeeze(-1)).long()
        self._time += 1
        self._cell = self._outcomes[_CHANCES * (len(MOVES) * self._cell + action) + chance]
        next_obs = embedding(self._cell, self._looks)
        arrived = self._cell == self._goal
        truncated = (self._end == self._time) & ~arrived
        done, obs = arrived | truncated, next_obs
        if done.any():
            self._cell = torch.where(done, self._start(), self._cell)
            self._end = torch.where(done, self._time + self._horizon, self._end)
            obs = embedding(self._cell, self._looks)
        return Step(
            obs, next_obs, arrived.float(), terminated=arrived, truncated=truncated, success=arrived
        )

    def _start(self) -> Tensor:
        """[N, M]: where an episode starts that begins now."""
        other = ((len(CELLS) - 1) * self._starts.uniform(self._time, 1).squeeze(-1)).long()
        return other + (other >= self._goal)


def numbers(cells: Tensor) -> Tensor:
    """[N] int64: the places in `CELLS` of `cells` [N, 2]."""
    place = torch.zeros(13, 13, dtype=torch.long)
    place[tuple(torch.tensor(CELLS).T)] = torch.arange(len(CELLS))
    column, row = cells.long().unbind(1)
    return place.to(cells.device)[column, row]


@functools.cache
def _outcomes() -> Tensor:
    """[S · A, 36] int64: the equally likely cells that an action in a cell leads to."""
    after = successors(CELLS, MOVES)
    rows = []
    for cell, successor in (
        (cell, moved) for cell, row in enumerate(after.tolist()) for moved in row
    ):
        neighbours = [other for other in after[successor].tolist() if other != successor]
        slips = [other for other in neighbours for _ in range(_CHANCES // 3 // len(neighbours))]
        rows.append(
            [successor] * _CHANCES
            if successor == cell
            else [successor] * (_CHANCES - len(slips)) + slips
        )
    return torch.tensor(rows)


def _goals(variant: str) -> dict[str, list[Cell]]:
    """The goals of every split."""
    if variant != "held-out":
        goals_of_all = {
            "option-critic": [EAST_DOORWAY],
            "option-critic-moved": [*LOWER_RIGHT, (6, 2)],
        }[variant]
        return dict.fromkeys(("train", "validation", "test"), goals_of_all)
    goals: dict[str, list[Cell]] = {
        "train": list(DOORWAYS),
        "validation": [],
        "test": [],
        "ood": LOWER_RIGHT,
    }
    for column, row in CELLS:
        if (column, row) not in DOORWAYS + LOWER_RIGHT:
            held_out = {0: "test", 2: "validation"}.get((column + 2 * row) % 5, "train")
            goals[held_out].append((column, row))
    return goals
