"""The clocks of environments on tensors: when episodes end, and that the next ones start.

An environment says how a state starts, how it moves and what is observed of it.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.types import Step, Tasks, append_axes, maybe_any


class Transition(NamedTuple):
    """What an action leads to in every lane."""

    state: Tensor  # [N, M, …] after the action
    reward: Tensor  # [N, M] float32
    terminated: Tensor | None = None  # [N, M] bool; None: only the horizon ends episodes
    success: Tensor | None = None  # [N, M] bool
    training_reward: Tensor | None = None  # [N, M] a dense reward for the critic
    metrics: dict[str, Tensor] | None = None  # [N, M] float32 each


class TensorEnv(ABC):
    """N task rows × M lanes of a family; a lane whose episode ends starts the next one at once."""

    def __init__(self, family: Family, lanes: int):
        self.family = family
        self.lanes = lanes
        self.horizon = family.spec.horizon

    # -- What an environment says

    @abstractmethod
    def load(self, tasks: Tasks, rng: Rng) -> None:
        """Keep what the task rows say, and the random streams."""

    @abstractmethod
    def start(self) -> Tensor:
        """[N, M, …]: the first states of episodes that start `self.time` steps after the reset."""

    @abstractmethod
    def move(self, state: Tensor, action: Tensor) -> Transition:
        """Where `action` [N, M] int64 or [N, M, A] float32 leads from `state` [N, M, …]."""

    def observe(self, state: Tensor) -> Tensor:
        """[N, M, O]: the observation of `state`; unless an environment says so, the state."""
        return state

    # -- BatchEnv

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        """Put every lane at the start of an episode of its row of `tasks` → obs [N, M, O]."""
        self.time = 0
        self.shape = (len(tasks), self.lanes)
        self._end = torch.full(self.shape, self.horizon, device=tasks.params.device)
        self._never = torch.zeros_like(self._end, dtype=torch.bool)
        self.load(tasks, rng)
        self._state = self.start()
        return self.observe(self._state)

    def step(self, action: Tensor) -> Step:
        """Step every lane with `action` [N, M] int64 or [N, M, A] float32."""
        moved = self.move(self._state, action)
        if moved.terminated is None:  # every episode lasts the horizon, so that all end together
            terminated = self._never
            ended = (self.time + 1) % self.horizon == 0
            done = truncated = ~terminated if ended else terminated
        else:
            terminated = moved.terminated
            truncated = self.at_horizon() & ~terminated
            done = terminated | truncated
            ended = maybe_any(done)
        self.time += 1

        self._state = moved.state
        next_obs = obs = self.observe(moved.state)
        if ended:
            self._restart(done)
            obs = self.observe(self._state)
        return Step(
            obs,
            next_obs,
            moved.reward,
            terminated,
            truncated,
            moved.success,
            moved.training_reward,
            metrics=moved.metrics or {},
        )

    def _restart(self, done: Tensor) -> None:
        """Start the next episode in the lanes `done` [N, M]."""
        self._end = torch.where(done, self.time + self.horizon, self._end)
        first = self.start()
        self._state = torch.where(append_axes(done, first.dim()), first, self._state)

    def at_horizon(self) -> Tensor:
        """[N, M] bool: whether this step of an episode is its last."""
        return self._end == self.time + 1
