"""Configuration of PEARL; imports no torch, so that errors are reported at once."""

from typing import ClassVar, Literal

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from metarl.agents.config import Fraction, TaskInput, UnitInterval
from metarl.config.registry import Settings
from metarl.config.schema import Schedule


class PEARLConfig(Settings):
    """PEARL: SAC on a latent task variable (Rakelly et al. 2019, arXiv:1903.08254).

    Presets: `pearl`; `sac`, which infers nothing: shown the task (`task_input`), it is multi-task
    or, with `hindsight`, goal-conditioned soft actor-critic.
    """

    configures = "metarl.agents.pearl.agent:PEARL"
    needs_train_tasks = True
    variants: ClassVar = {
        "pearl": {},
        "sac": {"latent_width": 0, "exploration_episodes": 0, "extra_episodes": 0},
    }
    small: ClassVar = {
        "initial_episodes": 2,
        "updates": 3,
        "batch_size": 16,
        "encoder_sizes": (16,),
        "hidden_sizes": (16,),
    }

    preset: Literal["pearl", "sac"] = "pearl"
    """the named set of defaults"""
    task_input: TaskInput = "none"
    latent_width: NonNegativeInt = 5
    """entries of the latent task variable z; 0: none is inferred"""
    encoder_sizes: tuple[int, ...] = (200, 200, 200)
    """hidden layers of the context encoder"""
    next_obs_input: bool = False
    """the encoder also sees the next observation: for dynamics that vary"""
    hidden_sizes: tuple[int, ...] = (300, 300, 300)
    """hidden layers of the policy, and of each critic"""
    initial_gain: PositiveFloat = 1.0
    """scale of the first policy's outputs: how much they depend on z"""
    exploration_episodes: NonNegativeInt = 1
    """first episodes of a task, with z from the prior"""

    tasks: PositiveInt = 5
    """training tasks that data is collected from in an iteration"""
    initial_episodes: PositiveInt = 10
    """episodes of every training task before the first update"""
    prior_episodes: PositiveInt = 2
    """episodes of each with z from the prior: its new context"""
    posterior_episodes: NonNegativeInt = 0
    """episodes after those with z from the posterior: context, too"""
    extra_episodes: NonNegativeInt = 3
    """episodes after those, for the critics only"""
    capacity: PositiveInt = 1_000_000
    """transitions in the replay buffer of each training task"""

    updates: PositiveInt = 2000
    """gradient steps of an iteration"""
    meta_batch_size: PositiveInt = 16
    """training tasks of a gradient step, drawn with replacement"""
    batch_size: PositiveInt = 256
    """transitions of each task for policy and critics, from its whole buffer"""
    context_size: PositiveInt = 100
    """transitions of each task for the encoder, from its newest context"""
    hindsight: UnitInterval = 0.0
    """share of transitions relabeled with a later goal (HER)"""
    learning_rate: Schedule = 3e-4
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
    kl_coef: Schedule = 0.1
    """β, weight of KL(posterior ‖ prior), summed over z and tasks: scale it with reward_scale²"""
    regularization: NonNegativeFloat = 1e-3
    """weight of the mean squares of means and log-stds before the tanh"""

    @field_validator("kl_coef")
    @classmethod
    def _not_negative(cls, value: float | tuple[float, ...]) -> float | tuple[float, ...]:
        numbers = value if isinstance(value, tuple) else (value,)
        if min(numbers) < 0:
            raise ValueError("give numbers of at least 0")
        return value

    @field_validator("extra_episodes")
    @classmethod
    def _posterior_is_known(cls, value: int, others: ValidationInfo) -> int:
        """For defaults, too; invalid fields are missing in `others`."""
        prior = others.data.get("prior_episodes", 0)
        explored = others.data.get("exploration_episodes", 0)
        later = value + others.data.get("posterior_episodes", 0)
        if later and prior < explored:
            raise ValueError(
                f"what follows fewer prior_episodes ({prior}) than exploration_episodes "
                f"({explored}) knows no posterior; raise prior_episodes"
            )
        return value
