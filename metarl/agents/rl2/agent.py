"""RL² (Duan et al. 2016, arXiv:1611.02779; Wang et al. 2016, arXiv:1611.05763): memory is belief.

A trial is K episodes of one task. The policy is recurrent: it sees (observation, previous action,
previous reward, done) and keeps its hidden state across the episodes of the trial. PPO (Schulman et
al. 2017, arXiv:1707.06347) maximizes the return of the whole trial, so that exploration in the
first episode is credited with the rewards of the later ones.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from metarl.agents.learner import Learner, expand_to_lanes, next_step, set_learning_rate
from metarl.agents.rl2.config import RL2Config
from metarl.algorithms.losses import ppo_loss, standardize
from metarl.algorithms.returns import gae
from metarl.config.schema import schedule_value
from metarl.core.agent import Mode, World
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import (
    Acted,
    Belief,
    Inputs,
    Spec,
    TaskInfo,
    first_cue,
    replace,
    tree,
    tree_map,
    where,
)
from metarl.nn.normalizer import Normalizer
from metarl.nn.policy import Policy
from metarl.options.option_policy import options_from_policy, with_options
from metarl.options.pretrained import PretrainedOptions

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

    def rows(self, chosen: Tensor) -> _Trials:
        """The trials `chosen` [n]: [T, n, M, …]."""
        return tree_map(lambda x: x.index_select(1, chosen), self)


class RL2(Learner):
    """The agent. The lane of its belief is the memory; the row is the task, if it is shown."""

    lanes = 1

    def __init__(
        self,
        config: RL2Config,
        spec: Spec,
        rng: Rng,
        device: torch.device,
        pretrained: PretrainedOptions | None = None,
    ):
        self.config = config
        self.task_input = config.task_input
        self.spec = spec
        self.device = device
        self._recurrent = config.memory != "none"  # only then does the policy see the cue
        task = spec.shown_width(config.task_input)
        flat = Policy(
            input_width=Policy.width(spec, cue=self._recurrent, task=task),
            action_width=spec.action_width,
            discrete=spec.discrete,
            memory=config.memory,
            memory_width=config.memory_width,
            encoder_sizes=config.encoder_sizes,
            hidden_sizes=config.hidden_sizes,
            activation=config.activation,
            initial_std=config.initial_std,
            obs_width=spec.obs_width,
            pair_input=config.pair_input,
            readout=config.readout,
        )
        self.policy = with_options(flat, config, pretrained)
        self._set_params(self.policy.init(rng.child("weights").generator()))
        self.obs_normalizer = Normalizer.initial(spec.obs_width, device)
        self.reward_normalizer = Normalizer.initial(1, device)
        self.value_normalizer = Normalizer.initial(0, device)
        """Of value targets: a column for each step of the trial, as the return to come shrinks; or
        one for all steps, if the policy has no memory to tell them apart."""

    # -- a trial on a task

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """An empty memory."""
        return Belief(
            cue=first_cue(self.spec, info.rows, lanes, info.device),
            row=info.shown,
            lane=self.policy.start(info.rows, lanes, info.device),
        )

    def act(
        self,
        belief: Belief,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, Belief]:
        """Feed the last step's outcome and obs [N, M, O] to the memory, and choose an action."""
        inputs = self._inputs(belief, obs)
        scaled = self._normalize_inputs(inputs)
        begins = belief.cue[..., -1] == 1
        acted, memory = self.policy.act(
            self.params,
            scaled,
            belief.lane,
            begins,
            noise,
            counter,
            mode,
        )
        inputs = replace(inputs, option=acted.inputs.option)
        return replace(acted, inputs=inputs), replace(belief, lane=memory)

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Nothing to do: the memory has seen every step, and the cue holds the last outcome."""
        return belief

    @torch.no_grad()
    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """Feed recorded steps to the memory; in lanes that wait it stays as it is."""
        steps = rollout.reshape_lanes(belief.cue.shape[1])
        cues = steps.cues(self.spec)
        for obs, valid, cue in zip(steps.inputs.obs, steps.valid, cues, strict=True):
            inputs = self._normalize_inputs(self._inputs(belief, obs))
            _, memory = self.policy.attend(self.params, inputs, belief.lane)
            memory = where(valid, memory, belief.lane)
            belief = replace(belief, lane=memory, cue=where(valid, cue, belief.cue))
        return belief

    def _inputs(self, belief: Belief, obs: Tensor) -> Inputs:
        """What the policy sees on obs [N, M, O], not normalized."""
        inputs = Inputs(obs, task=expand_to_lanes(belief.row, obs))
        if self._recurrent:
            inputs = replace(inputs, cue=belief.cue)
        return inputs

    def as_options(self) -> PretrainedOptions | None:
        """Its options, or its flat policy as one; None if it needs more than the observation."""
        return options_from_policy(self.policy, self.params, self._normalize_inputs)

    # -- meta-training

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Collect `trials` trials and improve the policy on them by PPO."""
        tasks = world.tasks(self.config.trials, rng)
        belief = self.begin(world.task_info(self, tasks), lanes=1)
        trials, _ = world.collect(self, belief, tasks, world.episodes, rng)

        metrics = self._ppo(trials, world.progress, rng.child("minibatches").generator())
        self._update_normalizers(trials)

        returns = trials.episode_returns().mean((1, 2))
        return {
            "return": float(returns.sum()),
            "first_return": float(returns[0]),
            "last_return": float(returns[-1]),
            **metrics,
            **self.policy.usage(trials),
        }

    def _ppo(
        self, trials: Rollout, progress: float, generator: torch.Generator
    ) -> dict[str, float]:
        """Several passes over minibatches of whole trials (PPO, Algorithm 1) → mean metrics."""
        config = self.config
        batch = self._prepare_batch(trials, schedule_value(config.gae_lambda, progress))
        set_learning_rate(self._optimizer, schedule_value(config.learning_rate, progress))
        entropy_coef = {
            "action": schedule_value(config.entropy_coef, progress),
            "option": schedule_value(config.option_entropy_coef, progress),
        }

        count = len(trials.index)
        metrics = defaultdict(list)
        for _ in range(config.epochs):
            order = torch.randperm(count, generator=generator).to(self.device)
            for rows in order.tensor_split(min(config.minibatches, count)):
                for name, value in self._update(batch.rows(rows), entropy_coef).items():
                    metrics[name].append(value)
        return {name: float(torch.stack(values).mean()) for name, values in metrics.items()}

    def _prepare_batch(self, trials: Rollout, gae_lambda: float) -> _Trials:
        """Advantages over whole trials: credit flows from an episode to those before it."""
        reward = trials.reward * trials.valid
        ends = ~next_step(trials.valid)  # of the trial, not of an episode
        steps = len(trials.valid) if self._recurrent else 1
        statistics = self.value_normalizer.columns(steps)

        # GAE (arXiv:1506.02438, equation 16); the value target is Â + V
        levels: dict[str, _Level] = {}
        for name, process in self.policy.decision_processes(trials).items():
            value = process.extras["value"].movedim(0, -1)  # [N, M, T]: a column for each step
            value = statistics.denormalize(value).movedim(-1, 0) * trials.valid
            advantage = gae(
                reward,
                value,
                next_step(value),
                ends,
                self.config.gamma,
                gae_lambda,
            )
            advantage = advantage * trials.valid
            levels[name] = _Level(
                process.action,
                process.log_prob,
                standardize(advantage, process.valid),
                advantage + value,
                process.valid,
            )

        statistics = self._update_value_normalizer(statistics, levels, trials.valid)
        for name, level in levels.items():
            target = statistics.normalize(level.value_target.movedim(0, -1)).movedim(-1, 0)
            levels[name] = replace(level, value_target=target)
        return _Trials(self._normalize_inputs(trials.inputs), levels)

    def _update(self, batch: _Trials, entropy_coef: dict[str, float]) -> dict[str, Tensor]:
        """One gradient step on whole trials, their memory recomputed from the start."""
        rows, lanes = batch.inputs.obs.shape[1:3]
        start = self.policy.start(rows, lanes, self.device)
        decision = self.policy.unroll(self.params, batch.inputs, start)

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
                clip_range=self.config.clip_range,
                value_coef=self.config.value_coef,
                entropy_coef=entropy_coef[name],
            )
            total = total + loss
            prefix = "" if name == "action" else f"{name}_"
            for key, value in parts.items():
                metrics[prefix + key] = value

        self._optimizer.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.params.values(), self.config.max_grad_norm)
        self._optimizer.step()
        return metrics | {"grad_norm": norm}

    # -- normalization

    def _normalize_inputs(self, inputs: Inputs) -> Inputs:
        """The policy's inputs, by statistics that change only between iterations."""
        if self.config.normalize_obs:
            inputs = replace(inputs, obs=self.obs_normalizer.normalize(inputs.obs))
        if self.config.normalize_reward and inputs.cue is not None:
            action, reward, done = inputs.cue.split([self.spec.action_width, 1, 1], dim=-1)
            reward = reward / self.reward_normalizer.scale
            inputs = replace(inputs, cue=torch.cat([action, reward, done], dim=-1))
        return inputs

    def _update_normalizers(self, trials: Rollout) -> None:
        valid = trials.valid.unsqueeze(-1)
        if self.config.normalize_obs:
            self.obs_normalizer = self.obs_normalizer.update(trials.inputs.obs, valid)
        if self.config.normalize_reward:
            reward = trials.reward.unsqueeze(-1)
            self.reward_normalizer = self.reward_normalizer.update(reward, valid)

    def _update_value_normalizer(
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
        self.value_normalizer = tree_map(
            lambda new, old: torch.cat([new, old[steps:]]), statistics, self.value_normalizer
        )
        return statistics

    # -- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Parameters, optimizer and running statistics."""
        moments = {
            "obs": self.obs_normalizer.state_dict(),
            "reward": self.reward_normalizer.state_dict(),
            "target": self.value_normalizer.state_dict(),
        }
        return super().state_dict() | {"moments": moments}

    def warm_start(self, state: dict[str, Any]) -> None:
        """Parameters and running statistics of another run; a fresh optimizer.

        Raises:
            ConfigError: parameters of another architecture.
        """
        super().warm_start(state)
        moments = state["moments"]
        self.obs_normalizer = Normalizer.from_state_dict(moments["obs"], self.device)
        self.reward_normalizer = Normalizer.from_state_dict(moments["reward"], self.device)
        self.value_normalizer = Normalizer.from_state_dict(moments["target"], self.device)
