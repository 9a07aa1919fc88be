"""MAML from what was lived through alone: episodes cut out of their lanes, one task at a time, in
double precision.

Advantages are computed here by their formulas; the steps on them are `looped`'s, which autograd
differentiates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import CPU, Ragged
from looped import as_torch, heads_alone, loss_alone, trail_alone
from torch import Tensor
from torch.distributions import Distribution, kl_divergence
from torch.nn.utils.rnn import pad_sequence

from metarl.agents.maml.agent import MAML
from metarl.algorithms.inner_loop import STEP_SIZE, Episodes
from metarl.collect.world import LocalWorld
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, Params, Spec, Step, TaskInfo, Tasks, replace, tree_map
from metarl.experiments.building import make_agent

SMALL = {
    "tasks": 4,
    "episodes_per_task": 9,
    "hidden_sizes": (6,),
    "memory_width": 4,
    "step_sizes": (0.4,),
}

MEMORIES = pytest.mark.parametrize("memory", ["none", "gru"])
SPACES = pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])


class Uneven:
    """`Ragged`, whose lanes are of different lengths too, and which pays for what is done: the
    opposite in every task.
    """

    def __init__(self, discrete: bool = True) -> None:
        self.ragged = Ragged(discrete)
        self.spec: Spec = replace(self.ragged.spec, goal_width=1)

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        return self.ragged.tasks(split, count, rng)

    def make(self, lanes: int) -> _UnevenEnv:
        return _UnevenEnv(self.ragged, lanes)


class _UnevenEnv:
    def __init__(self, ragged: Ragged, lanes: int) -> None:
        self.env, self.discrete = ragged.make(lanes), ragged.spec.discrete

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        self.env.reset(tasks, rng)
        self.sign = 2.0 * (tasks.index.unsqueeze(1) % 2) - 1
        self.env.index = self.env.index + torch.arange(self.env.lanes)
        return self.env.look(self.env.episode, self.env.moved)

    def step(self, action: Tensor) -> Step:
        step = self.env.step(action)
        return replace(
            step,
            reward=0.1 * step.reward
            + self.sign * (action if self.discrete else action.sin().sum(-1)),
        )


def make(family: Family, seed: int = 0, **options: Any) -> MAML:
    """An agent whose weights are so large that its decisions depend on all that it sees."""
    agent: Any = make_agent("maml", family.spec, seed, **SMALL | options)
    generator = torch.Generator().manual_seed(seed)
    for name, value in agent.params.items():
        if not name.startswith("step_size."):
            value += 0.3 * torch.randn(value.shape, generator=generator)
    return agent


def world_of(
    family: Family, lanes: int = SMALL["episodes_per_task"], train_tasks: int | None = None
) -> LocalWorld:
    return LocalWorld(
        family, 2 * lanes, train_tasks and family.tasks("train", train_tasks, Rng(5)), CPU
    )


def begin(agent: MAML, tasks: Tasks, lanes: int = SMALL["episodes_per_task"]) -> Belief:
    shown = None if agent.task_input == "none" else tasks.params
    return agent.begin(TaskInfo(len(tasks), 2, CPU, shown), lanes)


def spy(
    world: LocalWorld, change: Callable[[Rollout], Rollout] = lambda x: x
) -> list[tuple[Belief, Rollout]]:
    """What the world's `collect` will be given and will give, which may be changed first."""
    seen, collect = [], world.collect

    def watched(agent: MAML, belief: Belief, *rest: Any) -> tuple[Rollout, Belief]:
        rollout, after = collect(agent, belief, *rest)
        seen.append((belief, change(rollout)))
        return seen[-1][1], after

    world.collect = watched
    return seen


# -------------------------------------------------------------------------------------------------
# One task


def own(params: Params, row: int) -> Params:
    """A row's parameters [N, …] → [...], to be differentiated by."""
    return {name: value[row].double().requires_grad_() for name, value in params.items()}


def episodes_of(rollout: Rollout, row: int) -> list[Rollout]:
    """A row's episodes, each cut out of its lane, one lane after the other: [H, 1, 1, …]."""
    number, episodes = rollout.episode(), []
    for lane in range(rollout.valid.shape[2]):
        for k in range(int(number[rollout.valid[:, row, lane], row, lane].max()) + 1):
            mine = rollout.valid[:, row, lane] & (number[:, row, lane] == k)
            piece = tree_map(
                lambda x, at=mine, lane=lane: x[at, row : row + 1, lane : lane + 1],
                replace(rollout, index=rollout.valid),
            )
            episodes.append(piece)
    return episodes


def advantages(agent: MAML, episodes: list[Rollout]) -> list[Tensor]:
    """[H] of each episode: return less a linear baseline, by λ, less its mean, by its standard
    deviation.
    """
    features, returns, found = [], [], []
    gamma, gae_lambda = agent.config.gamma, agent.config.gae_lambda
    for episode in episodes:
        s, t = (
            episode.inputs.obs[:, 0, 0].double().clamp(-10, 10),
            torch.arange(len(episode.reward)).double() / 100,
        )
        features.append(
            torch.cat([s, s**2, torch.stack([t, t**2, t**3, torch.ones_like(t)], -1)], -1)
        )
        total, to_come = 0.0, []
        for reward in reversed(episode.reward.flatten().tolist()):
            total = reward + gamma * total
            to_come.insert(0, total)
        returns.append(torch.tensor(to_come).double())
    rows = torch.cat(features)
    weights = torch.linalg.solve(
        rows.T @ rows + 1e-5 * torch.eye(rows.shape[1]).double(), rows.T @ torch.cat(returns)
    )
    for episode, row in zip(episodes, features, strict=True):
        value, following, backwards = [*(row @ weights).tolist(), 0.0], 0.0, []
        for t, reward in reversed(list(enumerate(episode.reward.flatten().tolist()))):
            following = reward + gamma * value[t + 1] - value[t] + gamma * gae_lambda * following
            backwards.insert(0, following)
        found.append(torch.tensor(backwards).double())
    all_steps = torch.cat(found)
    return [(steps - all_steps.mean()) / all_steps.std(unbiased=False) for steps in found]


def lived(agent: MAML, rollout: Rollout, row: int) -> Episodes:
    """A row's E episodes side by side, [H, 1, E, …]."""
    episodes = episodes_of(rollout, row)

    def beside(*parts: Tensor) -> Tensor:
        joined = pad_sequence(list(parts)).squeeze(3).movedim(1, 2)
        return joined.double() if joined.is_floating_point() else joined

    advantage = [own.view(-1, 1, 1) for own in advantages(agent, episodes)]
    parts = [
        Episodes(episode.inputs, episode.action, episode.log_prob, own, episode.valid)
        for episode, own in zip(episodes, advantage, strict=True)
    ]
    return tree_map(beside, *parts)


def decisions(agent: MAML, params: Params, episodes: Episodes) -> Distribution:
    """[H, 1, E]: step by step, from an empty memory."""
    return as_torch(heads_alone(agent.policy, params, episodes.inputs))


def trail(
    agent: MAML, theta: Params, params: Params, episodes: list[Episodes], first: int = 0
) -> list[Params]:
    """A task's parameters before each step and after the last; `theta` may have step sizes."""
    given, options = agent.config.step_sizes, agent.config
    sizes = {name: theta.get(STEP_SIZE + name, torch.tensor(given[0])) for name in params}
    factors = [
        torch.tensor(given[min(first + k, len(given) - 1)] / given[0]) for k in range(len(episodes))
    ]
    return trail_alone(
        options.inner_loss, agent.policy, params, sizes, episodes, factors, options.first_order
    )


# -------------------------------------------------------------------------------------------------
# All tasks


def parts(agent: MAML, vector: Tensor) -> Params:
    """θ by name, step sizes among it."""
    pieces = vector.split([value.numel() for value in agent.params.values()])
    return {
        name: piece.view_as(own)
        for (name, own), piece in zip(agent.params.items(), pieces, strict=True)
    }


class Trial:
    """What N tasks lived through in an iteration, before each inner step and after the last, as
    functions of θ [D].
    """

    def __init__(self, agent: MAML, before: list[Rollout], after: Rollout) -> None:
        self.agent, self.rows = agent, range(after.valid.shape[1])
        self.before = [[lived(agent, rollout, row) for rollout in before] for row in self.rows]
        self.after = [lived(agent, after, row) for row in self.rows]
        returns = (after.reward * after.valid).sum(0).mean(1).double()
        self.credit = (returns - returns.mean()) / returns.std(unbiased=False)

    def trail(self, vector: Tensor, row: int) -> list[Params]:
        """The row's parameters before each step and after the last."""
        theta = parts(self.agent, vector)
        params = {name: value for name, value in theta.items() if not name.startswith(STEP_SIZE)}
        return trail(self.agent, theta, params, self.before[row])

    def loss(self, vector: Tensor) -> Tensor:
        """[]: what TRPO descends on."""
        policy, weight, losses = self.agent.policy, self.agent.config.exploration_credit, []
        for row, after in zip(self.rows, self.after, strict=True):
            *earlier, last = self.trail(vector, row)
            losses.append(loss_alone("likelihood_ratio", policy, last, after))
            for params, before in zip(earlier, self.before[row], strict=True):
                credited = replace(before, advantage=self.credit[row].expand_as(before.advantage))
                losses[-1] = losses[-1] + weight * loss_alone(
                    "likelihood_ratio", policy, params, credited
                )
        return torch.stack(losses).mean()

    def proximal(self, vector: Tensor, old: Tensor) -> Tensor:
        """[]: what ProMP descends on: clipped ratios, and KL(old ‖ now) of the policies before the
        steps.
        """
        losses, options = [], self.agent.config
        for row, after in zip(self.rows, self.after, strict=True):
            (*now, last), (*then, _) = self.trail(vector, row), self.trail(old, row)
            ratio = (
                decisions(self.agent, last, after).log_prob(after.action) - after.log_prob
            ).exp()
            clipped = ratio.clamp(1 - options.clip_range, 1 + options.clip_range)
            loss = -torch.minimum(ratio * after.advantage, clipped * after.advantage)[
                after.valid
            ].mean()
            for there, here, before in zip(then, now, self.before[row], strict=True):
                kl = kl_divergence(
                    *(decisions(self.agent, params, before) for params in (there, here))
                )
                loss = loss + options.kl_coef / len(now) * kl[before.valid].mean()
            losses.append(loss)
        return torch.stack(losses).mean()

    def divergence(self, vector: Tensor, old: Tensor) -> Tensor:
        """[]: KL(adapted from `vector` ‖ adapted from `old`) on the query, mean over a task's
        steps, then over tasks.
        """
        means = []
        for row, after in zip(self.rows, self.after, strict=True):
            now, then = (
                decisions(self.agent, self.trail(at, row)[-1], after) for at in (vector, old)
            )
            means.append(kl_divergence(now, then)[after.valid].mean())
        return torch.stack(means).mean()
