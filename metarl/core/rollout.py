"""The rollout buffer that every agent shares: what `collect` writes and agents learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils._pytree import tree_leaves

from metarl.core.errors import MetaRLError
from metarl.core.types import Acted, Inputs, Spec, Step, Tasks, next_cue, replace, tree, tree_map


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
    extras: dict[str, Tensor] = field(
        default_factory=dict
    )  # [T, N, M, …] what the agent added in act

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

    def cues(self, spec: Spec) -> Tensor:
        """[T, N, M, A + 2]: how each step ended."""
        step = Step(self.next_obs, self.next_obs, self.reward, self.terminated, self.truncated)
        return next_cue(spec, self.action, step)

    def last_cue(self, spec: Spec) -> Tensor:
        """[N, M, A + 2]: how the last step of every lane ended."""
        last = (
            self.valid.long().cumsum(0).argmax(0)
        )  # the first of the largest: later ones are waiting
        return _at(self.cues(spec), last.unsqueeze(0)).squeeze(0)

    def one_episode_per_lane(self) -> Rollout:
        """Every episode in a lane of its own, from time 0: [T, N, M] with K episodes a lane → [H, N, K · M].

        ::

            lane  a a a b b .        a a a
                  c c d d d d   →    c c .    (a and b of the first lane; shorter ones wait at the end)
                                     b b .
                                     d d d d
        """
        once = int(self.episode()[self.valid].max()) == 0
        return self if once else stack_lanes(list(self.rounds()))

    def rows(self, chosen: Tensor) -> Rollout:
        """The rollout of some task rows: [T, n, M, …]."""
        part: Rollout = tree_map(
            lambda x: x.index_select(1, chosen), replace(self, index=self.index.unsqueeze(0))
        )
        return replace(part, index=part.index.squeeze(0))

    def rounds(self) -> Iterator[Rollout]:
        """The k-th episodes of all lanes side by side, each from its own start: [T of the longest, N, M, …]."""
        episode, time = (
            self.episode(),
            torch.arange(len(self.valid), device=self.valid.device).view(-1, 1, 1),
        )
        for k in range(int(episode[self.valid].max()) + 1):
            mine = self.valid & (episode == k)
            steps = mine.sum(0)  # [N, M]
            time_k = time[: int(steps.max())]
            taken = (mine.long().argmax(0) + time_k).clamp(
                max=len(time) - 1
            )  # [T of the longest, N, M]
            yield replace(self._map(partial(_at, time=taken)), valid=time_k < steps)

    def reshape_lanes(self, lanes: int) -> Rollout:
        """As many lanes as a belief has: these, or a single one in which they follow one another, [M·T, N, 1, …].

        Raises:
            MetaRLError: neither fits.
        """
        here = self.valid.shape[2]
        if here == lanes:
            return self
        if lanes != 1:
            raise MetaRLError(
                f"replay: a rollout of {here} lanes fits a belief of {here} lanes or of 1, not of {lanes}"
            )
        return self._map(lambda x: x.movedim(2, 0).flatten(0, 1).unsqueeze(2))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Rollout:
        """Every array of axes [T, N, M, …] changed."""
        changed: Rollout = tree_map(change, replace(self, index=self.valid))
        return replace(changed, index=self.index)


def stack_lanes(lanes: Sequence[Rollout]) -> Rollout:
    """K rollouts of the same rows as lanes of one: [T of each, N, M, …] → [T of the longest, N, K · M, …]; the others wait."""

    def join(*parts: Tensor) -> Tensor:
        return pad_sequence(list(parts)).movedim(1, 2).flatten(2, 3)  # [T, K, N, M, …] before

    joined: Rollout = tree_map(join, *(replace(lane, index=lane.valid) for lane in lanes))
    return replace(joined, index=lanes[0].index)


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


def _at(x: Tensor, time: Tensor) -> Tensor:
    """x [T, N, M, …] where each lane is at its own `time` [T', N, M] → [T', N, M, …]."""
    return torch.take_along_dim(x, time.reshape(*time.shape, *[1] * (x.dim() - 3)), 0)
