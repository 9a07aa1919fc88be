"""A variational belief about the task, and what it predicts (Zintgraf et al. 2020, VariBAD).

history τ:t ─ encoder (MLP, memory) ─ q(z | τ:t) = N(μ_t, σ_t²)
z ─┬─ p(r | s, a, s′, z)
   └─ p(s′ | s, a, z)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from metarl.core.spec import encode_choices
from metarl.core.types import Inputs, Params, tree
from metarl.nn.distributions import Gaussian
from metarl.nn.memory import State
from metarl.nn.mlp import init_layers, layers, linear, named, orthogonal, part
from metarl.nn.policy import Policy

NextObsModel = Literal["none", "normal", "onehot"]
_LOG_STD = (-6.0, 2.0)
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@tree
class Steps:
    """I steps, whose observations are whitened unless they are one-hot."""

    obs: Tensor  # [..., I, O]
    action: Tensor  # [..., I] int64 or [..., I, A]
    next_obs: Tensor  # [..., I, O]


@tree
class Outcomes:
    """What came of I steps."""

    steps: Steps
    reward: Tensor  # [..., I] whitened; of two possible ones 0 or 1
    change: Tensor  # [..., I, O] s′ − s, whitened


@dataclass(frozen=True)
class BilinearDecoder:
    """⟨f(z), g(x)⟩: what the latent variable z says of a question x; f and g are MLPs.

    B latent variables answer I questions by one matrix product, which a network of (z, x) would
    have to be called B · I times for.
    """

    latent_width: int
    question_width: int
    hidden_sizes: tuple[int, ...]
    features: int
    outputs: int

    def init(self, generator: torch.Generator) -> Params:
        params: Params = {}
        widths = {"latent": self.latent_width, "question": self.question_width}
        entries = {"latent": self.features * self.outputs, "question": self.features}
        for name, width in widths.items():
            width = init_layers(params, name, width, self.hidden_sizes, generator)
            params[f"{name}.head.weight"] = orthogonal(1, entries[name], width, generator)
            params[f"{name}.head.bias"] = torch.zeros(entries[name])
        return params

    def __call__(self, params: Params, z: Tensor, question: Tensor) -> Tensor:
        """z [..., B, Z], question [..., I, X] → [..., B, I, outputs]."""
        f = self._tower(params, "latent", z).unflatten(-1, (self.outputs, self.features))
        g = self._tower(params, "question", question) / math.sqrt(self.features)
        return torch.einsum("...bof,...if->...bio", f, g)

    def _tower(self, params: Params, name: str, x: Tensor) -> Tensor:
        x = layers(params, name, len(self.hidden_sizes), "relu", x)
        return linear(params, f"{name}.head", x)


@dataclass(frozen=True)
class BeliefModel:
    """The architecture; parameters are passed to every call."""

    encoder: Policy
    """Without heads."""
    latent_width: int
    action_width: int
    discrete: bool
    obs_width: int
    decoder_sizes: tuple[int, ...]
    decoder_features: int
    two_rewards: bool
    """Rewards are one of two: Bernoulli; else normal, with a deviation that is learned."""
    next_obs: NextObsModel
    """What is predicted of the next observation: nothing, normal entries, or which of a one-hot."""
    nvec: tuple[int, ...] = ()
    """Numbers of choices of a MultiDiscrete action."""

    def init(self, generator: torch.Generator) -> Params:
        """The first beliefs are close to the prior N(0, I)."""
        params = named(self.encoder.init(generator), "encoder")
        width = self.encoder.feature_width
        params["belief.weight"] = 0.1 * orthogonal(1, 2 * self.latent_width, width, generator)
        params["belief.bias"] = torch.zeros(2 * self.latent_width)
        params |= named(self._reward_decoder.init(generator), "reward")
        if not self.two_rewards:
            params["reward.log_std"] = torch.zeros(())
        if self.next_obs != "none":
            params |= named(self._next_obs_decoder.init(generator), "next_obs")
        if self.next_obs == "normal":
            params["next_obs.log_std"] = torch.zeros(self.obs_width)
        return params

    # -- the belief

    def start(self, rows: int, lanes: int, device: torch.device) -> State:
        """The empty memory."""
        return self.encoder.start(rows, lanes, device)

    def step(self, params: Params, inputs: Inputs, state: State) -> tuple[Gaussian, State]:
        """q(z | τ:t) after one more step: inputs [N, M, …] → [N, M, Z], the next memory."""
        features, state = self.encoder.attend(part(params, "encoder"), inputs, state)
        return self._posterior(params, features), state

    def unroll(self, params: Params, inputs: Inputs, state: State) -> Gaussian:
        """q(z | τ:t) at every step of whole trials: inputs [T, N, M, …] → [T, N, M, Z]."""
        features = self.encoder.recall(part(params, "encoder"), inputs, state)
        return self._posterior(params, features)

    def _posterior(self, params: Params, features: Tensor) -> Gaussian:
        mean, log_std = linear(params, "belief", features).chunk(2, -1)
        return Gaussian(mean, log_std.clamp(*_LOG_STD))

    # -- what it predicts

    def log_likelihood(
        self, params: Params, z: Tensor, outcomes: Outcomes
    ) -> tuple[Tensor, Tensor | None]:
        """[..., B, I] each: log p(r | …, z) and log p(s′ | …, z) by z [..., B, Z], in nats."""
        answer = self.reward(params, z, outcomes.steps)
        reward = outcomes.reward.unsqueeze(-2)
        if self.two_rewards:
            of_reward = logsigmoid(torch.where(reward > 0, answer, -answer))
        else:
            of_reward = _log_normal(reward, answer, params["reward.log_std"])
        if self.next_obs == "none":
            return of_reward, None
        answer = self.successor(params, z, outcomes.steps)
        if self.next_obs == "onehot":
            state = outcomes.steps.next_obs.unsqueeze(-3)
            return of_reward, (answer.log_softmax(-1) * state).sum(-1)
        change = outcomes.change.unsqueeze(-3)
        return of_reward, _log_normal(change, answer, params["next_obs.log_std"]).sum(-1)

    def reward(self, params: Params, z: Tensor, steps: Steps) -> Tensor:
        """[..., B, I]: the mean of the whitened reward, or the logit of the higher one of two."""
        question = torch.cat([self._taken(steps), steps.next_obs], -1)
        return self._reward_decoder(part(params, "reward"), z, question).squeeze(-1)

    def successor(self, params: Params, z: Tensor, steps: Steps) -> Tensor:
        """[..., B, I, O]: the mean of the whitened change, or logits of a one-hot."""
        question = self._taken(steps)
        return self._next_obs_decoder(part(params, "next_obs"), z, question)

    def _taken(self, steps: Steps) -> Tensor:
        """[..., I, O + A (+ O · A)]: observation and action, and which of both where discrete."""
        obs, action = steps.obs, steps.action
        if not self.discrete:
            return torch.cat([obs, action], -1)
        action = encode_choices(action, self.action_width, self.nvec)
        both = (obs.unsqueeze(-1) * action.unsqueeze(-2)).flatten(-2)
        return torch.cat([obs, action, both], -1)

    @property
    def _taken_width(self) -> int:
        pairs = self.obs_width * self.action_width if self.discrete else 0
        return self.obs_width + self.action_width + pairs

    @property
    def _reward_decoder(self) -> BilinearDecoder:
        return self._decoder(self._taken_width + self.obs_width, 1)

    @property
    def _next_obs_decoder(self) -> BilinearDecoder:
        return self._decoder(self._taken_width, self.obs_width)

    def _decoder(self, question_width: int, outputs: int) -> BilinearDecoder:
        return BilinearDecoder(
            self.latent_width,
            question_width,
            self.decoder_sizes,
            self.decoder_features,
            outputs,
        )


def _log_normal(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """[...]: the log-density of x [...]."""
    return -0.5 * ((x - mean) * torch.exp(-log_std)).square() - log_std - _HALF_LOG_2PI
