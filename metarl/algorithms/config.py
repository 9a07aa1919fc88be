"""Configurations of the engines; imports no torch, so that errors are reported at once."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from metarl.config.numbers import NonNegativeSchedule, UnitSchedule
from metarl.config.registry import Settings
from metarl.nn.config import ImageConfig

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


class ELBOConfig(Settings):
    """The belief of VariBAD (Zintgraf et al. 2020, arXiv:1910.08348)."""

    latent_width: PositiveInt = 5
    """entries of the latent task variable z"""
    belief_sizes: tuple[PositiveInt, ...] = ()
    """hidden layers between the memory and the posterior"""
    decoder_sizes: tuple[PositiveInt, ...] = (64,)
    """hidden layers of the decoders, of z and of what is asked"""
    decoder_features: PositiveInt = 64
    """width of the product that joins both"""
    reward_values: tuple[float, float] | None = None
    """the lower and the higher one, if rewards are one of two; none: any"""
    next_obs_decoder: Literal["none", "normal", "onehot"] = "none"
    """what is predicted of the next observation: nothing, its entries, or which of a one-hot"""
    next_obs_coef: NonNegativeFloat = 1.0
    """c, weight of that beside the reward"""
    kl_coef: NonNegativeFloat = 0.25
    """λ, weight of the KL divergence from the belief of the step before"""
    targets: Literal["trial", "replayed"] = "trial"
    """what beliefs predict: the whole trial, as published; or a second trial of the same task with
    the actions of another task's, which tell nothing of it: then they become those of Bayes"""
    target_trials: PositiveInt = 100
    """trials that the belief learns from in an iteration, if targets are replayed"""
    elbo_epochs: PositiveInt = 3
    """passes of the belief over the trials of an iteration"""
    elbo_minibatches: PositiveInt = 10
    """minibatches of whole trials in such a pass"""
    elbo_times: PositiveInt = 16
    """steps of a trial whose beliefs are decoded, drawn anew in every minibatch"""
    elbo_steps: PositiveInt = 100
    """transitions of the whole trial that are decoded from each, drawn alike"""
    elbo_learning_rate: NonNegativeSchedule = (1e-3, 0.0)
    """Adam's step size for encoder and decoders, and for what is new to HyperX"""
    max_grad_norm: PositiveFloat = 1.0
    """gradients are clipped to this norm"""

    @field_validator("reward_values")
    @classmethod
    def _ascend(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError(f"two different rewards, the lower one first; not {list(value)}")
        return value


class SACConfig(ImageConfig):
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
