"""MAML with policy gradients (Finn et al. 2017, arXiv:1703.03400): adapted parameters are the belief.

Every task has its own copy of the policy. It lives through a few episodes, takes a policy-gradient step on them, and
lives through new ones; meta-training moves the common beginning θ so that the policies *after* the step do well, through
the step's derivative: by a trust region (TRPO, Schulman et al. 2015), by clipped ratios (ProMP), or, without derivative,
towards the adapted parameters (Reptile).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarl.agents.maml.config import MAMLConfig
from metarl.algorithms.inner_loop import (
    STEP_SIZE,
    Chain,
    Episodes,
    InnerLoss,
    clipped_ratio,
    likelihood_ratio,
    log_likelihood,
)
from metarl.algorithms.losses import standardize
from metarl.algorithms.returns import discounted_returns, gae, linear_baseline
from metarl.algorithms.second_order import Linearization, gradients, leaves, linearize, products
from metarl.algorithms.trust_region import trust_region_step
from metarl.config.schema import schedule_value
from metarl.core.agent import Mode, World
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import (
    Acted,
    Belief,
    Inputs,
    Params,
    Spec,
    TaskInfo,
    first_cue,
    replace,
    tree,
    tree_map,
    where,
)
from metarl.nn.distributions import from_heads
from metarl.nn.policy import Policy, check_shapes
from metarl.options.option_policy import options_from_policy, with_options
from metarl.options.pretrained import PretrainedOptions

_INNER_LOSSES = {"log_likelihood": log_likelihood, "likelihood_ratio": likelihood_ratio}


@tree
class Adapted:
    """What is believed of a task: the policy that came of it so far."""

    params: Params  # [N, …]
    steps: Tensor  # [N] int64: inner steps taken
    shown: Tensor | None = None  # [N, P] the task, where it is shown


@dataclass(frozen=True)
class _Query:
    """What the adapted policies of N tasks lived through, and how these policies stood."""

    episodes: Episodes
    policy: Linearization
    before: list[Params]  # heads of the policies before each step
    credit: Tensor  # [N] return after adaptation, standardised over tasks
    steps: Tensor  # [N] taken so far

    def divergence(self, heads: Params) -> Tensor:
        """[]: KL(now ‖ then), mean over each task's steps and over tasks."""
        return self.episodes.mean(from_heads(heads).kl(from_heads(self.policy.heads))).mean()


class MAML:
    """The agent; its belief's row is each task's adapted parameters, its lane the policy's memory, if it has one."""

    def __init__(
        self,
        config: MAMLConfig,
        spec: Spec,
        rng: Rng,
        device: torch.device,
        skills: PretrainedOptions | None = None,
    ) -> None:
        self.config = config
        self.task_input = config.task_input
        self.lanes = config.episodes_per_task
        self.spec = spec
        self.device = device
        flat = Policy(
            input_width=Policy.width(
                spec, cue=config.memory != "none", task=spec.shown_width(config.task_input)
            ),
            action_width=spec.action_width,
            discrete=spec.discrete,
            memory=config.memory,
            memory_width=config.memory_width,
            hidden_sizes=config.hidden_sizes,
            activation=config.activation,
            initial_std=config.initial_std,
            value_head=False,
            obs_width=spec.obs_width,
        )
        self.policy = with_options(flat, config, skills)
        params = self.policy.init(rng.child("weights").generator())
        master = self.policy.master_parameters(params)
        self._moved = set(params) if config.adapted == "all" else master
        fixed = set() if config.learn_master else master
        if config.learn_step_sizes:
            params |= {
                STEP_SIZE + name: torch.full_like(params[name], config.step_sizes[0])
                for name in params
                if name in self._moved
            }
        self._learned = [name for name in params if name not in fixed]
        self._set_params(params)

    # -- meeting a task

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """θ for every task."""
        return Belief(
            cue=first_cue(self.spec, info.rows, lanes, info.device),
            row=Adapted(
                params={
                    name: value.clone().expand(info.rows, *value.shape)
                    for name, value in self._policy_params.items()
                },
                steps=torch.zeros(info.rows, dtype=torch.long, device=info.device),
                shown=info.shown,
            ),
            lane=self.policy.start(info.rows, lanes, info.device),
        )

    def act(
        self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: Mode
    ) -> tuple[Acted, Belief]:
        """Decide by each task's own policy; its memory begins anew with every episode."""
        row: Adapted = belief.row
        inputs, memory, begins = (
            self._inputs(row, obs, belief.cue),
            belief.lane,
            belief.cue[..., -1] == 1,
        )
        if memory:
            rows, lanes = begins.shape
            memory = where(begins, self.policy.start(rows, lanes, self.device), memory)
        acted, memory = self.policy.act(row.params, inputs, memory, begins, noise, counter, mode)
        return acted, replace(belief, lane=memory)

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """One policy-gradient step of every task on its own episodes."""
        return self._stepped(self._chain(belief.row, log_likelihood), belief, rollout)[1]

    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """One step on episodes that were recorded elsewhere; unbiased where this policy recorded them."""
        rows, lanes = rollout.valid.shape[1:]
        first = first_cue(self.spec, rows, lanes, self.device).unsqueeze(0)
        inputs = self._inputs(
            belief.row, rollout.inputs.obs, torch.cat([first, rollout.cues(self.spec)[:-1]])
        )
        return self.adapt(belief, replace(rollout, inputs=inputs))

    def _inputs(self, row: Adapted, obs: Tensor, cue: Tensor) -> Inputs:
        """What the policy sees on obs [..., N, M, O]: a cue only where it has a memory, and none of an earlier episode."""
        shown = None if row.shown is None else row.shown.unsqueeze(1).expand(*obs.shape[:-1], -1)
        if self.config.memory == "none":
            return Inputs(obs, task=shown)
        begins = cue[..., -1:]
        return Inputs(
            obs, cue=torch.cat([cue[..., :-1] * (1 - begins), begins], dim=-1), task=shown
        )

    def skills(self) -> PretrainedOptions | None:
        """What it does, as options for other agents."""
        return options_from_policy(self.policy, self._policy_params, lambda inputs: inputs)

    # -- meta-training

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Let every task adapt, see how its policy does after, and improve θ by it."""
        tasks = world.tasks(self.config.tasks, rng)
        belief = self.begin(world.task_info(self, tasks), self.lanes)
        chain, rollouts = self._chain(belief.row, _INNER_LOSSES[self.config.inner_loss]), []
        for k in range(self.config.inner_steps):
            rollout, belief = world.collect(self, belief, tasks, 1, rng.child("before", k))
            chain, belief = self._stepped(chain, belief, rollout)
            rollouts.append(rollout)
        after, belief = world.collect(self, belief, tasks, 1, rng.child("after"))
        update = {
            "trpo": self._trust_region,
            "ppo": self._proximal,
            "reptile": self._towards_adapted,
        }
        metrics = update[self.config.outer](
            chain, self._query(chain, after, belief.row.steps), world.progress
        )
        returns = [float(rollout.episode_returns().mean()) for rollout in (*rollouts, after)]
        return {
            "return": returns[-1],
            "first_return": returns[0],
            "last_return": returns[-1],
            **metrics,
            **self.policy.usage(after),
        }

    def _query(self, chain: Chain, after: Rollout, steps: Tensor) -> _Query:
        """What the adapted policies lived through."""
        returns, episodes = after.episode_returns().mean((0, 2)), self._episodes(after)
        policy = linearize(self.policy, chain.params, episodes.inputs)
        credit = standardize(returns, torch.ones_like(returns))
        return _Query(episodes, policy, [step.policy.heads for step in chain.steps], credit, steps)

    def _chain(self, row: Adapted, inner_loss: InnerLoss) -> Chain:
        """No step yet, from where these tasks are; what inner steps do not move has a step size of 0."""
        size = self.config.step_sizes[0]
        sizes = {
            name: self.params.get(
                STEP_SIZE + name, torch.full_like(value, size if name in self._moved else 0.0)
            )
            for name, value in self._policy_params.items()
        }
        return Chain(self.policy, inner_loss, sizes, row.params, self.config.first_order)

    def _stepped(self, chain: Chain, belief: Belief, rollout: Rollout) -> tuple[Chain, Belief]:
        """One step on what was lived through; the k-th has a step size of its own."""
        row: Adapted = belief.row
        chain = chain.step(self._episodes(rollout), self._factor(row.steps))
        return chain, replace(belief, row=replace(row, params=chain.params, steps=row.steps + 1))

    def _factor(self, steps: Tensor) -> Tensor:
        """[N]: of the step sizes, for tasks that took so many steps [N] before."""
        sizes = torch.tensor(self.config.step_sizes, device=self.device)
        return (sizes / sizes[0])[steps.clamp(max=len(sizes) - 1)]

    def _episodes(self, rollout: Rollout) -> Episodes:
        """Advantages by a baseline that is fitted to these episodes, standardised: every task for itself.

        Nothing follows the end of an episode: what the horizon cuts off does not count.
        """
        alone = rollout.one_episode_per_lane()
        time = (
            torch.arange(len(alone.reward), device=self.device)
            .view(-1, 1, 1)
            .expand_as(alone.reward)
        )
        returns = discounted_returns(alone.reward, alone.done, self.config.gamma)
        value = linear_baseline(alone.inputs.obs, time, returns, alone.valid)
        next_value = torch.cat([value[1:], torch.zeros_like(value[:1])]) * ~alone.done
        advantage = gae(
            alone.reward, value, next_value, alone.done, self.config.gamma, self.config.gae_lambda
        )
        return Episodes(
            alone.inputs,
            self.policy.sampled_actions(alone),
            alone.log_prob,
            standardize(advantage, alone.valid, (0, 2)),
            alone.valid,
        )

    # -- outer steps: chain and query at the present θ → the next one

    def _trust_region(self, chain: Chain, query: _Query, progress: float) -> dict[str, float]:
        """TRPO on the adapted policies.

        At the present θ their divergence has no gradient, so that its Hessian is mean Jᵢᵀ Fᵢ Jᵢ: through the steps, the
        Fisher matrix of each adapted policy, and back.
        """
        config, heads = self.config, leaves(query.policy.heads)
        still = tree_map(torch.zeros_like, self.params)
        with torch.enable_grad():
            slope = gradients(query.divergence(heads), heads, again=True)

        def product(v: Tensor) -> Tensor:
            moved = query.policy.jvp(chain.jvp(self._named(v, still)))
            return self._vector(chain.vjp(query.policy.vjp(products(slope, heads, moved))))

        def evaluate(theta: Tensor) -> tuple[float, float]:
            there = chain.again(self._named(theta, self.params))
            now = linearize(self.policy, there.params, query.episodes.inputs)
            return float(self._loss(there, _heads(there, now), query)), float(
                query.divergence(now.heads)
            )

        loss, gradient = self._gradient(chain, query.policy, query)
        theta, metrics = trust_region_step(
            self._vector(self.params),
            loss,
            self._vector(gradient),
            product,
            evaluate,
            max_kl=schedule_value(config.max_kl, progress),
            damping=config.damping,
            iterations=config.cg_iterations,
            tries=config.line_search_steps,
        )
        self._copy_into_params(self._named(theta, self.params))
        return metrics

    def _proximal(self, chain: Chain, query: _Query, progress: float) -> dict[str, float]:
        """ProMP: Adam on clipped ratios, near the policies that lived through the episodes before each step."""
        there, policy = chain, query.policy
        for group in self._optimizer.param_groups:
            group["lr"] = schedule_value(self.config.learning_rate, progress)
        for _ in range(self.config.epochs):
            _, gradient = self._gradient(there, policy, query)
            for name in self._learned:
                self.params[name].grad = gradient[name]
            self._optimizer.step()
            there = chain.again(self.params)
            policy = linearize(self.policy, there.params, query.episodes.inputs)
        return {"kl": float(query.divergence(policy.heads))}

    def _towards_adapted(self, chain: Chain, query: _Query, progress: float) -> dict[str, float]:
        """Reptile: a part of the way to where one more step, on the query, would lead the tasks."""
        adapted = chain.step(query.episodes, self._factor(query.steps)).params
        share = schedule_value(self.config.outer_step_size, progress)
        names = [name for name in self._learned if name in adapted]
        self._copy_into_params(
            {name: torch.lerp(self.params[name], adapted[name].mean(0), share) for name in names}
        )
        return {}

    def _gradient(self, chain: Chain, policy: Linearization, query: _Query) -> tuple[float, Params]:
        """The outer loss and its gradient with respect to θ, `policy` being the chain's adapted one on the query."""
        heads = [leaves(part) for part in _heads(chain, policy)]
        flat = {
            f"{i} {name}": value for i, part in enumerate(heads) for name, value in part.items()
        }
        with torch.enable_grad():
            loss = self._loss(chain, heads, query)
            found = gradients(loss, flat)
        *before, after = (
            {name: found[f"{i} {name}"] for name in part} for i, part in enumerate(heads)
        )
        return float(loss.detach()), chain.vjp(policy.vjp(after), along=before)

    def _loss(self, chain: Chain, heads: Sequence[Params], query: _Query) -> Tensor:
        """[]: what the outer step descends on, from the heads of the policies before each step and after the last.

        The policies after are to do well; where exploration gets credit, an action before a step is as good as the return
        after it (Stadie et al. 2018, equation 4); ProMP keeps the policies before the steps near the old ones.
        """
        *before, after = map(from_heads, heads)
        if self.config.outer == "ppo":
            loss = clipped_ratio(query.episodes, after, self.config.clip_range).mean()
            for step, now, old in zip(chain.steps, before, query.before, strict=True):
                loss = (
                    loss
                    + self.config.kl_coef
                    / len(before)
                    * step.episodes.mean(from_heads(old).kl(now)).mean()
                )
        else:
            loss = likelihood_ratio(query.episodes, after).mean()
        if self.config.exploration_credit:
            for step, now in zip(chain.steps, before, strict=True):
                credit = query.credit.view(1, -1, 1).expand_as(step.episodes.advantage)
                exploring = likelihood_ratio(replace(step.episodes, advantage=credit), now).mean()
                loss = loss + self.config.exploration_credit * exploring
        return loss

    # -- θ as names and as one vector

    @property
    def _policy_params(self) -> Params:
        """θ without the step sizes."""
        return {
            name: value for name, value in self.params.items() if not name.startswith(STEP_SIZE)
        }

    def _vector(self, params: Params) -> Tensor:
        """[D]: those of them that are learned, in θ's order."""
        return torch.cat([params[name].flatten() for name in self._learned])

    def _named(self, vector: Tensor, others: Params) -> Params:
        """θ with what is learned from the vector [D], the rest from `others`."""
        own = {name: self.params[name] for name in self._learned}
        parts = vector.split([value.numel() for value in own.values()])
        return others | {
            name: part.view_as(value)
            for (name, value), part in zip(own.items(), parts, strict=True)
        }

    # -- keeping

    def _copy_into_params(self, params: Params) -> None:
        """Take over parameters in place: the optimiser's moments stay theirs."""
        for name, value in params.items():
            self.params[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Parameters and optimiser."""
        return {
            "params": {name: value.clone() for name, value in self.params.items()},
            "optimiser": copy.deepcopy(self._optimizer.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.warm_start(state)
        self._optimizer.load_state_dict(copy.deepcopy(state["optimiser"]))

    def warm_start(self, state: dict[str, Any]) -> None:
        """Parameters of another run; a fresh optimiser.

        Raises:
            ConfigError: parameters of another architecture.
        """
        check_shapes(self.params, state.get("params", {}))
        self._set_params({name: value.clone() for name, value in state["params"].items()})

    def _set_params(self, params: Params) -> None:
        self.params = {name: value.to(self.device) for name, value in params.items()}
        self._optimizer = torch.optim.Adam(self.params.values(), lr=1.0, eps=1e-5)


def _heads(chain: Chain, policy: Linearization) -> list[Params]:
    """Of the policies before each step, then of the adapted one."""
    return [*(step.policy.heads for step in chain.steps), policy.heads]
