"""RL² (Duan et al. 2016, arXiv:1611.02779; Wang et al. 2016, arXiv:1611.05763): memory is belief.

A trial is K episodes of one task. The policy is recurrent: it sees (observation, previous action,
previous reward, done) and keeps its hidden state across the episodes of the trial. PPO (Schulman et
al. 2017, arXiv:1707.06347) maximizes the return of the whole trial, so that exploration in the
first episode is credited with the rewards of the later ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.agents.learning_agent import LearningAgent, expand_to_lanes
from metarl.agents.rl2.config import RL2Config
from metarl.algorithms.ppo import PPO
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
    where,
)
from metarl.nn.critic import PrivilegedCritic
from metarl.nn.memory import make_memory
from metarl.nn.policy import Policy
from metarl.options.option_policy import options_from_policy, with_options
from metarl.options.pretrained import PretrainedOptions


class RL2(LearningAgent):
    """The agent. The lane of its belief is the memory; the row is the task, if it is shown."""

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
            memory=make_memory(config, spec),
            memory_width=config.memory_width,
            encoder_sizes=config.encoder_sizes,
            hidden_sizes=config.hidden_sizes,
            activation=config.activation,
            initial_std=config.initial_std,
            obs_width=spec.obs_width,
            pair_input=config.pair_input,
            readout=config.readout,
            value_head=config.critic == "shared",
        )
        critic = None
        if config.critic == "privileged":
            critic = PrivilegedCritic(flat.flat_width, spec.task_width, config.critic_sizes)
        self.policy = with_options(flat, config, pretrained)
        self.ppo = self.learner = PPO(self.policy, config, spec, rng, device, critic)

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
        begins = belief.cue[..., -1] == 1
        acted, memory = self.ppo.act(inputs, belief.lane, begins, noise, counter, mode)
        return acted, replace(belief, lane=memory)

    @torch.no_grad()
    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """Feed recorded steps to the memory; in lanes that wait it stays as it is."""
        steps = rollout.reshape_lanes(belief.cue.shape[1])
        cues = steps.cues(self.spec)
        for obs, valid, cue in zip(steps.inputs.obs, steps.valid, cues, strict=True):
            inputs = self.ppo.normalize(self._inputs(belief, obs))
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
        return options_from_policy(self.policy, self.params, self.ppo.inputs.normalize)

    # -- meta-training

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Collect `trials` trials and improve the policy on them by PPO."""
        tasks = world.tasks(self.config.trials, rng)
        belief = self.begin(world.task_info(self, tasks), lanes=1)
        trials, belief = world.collect(self, belief, tasks, world.episodes, rng)

        learned = trials
        if self.config.objective == "pseudo-regret":
            learned = replace(trials, reward=-world.pseudo_regret(tasks, trials))
        shuffle = rng.child("minibatches").generator()
        task = world.task_rows(tasks) if self.ppo.critic is not None else None
        metrics = self.ppo.update(learned, world.progress, shuffle, task)
        returns = trials.episode_returns().mean((1, 2))
        return {
            "return": float(returns.sum()),
            "first_return": float(returns[0]),
            "last_return": float(returns[-1]),
            **metrics,
            **self.policy.usage(trials),
            **self._saturation(belief),
        }

    def _saturation(self, belief: Belief) -> dict[str, float]:
        """The share of recurrent units that are at their bounds ±1 when trials end."""
        if self.config.memory not in ("gru", "lstm"):
            return {}
        h, *_ = belief.lane
        return {"saturated": float((h.abs() > 0.99).float().mean())}
