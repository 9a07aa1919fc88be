"""Options of RL2; imports no torch, so that mistakes are reported at once."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from metarl.agents.config import TASK_INPUT, TaskInput
from metarl.config.schema import Schedule
from metarl.options.config import OptionsConfig


class RL2Config(OptionsConfig):
    """RL²: a recurrent policy learns to learn inside a trial, trained with PPO (Duan et al. 2016, arXiv:1611.02779)."""

    configures: ClassVar[str] = "metarl.agents.rl2.agent:RL2"

    task_input: TaskInput = Field("none", description=TASK_INPUT)
    memory: Literal["gru", "lstm", "none"] = Field(
        "gru",
        description="recurrent memory; none: nothing is remembered, and with one episode it is plain PPO",
    )
    memory_width: int = Field(64, ge=1, description="units of the memory")
    encoder_sizes: tuple[int, ...] = Field((), description="widths of the layers before the memory")
    hidden_sizes: tuple[int, ...] = Field((), description="widths of the layers after the memory")
    activation: Literal["tanh", "relu"] = Field("tanh", description="activation of these layers")
    pair_input: bool = Field(
        False,
        description="also give the memory the previous observation times the previous action, alone and times the reward",
    )
    readout: Literal["linear", "observation"] = Field(
        "linear",
        description="heads: one linear map of the memory, or one whose weights are linear in the observation",
    )
    initial_std: float = Field(
        1.0, gt=0, description="standard deviation of the first policy (continuous actions)"
    )
    trials: int = Field(500, ge=1, description="trials, one task each, in an iteration")
    epochs: int = Field(4, ge=1, description="passes over the trials of an iteration")
    minibatches: int = Field(10, ge=1, description="minibatches of whole trials in a pass")
    learning_rate: Schedule = Field((2e-3, 0.0), description="Adam's step size")
    clip_range: float = Field(0.2, gt=0, description="PPO's ε")
    gamma: float = Field(0.99, gt=0, le=1, description="γ, over the whole trial")
    gae_lambda: Schedule = Field(
        (0.3, 0.95), description="λ of generalised advantage estimation, over the whole trial"
    )
    entropy_coef: Schedule = Field((0.03, 0.0), description="weight of the entropy bonus")
    option_entropy_coef: Schedule = Field(
        (0.03, 0.0), description="weight of the entropy of the choice of options"
    )
    value_coef: float = Field(
        0.5, ge=0, description="weight of the value loss (targets are normalised)"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    normalize_obs: bool = Field(
        False, description="standardise observations by their running moments"
    )
    normalize_reward: bool = Field(
        False,
        description="divide the reward in the cue by its running standard deviation, or by a tenth of its mean if larger",
    )

    @field_validator("pair_input")
    @classmethod
    def _remembered(cls, given: bool, known: ValidationInfo) -> bool:
        if given and known.data.get("memory") == "none":
            raise ValueError(
                "the previous action is shown to a memory alone; set memory to gru or lstm"
            )
        return given

    @field_validator("normalize_obs")
    @classmethod
    def _as_they_are(cls, given: bool, known: ValidationInfo) -> bool:
        if given and known.data.get("pretrained_options"):
            raise ValueError(
                "options that are ready see observations as they are; set normalize_obs to false"
            )
        return given
