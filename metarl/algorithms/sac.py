"""Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905), for continuous and discrete actions.

The engine holds policy, two critics with slowly following targets, and a temperature; an agent
makes their inputs of what it knows, and hands batches of transitions to `update`.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from metarl.algorithms.adam import Adam
from metarl.algorithms.config import SACConfig
from metarl.algorithms.gradients import Gradients, gradients_of
from metarl.algorithms.learner import (
    Learner,
    check_state,
    copy_params,
    load_optimizer,
    set_learning_rate,
)
from metarl.algorithms.losses import soft_value
from metarl.config.schema import schedule_value
from metarl.core.agent import Mode
from metarl.core.errors import ConfigError, MetaRLError
from metarl.core.rng import Rng, Streams, send
from metarl.core.types import Acted, Inputs, Params, Spec, replace, tree, tree_map
from metarl.nn.distributions import Distribution, SquashedGaussian
from metarl.nn.image_encoder import ImageEncoder
from metarl.nn.mlp import MLP, named, part
from metarl.nn.policy import Policy

_OWN = ("policy.", "q1.", "q2.", "log_temperature")
"""What the names of parameters of SAC itself begin with."""
_IMAGES = "images."


@tree
class Batch:
    """B transitions, as policy and critics see them."""

    inputs: Inputs  # [B, …] at s
    action: Tensor  # [B] int64 or [B, A]
    reward: Tensor  # [B]
    next_inputs: Inputs  # [B, …] at s'
    terminated: Tensor  # [B] bool: nothing follows


class SAC(Learner):
    """Policy, critics and temperature, and what SAC needs to improve them."""

    def __init__(
        self,
        config: SACConfig,
        spec: Spec,
        width: int,
        rng: Rng,
        device: torch.device,
        more: Params | None = None,
        images: ImageEncoder | None = None,
    ):
        """`width`: of the flat inputs of policy and critics.

        Args:
            more: parameters of networks that make these inputs, called ``network.parameter``; the
                critics' loss trains them too.
            images: makes features of images, the same for policy and critics, whose loss alone
                trains it (Yarats et al. 2021, arXiv:1910.01741).

        Raises:
            ConfigError: MultiDiscrete actions.
            MetaRLError: names in `more` that are not of this form, or SAC's own.
        """
        if spec.nvec:
            raise ConfigError(
                f"soft actor-critic: actions of {spec.name} are MultiDiscrete, and its critics "
                "value one choice; use rl2 or maml"
            )
        self.config = config
        self.spec = spec
        self.images = images
        beside = width - spec.obs_width
        width = beside + (spec.obs_width if images is None else images.width)
        seen = Policy.for_spec(
            spec,
            images,
            latent=beside,
            hidden_sizes=config.hidden_sizes,
            activation="relu",
            initial_gain=config.initial_gain,
            squashed=True,
            value_head=False,
        )
        self.policy = replace(seen, images=None)  # they are encoded once for policy and critics
        if spec.discrete:
            self.critic = MLP(width, config.hidden_sizes, spec.action_width)
        else:
            self.critic = MLP(width + spec.action_width, config.hidden_sizes, 1)

        weights = rng.child("weights")
        params = named(self.policy.init(weights.child("policy").generator()), "policy")
        for name in ("q1", "q2"):
            params |= named(self.critic.init(weights.child(name).generator()), name)
        for name in more or {}:
            if "." not in name or name.startswith((*_OWN, _IMAGES)):
                raise MetaRLError(
                    f"SAC: more has {name!r}; call parameters network.parameter, and the network "
                    "not policy, q1, q2 or images"
                )
        params |= more or {}
        if images is not None:
            params |= named(images.init(weights.child("images").generator()), "images")
        params["log_temperature"] = torch.tensor(math.log(config.temperature))
        super().__init__(params, device)

    def set_params(self, params: Params) -> None:
        """Copy parameters, with equal targets and fresh optimizers."""
        self.params = copy_params(params, self.device, requires_grad=True)
        names = {name.partition(".")[0] for name in self.params}
        self.networks = {name: part(self.params, name) for name in names}
        """The parameters of each network, which are the same tensors."""
        critics = named(self.networks["q1"], "q1") | named(self.networks["q2"], "q2")
        self.targets = copy_params(critics, self.device)
        self._target_networks = {name: part(self.targets, name) for name in ("q1", "q2")}

        policy = self.networks["policy"].values()
        temperature = self.params["log_temperature"]
        by_critics = list(critics.values())
        for name in self.params:
            if not name.startswith(_OWN):
                by_critics.append(self.params[name])
        groups = (policy, by_critics, [temperature])
        self._optimizers = [Adam(group, fused=True) for group in groups]
        self.set_progress(0.0)

    def set_progress(self, progress: float) -> None:
        """The learning rate at this share of training."""
        for optimizer in self._optimizers:
            set_learning_rate(optimizer, schedule_value(self.config.learning_rate, progress))

    @torch.no_grad()
    def act(
        self,
        inputs: Inputs,
        begins: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> Acted:
        """Act on inputs [N, M, …]."""
        policy = self.networks["policy"]
        seen = self._encode_images(inputs)
        acted, _ = self.policy.act(policy, seen, (), begins, noise, counter, mode)
        return replace(acted, inputs=inputs)

    # -- learning

    def update(
        self, batch: Batch, generator: torch.Generator, more_loss: Tensor | None = None
    ) -> dict[str, Tensor]:
        """One gradient step of the critics, the policy and the temperature → metrics [].

        Args:
            batch: its `inputs` may have a gradient to the networks that made them.
            generator: of the sampled actions, on the CPU.
            more_loss: [] added to the critics' loss, for the networks that made the inputs.
        """
        policy_optimizer, critic_optimizer, _ = self._optimizers
        with torch.no_grad():
            after = self._encode_images(batch.next_inputs)
        inputs = self._encode_images(batch.inputs)
        batch = replace(batch, inputs=inputs, next_inputs=after)
        count = len(batch.reward)
        loss, metrics = self.critic_loss(batch, self.normal(count, generator))
        self._step(critic_optimizer, loss if more_loss is None else loss + more_loss)

        inputs = tree_map(Tensor.detach, batch.inputs)
        loss, more = self.policy_loss(inputs, self.normal(count, generator))
        self._step(policy_optimizer, loss)
        return metrics | more | self._follow(more["entropy"])

    def critic_gradients(self, loss: Tensor) -> Gradients:
        """Of a loss of the critics and of the networks that make inputs."""
        return self._gradients(self._optimizers[1], loss)

    def policy_gradients(self, loss: Tensor) -> Gradients:
        """Of a loss of the policy."""
        return self._gradients(self._optimizers[0], loss)

    def descend_critics(self, gradients: Gradients) -> None:
        """A step of the critics and of the networks that make inputs."""
        self._descend_along(self._optimizers[1], gradients)

    def descend_policy(self, gradients: Gradients, entropy: Tensor) -> dict[str, Tensor]:
        """A step of the policy of this `entropy` [], and of all that follows it → metrics []."""
        self._descend_along(self._optimizers[0], gradients)
        return self._follow(entropy)

    def _follow(self, entropy: Tensor) -> dict[str, Tensor]:
        """A step of the temperature and the targets, after policy and critics → metrics []."""
        if self.config.learn_temperature:
            # SAC, equation 18, with log α in the place of α
            loss = self.params["log_temperature"] * (entropy - self._target_entropy)
            self._step(self._optimizers[2], loss)

        with torch.no_grad():
            followed = [self.params[name] for name in self.targets]
            torch._foreach_lerp_(list(self.targets.values()), followed, self.config.tau)
        return {"temperature": self._temperature}

    def normal(self, count: int, generator: torch.Generator) -> Tensor | None:
        """[count, A]: what sampled actions are made of; None for discrete ones."""
        if self.spec.discrete:
            return None
        drawn = torch.randn((count, self.spec.action_width), generator=generator)
        return send(drawn, self.device)

    def _encode_images(self, inputs: Inputs) -> Inputs:
        """The inputs [...] with features in the place of images."""
        if self.images is None:
            return inputs
        return replace(inputs, obs=self.images(self.networks["images"], inputs.obs))

    def critic_loss(self, batch: Batch, normal: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """SAC, equation 5, with the smaller one of two target critics; and metrics []."""
        with torch.no_grad():
            after = batch.next_inputs
            _, value, _ = self._soft_value(after, self._target_networks, normal)
            reward = self.config.reward_scale * batch.reward
            target = reward + self.config.gamma * ~batch.terminated * value
        q1, q2 = self._q_values(self.networks, batch.inputs, batch.action)
        error = mse_loss(q1, target) + mse_loss(q2, target)
        return error, {"critic_loss": error.detach(), "q": q1.detach().mean()}

    def policy_loss(
        self, inputs: Inputs, normal: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """SAC, equation 7; and metrics [], with the policy's entropy."""
        pi, value, entropy = self._soft_value(inputs, self.networks, normal)
        loss = -value.mean()
        metrics = {"policy_loss": loss.detach(), "entropy": entropy.detach().mean()}
        if isinstance(pi, SquashedGaussian):
            size = pi.mean.square().mean() + pi.log_std.square().mean()
            loss = loss + self.config.regularization * size
        return loss, metrics

    def _soft_value(
        self, inputs: Inputs, critics: dict[str, Params], normal: Tensor | None
    ) -> tuple[Distribution, Tensor, Tensor]:
        """π(· | s), the soft value of s by the smaller one of two critics, and π's entropy."""
        decision, _ = self.policy.step(self.networks["policy"], inputs, ())

        def smaller_q(action: Tensor | None) -> Tensor:
            return torch.minimum(*self._q_values(critics, inputs, action))

        pi = decision.actions
        value, entropy = soft_value(pi, smaller_q, self._temperature, normal)
        return pi, value, entropy

    def _q_values(
        self, networks: dict[str, Params], inputs: Inputs, action: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Q₁ and Q₂ of an action, [B] each; without one, of all discrete actions, [B, A]."""
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

    def _step(self, optimizer: Adam, loss: Tensor) -> None:
        """A step of the parameters of `optimizer`; no other gets a gradient."""
        self._descend_along(optimizer, self._gradients(optimizer, loss))

    def _gradients(self, optimizer: Adam, loss: Tensor) -> Gradients:
        """Of the parameters of `optimizer`, in their order."""
        parameters = optimizer.param_groups[0]["params"]
        return gradients_of(loss, {str(number): x for number, x in enumerate(parameters)})

    def _descend_along(self, optimizer: Adam, gradients: Gradients) -> None:
        """A step of `optimizer`."""
        for x, gradient in zip(
            optimizer.param_groups[0]["params"], gradients.values(), strict=True
        ):
            x.grad = None if gradient is None else gradient.to(self.device)
        optimizer.descend()

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

    def follow_targets(self, targets: Params) -> None:
        """Take over the targets of another engine."""
        for name, target in self.targets.items():
            target.copy_(targets[name])

    # -- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Parameters, targets and optimizers."""
        return self.acting_state() | {
            "targets": copy_params(self.targets, self.device),
            "optimisers": [copy.deepcopy(optimizer.state_dict()) for optimizer in self._optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.warm_start(state)
        check_state(state["targets"], self.targets, "targets")
        self.follow_targets(state["targets"])
        for optimizer, content in zip(self._optimizers, state["optimisers"], strict=True):
            load_optimizer(optimizer, content)
