"""Configurations of the engines; imports no torch, so that errors are reported at once."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from metarl.config.numbers import NonNegativeSchedule, UnitSchedule
from metarl.config.registry import Settings

Fraction = Annotated[float, Field(gt=0, le=1)]
UnitInterval = Annotated[float, Field(ge=0, le=1)]


class InputsConfig(Settings):
    """How a policy's inputs are scaled."""

    normalize_obs: bool = False
    """normalize observations by their running mean and variance"""
    normalize_reward: bool = False
    """divide the reward in the cue by its running deviation, or a tenth of its mean if larger"""


class ImitationConfig(InputsConfig):
    """Imitation of a teacher in whole trials."""

    epochs: PositiveInt = 4
    """passes over the trials of an iteration"""
    minibatches: PositiveInt = 8
    """minibatches of whole trials in a pass"""
    learning_rate: NonNegativeSchedule = (3e-3, 0.0)
    """Adam's step size"""
    max_grad_norm: PositiveFloat = 1.0
    """gradients are clipped to this norm"""


class PPOConfig(InputsConfig):
    """Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347)."""

    epochs: PositiveInt = 4
    """passes over the trials of an iteration"""
    minibatches: PositiveInt = 10
    """minibatches of whole trials in a pass"""
    learning_rate: NonNegativeSchedule = (2e-3, 0.0)
    """Adam's step size"""
    clip_range: PositiveFloat = 0.2
    """PPO's ε"""
    gamma: Fraction = 0.99
    """discount γ: over the whole trial, or within episodes if nothing is remembered"""
    gae_lambda: UnitSchedule = (0.3, 0.95)
    """λ of GAE, over the same steps as γ"""
    entropy_coef: NonNegativeSchedule = (0.03, 0.0)
    """weight of the entropy bonus"""
    option_entropy_coef: NonNegativeSchedule = (0.03, 0.0)
    """weight of the entropy of the choice of options"""
    value_coef: NonNegativeFloat = 0.5
    """weight of the value loss (targets are normalized)"""
    max_grad_norm: PositiveFloat = 1.0
    """gradients are clipped to this norm"""


class SACConfig(Settings):
    """Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905)."""

    hidden_sizes: tuple[PositiveInt, ...] = (300, 300, 300)
    """hidden layers of the policy, and of each critic"""
    initial_gain: PositiveFloat = 1.0
    """scale of the first policy's outputs: how much they depend on its inputs"""
    learning_rate: NonNegativeSchedule = 3e-4
    """Adam's step size"""
    gamma: Fraction = 0.99
    """discount γ"""
    tau: Fraction = 0.005
    """τ of the targets' moving average of the critics"""
    reward_scale: PositiveFloat = 5.0
    """factor of the rewards for the critics"""
    temperature: PositiveFloat = 1.0
    """α, weight of the entropy beside scaled rewards; the initial one if it is learned"""
    learn_temperature: bool = False
    """learn α so that the policy's entropy is target_entropy"""
    target_entropy: float | None = None
    """in nats; none: −1 per entry of an action, or half of the maximum for discrete actions"""
    regularization: NonNegativeFloat = 1e-3
    """weight of the mean squares of means and log-stds before the tanh"""
