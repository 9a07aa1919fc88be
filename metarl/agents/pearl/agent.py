"""PEARL (Rakelly et al. 2019, arXiv:1903.08254): the posterior over a latent task variable is the belief.

An encoder makes a normal factor of every transition of a task, in whatever order they come; their product is the
posterior over z. The policy acts on a z that is drawn anew at the start of every episode, and so tries what may be the
task until it knows. Soft actor-critic (Haarnoja et al. 2018) learns from all that was ever lived through, the encoder
from the critics' error and from its divergence from the prior, on context that is as recent as it will be in use.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, softplus

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
from metarl.nn.policy import Policy, check_shapes

_SMALLEST_VARIANCE = 1e-7


@tree
class TaskPosterior:
    """What is believed of a task."""

    posterior: Posterior  # [N, Z]
    episodes: Tensor  # [N] int64: lived through so far
    shown: Tensor | None = None  # [N, P] the task, where it is shown


class PEARL:
    """The agent; its belief's row is each task's posterior, its lane the z of the running episode."""

    lanes = 1

    def __init__(self, config: PEARLConfig, spec: Spec, rng: Rng, device: torch.device) -> None:
        self.config = config
        self.task_input = config.task_input
        self.spec = spec
        self.device = device
        if config.hindsight and (
            spec.achieved_goal is None or config.task_input not in ("row", "goal")
        ):
            raise ConfigError(
                f"hindsight: goals are told again only where they are told at all; set task_input to goal, and choose "
                f"a family that has goal_reward and achieved_goal, which {spec.name} "
                f"{'has' if spec.achieved_goal else 'has not'}"
            )
        shown, latent = spec.shown_width(config.task_input), config.latent_width
        self.policy = Policy(
            input_width=Policy.width(spec, task=shown, latent=latent),
            action_width=spec.action_width,
            discrete=spec.discrete,
            hidden_sizes=config.hidden_sizes,
            activation="relu",
            initial_gain=config.initial_gain,
            squashed=True,
            value_head=False,
        )
        state = spec.obs_width + latent + shown
        self.critic = MLP(
            state if spec.discrete else state + spec.action_width,
            config.hidden_sizes,
            spec.action_width if spec.discrete else 1,
        )
        seen = spec.obs_width + spec.action_width + 1
        self.encoder = MLP(
            seen + spec.obs_width if config.next_obs_input else seen,
            config.encoder_sizes,
            2 * latent,
        )
        weights = rng.child("weights")
        params: Params = {}
        networks: list[tuple[str, Policy | MLP]] = [
            ("policy", self.policy),
            ("q1", self.critic),
            ("q2", self.critic),
            ("encoder", self.encoder),
        ]
        for name, network in networks if latent else networks[:-1]:
            params |= named(network.init(weights.child(name).generator()), name)
        params["log_temperature"] = torch.tensor(math.log(config.temperature))
        self._set_params(params)

    # -- meeting a task

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """The prior."""
        latent = (info.rows, self.config.latent_width)
        return Belief(
            cue=first_cue(self.spec, info.rows, lanes, info.device),
            row=TaskPosterior(
                posterior=Posterior.prior(*latent, device=info.device),
                episodes=torch.zeros(info.rows, dtype=torch.long, device=info.device),
                shown=info.shown,
            ),
            lane=torch.zeros(info.rows, lanes, self.config.latent_width, device=info.device),
        )

    @torch.no_grad()
    def act(
        self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: Mode
    ) -> tuple[Acted, Belief]:
        """Decide as if z were the task, which is drawn at the start of every episode, also where actions are not."""
        row: TaskPosterior = belief.row
        begins = belief.cue[..., -1] == 1
        if begins.any():
            belief = replace(
                belief, lane=where(begins, self._sample_latent(row, noise, counter), belief.lane)
            )
        shown = None if row.shown is None else row.shown.unsqueeze(1).expand(*obs.shape[:2], -1)
        inputs = Inputs(obs, latent=belief.lane, task=shown)
        actions = self.policy.step(self._frozen_networks["policy"], inputs, ())[0].actions
        action = actions.sample(noise, counter) if mode == "sample" else actions.mode()
        return Acted(inputs, action, actions.log_prob(action)), belief

    @torch.no_grad()
    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Multiply the factors of every step into the posterior."""
        row: TaskPosterior = belief.row
        lived = rollout.valid.movedim(0, 2).flatten(1)
        steps = (rollout.inputs.obs, rollout.action, rollout.reward, rollout.next_obs)
        factors = self._factors(*(x.movedim(0, 2).flatten(1, 2) for x in steps))
        ended = (rollout.done & rollout.valid).sum((0, 2))
        known = TaskPosterior(row.posterior.seen(factors, lived), row.episodes + ended, row.shown)
        return replace(belief, row=known)

    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """The same, whoever acted."""
        lived = rollout.reshape_lanes(belief.cue.shape[1])
        return replace(self.adapt(belief, lived), cue=lived.last_cue(self.spec))

    def inferred(self, belief: Belief) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of z for every task, [N, Z] each."""
        posterior: Posterior = belief.row.posterior
        return posterior.mean, posterior.variance.sqrt()

    def _sample_latent(self, row: TaskPosterior, noise: Streams, counter: int) -> Tensor:
        """[N, M, Z]: z from the posterior, or from the prior in the first episodes."""
        explores = (row.episodes < self.config.exploration_episodes).unsqueeze(1)
        posterior = tree_map(lambda x: torch.where(explores, 0.0, x).unsqueeze(1), row.posterior)
        normal = noise.split(counter, 1).normal(0, self.config.latent_width).squeeze(2)
        return posterior.draw(normal)

    def _factors(self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor) -> Tensor:
        """[N, B, 2, Z]: mean and variance of the factor of every transition [N, B, …]."""
        if not self.config.latent_width:
            return torch.ones(*reward.shape, 2, 0, device=self.device)
        taken = one_hot(action, self.spec.action_width) if self.spec.discrete else action
        seen = [
            obs,
            taken,
            reward.unsqueeze(-1),
            *([next_obs] if self.config.next_obs_input else []),
        ]
        mean, spread = self.encoder(self._networks["encoder"], torch.cat(seen, dim=-1)).chunk(2, -1)
        return torch.stack([mean, softplus(spread).clamp(min=_SMALLEST_VARIANCE)], dim=-2)

    # -- meta-training

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Visit some training tasks, and learn from all that was lived through in any."""
        if world.train_set is None:
            raise ConfigError(
                "train_tasks: PEARL keeps what it lived through of each training task; set how many there are"
            )
        if not len(self.buffer):
            self._visit(world, world.train_set, self.config.initial_episodes, rng.child("initial"))
        tasks = world.tasks(self.config.tasks, rng)
        rollouts = self._visit(
            world, tasks, self.config.prior_episodes, rng.child("visit"), follow=True
        )

        self._apply_schedules(world.progress)
        generator = rng.child("updates").generator(self.device)
        shown = world.task_info(self, world.train_set).shown
        totals: dict[str, Tensor] = {}
        for _ in range(self.config.updates):
            batch, context = self._sample_batches(world, shown, generator)
            for name, value in self._update(batch, context, generator).items():
                totals[name] = totals[name] + value if name in totals else value
        returns = [float(rollout.episode_returns().mean()) for rollout in rollouts]
        logged = {name: float(total) / self.config.updates for name, total in totals.items()}
        return {
            "return": returns[-1],
            "first_return": returns[0],
            "last_return": returns[-1],
        } | logged

    def _apply_schedules(self, progress: float) -> None:
        """Set what changes in the course of training."""
        self.kl_coef = schedule_value(self.config.kl_coef, progress)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = schedule_value(self.config.learning_rate, progress)

    def _visit(
        self, world: World, tasks: Tasks, episodes: int, rng: Rng, *, follow: bool = False
    ) -> list[Rollout]:
        """Explore by the prior for a new context, then, if asked to `follow`, by what was inferred."""
        self.buffer.begin_context(tasks.index)
        belief = self.begin(world.task_info(self, tasks), self.lanes)
        rollout, belief = world.collect(self, belief, tasks, episodes, rng.child("prior"))
        self.buffer.add(rollout, context=True)
        rollouts = [rollout]
        context, extra = self.config.posterior_episodes, self.config.extra_episodes
        for k in range(context + extra if follow else 0):
            belief = self.adapt(belief, rollout)
            rollout, belief = world.collect(self, belief, tasks, 1, rng.child("posterior", k))
            self.buffer.add(rollout, context=k < context)
            rollouts.append(rollout)
        return rollouts

    def _sample_batches(
        self, world: World, shown: Tensor | None, generator: torch.Generator
    ) -> tuple[Transitions, Transitions | None]:
        """For one gradient step: N tasks' transitions of any age, and as many tasks' recent context for the encoder."""
        config, some = self.config, (self.config.meta_batch_size,)
        tasks = torch.randint(self.buffer.tasks, some, generator=generator, device=self.device)
        batch = self.buffer.sample(tasks, config.batch_size, generator, future=config.hindsight > 0)
        if shown is not None:
            batch = replace(batch, task=shown[tasks].unsqueeze(1).expand(-1, config.batch_size, -1))
        if config.hindsight:
            chosen = (
                torch.rand(batch.reward.shape, generator=generator, device=self.device)
                < config.hindsight
            )
            batch = hindsight(batch, chosen, self.spec, world.goal_reward)
        return batch, self.buffer.context(
            tasks, config.context_size, generator
        ) if config.latent_width else None

    def _update(
        self, batch: Transitions, context: Transitions | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """One gradient step of critics and encoder, then of the policy, then of the temperature."""
        posterior = self._infer_posterior(context, len(batch.obs))
        z = posterior.draw(
            self._normal(posterior.mean.shape[:1], self.config.latent_width, generator)
        )
        loss, metrics = self._critic_loss(batch, posterior, z, generator)
        self._descend(self._critic_optimizer, loss)
        loss, entropy, more = self._policy_loss(batch, z.detach(), generator)
        self._descend(self._policy_optimizer, loss)
        if self.config.learn_temperature:
            loss = self.params["log_temperature"] * (entropy - self._target_entropy)
            self._descend(self._temperature_optimizer, loss)
        with torch.no_grad():
            for name, target in self.targets.items():
                target.lerp_(self.params[name], self.config.tau)
        return metrics | more | {"entropy": entropy, "temperature": self._temperature}

    def _infer_posterior(self, context: Transitions | None, tasks: int) -> Posterior:
        """What `context` [N, C] says of so many tasks N; nothing, where it is None."""
        nothing = Posterior.prior(tasks, self.config.latent_width, device=self.device)
        if context is None:
            return nothing
        return nothing.seen(
            self._factors(context.obs, context.action, context.reward, context.next_obs)
        )

    def _critic_loss(
        self, batch: Transitions, posterior: Posterior, z: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Both critics' mean squared error, and the KL from the prior *summed* over tasks and entries of z.

        Through z [N, Z], the error is the encoder's as well.
        """
        with torch.no_grad():
            after = self._inputs(batch.next_obs, z, batch.task)
            value, _ = self._soft_value(
                after, self._actions(after), self._target_networks, generator
            )
            reward = self.config.reward_scale * batch.training_reward.flatten()
            target = reward + self.config.gamma * ~batch.terminated.flatten() * value
        first, second = self._q_values(
            self._networks, self._inputs(batch.obs, z, batch.task), batch.action.flatten(0, 1)
        )
        error = mse_loss(first, target) + mse_loss(second, target)
        kl = posterior.kl().sum()
        metrics = {"critic_loss": error, "kl": kl, "q": first.mean()}
        return error + self.kl_coef * kl, {name: value.detach() for name, value in metrics.items()}

    def _policy_loss(
        self, batch: Transitions, z: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """What the policy falls short of in soft value, for z [N, Z] and critics that are not to move; and its entropy."""
        inputs = self._inputs(batch.obs, z, batch.task)
        actions = self._actions(inputs)
        value, entropy = self._soft_value(inputs, actions, self._frozen_networks, generator)
        loss = -value.mean()
        metrics = {"policy_loss": loss.detach()}
        if isinstance(actions, SquashedGaussian):
            loss = loss + self.config.regularization * (
                actions.mean.square().mean() + actions.log_std.square().mean()
            )
        return loss, entropy.detach().mean(), metrics

    # -- networks on N tasks' B transitions, flat: [N · B, …]

    def _inputs(self, obs: Tensor, z: Tensor, task: Tensor | None) -> Inputs:
        """What policy and critics see at obs [N, B, O] for z [N, Z] and the shown task [N, B, P]."""
        latent = z.unsqueeze(1).expand(*obs.shape[:2], -1).flatten(0, 1)
        return Inputs(
            obs.flatten(0, 1), latent=latent, task=None if task is None else task.flatten(0, 1)
        )

    def _actions(self, inputs: Inputs) -> Distribution:
        return self.policy.step(self._networks["policy"], inputs, ())[0].actions

    def _q_values(
        self, critics: dict[str, Params], inputs: Inputs, action: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both critics' Q of an action, [N·B] each; of all discrete ones, if none is given, [N·B, A]."""
        if self.spec.discrete:
            first, second = (self.critic(critics[name], inputs.flat()) for name in ("q1", "q2"))
            if action is not None:
                first, second = (
                    q_values.gather(-1, action.unsqueeze(-1)).squeeze(-1)
                    for q_values in (first, second)
                )
            return first, second
        assert action is not None
        seen = torch.cat([inputs.flat(), action], dim=-1)
        first, second = (self.critic(critics[name], seen).squeeze(-1) for name in ("q1", "q2"))
        return first, second

    def _soft_value(
        self,
        inputs: Inputs,
        actions: Distribution,
        critics: dict[str, Params],
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """The worth of states by the lesser of two critics, and the policy's entropy there."""
        normal = (
            None
            if self.spec.discrete
            else self._normal(inputs.obs.shape[:1], self.spec.action_width, generator)
        )
        return soft_value(
            actions,
            lambda action: torch.minimum(*self._q_values(critics, inputs, action)),
            self._temperature,
            normal,
        )

    def _normal(self, axes: torch.Size, width: int, generator: torch.Generator) -> Tensor:
        return torch.randn(*axes, width, generator=generator, device=self.device)

    @property
    def _temperature(self) -> Tensor:
        """α []."""
        return self.params["log_temperature"].detach().exp()

    @property
    def _target_entropy(self) -> float:
        if self.config.target_entropy is not None:
            return self.config.target_entropy
        width = self.spec.action_width
        return 0.5 * math.log(width) if self.spec.discrete else -float(width)

    # -- keeping

    def _descend(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def _set_params(self, params: Params) -> None:
        """Adopt parameters, with targets that equal them, fresh optimisers and nothing lived through."""
        self.buffer = Replay(self.spec, self.config.capacity, self.device)
        self.params = {
            name: value.to(self.device).requires_grad_() for name, value in params.items()
        }
        self.targets = {
            n: value.detach().clone()
            for n, value in self.params.items()
            if n.startswith(("q1.", "q2."))
        }
        self._networks, self._target_networks = _networks(self.params), _networks(self.targets)
        frozen = {
            name: value.detach() for name, value in self.params.items()
        }  # the same memory: they move along
        self._frozen_networks = _networks(frozen)
        groups: dict[str, list[Tensor]] = {"policy": [], "critic": [], "log_temperature": []}
        for name, value in self.params.items():
            first = name.partition(".")[0]
            groups[first if first in groups else "critic"].append(value)
        self._policy_optimizer, self._critic_optimizer, self._temperature_optimizer = (
            self._optimizers
        ) = [torch.optim.Adam(group, fused=True) for group in groups.values()]
        self._apply_schedules(progress=0.0)

    def state_dict(self) -> dict[str, Any]:
        """Parameters, targets, optimisers, and the replay, which is not copied."""
        return {
            "params": {name: value.detach().clone() for name, value in self.params.items()},
            "targets": {name: value.clone() for name, value in self.targets.items()},
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

    def warm_start(self, state: dict[str, Any]) -> None:
        """Parameters of another run; fresh optimisers and an empty replay.

        Raises:
            ConfigError: parameters of another architecture.
        """
        check_shapes(self.params, state.get("params", {}))
        self._set_params({name: value.clone() for name, value in state["params"].items()})


def _networks(params: Params) -> dict[str, Params]:
    """The parameters of every network, which are the same tensors."""
    return {name: part(params, name) for name in ("policy", "q1", "q2", "encoder")}
