"""Small policies, episodes of noise, and adaptation one task at a time, in plain code that autograd
differentiates.

What metarl computes side by side, and by hand, must equal this. All in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from helpers import CPU
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal

from metarl.algorithms.inner_loop import (
    STEP_SIZE,
    Chain,
    Episodes,
    likelihood_ratio,
    log_likelihood,
)
from metarl.core.types import Inputs, Params, tree_map
from metarl.nn.policy import Policy

T, N, M, O, P, A = 4, 3, 2, 2, 1, 3  # noqa: E741  (letters of metarl.core.types)

LOSSES = {"log_likelihood": log_likelihood, "likelihood_ratio": likelihood_ratio}
POLICIES = {
    "tanh, discrete": {},
    "tanh, continuous": {"discrete": False},
    "relu, discrete": {"activation": "relu"},
    "relu, continuous": {"activation": "relu", "discrete": False},
    "linear, continuous": {"hidden_sizes": (), "discrete": False},
    "gru, continuous": {"memory": "gru", "hidden_sizes": (3,), "discrete": False},
    "lstm, discrete": {"memory": "lstm", "hidden_sizes": (3,)},
}


def small_policy(discrete: bool = True, **options: Any) -> Policy:
    """Without a value head."""
    return Policy(
        O + P,
        A,
        discrete,
        **{"memory_width": 3, "hidden_sizes": (4, 3), "value_head": False} | options,
    )


def random_params(policy: Policy, *copies: int, seed: int = 0) -> Params:
    """Not close to any special point."""
    generator = torch.Generator().manual_seed(seed)

    def move(value: Tensor) -> Tensor:
        return value + 0.5 * torch.randn(
            *copies, *value.shape, generator=generator, dtype=torch.float64
        )

    return {name: move(value) for name, value in policy.init(generator).items()}


def random_episodes(policy: Policy, seed: int, rows: int = N) -> Episodes:
    """Lanes of 1 to T steps; what stands where nothing was lived through is large."""
    generator = torch.Generator().manual_seed(seed)
    length = torch.randint(1, T + 1, (rows, M), generator=generator)
    valid = torch.arange(T).view(-1, 1, 1) < length
    scale = torch.where(valid, 1.0, 30.0).double()

    def noise(*shape: int) -> Tensor:
        return scale.unsqueeze(-1) * torch.randn(
            T, rows, M, *shape, generator=generator, dtype=torch.float64
        )

    choice = torch.randint(A, (T, rows, M), generator=generator)
    return Episodes(
        inputs=Inputs(noise(O), task=noise(P)),
        action=choice if policy.discrete else noise(A),
        log_prob=0.2 * noise(1).squeeze(-1) - (1 if policy.discrete else 4),
        advantage=noise(1).squeeze(-1),
        valid=valid,
    )


def normal(tree: Params, seed: int) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in tree.items()
    }


def row(episodes: Episodes, i: int) -> Episodes:
    """Task i alone: [T, 1, M, …]."""
    return tree_map(lambda x: x[:, i : i + 1], episodes)


def heads_alone(policy: Policy, params: Params, inputs: Inputs) -> Params:
    """Of one task's policy, step by step: params [...], inputs [T, 1, M, …]."""
    state = tree_map(Tensor.double, policy.start(1, inputs.obs.shape[2], CPU))
    action = []
    for t in range(len(inputs.obs)):
        decision, state = policy.step(params, tree_map(lambda x, t=t: x[t], inputs), state)
        action.append(decision.heads["action"])
    free = {} if policy.discrete else {"log_std": params["action.log_std"]}
    return {"action": torch.stack(action)} | free


def as_torch(heads: Params) -> Distribution:
    if "log_std" not in heads:
        return Categorical(logits=heads["action"], validate_args=False)
    return Independent(
        Normal(heads["action"], heads["log_std"].exp(), validate_args=False), 1, validate_args=False
    )


def loss_alone(kind: str, policy: Policy, params: Params, episodes: Episodes) -> Tensor:
    """[] `log_likelihood` or `likelihood_ratio` of one task, over its valid steps."""
    log_prob = as_torch(heads_alone(policy, params, episodes.inputs)).log_prob(episodes.action)[
        episodes.valid
    ]
    weight = (
        log_prob
        if kind == "log_likelihood"
        else (log_prob - episodes.log_prob[episodes.valid]).exp()
    )
    return -(weight * episodes.advantage[episodes.valid]).mean()


def trail_alone(
    kind: str,
    policy: Policy,
    theta: Params,
    sizes: Params,
    episodes: Sequence[Episodes],
    factors: Sequence[Tensor],
    first_order: bool = False,
) -> list[Params]:
    """One task's parameters before each step and after the last, as differentiable functions of θ
    and α.
    """
    trail = [theta]
    for part, factor in zip(episodes, factors, strict=True):
        loss = loss_alone(kind, policy, trail[-1], part)
        gradient = torch.autograd.grad(loss, list(trail[-1].values()), create_graph=True)
        if first_order:
            gradient = [g.detach() for g in gradient]
        steps = {name: factor * sizes[name] * g for name, g in zip(theta, gradient, strict=True)}
        trail.append({name: value - steps[name] for name, value in trail[-1].items()})
    return trail


def dot(a: Params, b: Params) -> Tensor:
    """[] over all parts."""
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


@dataclass(frozen=True)
class Case:
    """Steps on ragged episodes, every parameter with a step size of its own, every task and step
    with a factor.
    """

    name: str
    kind: str = "log_likelihood"
    steps: int = 1
    first_order: bool = False

    @cached_property
    def policy(self) -> Policy:
        return small_policy(**POLICIES[self.name])

    @cached_property
    def params(self) -> Params:
        return random_params(self.policy)

    @cached_property
    def sizes(self) -> Params:
        return {name: 0.02 * (1 + value.square()) for name, value in normal(self.params, 5).items()}

    @cached_property
    def theta(self) -> Params:
        """With the step sizes."""
        return self.params | {STEP_SIZE + name: size for name, size in self.sizes.items()}

    @cached_property
    def episodes(self) -> list[Episodes]:
        return [random_episodes(self.policy, seed=10 + k) for k in range(self.steps)]

    @cached_property
    def factors(self) -> list[Tensor]:
        return [
            torch.linspace(0.5, 1.5, N, dtype=torch.float64) / (k + 1) for k in range(self.steps)
        ]

    def chain(self, tasks: slice = slice(None)) -> Chain:
        """Of these tasks."""
        rows = len(range(N)[tasks])
        start = {name: value.expand(rows, *value.shape) for name, value in self.params.items()}
        chain = Chain(self.policy, LOSSES[self.kind], self.sizes, start, self.first_order)
        for episodes, factor in zip(self.episodes, self.factors, strict=True):
            chain = chain.step(tree_map(lambda x: x[:, tasks], episodes), factor[tasks])
        return chain

    def trails(self, theta: Params) -> list[list[Params]]:
        """Of every task, a step after the other, differentiable by θ."""
        params = {name: theta[name] for name in self.params}
        sizes = {name: theta[STEP_SIZE + name] for name in self.params}
        return [
            trail_alone(
                self.kind,
                self.policy,
                params,
                sizes,
                [row(part, i) for part in self.episodes],
                [factor[i] for factor in self.factors],
                self.first_order,
            )
            for i in range(N)
        ]

    def looped(self, theta: Params) -> Params:
        """[N, …] after the last step."""
        ends = [trail[-1] for trail in self.trails(theta)]
        return {name: torch.stack([end[name] for end in ends]) for name in self.params}
