"""Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347) on trials.

An agent acts by the policy, collects trials, and hands them to `update`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from metarl.algorithms.config import PPOConfig
from metarl.algorithms.gradients import GradientShards, Shard, gradients_of
from metarl.algorithms.losses import ppo_loss, standardize
from metarl.algorithms.policy_learner import PolicyLearner
from metarl.algorithms.returns import discounted_returns, gae, next_step
from metarl.collect.pool import Worker
from metarl.config.schema import schedule_value
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, Spec, replace, tree, tree_map
from metarl.nn.critic import PrivilegedCritic
from metarl.nn.decision import Decision
from metarl.nn.mlp import named, part
from metarl.nn.normalizer import Normalizer
from metarl.nn.policy import Policy
from metarl.options.option_policy import AnyPolicy, Hierarchy

_TARGET_WINDOW = 10.0  # statistics of the value targets remember about so many iterations


@tree
class _Level:
    """A decision process as PPO sees it: a flat policy acts in one, options are another.

    See `decision_processes` of the policy.
    """

    action: Tensor  # [T, N, M] or [T, N, M, A]
    log_prob: Tensor  # [T, N, M] of the policy that acted
    advantage: Tensor  # [T, N, M], standardized over the iteration
    value_target: Tensor  # [T, N, M], normalized by running statistics
    valid: Tensor  # [T, N, M] bool: an action was chosen at this step


@tree
class _Trials:
    """N whole trials."""

    inputs: Inputs  # [T, N, M, …]
    levels: dict[str, _Level]
    task: Tensor | None  # [1, N, P] normalized rows, for a privileged critic

    def rows(self, chosen: Tensor) -> _Trials:
        """The trials `chosen` [n]: [T, n, M, …]."""
        return tree_map(lambda x: x.index_select(1, chosen), self)


@dataclass(frozen=True)
class _TrialsJob:
    """The gradient of the loss on some trials of a minibatch."""

    steps_envs: ClassVar[bool] = False
    batch: _Trials
    entropy_coef: dict[str, float]
    counts: dict[str, Tensor]

    def run(self, agent: HasPPO, worker: Worker) -> Shard:
        """It, by the agent's engine."""
        ppo = agent.learner
        loss, metrics = ppo.loss(self.batch, self.entropy_coef, self.counts)
        return Shard(gradients_of(loss, ppo.params), metrics)


class HasPPO(Protocol):
    """An agent whose policy this engine improves."""

    learner: PPO


class PPO(PolicyLearner):
    """A policy with a value head, and what PPO needs to improve it."""

    def __init__(
        self,
        policy: AnyPolicy,
        config: PPOConfig,
        spec: Spec,
        rng: Rng,
        device: torch.device,
        critic: PrivilegedCritic | None = None,
    ):
        """`critic` takes the place of the policy's value head."""
        self.config = config
        self.critic = critic
        params = policy.init(rng.child("weights").generator())
        if critic is not None:
            params |= named(critic.init(rng.child("critic").generator()), "critic")
        super().__init__(policy, params, config, spec, device)
        self.values = Normalizer.initial(0, device)
        """Of value targets: a column for each step of the trial, as the return to come shrinks; or
        one for all steps, if the policy has no memory to tell them apart."""
        self.tasks = Normalizer.initial(spec.task_width if critic else 0, device)
        """Of the task rows, for the critic."""

    def update(
        self,
        trials: Rollout,
        progress: float,
        generator: torch.Generator,
        task: Tensor | None = None,
        reward: Tensor | None = None,
        shards: GradientShards | None = None,
    ) -> dict[str, float]:
        """Several passes over minibatches of whole trials (Algorithm 1) → mean metrics.

        Args:
            trials: [T, N, M, …] rollouts of the present policy, from the start of their trials.
            progress: the share of training that is over, for schedules.
            generator: shuffles the trials.
            task: [N, P] rows of the trials, for a privileged critic.
            reward: [T, N, M] whose returns are to grow, in place of the rewards that were seen.
            shards: who computes the gradients; None: this process, a minibatch at once.
        """
        config = self.config
        learned = trials if reward is None else replace(trials, reward=reward)
        if self.critic is not None:
            learned, task = self._with_values(learned, task)
        batch = self._prepare_batch(learned, schedule_value(config.gae_lambda, progress), task)
        learning_rate = schedule_value(config.learning_rate, progress)
        entropy_coef = {
            "action": schedule_value(config.entropy_coef, progress),
            "option": schedule_value(config.option_entropy_coef, progress),
        }

        count = len(trials.index)
        metrics = defaultdict(list)
        for _ in range(config.epochs):
            order = torch.randperm(count, generator=generator).to(self.device)
            for rows in order.tensor_split(min(config.minibatches, count)):
                step = self._step(batch.rows(rows), learning_rate, entropy_coef, shards)
                for name, value in step.items():
                    metrics[name].append(value)
        self.inputs.update(trials)
        return {name: float(torch.stack(values).mean()) for name, values in metrics.items()}

    def _with_values(self, trials: Rollout, task: Tensor | None) -> tuple[Rollout, Tensor]:
        """The trials with the critic's values, which acting has not, and the rows it reads."""
        assert task is not None, "a privileged critic is given the task rows"
        self.tasks = self.tasks.update(task, torch.ones_like(task))
        task = self.tasks.normalize(task).unsqueeze(0)
        with torch.no_grad():
            decision = self._decide(self.normalize(trials.inputs), task)
        value = decision.levels["action"].value
        return replace(trials, extras=trials.extras | {"value": value}), task

    def _decide(self, inputs: Inputs, task: Tensor | None) -> Decision | Hierarchy:
        """What the policy, and the critic, say of whole trials [T, N, M, …] from their start."""
        rows, lanes = inputs.obs.shape[1:3]
        start = self.policy.start(rows, lanes, self.device)
        if self.critic is None or task is None:
            return self.policy.unroll(self.params, inputs, start)
        assert isinstance(self.policy, Policy)
        inputs = self.policy.encode_images(self.params, inputs)
        features = self.policy.recall(self.params, inputs, start)
        decision = self.policy.decide(self.params, features, inputs.obs)
        value = self.critic(part(self.params, "critic"), features.flatten(3), task)
        return replace(decision, estimate=value)

    def _prepare_batch(
        self, trials: Rollout, gae_lambda: float, task: Tensor | None = None
    ) -> _Trials:
        """The inputs as the policy sees them; advantages and value targets of every level."""
        reward = trials.reward * trials.valid
        steps = len(trials.valid) if self._remembers(trials) else 1
        statistics = self.values.columns(steps)
        ends, bootstrap = self._ends(trials, statistics)
        baseline = statistics
        if self._remembers(trials):
            baseline = self._baseline(statistics, reward, ends, trials.valid)

        # GAE (arXiv:1506.02438, equation 16); the value target is Â + V
        levels: dict[str, _Level] = {}
        for name, process in self.policy.decision_processes(trials).items():
            value = process.extras["value"].movedim(0, -1)  # [N, M, T]: a column for each step
            value = baseline.denormalize(value).movedim(-1, 0) * trials.valid
            advantage = gae(
                reward,
                value,
                torch.where(ends, bootstrap, next_step(value)),
                ends,
                self.config.gamma,
                gae_lambda,
            )
            advantage = advantage * trials.valid
            target = advantage + value
            levels[name] = _Level(
                process.action,
                process.log_prob,
                standardize(advantage, process.valid, summands=target),
                target,
                process.valid,
            )

        statistics = self._update_values(statistics, levels, trials.valid)
        for name, level in levels.items():
            target = statistics.normalize(level.value_target.movedim(0, -1)).movedim(-1, 0)
            levels[name] = replace(level, value_target=target)
        return _Trials(self.normalize(trials.inputs), levels, task)

    def _baseline(
        self, statistics: Normalizer, reward: Tensor, ends: Tensor, valid: Tensor
    ) -> Normalizer:
        """What the first values are of: for steps of the trial that are new, of their returns.

        A value of 0 would make an advantage of what all trials have in common.
        """
        new = statistics.count == 0
        if not new.any():
            return statistics
        returns = discounted_returns(reward, ends, self.config.gamma)
        first = statistics.update(returns.movedim(0, -1), valid.movedim(0, -1))
        return tree_map(lambda x, old: torch.where(new, x, old), first, statistics)

    def _ends(self, trials: Rollout, statistics: Normalizer) -> tuple[Tensor, Tensor]:
        """[T, N, M] each: where credit ends, and the value of what would have followed there.

        At the end of the trial, and nothing follows: credit flows from an episode to those before
        it. If the policy sees nothing that outlasts an episode, each is an MDP of its own: credit
        ends with it, and at a time limit the true successor follows (Pardo et al. 2018,
        arXiv:1712.00378).
        """
        ends = ~next_step(trials.valid)
        bootstrap = torch.zeros_like(trials.reward)
        if self._remembers(trials):
            return ends, bootstrap
        limit = trials.truncated & ~trials.terminated & trials.valid
        successors = self.normalize(replace(trials.inputs, obs=trials.next_obs))
        with torch.no_grad():
            value = self.policy.successor_values(self.params, successors, limit)
        bootstrap[limit] = statistics.denormalize(value)
        return ends | trials.done, bootstrap

    def _remembers(self, trials: Rollout) -> bool:
        """Whether the policy knows of earlier episodes: by its memory, a cue, or a belief."""
        inputs = trials.inputs
        return self.policy.recurrent or inputs.cue is not None or inputs.latent is not None

    def _update_values(
        self, statistics: Normalizer, levels: dict[str, _Level], valid: Tensor
    ) -> Normalizer:
        """`statistics` of the first steps with the value targets [T, N, M] of all levels.

        The steps after those of this iteration keep theirs.
        """
        steps = len(statistics.mean)
        target = torch.stack([level.value_target for level in levels.values()]).movedim(1, -1)
        valid = valid.movedim(0, -1).expand_as(target)
        statistics = statistics.update(
            target.reshape(-1, steps), valid.reshape(-1, steps), _TARGET_WINDOW
        )
        self.values = tree_map(
            lambda new, old: torch.cat([new, old[steps:]]), statistics, self.values
        )
        return statistics

    def _step(
        self,
        batch: _Trials,
        learning_rate: float,
        entropy_coef: dict[str, float],
        shards: GradientShards | None = None,
    ) -> dict[str, Tensor]:
        """One gradient step on whole trials."""
        most = self.config.max_grad_norm
        if shards is None:
            loss, metrics = self.loss(batch, entropy_coef)
            norm = self.descend(loss, learning_rate, most)
            return metrics | {"grad_norm": norm}
        counts = {name: level.valid.sum() for name, level in batch.levels.items()}
        jobs = []
        trials = torch.arange(batch.inputs.obs.shape[1], device=self.device)
        for rows in shards.slices(len(trials)):
            jobs.append(_TrialsJob(batch.rows(trials[rows]), entropy_coef, counts))
        whole = shards.sum(jobs)
        norm = self.descend_along(whole.gradients, learning_rate, most)
        return whole.metrics | {"grad_norm": norm}

    def loss(
        self,
        batch: _Trials,
        entropy_coef: dict[str, float],
        counts: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss [] on whole trials, their memory recomputed from the start; and metrics [].

        Args:
            counts: valid steps [] of every level of the minibatch, if `batch` is a shard of it.
        """
        decision = self._decide(batch.inputs, batch.task)
        total = torch.zeros((), device=self.device)
        metrics: dict[str, Tensor] = {}
        for name, level in batch.levels.items():
            loss, parts = ppo_loss(
                decision.levels[name],
                level.action,
                level.log_prob,
                level.advantage,
                level.value_target,
                level.valid,
                count=counts[name] if counts else None,
                clip_range=self.config.clip_range,
                value_coef=self.config.value_coef,
                entropy_coef=entropy_coef[name],
            )
            total = total + loss
            prefix = "" if name == "action" else f"{name}_"
            for key, value in parts.items():
                metrics[prefix + key] = value
        return total, metrics

    # -- checkpoints

    def moments(self) -> dict[str, Any]:
        """Statistics of inputs and values, and of the rows that a privileged critic reads."""
        moments = super().moments() | {"target": self.values.state_dict()}
        if self.critic is not None:
            moments["task"] = self.tasks.state_dict()
        return moments

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take over an acting state; a fresh optimizer.

        That of a policy that has learned by imitation has no statistics of values yet.

        Raises:
            ConfigError: parameters of another architecture.
        """
        moments = state.get("moments")
        if isinstance(moments, dict) and moments.keys() == super().moments().keys():
            state = {**state, "moments": {**self.moments(), **moments}}
        super().warm_start(state)
        self.values = Normalizer.from_state_dict(state["moments"]["target"], self.device)
        if self.critic is not None:
            self.tasks = Normalizer.from_state_dict(state["moments"]["task"], self.device)
