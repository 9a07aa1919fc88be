"""A taxi that learns from reward alone where its passenger waits and wants to go."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from metarl.core.rng import Rng
from metarl.core.types import Scene, Spec, Step, Tasks
from metarl_envs.config import TaxiConfig
from metarl_envs.grid import DOWN, LEFT, RIGHT, STAY, UP, Cell, successors

_MAP = """\
..#...
..#...
......
......
.#.#..
.#.#.."""
SIDE = 6
LANDMARKS: list[Cell] = [(0, 5), (0, 0), (4, 0), (5, 5)]  # red, yellow, blue, green
MOVES = (STAY, LEFT, RIGHT, DOWN, UP)
SERVE = len(MOVES)  # the action that picks up and drops off
ABOARD = len(LANDMARKS)  # where a passenger is who is in the taxi from the start

_MARK = {
    (column, SIDE - 1 - row): mark
    for row, line in enumerate(_MAP.split())
    for column, mark in enumerate(line)
}
STATES: list[Cell] = [
    (place % SIDE, place // SIDE) for place in range(SIDE * SIDE)
]  # walls too, which nobody enters
WALLS = [cell for cell in STATES if _MARK[cell] == "#"]


class Taxi:
    """A taxi fetches a passenger at one landmark and takes it to another, and is told neither.

    ============  =====================================================================================
    observation   [72] one-hot of the cell (6 × 6 cells, six of which are walls), once for the empty taxi and
                  once for the passenger aboard
    action        stay, left, right, down, up, or pick up where the passenger waits and drop off at the goal
    reward        2 for the drop-off, else −0.1; the step at which the horizon ends the episode pays −2
    episode       terminates on the drop-off, truncated after H steps
    task row      [13] one-hots: goal (4 landmarks), passenger (4 landmarks, aboard), start of the taxi (4 landmarks);
                  the goal is not where the passenger is. Of the 60 tasks, test has the 12 in which an empty taxi
                  starts at the goal, as published; validation 8 others, in which it starts at the landmark after the
                  goal (red, yellow, blue, green) and the passenger waits at neither; train the other 40
    ============  =====================================================================================

    Kuric & van Hoof 2023 (FAMP, arXiv:2212.11726), by the authors' code, which trains on the 8 as well.
    """

    def __init__(self, config: TaxiConfig) -> None:
        self.spec = Spec(
            "taxi",
            observation={"state": 2 * len(STATES)},
            action_width=SERVE + 1,
            discrete=True,
            horizon=config.horizon,
            task_width=2 * len(LANDMARKS) + len(LANDMARKS) + 1,
            splits=("train", "validation", "test"),
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of goal, passenger and start."""
        places = torch.tensor([task for task in _every_task() if _split(*task) == split])
        rows = torch.cat(
            [torch.eye(width)[place] for width, place in zip((4, 5, 4), places.T, strict=True)],
            dim=1,
        )
        return Tasks(rows, torch.arange(len(rows)), split).draw(count, rng.child(split))

    def make(self, lanes: int) -> _Taxis:
        return _Taxis(self.spec.horizon, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the return of the shortest way, or of no way where the horizon is too short for it."""
        goal, passenger, start = unpack(tasks.params)
        distance = _distances().to(goal.device)
        aboard = passenger == ABOARD
        place = passenger.where(~aboard, start)
        steps = distance[start, place] + (~aboard).long() + distance[place, goal] + 1
        horizon = self.spec.horizon
        return torch.where(steps <= horizon, 2.0 - 0.1 * (steps - 1), -2.0 - 0.1 * (horizon - 1))

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The taxi's way over the centres of the cells, its goal, and the other landmarks."""
        centres = torch.tensor(STATES, dtype=torch.float32, device=obs.device)
        landmarks = torch.tensor(LANDMARKS, dtype=torch.float32, device=obs.device)
        goal = params[: len(LANDMARKS)] > 0.5
        return Scene(
            centres[obs.argmax(-1) % len(STATES)],
            limits=(-0.5, SIDE - 0.5, -0.5, SIDE - 0.5),
            goal=landmarks[goal],
            goal_radius=0.5,
            walls=torch.tensor([[column - 0.5, row - 0.5, 1.0, 1.0] for column, row in WALLS]),
            others=landmarks[~goal],
        )


class _Taxis:
    """N tasks × M lanes; a pair is a state and an action, state · 6 + action."""

    def __init__(self, horizon: int, lanes: int) -> None:
        self._horizon = horizon
        self._lanes = lanes

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        device, shape = tasks.params.device, (len(tasks), self._lanes)
        goal, passenger, start = unpack(tasks.params)
        cell = torch.tensor([STATES.index(landmark) for landmark in LANDMARKS], device=device)
        waits = cell[passenger.clamp(max=ABOARD - 1)].unsqueeze(
            1
        )  # whoever is aboard is never met outside
        pick_up = waits * (SERVE + 1) + SERVE
        drop_off = ((cell[goal] + len(STATES)) * (SERVE + 1) + SERVE).unsqueeze(1)
        after = _successors().to(device).flatten().repeat(len(tasks), 1)  # [N, 72 · 6]
        self._after = after.scatter_(1, pick_up, waits + len(STATES))
        self._reward = torch.full(after.shape, -0.1, device=device).scatter_(1, drop_off, 2.0)
        self._start = (cell[start] + len(STATES) * (passenger == ABOARD)).unsqueeze(1).expand(shape)
        self._looks = torch.eye(2 * len(STATES), device=device)
        self._state, self._time = self._start, 0
        self._end = torch.full(shape, self._horizon, device=device)
        return embedding(self._state, self._looks)

    def step(self, action: Tensor) -> Step:
        self._time += 1
        pair = (SERVE + 1) * self._state + action
        reward = self._reward.gather(1, pair)
        delivered = reward > 0
        self._state = self._after.gather(1, pair)
        truncated = (self._end == self._time) & ~delivered
        next_obs = obs = embedding(self._state, self._looks)
        done = delivered | truncated
        if done.any():
            self._state = torch.where(done, self._start, self._state)
            self._end = torch.where(done, self._time + self._horizon, self._end)
            obs, reward = embedding(self._state, self._looks), reward.masked_fill(truncated, -2.0)
        return Step(
            obs, next_obs, reward, terminated=delivered, truncated=truncated, success=delivered
        )


def unpack(params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Task rows [N, P] → landmarks of goal, passenger and start, each [N] int64."""
    goal, passenger, start = params.split((4, 5, 4), dim=1)
    return goal.argmax(1), passenger.argmax(1), start.argmax(1)


def _every_task() -> list[tuple[int, int, int]]:
    """Goal, passenger and start of the 60 tasks: who has a passenger aboard does not start at the goal."""
    marks = range(len(LANDMARKS))
    waiting = [(goal, passenger, start) for goal in marks for passenger in marks for start in marks]
    riding = [(goal, ABOARD, start) for goal in marks for start in marks if start != goal]
    return [task for task in waiting if task[0] != task[1]] + riding


def _split(goal: int, passenger: int, start: int) -> str:
    if passenger in (ABOARD, start) or start not in (goal, (goal + 1) % len(LANDMARKS)):
        return "train"
    return "test" if start == goal else "validation"


def _successors() -> Tensor:
    """[72, 6]: where actions lead from the empty and from the taken taxi, as long as nobody gets in or out."""
    free = [cell for cell in STATES if cell not in WALLS]
    place = torch.tensor([STATES.index(cell) for cell in free])
    after = torch.arange(len(STATES)).unsqueeze(1).repeat(1, SERVE + 1)
    after[place, :SERVE] = place[successors(free, MOVES)]
    return torch.cat([after, after + len(STATES)])


def _distances() -> Tensor:
    """[4, 4] int64: moves from landmark to landmark."""
    after = _successors()[: len(STATES)]
    cell = torch.tensor([STATES.index(landmark) for landmark in LANDMARKS])
    moves = torch.full((len(STATES), len(LANDMARKS)), len(STATES))
    for _ in STATES:
        moves = (1 + moves[after].amin(1)).clamp(max=len(STATES))
        moves[cell, torch.arange(len(cell))] = 0
    return moves[cell]
