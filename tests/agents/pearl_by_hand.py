"""PEARL by plain torch modules and loops, one transition of one task at a time, in double
precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import CPU, Ragged
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, TanhTransform, kl_divergence

from metarl.agents.pearl.agent import PEARL
from metarl.collect.collector import collect
from metarl.collect.world import LocalWorld
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, Params, Step, TaskInfo, Tasks, replace
from metarl.data.transitions import Transitions
from metarl.experiments.building import make_agent

ROWS = 6
SPACES = pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])

SMALL = {
    "latent_width": 3,
    "encoder_sizes": (7,),
    "hidden_sizes": (8, 6),
    "tasks": 2,
    "initial_episodes": 1,
    "prior_episodes": 2,
    "posterior_episodes": 1,
    "extra_episodes": 1,
    "updates": 4,
    "meta_batch_size": 4,
    "batch_size": 6,
    "context_size": 5,
}


class Dense:
    """`Ragged`, which pays for what is done, the opposite in every other task, and critics
    otherwise.

    Tasks are `shuffled` out of ten, as finite families give them, or come in their order. The
    fourth number of an observation is met but once.
    """

    def __init__(self, discrete: bool = True, shuffled: bool = False) -> None:
        self.ragged, self.shuffled = Ragged(discrete), shuffled
        self.spec = replace(self.ragged.spec, goal_width=1)

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        every = self.ragged.tasks(split, 10 if self.shuffled else count, rng)
        return every.draw(count, rng.child(split)) if self.shuffled else every

    def make(self, lanes: int) -> _DenseEnv:
        return _DenseEnv(self.ragged, lanes)


class _DenseEnv:
    def __init__(self, ragged: Ragged, lanes: int) -> None:
        self.env, self.discrete = ragged.make(lanes), ragged.spec.discrete

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        self.sign = 2.0 * (tasks.index.unsqueeze(1) % 2) - 1
        return self.env.reset(tasks, rng)

    def step(self, action: Tensor) -> Step:
        step = self.env.step(action)
        reward = 0.1 * step.reward + self.sign * (action if self.discrete else action.sin().sum(-1))
        return replace(step, reward=reward, training_reward=7 - 3 * reward)


def make(
    family: Family, seed: int = 0, dtype: torch.dtype = torch.float32, **options: Any
) -> PEARL:
    """An agent whose weights are so large that what it does depends on all that it sees."""
    agent: Any = make_agent("pearl", family.spec, seed, **SMALL | options)
    generator = torch.Generator().manual_seed(seed)
    noise = {
        n: 0.3 * torch.randn(x.shape, generator=generator)
        for n, x in agent.params.items()
        if x.dim()
    }
    agent.sac.set_params(
        {name: (x.detach() + noise.get(name, 0.0)).to(dtype) for name, x in agent.params.items()}
    )
    for target in agent.sac.targets.values():
        target += 0.1 * torch.randn(target.shape, generator=generator).to(dtype)
    return agent


def world_of(family: Family, train_tasks: int | None = 5) -> LocalWorld:
    """Training tasks are numbered by their place, as by `metarl.experiments.building.train_set`."""
    if train_tasks is None:
        return LocalWorld(family, 3, None, CPU)
    tasks = replace(family.tasks("train", train_tasks, Rng(5)), index=torch.arange(train_tasks))
    return LocalWorld(family, 3, tasks, CPU)


def begin(agent: PEARL, tasks: Tasks, lanes: int = 1) -> Belief:
    return agent.begin(
        TaskInfo(len(tasks), 3, CPU, None if agent.task_input == "none" else tasks.params), lanes
    )


def spy(thing: Any, name: str, see: Callable[..., Any] = lambda *given: given) -> list[Any]:
    """All calls of the method `name` from now on: `see(its arguments and result)` of each."""
    seen, method = [], getattr(thing, name)

    def watched(*args: Any, **options: Any) -> Any:
        result = method(*args, **options)
        seen.append(see(*args, result))
        return result

    setattr(thing, name, watched)
    return seen


def steps_of(rollout: Rollout, row: int) -> list[tuple[Tensor, ...]]:
    """(obs, action, reward, next_obs) of every step that a row lived through."""
    arrays = (rollout.inputs.obs, rollout.action, rollout.reward, rollout.next_obs)
    places = rollout.valid[:, row].nonzero().tolist()
    return [tuple(x[time, row, lane] for x in arrays) for time, lane in places]


def lived(
    agent: PEARL,
    family: Family,
    *,
    episodes: int = 3,
    lanes: int = 1,
    rows: int = ROWS,
    seed: int = 0,
    mode: Any = "sample",
    belief: Belief | None = None,
    tasks: Tasks | None = None,
) -> tuple[Rollout, Belief]:
    tasks = family.tasks("test", rows, Rng(0)) if tasks is None else tasks
    belief = begin(agent, tasks, lanes) if belief is None else belief
    return collect(agent, family.make(lanes), family.spec, belief, tasks, episodes, Rng(seed), mode)


class ByHand:
    """What an agent is made of, copied."""

    def __init__(self, agent: PEARL) -> None:
        self.options, self.spec, self.latent = agent.config, agent.spec, agent.config.latent_width
        self.params: Params = {}
        given = {name: x.detach().double().clone() for name, x in agent.params.items()}
        self.policy, self.q1, self.q2 = (self.net(name, given) for name in ("policy", "q1", "q2"))
        self.encoder = self.net("encoder", given) if self.latent else None
        held, self.params = self.params, {}
        self.t1, self.t2 = (self.net(name, agent.sac.targets) for name in ("q1", "q2"))
        self.targets, self.params = self.params, held
        self.params["log_temperature"] = self.log_alpha = nn.Parameter(given["log_temperature"])
        self.grads: Params = {}
        self.moments: dict[str, tuple[int, Tensor, Tensor]] = {}

    def net(self, prefix: str, given: Params) -> nn.Sequential:
        """Its parameters are noted by their names."""
        modules: list[nn.Module] = []
        for name in [
            name.removesuffix(".weight")
            for name in given
            if name.startswith(prefix) and "weight" in name
        ]:
            weight, bias = given[name + ".weight"], given[name + ".bias"]
            linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
            linear.weight.data.copy_(weight)
            linear.bias.data.copy_(bias)
            self.params |= {name + ".weight": linear.weight, name + ".bias": linear.bias}
            modules += [linear, nn.ReLU()]
        return nn.Sequential(*modules[:-1])

    def of(self, *prefixes: str) -> Params:
        return {name: value for name, value in self.params.items() if name.startswith(prefixes)}

    def belief(self, steps: list[tuple[Tensor, ...]]) -> Normal:
        """Of a task: the product of a normal factor of every step, the standard normal where there
        are none.
        """
        if not steps or self.encoder is None:
            return Normal(torch.zeros(self.latent).double(), torch.ones(self.latent).double())
        precision = shift = torch.zeros(self.latent).double()
        for obs, action, reward, next_obs in steps:
            taken = torch.eye(self.spec.action_width)[action] if self.spec.discrete else action
            seen = [obs, taken, reward.view(1)] + (
                [next_obs] if self.options.next_obs_input else []
            )
            mean, spread = self.encoder(torch.cat(seen).double()).chunk(2)
            variance = nn.functional.softplus(spread).clamp(min=1e-7)
            precision, shift = precision + 1 / variance, shift + mean / variance
        return Normal(shift / precision, precision**-0.5)

    def value(
        self, state: Tensor, normal: Tensor | None, q1: nn.Module, q2: nn.Module
    ) -> tuple[Tensor, ...]:
        """V, the entropy, and what is regularized, at one state."""
        heads, alpha = self.policy(state), self.log_alpha.exp().item()
        if self.spec.discrete:
            probs = Categorical(logits=heads)
            lesser = torch.minimum(q1(state), q2(state))
            return (
                probs.probs @ lesser + alpha * probs.entropy(),
                probs.entropy(),
                heads.new_zeros(()),
            )
        mean, log_std = heads.chunk(2)
        log_std = log_std.clamp(-20, 2)
        before = mean + log_std.exp() * normal
        action = before.tanh()
        slope = TanhTransform().log_abs_det_jacobian(before, action)
        log_prob = (Normal(mean, log_std.exp()).log_prob(before) - slope).sum()
        seen = torch.cat([state, action])
        lesser = torch.minimum(q1(seen), q2(seen)).squeeze()
        return lesser - alpha * log_prob, -log_prob, (mean**2).mean() + (log_std**2).mean()

    def error(
        self, batch: Transitions, z: list[Tensor], normal: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both critics' mean squared error, and the mean Q of the first."""
        first, second, targets = [], [], []
        options, (tasks, size) = self.options, batch.reward.shape
        for i in range(tasks):
            for b in range(size):
                target = options.reward_scale * batch.training_reward[i, b]
                if not batch.terminated[i, b]:
                    after = self.state(batch, i, b, z[i], batch.next_obs)
                    q_values = self.value(
                        after, None if normal is None else normal[i * size + b], self.t1, self.t2
                    )[0]
                    target = target + options.gamma * q_values.detach()
                here, action = self.state(batch, i, b, z[i], batch.obs), batch.action[i, b]
                for net, found in ((self.q1, first), (self.q2, second)):
                    found.append(
                        net(here)[action]
                        if self.spec.discrete
                        else net(torch.cat([here, action])).squeeze()
                    )
                targets.append(target)
        both = [
            sum((q - t) ** 2 for q, t in zip(qs, targets, strict=True)) / len(qs)
            for qs in (first, second)
        ]
        return both[0] + both[1], sum(first) / len(first)

    @staticmethod
    def state(batch: Transitions, i: int, b: int, z: Tensor, obs: Tensor) -> Tensor:
        return torch.cat([obs[i, b], z, *([] if batch.task is None else [batch.task[i, b]])])

    def policy_loss(
        self, batch: Transitions, z: list[Tensor], normal: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Without what is regularized; that; and the entropy."""
        tasks, size = batch.reward.shape
        parts = [
            self.value(
                self.state(batch, i, b, z[i].detach(), batch.obs),
                None if normal is None else normal[i * size + b],
                self.q1,
                self.q2,
            )
            for i in range(tasks)
            for b in range(size)
        ]
        value, entropy, size_of_heads = (torch.stack(x).mean() for x in zip(*parts, strict=True))
        return -value, self.options.regularization * size_of_heads, entropy.detach()

    def believed(self, context: Transitions | None, tasks: int) -> list[Normal]:
        if context is None:
            return [self.belief([]) for _ in range(tasks)]
        arrays = (context.obs, context.action, context.reward, context.next_obs)
        return [
            self.belief([tuple(x[i, c] for x in arrays) for c in range(len(context.reward[i]))])
            for i in range(tasks)
        ]

    def kl(self, beliefs: list[Normal]) -> Tensor:
        """Of every task and every entry of z, summed."""
        return sum(
            (kl_divergence(each, Normal(0.0, 1.0)).sum() for each in beliefs),
            torch.zeros(()).double(),
        )

    def update(
        self,
        batch: Transitions,
        context: Transitions | None,
        generator: torch.Generator,
        rate: float,
    ) -> Any:
        """One step of everything → what is logged of it."""
        options, width = self.options, self.spec.action_width
        tasks, size = batch.reward.shape
        beliefs = self.believed(context, tasks)
        drawn = torch.randn(tasks, self.latent, generator=generator)
        z = [q.loc + q.scale * n for q, n in zip(beliefs, drawn, strict=True)]

        def draw() -> Tensor | None:
            if self.spec.discrete:
                return None
            return torch.randn(tasks * size, width, generator=generator)

        error, q = self.error(batch, z, draw())
        kl = self.kl(beliefs)
        self.adam(error + options.kl_coef * kl, self.of("q1", "q2", "encoder"), rate)
        loss, regular, entropy = self.policy_loss(batch, z, draw())
        self.adam(loss + regular, self.of("policy"), rate)
        if options.learn_temperature:
            target = options.target_entropy
            if target is None:
                target = (
                    0.5 * torch.tensor(float(width)).double().log()
                    if self.spec.discrete
                    else -width
                )
            self.adam(self.log_alpha * (entropy - target), self.of("log_temperature"), rate)
        for name, value in self.targets.items():
            value.data += options.tau * (self.params[name].data - value.data)
        logged = {"critic_loss": error, "kl": kl, "q": q, "policy_loss": loss, "entropy": entropy}
        return {name: value.detach() for name, value in logged.items()} | {
            "temperature": self.log_alpha.detach().exp()
        }

    def adam(self, loss: Tensor, params: Params, rate: float) -> None:
        """Kingma & Ba 2015, algorithm 1."""
        for (name, value), grad in zip(
            params.items(),
            torch.autograd.grad(loss, list(params.values()), allow_unused=True),
            strict=True,
        ):
            grad = torch.zeros_like(value) if grad is None else grad
            count, first, second = self.moments.get(
                name, (0, torch.zeros_like(value), torch.zeros_like(value))
            )
            count, first, second = (
                count + 1,
                0.9 * first + 0.1 * grad,
                0.999 * second + 0.001 * grad**2,
            )
            self.moments[name], self.grads[name] = (count, first, second), grad
            value.data -= (
                rate * first / (1 - 0.9**count) / ((second / (1 - 0.999**count)) ** 0.5 + 1e-8)
            )


def held(agent: PEARL, row: int, steps: list[tuple[Tensor, ...]], belief: Belief) -> None:
    """The row believes what `steps` say, computed one by one in double precision."""
    expected = ByHand(agent).belief(steps)
    mean, deviation = agent.inferred(belief)
    torch.testing.assert_close(mean[row].double(), expected.loc.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        deviation[row].double(), expected.scale.detach(), rtol=1e-4, atol=1e-6
    )
