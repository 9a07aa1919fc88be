"""A policy's parameters with their optimizer, and the statistics that scale its inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarl.algorithms.config import InputsConfig
from metarl.algorithms.learner import Learner
from metarl.core.agent import Mode
from metarl.core.rng import Streams
from metarl.core.types import Acted, Inputs, Params, Spec, replace
from metarl.nn.memory import State
from metarl.nn.normalizer import InputNormalizer
from metarl.options.option_policy import AnyPolicy


class PolicyLearner(Learner):
    """What acts: engines say how it learns."""

    def __init__(
        self,
        policy: AnyPolicy,
        params: Params,
        config: InputsConfig,
        spec: Spec,
        device: torch.device,
    ):
        self.policy = policy
        super().__init__(params, device)
        self.inputs = InputNormalizer(
            spec, device, obs=config.normalize_obs, reward=config.normalize_reward
        )

    def normalize(self, inputs: Inputs) -> Inputs:
        """The policy's inputs, by statistics that change only in updates."""
        return self.inputs.normalize(inputs)

    def act(
        self,
        inputs: Inputs,
        memory: State,
        begins: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, State]:
        """Act on inputs [N, M, …], which are recorded as they are → the action, the next memory."""
        acted, memory = self.policy.act(
            self.params,
            self.normalize(inputs),
            memory,
            begins,
            noise,
            counter,
            mode,
        )
        inputs = replace(inputs, option=acted.inputs.option)
        return replace(acted, inputs=inputs), memory

    # -- checkpoints

    def moments(self) -> dict[str, Any]:
        """The statistics."""
        return self.inputs.state_dict()

    def acting_state(self) -> dict[str, Any]:
        """Parameters, and statistics."""
        return super().acting_state() | {"moments": self.moments()}

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take over an acting state; a fresh optimizer.

        Raises:
            ConfigError: parameters of another architecture.
        """
        super().warm_start(state)
        self.inputs.load_state_dict(state["moments"], self.device)
