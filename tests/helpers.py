"""A family and an agent that the tests share, simple enough to be followed by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metarl.collect.collector import collect
from metarl.config.registry import find, names
from metarl.core.family import BatchEnv, Family
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Belief, Inputs, Spec, Step, TaskInfo, Tasks, first_cue, replace
from metarl.nn.normalizer import Normalizer

CPU = torch.device("cpu")

FILES = Path(__file__).parent / "families"
"""Families as users write them, each a file of its own."""

FAMILIES = [
    name
    for name in names("family")
    if find("family", name).settings.__module__ != "metarl_envs.extra_config"
]
"""Those that need no package of their own; the others are tested in tests/extras."""


def known_values(steps: int) -> Normalizer:
    """Statistics of values that scale nothing, as if learned from a sample of every step."""
    return replace(Normalizer.initial(steps, CPU), count=torch.ones(steps).double())


class Ragged:
    """Episodes whose course is known by heart: episode e of task i lasts `length(i, e)` steps.

    Five steps are more than the horizon of four, so those episodes are truncated and all others
    terminate. Step s of episode e pays 10 e + s + 1. The observation is (task, episode, step, a
    number from the row's own stream).
    """

    def __init__(self, discrete: bool = True) -> None:
        observation = {"task": 1, "episode": 1, "step": 1, "noise": 1}
        self.spec = Spec(
            "ragged", observation, action_width=2, discrete=discrete, horizon=4, task_width=1
        )

    @staticmethod
    def length(index: Tensor, episode: Tensor) -> Tensor:
        return 1 + (index + 2 * episode) % 5

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        index = torch.arange(count)
        return Tasks(index.unsqueeze(1).float(), index, split)

    def make(self, lanes: int) -> _RaggedEnv:
        return _RaggedEnv(self, lanes)


class _RaggedEnv:
    def __init__(self, family: Ragged, lanes: int) -> None:
        self.family, self.lanes = family, lanes

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        self.noise = tasks.streams(rng, self.lanes)
        self.index = tasks.index.unsqueeze(1).expand(-1, self.lanes)
        self.episode, self.moved = torch.zeros_like(self.index), torch.zeros_like(self.index)
        self.time = 0
        return self.look(self.episode, self.moved)

    def step(self, action: Tensor) -> Step:
        reward = 10.0 * self.episode + self.moved + 1
        self.time += 1
        episode, moved, horizon = self.episode, self.moved + 1, self.family.spec.horizon
        length = self.family.length(self.index, episode)
        terminated = moved == length
        truncated = (moved == horizon) & ~terminated
        done = terminated | truncated
        self.episode, self.moved = episode + done.long(), moved.masked_fill(done, 0)
        return Step(
            self.look(self.episode, self.moved),
            self.look(episode, moved),
            reward,
            terminated,
            truncated,
        )

    def look(self, episode: Tensor, moved: Tensor) -> Tensor:
        noise = self.noise.uniform(self.time, 1)
        return torch.cat([torch.stack([self.index, episode, moved], dim=-1).float(), noise], dim=-1)


class Counting:
    """Acts at random and believes in the number of its own steps."""

    task_input = "none"
    lanes = 1

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        return Belief(
            first_cue(self.spec, info.rows, lanes, info.device),
            lane=(torch.zeros(info.rows, lanes, device=info.device),),
        )

    def act(
        self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: str
    ) -> tuple[Acted, Belief]:
        action = random_action(self.spec, noise, counter)
        count = belief.lane[0]
        acted = Acted(
            Inputs(obs, cue=belief.cue), action, torch.zeros_like(count), {"count": count}
        )
        return acted, replace(belief, lane=(count + 1,))

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        return belief


class Adapting(Counting):
    """Its belief also counts adaptations; it remembers what it was shown and what it adapted to."""

    def __init__(self, spec: Spec, lanes: int = 1) -> None:
        super().__init__(spec)
        self.lanes = lanes
        self.infos: list[TaskInfo] = []
        self.rollouts: list[Rollout] = []

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        self.infos.append(info)
        return replace(super().begin(info, lanes), row=(torch.zeros(info.rows),))

    def act(
        self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: str
    ) -> tuple[Acted, Belief]:
        acted, belief = super().act(belief, obs, noise, counter, mode)
        adapted = belief.row[0].unsqueeze(1).expand(obs.shape[:2])
        return replace(acted, extras=acted.extras | {"adapted": adapted}), belief

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        self.rollouts.append(rollout)
        return replace(belief, row=(belief.row[0] + 1,))

    replay = adapt


def random_action(spec: Spec, noise: Streams, counter: int) -> Tensor:
    """A uniform action for every lane of `noise`."""
    if spec.nvec:
        uniform = noise.uniform(counter, len(spec.nvec))
        return (uniform * torch.tensor(spec.nvec)).long()
    if spec.discrete:
        return (noise.uniform(counter, 1).squeeze(-1) * spec.action_width).long()
    return 2 * noise.uniform(counter, spec.action_width) - 1


def live(
    family: Family,
    tasks: Tasks,
    episodes: int,
    *,
    lanes: int = 1,
    seed: int = 0,
    env: BatchEnv | None = None,
    agent: Counting | None = None,
) -> tuple[Rollout, Belief]:
    """What `agent`, or a `Counting` one, lives through."""
    agent = agent or Counting(family.spec)
    belief = agent.begin(TaskInfo(len(tasks), episodes, tasks.index.device), lanes)
    return collect(
        agent, env or family.make(lanes), family.spec, belief, tasks, episodes, Rng(seed)
    )


def same(a: object, b: object) -> bool:
    """Whether two trees hold the same tensors, bit for bit."""
    left, right = tree_leaves(a), tree_leaves(b)
    return len(left) == len(right) and all(
        torch.equal(x, y) if isinstance(x, Tensor) else x == y
        for x, y in zip(left, right, strict=True)
    )


def figure_of(monkeypatch: Any, module: Any, draw: Callable[..., object], *given: object) -> Any:
    """What `draw` of `module` draws, before it becomes a file."""
    figures: list[Any] = []
    monkeypatch.setattr(module, "save", lambda figure, out: figures.append(figure) or out)
    draw(*given, Path("x.png"))
    (figure,) = figures
    return figure


class Affine:
    """A family whose rewards are those of another, times a factor, and shifted."""

    def __init__(self, family: Family, factor: float = 1.0, shift: float = 0.0) -> None:
        self.family, self.factor, self.shift = family, factor, shift
        self.spec, self.tasks = family.spec, family.tasks

    def make(self, lanes: int) -> _AffineEnv:
        return _AffineEnv(self, self.family.make(lanes))


class _AffineEnv:
    def __init__(self, family: Affine, env: BatchEnv) -> None:
        self.family, self.env, self.reset = family, env, env.reset

    def step(self, action: Tensor) -> Step:
        step = self.env.step(action)
        exact = self.family.factor * step.reward.double() + self.family.shift
        return replace(step, reward=exact.float())
