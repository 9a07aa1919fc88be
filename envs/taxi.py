"""A taxi that learns from rewards where its passenger waits and wants to go."""

import itertools

import torch
from torch import Tensor
from torch.nn.functional import embedding

from metarl.core.rng import Rng
from metarl.core.types import Scene, Spec, Tasks, one_hot
from metarl_envs.config import TaxiConfig
from metarl_envs.episodes import TensorEnv, Transition
from metarl_envs.grid import DOWN, LEFT, RIGHT, STAY, UP, cells, squares, successors

_MAP = """\
..#...
..#...
......
......
.#.#..
.#.#.."""
SIDE = 6
LANDMARKS = [(0, 5), (0, 0), (4, 0), (5, 5)]  # red, yellow, blue, green
MOVES = (STAY, LEFT, RIGHT, DOWN, UP)
SERVE = len(MOVES)  # the action that picks up and drops off
ACTIONS = SERVE + 1
ABOARD = len(LANDMARKS)  # the place of a passenger who is in the taxi from the start

STATES = [(column, row) for row in range(SIDE) for column in range(SIDE)]  # walls included
WALLS = cells(_MAP, "#")
_AT_LANDMARK = torch.tensor([STATES.index(landmark) for landmark in LANDMARKS])


class Taxi:
    """A taxi takes a passenger from one landmark to another; both landmarks are hidden.

    ============  ==================================================================================
    observation   [72] one-hot of the cell (6 × 6 cells, six of which are walls), once for the empty
                  taxi and once for the passenger aboard
    action        stay, left, right, down, up, or pick up where the passenger waits and drop off at
                  the goal
    reward        2 for the drop-off, else −0.1; −2 for the step that the horizon truncates
    episode       terminates on the drop-off, truncated after H steps
    task row      [13] one-hots: goal (4 landmarks), passenger (4 landmarks, aboard), start of the
                  taxi (4 landmarks); the goal is not where the passenger is. Of the 60 tasks, test
                  has the 12 in which an empty taxi starts at the goal, as published; validation 8
                  others, in which it starts at the landmark after the goal (red, yellow, blue,
                  green) and the passenger waits at neither; train the other 40
    ============  ==================================================================================

    Kuric & van Hoof 2023 (FAMP, arXiv:2212.11726), by the authors' code, which trains on the 8 as
    well.
    """

    Settings = TaxiConfig

    def __init__(self, config: TaxiConfig):
        self.spec = Spec(
            "taxi",
            observation={"state": 2 * len(STATES)},
            action_width=ACTIONS,
            discrete=True,
            horizon=config.horizon,
            task_width=3 * len(LANDMARKS) + 1,
            splits=("train", "validation", "test"),
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of goal, passenger and start."""
        places = torch.tensor([task for task in _every_task() if _split(*task) == split])
        goal, passenger, start = places.T
        rows = torch.cat([one_hot(goal, 4), one_hot(passenger, 5), one_hot(start, 4)], dim=1)
        return Tasks.listed(rows, split, count, rng)

    def make(self, lanes: int) -> TensorEnv:
        """N tasks × `lanes` lanes."""
        return _Taxis(self, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the return of the shortest path, or of any where the horizon is too short for it."""
        goal, passenger, start = unpack(tasks.params)
        distance = _distances().to(goal.device)
        aboard = passenger == ABOARD
        place = passenger.where(~aboard, start)
        steps = distance[start, place] + (~aboard).long() + distance[place, goal] + 1
        horizon = self.spec.horizon
        return torch.where(steps <= horizon, 2.0 - 0.1 * (steps - 1), -2.0 - 0.1 * (horizon - 1))

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The taxi's path over the centers of the cells, its goal, and the other landmarks."""
        centers = obs.new_tensor(STATES)
        landmarks = obs.new_tensor(LANDMARKS)
        goal = params[: len(LANDMARKS)] > 0.5
        return Scene(
            centers[obs.argmax(-1) % len(STATES)],
            limits=(-0.5, SIDE - 0.5, -0.5, SIDE - 0.5),
            goal=landmarks[goal],
            goal_radius=0.5,
            walls=squares(WALLS, -0.5),
            others=landmarks[~goal],
        )


class _Taxis(TensorEnv):
    """N tasks × M lanes; the state [N, M] is the number of the cell, + 36 with the passenger.

    Tables of a task have an entry for each pair of state and action, at 6 · state + action.
    """

    def load(self, tasks: Tasks, rng: Rng) -> None:
        device = tasks.params.device
        cell = _AT_LANDMARK.to(device)
        goal, passenger, start = unpack(tasks.params)
        aboard = passenger == ABOARD
        waits = cell[passenger.clamp(max=ABOARD - 1)].unsqueeze(1)  # never met if aboard
        pick_up = waits * ACTIONS + SERVE
        drop_off = ((cell[goal] + len(STATES)) * ACTIONS + SERVE).unsqueeze(1)
        after = _successors().to(device).flatten().repeat(len(tasks), 1)  # [N, 72 · 6]
        self._after = after.scatter_(1, pick_up, waits + len(STATES))
        self._reward = torch.full(after.shape, -0.1, device=device).scatter_(1, drop_off, 2.0)
        self._start = (cell[start] + len(STATES) * aboard).unsqueeze(1).expand(self.shape)
        self._one_hots = torch.eye(2 * len(STATES), device=device)

    def start(self) -> Tensor:
        return self._start

    def observe(self, state: Tensor) -> Tensor:
        return embedding(state, self._one_hots)

    def move(self, state: Tensor, action: Tensor) -> Transition:
        pair = torch.add(action, state, alpha=ACTIONS)
        reward = self._reward.gather(1, pair)
        delivered = reward > 0
        reward = reward.masked_fill(self.at_horizon() & ~delivered, -2.0)
        return Transition(
            self._after.gather(1, pair), reward, terminated=delivered, success=delivered
        )


def unpack(params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Task rows [N, P] → landmarks of goal, passenger and start, each [N] int64."""
    goal, passenger, start = params.split((4, 5, 4), dim=1)
    return goal.argmax(1), passenger.argmax(1), start.argmax(1)


def _every_task() -> list[tuple[int, int, int]]:
    """Goal, passenger and start of the 60 tasks."""
    marks = range(len(LANDMARKS))
    waiting = [task for task in itertools.product(marks, marks, marks) if task[0] != task[1]]
    riding = [(goal, ABOARD, start) for goal, start in itertools.permutations(marks, 2)]
    return waiting + riding


def _split(goal: int, passenger: int, start: int) -> str:
    if passenger in (ABOARD, start) or start not in (goal, (goal + 1) % len(LANDMARKS)):
        return "train"
    return "test" if start == goal else "validation"


def _successors() -> Tensor:
    """[72, 6]: the state after each action, without pick-up and drop-off."""
    free = cells(_MAP, ".")
    place = torch.tensor([STATES.index(cell) for cell in free])
    after = torch.arange(len(STATES)).unsqueeze(1).repeat(1, ACTIONS)
    after[place, :SERVE] = place[successors(free, MOVES)]
    return torch.cat([after, after + len(STATES)])


def _distances() -> Tensor:
    """[4, 4] int64: moves from landmark to landmark."""
    after = _successors()[: len(STATES)]
    landmarks = torch.arange(len(LANDMARKS))
    moves = torch.full((len(STATES), len(LANDMARKS)), len(STATES))
    for _ in STATES:
        moves = (1 + moves[after].amin(1)).clamp(max=len(STATES))
        moves[_AT_LANDMARK, landmarks] = 0
    return moves[_AT_LANDMARK]
