"""VariBAD (Zintgraf et al. 2020, arXiv:1910.08348): the policy acts on a belief about the task.

An encoder with memory turns the history into a normal posterior over a latent variable z, trained
by the evidence lower bound alone: decoders predict rewards and next observations of the whole trial
from z. The policy sees the observation with the mean and log-variance of the posterior, and learns
by PPO on the return of the whole trial; no gradient of its goes to the encoder.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarl.agents.learning_agent import LearningAgent
from metarl.agents.varibad.config import VariBADConfig
from metarl.algorithms.elbo import ELBO
from metarl.algorithms.gradients import gradient_shards
from metarl.algorithms.novelty import Novelty
from metarl.algorithms.ppo import PPO
from metarl.collect.playback import Playback
from metarl.config.schema import schedule_value
from metarl.core.agent import Mode, World
from metarl.core.errors import ConfigError
from metarl.core.predictions import Predictions, Questions
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Belief, Inputs, Spec, TaskInfo, Tasks, first_cue, replace, tree
from metarl.nn.belief_model import BeliefModel
from metarl.nn.distributions import Gaussian
from metarl.nn.memory import State, make_memory
from metarl.nn.policy import Policy


@tree
class _Lane:
    """What `act` remembers."""

    memory: State
    posterior: Gaussian  # [N, M, Z] when it last acted; the prior N(0, I) before


class VariBAD(LearningAgent):
    """The agent. The lane of its belief is the encoder's memory with the posterior."""

    predicts = True

    def __init__(
        self,
        config: VariBADConfig,
        spec: Spec,
        rng: Rng,
        device: torch.device,
    ):
        if spec.images:
            raise ConfigError(
                f"varibad: its decoders predict no images, and {spec.name} has some; use rl2"
            )
        self.config = config
        self.spec = spec
        self.device = device
        self.model = _belief_model(config, spec)
        self.elbo = ELBO(self.model, config, spec, rng, device)
        self.policy = Policy.for_spec(
            spec,
            latent=2 * config.latent_width,
            hidden_sizes=config.hidden_sizes,
            activation=config.activation,
            initial_std=config.initial_std,
            readout=config.readout,
        )
        self.ppo = self.learner = PPO(self.policy, config, spec, rng, device)
        self.novelty: Novelty | None = None
        if config.novelty_coef:
            width = spec.obs_width + 2 * config.latent_width
            self.novelty = Novelty(width, rng.child("novelty"), device)

    # -- inference and acting

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """An empty memory, and the prior."""
        zero = torch.zeros(info.rows, lanes, self.config.latent_width, device=info.device)
        memory = self.model.start(info.rows, lanes, info.device)
        return Belief(
            cue=first_cue(self.spec, info.rows, lanes, info.device),
            lane=_Lane(memory, Gaussian(zero, zero)),
        )

    @torch.no_grad()
    def act(
        self,
        belief: Belief,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, Belief]:
        """Feed the last step's outcome and obs [N, M, O] to the encoder, and act on the belief."""
        lane = self._infer(belief, obs)
        raw = torch.cat([lane.posterior.mean, 2 * lane.posterior.log_std], -1)
        inputs = Inputs(obs, latent=self.elbo.beliefs.normalize(raw))
        begins = belief.cue[..., -1] == 1
        acted, _ = self.ppo.act(inputs, (), begins, noise, counter, mode)
        acted = replace(acted, extras=acted.extras | {"belief": raw})
        return acted, replace(belief, lane=lane)

    def inferred(self, belief: Belief) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of z for every task, [N, Z] each, when it last acted.

        What came of that step is heard with the next observation.
        """
        posterior: Gaussian = belief.lane.posterior
        return posterior.mean[:, 0], posterior.log_std[:, 0].exp()

    @torch.no_grad()
    def predict(self, belief: Belief, obs: Tensor, questions: Questions) -> Predictions:
        """[N, M, Q, …]: what it expects of steps, where it would act on obs [N, M, O] next."""
        return self.elbo.predict(self._infer(belief, obs).posterior, questions)

    def _infer(self, belief: Belief, obs: Tensor) -> _Lane:
        """q(z | τ:t) with the outcome of the last step and obs [N, M, O]."""
        inputs = self.ppo.normalize(Inputs(obs, cue=belief.cue))
        posterior, memory = self.model.step(self.elbo.params, inputs, belief.lane.memory)
        return _Lane(memory, posterior)

    # -- meta-training

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Collect `trials` trials; improve the policy by PPO and the belief by the ELBO."""
        tasks = world.tasks(self.config.trials, rng)
        belief = self.begin(world.task_info(self, tasks), lanes=1)
        trials, _ = world.collect(self, belief, tasks, world.episodes, rng)

        bonus, metrics = self._bonus(trials, world.progress)
        shuffle = rng.child("minibatches").generator()
        reward = trials.reward + bonus
        shards = gradient_shards(self, world)
        metrics |= self.ppo.update(trials, world.progress, shuffle, reward=reward, shards=shards)
        learned, targets = trials, trials
        if self.config.targets == "replayed":
            few = torch.arange(min(self.config.target_trials, len(tasks)), device=self.device)
            learned = trials.rows(few)
            targets = self._second_trials(world, tasks, trials, few, rng.child("targets"))
        metrics |= self.elbo.update(
            learned,
            self._encoder_inputs(learned),
            targets,
            world.progress,
            rng.child("elbo").generator(),
        )
        raw = trials.extras["belief"]
        self.elbo.rescale(raw, trials.valid)
        returns = trials.episode_returns().mean((1, 2))
        return {
            "return": float(returns.sum()),
            "first_return": float(returns[0]),
            "last_return": float(returns[-1]),
            **metrics,
        }

    def _bonus(self, trials: Rollout, progress: float) -> tuple[Tensor, dict[str, float]]:
        """[T, N, M]: the bonuses of HyperX (arXiv:2010.01062), for PPO alone."""
        novelty_coef = schedule_value(self.config.novelty_coef, progress)
        surprise_coef = schedule_value(self.config.surprise_coef, progress)
        bonus, metrics = torch.zeros_like(trials.reward), {}
        if self.novelty is not None:
            x = trials.inputs.flat()
            bonus = bonus + novelty_coef * self.novelty.bonus(x)
            learning_rate = schedule_value(self.config.elbo_learning_rate, progress)
            metrics = self.novelty.update(x, trials.valid, learning_rate)
        if surprise_coef:
            mean, log_variance = trials.extras["belief"].chunk(2, -1)
            belief = Gaussian(mean, log_variance / 2)
            bonus = bonus + surprise_coef * self.elbo.surprise(belief, trials)
        return bonus, metrics

    def _second_trials(
        self, world: World, tasks: Tasks, trials: Rollout, few: Tensor, rng: Rng
    ) -> Rollout:
        """Trials of the tasks at `few` [n], each with the actions of any one of `trials`.

        Any one, its own included: a family that deals out few tasks in turn has another one next,
        and the actions there would tell which task this is not.
        """
        any_one = torch.randint(len(tasks), few.shape, generator=rng.child("others").generator())
        actor = Playback(trials.rows(any_one.to(self.device)))
        own = tasks[few]
        belief = self.begin(world.task_info(self, own), lanes=1)
        targets, _ = world.collect(actor, belief, own, world.episodes, rng)
        return targets

    def _encoder_inputs(self, trials: Rollout) -> Inputs:
        """[T, N, M, …]: what the encoder saw in `trials`."""
        rows, lanes = trials.valid.shape[1:]
        start = first_cue(self.spec, rows, lanes, self.device)
        cue = torch.cat([start.unsqueeze(0), trials.cues(self.spec)[:-1]])
        return self.ppo.normalize(Inputs(trials.inputs.obs, cue=cue))

    # -- checkpoints

    def acting_state(self) -> dict[str, Any]:
        """The policy, and the belief model."""
        return super().acting_state() | {"belief": self.elbo.acting_state()}

    def state_dict(self) -> dict[str, Any]:
        """All that training changes."""
        state = super().state_dict() | {"belief": self.elbo.acting_state()}
        state["belief_optimiser"] = self.elbo.state_dict()["optimiser"]
        if self.novelty is not None:
            state["novelty"] = self.novelty.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        super().load_state_dict(state)
        optimizer = state["belief_optimiser"]
        self.elbo.load_state_dict(state["belief"] | {"optimiser": optimizer})
        if self.novelty is not None:
            self.novelty.load_state_dict(state["novelty"])

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take over an acting state; fresh optimizers."""
        super().warm_start(state)
        self.elbo.warm_start(state["belief"])


def _belief_model(config: VariBADConfig, spec: Spec) -> BeliefModel:
    encoder = Policy.for_spec(
        spec,
        cue=True,
        memory=make_memory(config, spec),
        memory_width=config.memory_width,
        encoder_sizes=config.encoder_sizes,
        hidden_sizes=config.belief_sizes,
        activation=config.activation,
        pair_input=config.pair_input,
        action_head=False,
        value_head=False,
    )
    return BeliefModel(
        encoder=encoder,
        latent_width=config.latent_width,
        action_width=spec.action_width,
        discrete=spec.discrete,
        nvec=spec.nvec,
        obs_width=spec.obs_width,
        decoder_sizes=config.decoder_sizes,
        decoder_features=config.decoder_features,
        two_rewards=config.reward_values is not None,
        next_obs=config.next_obs_decoder,
    )
