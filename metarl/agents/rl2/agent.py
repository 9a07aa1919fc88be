"""RL² (Duan et al. 2016, arXiv:1611.02779; Wang et al. 2016, arXiv:1611.05763): memory is belief.

A trial is K episodes of one task. The policy is recurrent: it sees (observation, previous action,
previous reward, done) and keeps its hidden state across the episodes of the trial. PPO (Schulman et
al. 2017, arXiv:1707.06347) maximizes the return of the whole trial, so that exploration in the
first episode is credited with the rewards of the later ones.
"""

from __future__ import annotations

import torch

from metarl.agents.memory_agent import MemoryAgent, make_policy
from metarl.agents.rl2.config import RL2Config
from metarl.algorithms.gradients import gradient_shards
from metarl.algorithms.ppo import PPO
from metarl.core.agent import RevealsTasks, World
from metarl.core.errors import ConfigError
from metarl.core.rng import Rng
from metarl.core.types import Belief, Spec
from metarl.nn.critic import PrivilegedCritic
from metarl.options.option_policy import options_from_policy, with_options
from metarl.options.pretrained import PretrainedOptions


class RL2(MemoryAgent):
    """The agent."""

    def __init__(
        self,
        config: RL2Config,
        spec: Spec,
        rng: Rng,
        device: torch.device,
        pretrained: PretrainedOptions | None = None,
    ):
        super().__init__(config, spec, device)
        self.config = config
        flat = make_policy(config, spec, value_head=config.critic == "shared")
        critic = None
        if config.critic == "privileged":
            critic = PrivilegedCritic(flat.flat_width, spec.task_width, config.critic_sizes)
        self.policy = with_options(flat, config, pretrained)
        self.ppo = self.learner = PPO(self.policy, config, spec, rng, device, critic)

    def as_options(self) -> PretrainedOptions | None:
        """Its options, or its flat policy as one; None if it needs more than the observation."""
        return options_from_policy(self.policy, self.params, self.ppo.inputs.normalize)

    # -- meta-training

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Collect `trials` trials and improve the policy on them by PPO."""
        tasks = world.tasks(self.config.trials, rng)
        belief = self.begin(world.task_info(self, tasks), lanes=1)
        trials, belief = world.collect(self, belief, tasks, world.episodes, rng)

        reward, task = None, None
        if self.config.objective == "pseudo-regret":
            reward = -_revealing(world).pseudo_regret(tasks, trials)
        if self.ppo.critic is not None:
            task = _revealing(world).task_rows(tasks)
        shuffle = rng.child("minibatches").generator()
        shards = gradient_shards(self, world)
        metrics = self.ppo.update(trials, world.progress, shuffle, task, reward, shards)
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
        if self.config.memory not in ("gru", "lstm") or not self.policy.recurrent:
            return {}
        h, *_ = belief.lane
        return {"saturated": float((h.abs() > 0.99).float().mean())}


def _revealing(world: World) -> RevealsTasks:
    if not isinstance(world, RevealsTasks):
        raise ConfigError(
            f"world: {type(world).__name__} has no task_rows and pseudo_regret, which critic "
            "privileged and objective pseudo-regret need; leave both"
        )
    return world
