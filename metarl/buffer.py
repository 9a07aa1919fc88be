"""The rollout buffer that every agent shares: what `collect` writes and agents learn from."""

from __future__ import annotations

from dataclasses import field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metarl.types import Acted, Inputs, Step, Tasks, replace, tree, tree_map


@tree
class Rollout:
    """T steps of N rows × M lanes, each row from the start of an episode to the end of its last one.

    Rows that finish early wait, `valid` False, until the last is done; what stands there means nothing.
    """

    inputs: Inputs  # [T, N, M, …] what the policy saw
    action: Tensor  # [T, N, M] int64 or [T, N, M, A]
    log_prob: Tensor  # [T, N, M]
    reward: Tensor  # [T, N, M]
    next_obs: Tensor  # [T, N, M, O] the true successor
    terminated: Tensor  # [T, N, M] bool
    truncated: Tensor  # [T, N, M] bool
    valid: Tensor  # [T, N, M] bool
    index: Tensor  # [N] which tasks
    success: Tensor | None = None  # [T, N, M] bool
    training_reward: Tensor | None = None  # [T, N, M]
    extras: dict[str, Tensor] = field(default_factory=dict)  # [T, N, M, …] what the agent added in act

    @property
    def done(self) -> Tensor:
        """[T, N, M] bool: an episode ended here."""
        return self.terminated | self.truncated

    @property
    def env_steps(self) -> int:
        return int(self.valid.sum())

    def episode(self) -> Tensor:
        """[T, N, M] int64: which episode of its lane a step belongs to, from 0."""
        ended = (self.done & self.valid).long()
        return ended.cumsum(0) - ended

    def episode_returns(self, reward: Tensor | None = None) -> Tensor:
        """[K, N, M]: undiscounted return of each episode, of `reward` [T, N, M] if it is not the recorded one."""
        episodes = int((self.done & self.valid).sum(0).max())
        per_step = (self.reward if reward is None else reward) * self.valid
        totals = torch.zeros(episodes, *per_step.shape[1:], device=per_step.device)
        return totals.scatter_add_(0, self.episode().clamp_(max=episodes - 1), per_step)

    def rows(self, chosen: Tensor) -> Rollout:
        """The rollout of some task rows: [T, n, M, …]."""
        part: Rollout = tree_map(lambda x: x.index_select(1, chosen), replace(self, index=self.index.unsqueeze(0)))
        return replace(part, index=part.index.squeeze(0))


class Recorder:
    """Writes one contiguous row a step into arrays allocated once; T is known only when the last row is done."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._storage: dict[str, Any] = {}
        self._rows: list[tuple[Tensor, ...]] = []

    def write(self, acted: Acted, step: Step, valid: Tensor) -> None:
        """Append what every lane did [N, M, …] and what came of it."""
        record = {
            "inputs": acted.inputs,
            "action": acted.action,
            "log_prob": acted.log_prob,
            "reward": step.reward,
            "next_obs": step.next_obs,
            "terminated": step.terminated,
            "truncated": step.truncated,
            "valid": valid,
            "extras": acted.extras,
        }
        for name in ("success", "training_reward"):
            if getattr(step, name) is not None:
                record[name] = getattr(step, name)
        if not self._storage:
            self._storage = tree_map(lambda x: x.new_empty((self.capacity, *x.shape)), record)
            self._rows = [x.unbind(0) for x in tree_leaves(self._storage)]
        for rows, leaf in zip(self._rows, tree_leaves(record), strict=True):
            rows[self.length].copy_(leaf)
        self.length += 1

    def rollout(self, tasks: Tasks) -> Rollout:
        """All that was written, with axis T in front."""
        return Rollout(index=tasks.index, **tree_map(lambda x: x[: self.length], self._storage))
