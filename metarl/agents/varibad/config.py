"""Configuration of VariBAD; imports no torch, so that errors are reported at once."""

from typing import ClassVar, Self

from pydantic import PositiveInt, model_validator

from metarl.agents.config import PolicyConfig
from metarl.algorithms.config import ELBOConfig, PPOConfig
from metarl.config.numbers import NonNegativeSchedule


class VariBADConfig(PolicyConfig, PPOConfig, ELBOConfig):
    """VariBAD: a policy on a variational belief about the task (Zintgraf et al. 2020).

    arXiv:1910.08348. `memory`, `memory_width`, `encoder_sizes` and `pair_input` are the encoder's,
    `hidden_sizes` the policy's.
    """

    configures = "metarl.agents.varibad.agent:VariBAD"
    shards_gradients = True
    small: ClassVar = {"trials": 6, "epochs": 2, "minibatches": 2, "elbo_epochs": 1}

    trials: PositiveInt = 500
    """trials of an iteration, one task each"""

    novelty_coef: NonNegativeSchedule = 0.0
    """weight of HyperX's bonus for (observation, belief) that are new (Zintgraf et al. 2021)"""
    surprise_coef: NonNegativeSchedule = 0.0
    """weight of HyperX's bonus for outcomes that the belief did not expect, in nats"""

    @model_validator(mode="after")
    def _infers_from_a_memory(self) -> Self:
        if self.memory in ("none", "slots"):
            raise ValueError(f"memory {self.memory} holds no belief; set memory to gru or set")
        if self.readout == "hypernetwork":
            raise ValueError("the policy has no memory that could make a layer: set readout")
        if self.task_input != "none":
            raise ValueError("varibad infers the task: leave task_input")
        return self
