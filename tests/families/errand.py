"""A walk along a corridor, to be drawn: from above, or by a camera of eight pixels."""

import numpy as np
import torch

from metarl import Rng, Spec, Step, Tasks
from metarl.core.types import Scene

DOOR = 3
"""Where the corridor ends, in steps."""


class Errand:
    """Action 1 takes a step towards the door, action 0 none; each costs the row's fee.

    Every lane walks on a line of its own.
    Its environment can be filmed.
    """

    def __init__(self) -> None:
        self.spec = Spec(
            "errand", {"place": 2}, action_width=2, discrete=True, horizon=6, task_width=1
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        index = torch.arange(count)
        return Tasks(rng.child(split).rows(count, 1), index, split)

    def make(self, lanes: int) -> "ErrandEnv":
        return ErrandEnv(lanes, self.spec.horizon)


class Mapped(Errand):
    """The same, seen from above."""

    def scene(self, params: torch.Tensor, obs: torch.Tensor) -> Scene:
        walls = torch.tensor([[-0.5, -0.2, 4.0, 0.2], [-0.5, 1.0, 4.0, 0.2]])
        goal, others = (
            torch.tensor([[float(DOOR), 0.5]]),
            torch.tensor([[float(DOOR), 0.2], [float(DOOR), 0.8]]),
        )
        return Scene(
            obs,
            limits=(-0.5, 3.5, -0.2, 1.2),
            goal=goal,
            goal_radius=0.1,
            walls=walls,
            others=others,
        )


class ErrandEnv:
    def __init__(self, lanes: int, horizon: int) -> None:
        self.lanes, self.horizon = lanes, horizon

    def reset(self, tasks: Tasks, rng: Rng) -> torch.Tensor:
        self.fee, self.noise, self.time = tasks.params, tasks.streams(rng, self.lanes), 0
        self.gone = torch.zeros(len(tasks), self.lanes)
        self.age, self.line = torch.zeros_like(self.gone), self.noise.uniform(0, 1).squeeze(-1)
        return self.look()

    def look(self) -> torch.Tensor:
        return torch.stack([self.gone, self.line], dim=-1)

    def step(self, action: torch.Tensor) -> Step:
        self.time += 1
        self.gone, self.age = self.gone + action, self.age + 1
        next_obs, terminated = self.look(), self.gone == DOOR
        truncated = (self.age == self.horizon) & ~terminated
        done = terminated | truncated
        self.gone, self.age = self.gone.masked_fill(done, 0), self.age.masked_fill(done, 0)
        self.line = torch.where(done, self.noise.uniform(self.time, 1).squeeze(-1), self.line)
        return Step(self.look(), next_obs, -self.fee.expand_as(self.gone), terminated, truncated)

    def frame(self, row: int, lane: int) -> np.ndarray:
        """Two rows of four pixels: the place is lit, as bright as the line is high."""
        picture = np.zeros((2, DOOR + 1, 3), np.uint8)
        picture[:, int(self.gone[row, lane])] = round(255 * float(self.line[row, lane]))
        return picture
