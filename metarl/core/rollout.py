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

from metarl.core.blocks import BLOCKS
from metarl.core.errors import MetaRLError
from metarl.core.types import (
    Acted,
    Inputs,
    Spec,
    Step,
    Tasks,
    append_axes,
    next_cue,
    replace,
    tree,
    tree_map,
)


@tree
class Rollout:
    """T steps of N rows × M lanes, each from the start of an episode to the end of its last one.

    Lanes that finish early wait, `valid` False, until the last is done; their entries are padding.
    """

    inputs: Inputs  # [T, N, M, …] inputs of the policy
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
    extras: dict[str, Tensor] = field(default_factory=dict)  # [T, N, M, …] from `Agent.act`
    metrics: dict[str, Tensor] = field(default_factory=dict)  # [T, N, M] each of `Spec.metrics`

    @property
    def done(self) -> Tensor:
        """[T, N, M] bool: an episode ended here."""
        return self.terminated | self.truncated

    @property
    def ends(self) -> Tensor:
        """[T, N, M] bool: the lane's last valid step."""
        following = torch.cat([self.valid[1:], torch.zeros_like(self.valid[:1])])
        return self.valid & ~following

    @property
    def env_steps(self) -> int:
        return int(self.valid.sum())

    def episode(self) -> Tensor:
        """[T, N, M] int64: which episode of its lane a step belongs to, from 0."""
        ended = (self.done & self.valid).long()
        return ended.cumsum(0) - ended

    def episode_returns(self, reward: Tensor | None = None) -> Tensor:
        """[K, N, M]: undiscounted return of every episode, by default of the recorded reward."""
        if reward is None:
            reward = self.reward
        reward = reward * self.valid
        episodes = int((self.done & self.valid).sum(0).max())
        return sum_by_place(reward, self.episode().clamp_(max=episodes - 1), episodes)

    def episode_metrics(self) -> dict[str, Tensor]:
        """[K, N, M] each: the value at the last step of every episode, as SB3's `Monitor` has it.

        NaN where a lane has fewer episodes than others.
        """
        ended = self.done & self.valid
        _, row, lane = ended.nonzero(as_tuple=True)
        episode = self.episode()[ended]
        metrics = {}
        for name, values in self.metrics.items():
            last = values.new_full((int(ended.sum(0).max()), *ended.shape[1:]), torch.nan)
            last[episode, row, lane] = values[ended]
            metrics[name] = last
        return metrics

    def cues(self, spec: Spec) -> Tensor:
        """[T, N, M, A + 2]: how each step ended."""
        step = Step(self.next_obs, self.next_obs, self.reward, self.terminated, self.truncated)
        return next_cue(spec, self.action, step)

    def last_cue(self, spec: Spec) -> Tensor:
        """[N, M, A + 2]: how the last valid step of every lane ended."""
        last = self.valid.long().cumsum(0).argmax(0)  # the first of the largest
        return gather_times(self.cues(spec), last.unsqueeze(0)).squeeze(0)

    def one_episode_per_lane(self) -> Rollout:
        """Every episode in a lane of its own, from time 0: K episodes a lane → [H, N, K · M].

        ::

            lane  a a a b b .        a a a
                  c c d d d d   →    c c .    (a, b of lane 0; shorter ones are padded)
                                     b b .
                                     d d d d
        """
        if int(self.episode()[self.valid].max()) == 0:
            return self
        return stack_lanes(list(self.rounds()))

    def rows(self, chosen: Tensor) -> Rollout:
        """The rollout of the task rows at the places `chosen` [n]: [T, n, M, …]."""
        part = self._map(lambda x: x.index_select(1, chosen))
        return replace(part, index=self.index[chosen])

    def first_steps(self, count: int) -> Rollout:
        """The first `count` steps: [T of at most that, N, M, …]."""
        return self._map(lambda x: x[:count])

    def rounds(self) -> Iterator[Rollout]:
        """The k-th episodes of all lanes, each from its start: [T of the longest, N, M, …]."""
        episode = self.episode()
        time = append_axes(torch.arange(len(self.valid), device=self.valid.device), 3)

        for k in range(int(episode[self.valid].max()) + 1):
            within = self.valid & (episode == k)
            length = within.sum(0)  # [N, M]
            first = within.long().argmax(0)  # [N, M]

            age = time[: int(length.max())]  # [T of the longest, 1, 1]
            source = (first + age).clamp(max=len(time) - 1)  # [T of the longest, N, M]
            yield replace(self._map(partial(gather_times, time=source)), valid=age < length)

    def reshape_lanes(self, lanes: int) -> Rollout:
        """As many lanes as a belief has: all M, or a single one, in which they follow one another.

        Raises:
            MetaRLError: `lanes` is neither M nor 1.
        """
        own = self.valid.shape[2]
        if own == lanes:
            return self
        if lanes != 1:
            raise MetaRLError(
                f"replay: a rollout of {own} lanes fits a belief of {own} lanes or 1, not {lanes}"
            )
        return self._map(lambda x: x.movedim(2, 0).flatten(0, 1).unsqueeze(2))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Rollout:
        """`change` applied to every array of axes [T, N, M, …]."""
        changed = tree_map(change, replace(self, index=self.valid))
        return replace(changed, index=self.index)


def stack_lanes(lanes: Sequence[Rollout]) -> Rollout:
    """K rollouts [T, N, M, …] of the same rows side by side: [T of the longest, N, K · M, …].

    Shorter ones are padded with zeros, `valid` False.
    """

    def join(*parts: Tensor) -> Tensor:
        padded = pad_sequence(list(parts))  # [T, K, N, M, …]
        return padded.movedim(1, 2).flatten(2, 3)

    arrays = [replace(lane, index=lane.valid) for lane in lanes]
    return replace(tree_map(join, *arrays), index=lanes[0].index)


def join_rows(parts: Sequence[Rollout]) -> Rollout:
    """Rollouts [T, N, M, …] of different rows one after another: [T of the longest, Σ N, M, …].

    Shorter ones are padded with zeros, `valid` False.
    """

    steps = max(len(part.valid) for part in parts)

    def join(*arrays: Tensor) -> Tensor:
        padded = []
        for x in arrays:
            padding = x.new_zeros(steps - len(x), *x.shape[1:])
            padded.append(torch.cat([x, padding]))
        return torch.cat(padded, dim=1)

    arrays = [replace(part, index=part.valid) for part in parts]
    index = torch.cat([part.index for part in parts])
    return replace(tree_map(join, *arrays), index=index)


def join_steps(parts: Sequence[Rollout]) -> Rollout:
    """Rollouts of the same lanes one after another: [Σ T, N, M, …], without gaps.

    Lanes that waited in a part go on at once in the next; all padding comes last.
    """

    def join(*arrays: Tensor) -> Tensor:
        return torch.cat(arrays)

    arrays = [replace(part, index=part.valid) for part in parts]
    joined = replace(tree_map(join, *arrays), index=parts[0].index)
    if joined.valid.all():
        return joined
    time = (~joined.valid).long().argsort(dim=0, stable=True)
    return joined._map(partial(gather_times, time=time[: int(joined.valid.sum(0).max())]))


def gather_times(x: Tensor, time: Tensor) -> Tensor:
    """x [T, N, M, …] at every lane's own `time` [T', N, M] → [T', N, M, …]."""
    return torch.take_along_dim(x, append_axes(time, x.dim()), 0)


def sum_by_place(x: Tensor, place: Tensor, count: int) -> Tensor:
    """[count, N, M]: each lane's sums of x [T, N, M] over the times of the same `place` [T, N, M].

    Added in the order of time: `scatter_add_` has none on a GPU.
    """
    sums = x.new_zeros(count, *x.shape[1:])
    if x.is_cpu:
        return sums.scatter_add_(0, place, x)
    rows, lanes = (torch.arange(size, device=x.device) for size in x.shape[1:])
    return sums.index_put_((place, rows.unsqueeze(1), lanes), x, accumulate=True)


class Recorder:
    """Writes one contiguous row a step into arrays allocated once, for at most `capacity` steps."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.length = 0
        self._storage: dict[str, Any] = {}  # arrays [capacity, N, M, …]
        self._rows: list[tuple[Tensor, ...]] = []  # the rows of every array

    def write(self, acted: Acted, step: Step, valid: Tensor) -> None:
        """Append what every lane did [N, M, …] and the result."""
        record = {**vars(acted), **vars(step), "valid": valid}
        del record["obs"]  # the policy's inputs have what was acted on
        for name in ("success", "training_reward"):
            if record[name] is None:
                del record[name]
        if step.metrics:
            record["metrics"] = dict(sorted(step.metrics.items()))  # in any order, in every step
        else:
            del record["metrics"]
        if not self._storage:
            self._storage = tree_map(lambda x: BLOCKS.empty((self.capacity, *x.shape), x), record)
            self._rows = [x.unbind(0) for x in _leaves(self._storage)]
        for rows, leaf in zip(self._rows, _leaves(record), strict=True):
            rows[self.length].copy_(leaf)
        self.length += 1

    def rollout(self, tasks: Tasks) -> Rollout:
        """All that was written, with axis T in front."""
        return Rollout(index=tasks.index, **tree_map(lambda x: x[: self.length], self._storage))


def _leaves(record: dict[str, Any]) -> Iterator[Tensor]:
    """The arrays of a record, which are few and mostly its own values."""
    for value in record.values():
        if isinstance(value, Tensor):
            yield value
        else:
            yield from tree_leaves(value)
