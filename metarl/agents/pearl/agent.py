"""PEARL (Rakelly et al. 2019, arXiv:1903.08254): the posterior over a latent variable is belief.

An encoder turns every transition of a task into a Gaussian factor; their product, which does not
depend on their order, is the posterior q(z|c) given the context c. The policy acts on a z that is
sampled anew in every episode (posterior sampling). Soft actor-critic (Haarnoja et al. 2018,
arXiv:1812.05905) learns from a replay buffer; the encoder learns from the critics' loss and the KL
divergence from the prior, on recent context.
"""

import copy
import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, softplus
from torch.optim import Adam, Optimizer

from metarl.agents.learner import (
    Learner,
    copy_params,
    expand_to_lanes,
    return_metrics,
    set_learning_rate,
)
from metarl.agents.pearl.config import PEARLConfig
from metarl.algorithms.losses import soft_value
from metarl.config.schema import schedule_value
from metarl.core.agent import Mode, World
from metarl.core.errors import ConfigError
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import (
    Acted,
    Belief,
    Inputs,
    Params,
    Spec,
    TaskInfo,
    Tasks,
    first_cue,
    one_hot,
    replace,
    tree,
    tree_map,
    where,
)
from metarl.data.replay import Replay, Transitions, hindsight
from metarl.nn.distributions import Distribution, SquashedGaussian
from metarl.nn.gaussian_product import Posterior
from metarl.nn.mlp import MLP, named, part
from metarl.nn.policy import Policy

_SMALLEST_VARIANCE = 1e-7


@tree
class TaskPosterior:
    """The belief about N tasks."""

    posterior: Posterior  # [N, Z]
    episodes: Tensor  # [N] int64: episodes so far
    shown: Tensor | None  # [N, P] the task, if it is shown


class PEARL(Learner):
    """The agent. The row of its belief is each task's posterior; the lane is the episode's z."""

    lanes = 1

    def __init__(
        self,
        config: PEARLConfig,
        spec: Spec,
        rng: Rng,
        device: torch.device,
    ):
        self.config = config
        self.task_input = config.task_input
        self.spec = spec
        self.device = device
        if config.hindsight and not (spec.achieved_goal and config.task_input in ("row", "goal")):
            raise ConfigError(
                "hindsight: set task_input to goal, and choose a family with goal_reward and "
                f"achieved_goal ({spec.name}: {spec.achieved_goal})"
            )
        latent = config.latent_width
        task = spec.shown_width(config.task_input)
        state = Policy.width(spec, task=task, latent=latent)
        self.policy = Policy(
            input_width=state,
            action_width=spec.action_width,
            discrete=spec.discrete,
            hidden_sizes=config.hidden_sizes,
            activation="relu",
            initial_gain=config.initial_gain,
            squashed=True,
            value_head=False,
        )
        if spec.discrete:
            self.critic = MLP(state, config.hidden_sizes, spec.action_width)
        else:
            self.critic = MLP(state + spec.action_width, config.hidden_sizes, 1)
        context = spec.obs_width + spec.action_width + 1
        if config.next_obs_input:
            context += spec.obs_width
        self.encoder = MLP(context, config.encoder_sizes, 2 * latent)
        self._set_params(self._initial_params(rng.child("weights")))

    def _initial_params(self, rng: Rng) -> Params:
        networks: dict[str, Policy | MLP] = {
            "policy": self.policy,
            "q1": self.critic,
            "q2": self.critic,
        }
        if self.config.latent_width:
            networks["encoder"] = self.encoder
        params: Params = {}
        for name, network in networks.items():
            params |= named(network.init(rng.child(name).generator()), name)
        params["log_temperature"] = torch.tensor(math.log(self.config.temperature))
        return params

    # -- inference and acting

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """The prior."""
        width = self.config.latent_width
        prior = Posterior.prior(info.rows, width, device=info.device)
        episodes = torch.zeros(info.rows, dtype=torch.long, device=info.device)
        return Belief(
            cue=first_cue(self.spec, info.rows, lanes, info.device),
            row=TaskPosterior(prior, episodes, info.shown),
            lane=torch.zeros(info.rows, lanes, width, device=info.device),
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
        """Act on z, which is sampled where an episode begins, in every mode."""
        begins = belief.cue[..., -1] == 1
        if begins.any():
            z = where(begins, self._sample_latent(belief.row, noise, counter), belief.lane)
            belief = replace(belief, lane=z)
        inputs = Inputs(obs, latent=belief.lane, task=expand_to_lanes(belief.row.shown, obs))
        acted, _ = self.policy.act(
            self._networks["policy"],
            inputs,
            (),
            begins,
            noise,
            counter,
            mode,
        )
        return acted, belief

    @torch.no_grad()
    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Multiply the factors of all transitions into the posterior."""
        row: TaskPosterior = belief.row
        factors = self._factors(
            _by_task(rollout.inputs.obs),
            _by_task(rollout.action),
            _by_task(rollout.reward),
            _by_task(rollout.next_obs),
        )
        posterior = row.posterior.update(factors, _by_task(rollout.valid))
        episodes = row.episodes + (rollout.done & rollout.valid).sum((0, 2))
        return replace(belief, row=TaskPosterior(posterior, episodes, row.shown))

    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """The same from a recorded rollout: whoever acted does not matter."""
        rollout = rollout.reshape_lanes(belief.cue.shape[1])
        return replace(self.adapt(belief, rollout), cue=rollout.last_cue(self.spec))

    def inferred(self, belief: Belief) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of z for every task, [N, Z] each."""
        posterior: Posterior = belief.row.posterior
        return posterior.mean, posterior.variance.sqrt()

    def _sample_latent(self, row: TaskPosterior, noise: Streams, counter: int) -> Tensor:
        """[N, M, Z]: z from the posterior, or from the prior in the first episodes."""
        explores = (row.episodes < self.config.exploration_episodes).unsqueeze(1)
        posterior = tree_map(lambda x: x.masked_fill(explores, 0.0).unsqueeze(1), row.posterior)
        return posterior.draw(
            noise.split(counter, 1).normal(0, self.config.latent_width).squeeze(2)
        )

    def _factors(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        next_obs: Tensor,
    ) -> Tensor:
        """[N, B, 2, Z]: mean and variance of the factor Ψ(z|c) of each transition [N, B, …]."""
        if not self.config.latent_width:
            return torch.ones(*reward.shape, 2, 0, device=self.device)
        if self.spec.discrete:
            action = one_hot(action, self.spec.action_width)
        context = [obs, action, reward.unsqueeze(-1)]
        if self.config.next_obs_input:
            context.append(next_obs)
        outputs = self.encoder(self._networks["encoder"], torch.cat(context, dim=-1))
        mean, spread = outputs.chunk(2, -1)
        return torch.stack([mean, softplus(spread).clamp(min=_SMALLEST_VARIANCE)], dim=-2)

    # -- meta-training

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Collect data from some training tasks, then learn from the replay of all of them."""
        if world.train_set is None:
            raise ConfigError("train_tasks: PEARL has a replay buffer for each; set their number")
        config = self.config
        if not len(self.buffer):
            self._collect(world, world.train_set, config.initial_episodes, 0, rng.child("initial"))
        tasks = world.tasks(config.tasks, rng)
        later = config.posterior_episodes + config.extra_episodes
        rollouts = self._collect(world, tasks, config.prior_episodes, later, rng.child("visit"))

        self._apply_schedules(world.progress)
        generator = rng.child("updates").generator(self.device)
        shown = world.task_info(self, world.train_set).shown
        totals: dict[str, Any] = defaultdict(float)
        for _ in range(config.updates):
            batch, context = self._sample_batches(world, shown, generator)
            for name, value in self._update(batch, context, generator).items():
                totals[name] += value
        means = {name: float(total) / config.updates for name, total in totals.items()}
        return return_metrics(rollouts) | means

    def _apply_schedules(self, progress: float) -> None:
        """The KL weight and the learning rates at this share of training."""
        self.kl_coef = schedule_value(self.config.kl_coef, progress)
        for optimizer in self._optimizers:
            set_learning_rate(optimizer, schedule_value(self.config.learning_rate, progress))

    def _collect(
        self,
        world: World,
        tasks: Tasks,
        episodes: int,
        later: int,
        rng: Rng,
    ) -> list[Rollout]:
        """Episodes with z from the prior, then `later` ones with z from the posterior.

        The first of both are the new context (Algorithm 1); the extra ones are for the critics.
        """
        self.buffer.begin_context(tasks.index)
        belief = self.begin(world.task_info(self, tasks), self.lanes)
        rollout, belief = world.collect(self, belief, tasks, episodes, rng.child("prior"))
        self.buffer.add(rollout, context=True)
        rollouts = [rollout]
        for k in range(later):
            belief = self.adapt(belief, rollout)
            rollout, belief = world.collect(self, belief, tasks, 1, rng.child("posterior", k))
            self.buffer.add(rollout, context=k < self.config.posterior_episodes)
            rollouts.append(rollout)
        return rollouts

    def _sample_batches(
        self, world: World, shown: Tensor | None, generator: torch.Generator
    ) -> tuple[Transitions, Transitions | None]:
        """N tasks' transitions of any age for SAC, and their recent context for the encoder."""
        config = self.config
        tasks = torch.randint(
            self.buffer.tasks, (config.meta_batch_size,), generator=generator, device=self.device
        )
        batch = self.buffer.sample(tasks, config.batch_size, generator, future=config.hindsight > 0)
        if shown is not None:
            batch = replace(batch, task=expand_to_lanes(shown[tasks], batch.obs))
        if config.hindsight:
            uniform = torch.rand(batch.reward.shape, generator=generator, device=self.device)
            batch = hindsight(batch, uniform < config.hindsight, self.spec, world.goal_reward)
        if not config.latent_width:
            return batch, None
        return batch, self.buffer.context(tasks, config.context_size, generator)

    def _update(
        self, batch: Transitions, context: Transitions | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """One gradient step of the critics and the encoder, the policy, and the temperature."""
        policy_optimizer, critic_optimizer, temperature_optimizer = self._optimizers
        posterior = self._infer_posterior(context, len(batch.obs))
        z = posterior.draw(self._normal(len(batch.obs), self.config.latent_width, generator))
        loss, metrics = self._critic_loss(batch, posterior, z, generator)
        self._descend(critic_optimizer, loss)

        loss, entropy, more = self._policy_loss(batch, z.detach(), generator)
        self._descend(policy_optimizer, loss)
        metrics |= more

        if self.config.learn_temperature:
            # SAC, equation 18, with log α in the place of α
            loss = self.params["log_temperature"] * (entropy - self._target_entropy)
            self._descend(temperature_optimizer, loss)

        with torch.no_grad():
            for name, target in self.targets.items():
                target.lerp_(self.params[name], self.config.tau)
        metrics |= {"entropy": entropy, "temperature": self._temperature}
        return metrics

    def _infer_posterior(self, context: Transitions | None, tasks: int) -> Posterior:
        """q(z|c) for the context c [N, C] of N `tasks`; the prior without."""
        prior = Posterior.prior(tasks, self.config.latent_width, device=self.device)
        if context is None:
            return prior
        factors = self._factors(context.obs, context.action, context.reward, context.next_obs)
        return prior.update(factors)

    def _critic_loss(
        self,
        batch: Transitions,
        posterior: Posterior,
        z: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L_critic + β L_KL (PEARL, Algorithm 1), for z [N, Z] with a gradient to the encoder.

        L_critic is SAC's (equation 5), with the smaller one of two target critics; L_KL is *summed*
        over tasks and entries of z.
        """
        with torch.no_grad():
            after = self._inputs(batch.next_obs, z, batch.task)
            _, value, _ = self._soft_value(after, self._target_networks, generator)
            reward = self.config.reward_scale * batch.training_reward.flatten()
            target = reward + self.config.gamma * ~batch.terminated.flatten() * value
        inputs = self._inputs(batch.obs, z, batch.task)
        q1, q2 = self._q_values(self._networks, inputs, batch.action.flatten(0, 1))
        error = mse_loss(q1, target) + mse_loss(q2, target)
        kl = posterior.kl().sum()
        metrics = {"critic_loss": error.detach(), "kl": kl.detach(), "q": q1.detach().mean()}
        return error + self.kl_coef * kl, metrics

    def _policy_loss(
        self, batch: Transitions, z: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """L_actor (SAC, equation 7) for z [N, Z] and frozen critics; the policy's entropy []."""
        inputs = self._inputs(batch.obs, z, batch.task)
        pi, value, entropy = self._soft_value(inputs, self._frozen_networks, generator)
        loss = -value.mean()
        metrics = {"policy_loss": loss.detach()}
        if isinstance(pi, SquashedGaussian):
            size = pi.mean.square().mean() + pi.log_std.square().mean()
            loss = loss + self.config.regularization * size
        return loss, entropy.detach().mean(), metrics

    # -- networks on B transitions of N tasks, flat: [N · B, …]

    def _inputs(self, obs: Tensor, z: Tensor, task: Tensor | None) -> Inputs:
        """The inputs of policy and critics at obs [N, B, O], z [N, Z] and task [N, B, P]."""
        inputs = Inputs(obs, latent=expand_to_lanes(z, obs), task=task)
        return tree_map(lambda x: x.flatten(0, 1), inputs)

    def _q_values(
        self, networks: dict[str, Params], inputs: Inputs, action: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Q₁ and Q₂ of an action, [N·B] each; without one, of all discrete actions, [N·B, A]."""
        x = inputs.flat()
        if action is not None and not self.spec.discrete:
            x = torch.cat([x, action], dim=-1)
        q1 = self.critic(networks["q1"], x)
        q2 = self.critic(networks["q2"], x)
        if action is None:
            return q1, q2
        if self.spec.discrete:
            action = action.unsqueeze(-1)
            q1 = q1.gather(-1, action)
            q2 = q2.gather(-1, action)
        return q1.squeeze(-1), q2.squeeze(-1)

    def _soft_value(
        self, inputs: Inputs, critics: dict[str, Params], generator: torch.Generator
    ) -> tuple[Distribution, Tensor, Tensor]:
        """π(· | s, z), the soft value of s by the smaller one of two critics, and π's entropy."""
        decision, _ = self.policy.step(self._networks["policy"], inputs, ())

        def smaller_q(action: Tensor | None) -> Tensor:
            return torch.minimum(*self._q_values(critics, inputs, action))

        pi = decision.actions
        width = self.spec.action_width
        normal = None if self.spec.discrete else self._normal(len(inputs.obs), width, generator)
        value, entropy = soft_value(pi, smaller_q, self._temperature, normal)
        return pi, value, entropy

    def _normal(self, count: int, width: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, width, generator=generator, device=self.device)

    @property
    def _temperature(self) -> Tensor:
        """α []."""
        return self.params["log_temperature"].detach().exp()

    @property
    def _target_entropy(self) -> float:
        """In nats; by default −A, or half of the maximum for discrete actions."""
        if self.config.target_entropy is not None:
            return self.config.target_entropy
        width = self.spec.action_width
        return 0.5 * math.log(width) if self.spec.discrete else -float(width)

    # -- checkpoints

    def _descend(self, optimizer: Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def _set_params(self, params: Params) -> None:
        """Copy parameters, with equal targets, fresh optimizers and an empty replay buffer."""
        self.buffer = Replay(self.spec, self.config.capacity, self.device)
        self.params = copy_params(params, self.device, requires_grad=True)
        self._networks = networks = _networks(self.params)
        # the same memory as the parameters
        self._frozen_networks = _networks(tree_map(Tensor.detach, self.params))
        critics = named(networks["q1"], "q1") | named(networks["q2"], "q2")
        self.targets = copy_params(critics, self.device)
        self._target_networks = _networks(self.targets)

        policy = networks["policy"].values()
        critics_and_encoder = [*critics.values(), *networks["encoder"].values()]
        temperature = [self.params["log_temperature"]]
        self._optimizers = [
            Adam(group, fused=True) for group in (policy, critics_and_encoder, temperature)
        ]
        self._apply_schedules(progress=0.0)

    def state_dict(self) -> dict[str, Any]:
        """Parameters, targets, optimizers, and the replay buffer, which is not copied."""
        return {
            "params": copy_params(self.params, self.device),
            "targets": copy_params(self.targets, self.device),
            "optimisers": [copy.deepcopy(optimizer.state_dict()) for optimizer in self._optimizers],
            "replay": self.buffer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.warm_start(state)
        for name, target in self.targets.items():
            target.copy_(state["targets"][name])
        for optimizer, content in zip(self._optimizers, state["optimisers"], strict=True):
            optimizer.load_state_dict(copy.deepcopy(content))
        if "replay" in state:
            self.buffer.load_state_dict(state["replay"])


def _by_task(x: Tensor) -> Tensor:
    """All steps of a task side by side, lane by lane: [T, N, M, …] → [N, M·T, …]."""
    return x.movedim(0, 2).flatten(1, 2)


def _networks(params: Params) -> dict[str, Params]:
    """The parameters of each network, which are the same tensors."""
    return {name: part(params, name) for name in ("policy", "q1", "q2", "encoder")}
