"""Configuration of RL²; imports no torch, so that errors are reported at once."""

from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from metarl.agents.config import Fraction, TaskInput
from metarl.config.schema import Schedule
from metarl.options.config import OptionsConfig


class RL2Config(OptionsConfig):
    """RL²: a recurrent policy learns in a trial, by PPO (Duan et al. 2016, arXiv:1611.02779)."""

    configures = "metarl.agents.rl2.agent:RL2"
    small: ClassVar = {"trials": 6, "epochs": 2, "minibatches": 2}

    task_input: TaskInput = "none"
    memory: Literal["gru", "lstm", "none"] = "gru"
    """recurrent memory; none with one episode per trial is plain PPO"""
    memory_width: PositiveInt = 64
    """units of the memory"""
    encoder_sizes: tuple[int, ...] = ()
    """widths of the layers before the memory"""
    hidden_sizes: tuple[int, ...] = ()
    """widths of the layers after the memory"""
    activation: Literal["tanh", "relu"] = "tanh"
    """activation of these layers"""
    pair_input: bool = False
    """the memory also sees the last observation times the last action, and that times the reward"""
    readout: Literal["linear", "observation"] = "linear"
    """heads: linear, or with weights that are affine in the observation"""
    initial_std: PositiveFloat = 1.0
    """standard deviation of the first policy (continuous actions)"""
    trials: PositiveInt = 500
    """trials of an iteration, one task each"""
    epochs: PositiveInt = 4
    """passes over the trials of an iteration"""
    minibatches: PositiveInt = 10
    """minibatches of whole trials in a pass"""
    learning_rate: Schedule = (2e-3, 0.0)
    """Adam's step size"""
    clip_range: PositiveFloat = 0.2
    """PPO's ε"""
    gamma: Fraction = 0.99
    """discount γ, over the whole trial"""
    gae_lambda: Schedule = (0.3, 0.95)
    """λ of GAE, over the whole trial"""
    entropy_coef: Schedule = (0.03, 0.0)
    """weight of the entropy bonus"""
    option_entropy_coef: Schedule = (0.03, 0.0)
    """weight of the entropy of the choice of options"""
    value_coef: NonNegativeFloat = 0.5
    """weight of the value loss (targets are normalized)"""
    max_grad_norm: PositiveFloat = 1.0
    """gradients are clipped to this norm"""
    normalize_obs: bool = False
    """normalize observations by their running mean and variance"""
    normalize_reward: bool = False
    """divide the reward in the cue by its running deviation, or a tenth of its mean if larger"""

    @field_validator("pair_input")
    @classmethod
    def _needs_memory(cls, value: bool, others: ValidationInfo) -> bool:
        if value and others.data.get("memory") == "none":
            raise ValueError("only a memory sees the previous action; set memory to gru or lstm")
        return value

    @field_validator("normalize_obs")
    @classmethod
    def _not_if_pretrained(cls, value: bool, others: ValidationInfo) -> bool:
        if value and others.data.get("pretrained_options"):
            raise ValueError("pretrained options see raw observations; set normalize_obs to false")
        return value
