"""Four rooms joined by doorways, the classical grid for options."""

import functools

import torch
from torch import Tensor
from torch.nn.functional import embedding

from metarl.core.rng import Rng
from metarl.core.types import SPLITS, Scene, Spec, Tasks
from metarl_envs.config import FourRoomsConfig
from metarl_envs.episodes import TensorEnv, Transition
from metarl_envs.grid import DOWN, LEFT, RIGHT, UP, Cell, cells, squares, successors

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
CELLS = cells(_MAP, " ", from_top=True)
WALLS = cells(_MAP, "#", from_top=True)
EAST_DOORWAY = (9, 5)
DOORWAYS = [(6, 9), (2, 6), EAST_DOORWAY, (6, 2)]
LOWER_RIGHT = [(column, row) for column, row in CELLS if column > 6 and row < 5]
MOVES = (UP, DOWN, LEFT, RIGHT)

_OUTCOMES = 36  # equally likely ones of a move; a third is a multiple of every number of neighbors


class FourRooms:
    """A walker searches for a goal cell, and one move in three slips to a cell further.

    ============  ==================================================================================
    observation   [104] the walker's cell as a one-hot
    action        up, down, left or right; a move into a wall stays
    slip          after a move that left its cell, with probability ⅓, another one to a random free
                  neighbor
    reward        1 on the goal after the move and its slip, else 0
    episode       starts anywhere but on the goal, terminates on it, truncated after H steps
    task row      [2] goal cell, column and row of the 13 × 13 map from its lower left corner
    variants      held-out: train has the doorways and 48 cells of three rooms; validation and test
                  have 16 others each, one of five in every row; ood has the cells of the lower
                  right room, which has no goal of the other splits; option-critic: every split has
                  the east doorway only; option-critic-moved: every split has the cells of the
                  lower right room and its west doorway, to which the goal moves in the paper
    ============  ==================================================================================

    Sutton et al. 1999, section 2; Bacon et al. 2017 (option-critic, arXiv:1609.05140), section 5.1.
    In the authors' code, as here, a slip follows a successful move; by the paper, it replaces it.
    """

    Settings = FourRoomsConfig

    def __init__(self, config: FourRoomsConfig):
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
        return Tasks.listed(goals, split, count, rng)

    def make(self, lanes: int) -> TensorEnv:
        """N tasks × `lanes` lanes."""
        return _Rooms(self, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the highest probability, over starts, to reach the goal within the horizon.

        By backward induction: V(s) = 1 on the goal, else maxₐ Σ P(s′ | s, a) V(s′).
        """
        goal, task = cell_numbers(tasks.params).unique(return_inverse=True)
        outcomes = _outcomes()
        probability = torch.full(outcomes.shape, 1 / _OUTCOMES, dtype=torch.float64)
        transition = torch.zeros(len(outcomes), len(CELLS), dtype=torch.float64)
        transition.scatter_add_(1, outcomes, probability)  # [S · A, S]

        on_goal = torch.eye(len(CELLS), dtype=torch.float64)[:, goal.cpu()]  # [S, G]
        value = on_goal
        for _ in range(self.spec.horizon):
            before = value
            q_values = (transition @ before).view(len(CELLS), len(MOVES), -1)
            value = q_values.amax(1).maximum(on_goal)
            if float((value - before).max()) <= 1e-9:
                break

        other_starts = (value.sum(0) - 1) / (len(CELLS) - 1)
        return other_starts.float().to(task.device)[task]

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The walker's path over the centers of the cells."""
        return Scene(
            obs.new_tensor(CELLS)[obs.argmax(-1)],
            limits=(-0.5, 12.5, -0.5, 12.5),
            goal=params.unsqueeze(0),
            goal_radius=0.5,
            walls=squares(WALLS, -0.5),
        )


class _Rooms(TensorEnv):
    """N goals × M lanes; the state is the number of the cell [N, M]."""

    def load(self, tasks: Tasks, rng: Rng) -> None:
        device = tasks.params.device
        self._goal = cell_numbers(tasks.params).unsqueeze(1)  # [N, 1]
        self._outcomes = _outcomes().flatten().to(device)  # [S · A · 36]
        self._one_hots = torch.eye(len(CELLS), device=device)
        self._slips = tasks.streams(rng.child("slip"), self.lanes)
        self._starts = tasks.streams(rng.child("start"), self.lanes)

    def start(self) -> Tensor:
        other = self._starts.below(len(CELLS) - 1, self.time)
        return other + (other >= self._goal)

    def observe(self, state: Tensor) -> Tensor:
        return embedding(state, self._one_hots)

    def move(self, state: Tensor, action: Tensor) -> Transition:
        chance = self._slips.below(_OUTCOMES, self.time)
        place = torch.add(chance, action, alpha=_OUTCOMES).add_(state, alpha=len(MOVES) * _OUTCOMES)
        cell = self._outcomes.take(place)
        arrived = cell == self._goal
        return Transition(cell, reward=arrived.float(), terminated=arrived, success=arrived)


def cell_numbers(coordinates: Tensor) -> Tensor:
    """Columns and rows [N, 2] → [N] int64: their places in `CELLS`."""
    cell = torch.tensor(CELLS, device=coordinates.device)
    found = (coordinates.long().unsqueeze(1) == cell).all(-1)  # [N, S]
    return found.long().argmax(1)


@functools.cache
def _outcomes() -> Tensor:
    """[S · A, 36] int64: the equally likely cells that an action in a cell leads to."""
    after = successors(CELLS, MOVES)  # [S, A]
    rows = []
    for cell in range(len(CELLS)):
        for moved in after[cell]:
            outcomes = moved.repeat(_OUTCOMES)
            if moved != cell:
                neighbors = after[moved][after[moved] != moved]
                slips = neighbors.repeat_interleave(_OUTCOMES // 3 // len(neighbors))
                outcomes[-len(slips) :] = slips
            rows.append(outcomes)
    return torch.stack(rows)


def _goals(variant: str) -> dict[str, list[Cell]]:
    """The goals of every split."""
    if variant != "held-out":
        everywhere = [EAST_DOORWAY] if variant == "option-critic" else [*LOWER_RIGHT, (6, 2)]
        return dict.fromkeys(SPLITS[:3], everywhere)
    goals = {"train": list(DOORWAYS), "validation": [], "test": [], "ood": LOWER_RIGHT}
    held_out = {0: "test", 2: "validation"}
    for column, row in CELLS:
        if (column, row) not in DOORWAYS + LOWER_RIGHT:
            split = held_out.get((column + 2 * row) % 5, "train")
            goals[split].append((column, row))
    return goals
