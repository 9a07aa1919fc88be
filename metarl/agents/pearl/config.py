"""Options of PEARL; imports no torch, so that mistakes are reported at once."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from metarl.agents.config import TASK_INPUT, TaskInput
from metarl.config.registry import Settings
from metarl.config.schema import Schedule


class PEARLConfig(Settings):
    """PEARL: soft actor-critic on a task variable that is inferred from context (Rakelly et al. 2019, arXiv:1903.08254).

    Variants: PEARL; `sac`, which infers nothing: shown the task (`task_input`), it is multi-task or, with `hindsight`,
    goal-conditioned soft actor-critic.
    """

    configures: ClassVar[str] = "metarl.agents.pearl.agent:PEARL"
    needs_train_tasks: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "pearl": {},
        "sac": {"latent_width": 0, "exploration_episodes": 0, "extra_episodes": 0},
    }

    preset: Literal["pearl", "sac"] = Field(
        "pearl", description="whose defaults the other options take"
    )
    task_input: TaskInput = Field("none", description=TASK_INPUT)
    latent_width: int = Field(
        5, ge=0, description="entries of the task variable z; 0: nothing is inferred"
    )
    encoder_sizes: tuple[int, ...] = Field(
        (200, 200, 200), description="hidden layers of the context encoder"
    )
    next_obs_input: bool = Field(
        False,
        description="also show the encoder what a step led to: needed where the dynamics differ between tasks",
    )
    hidden_sizes: tuple[int, ...] = Field(
        (300, 300, 300), description="hidden layers of the policy, and of each critic"
    )
    initial_gain: float = Field(
        1.0,
        gt=0,
        description="scale of the first policy's outputs: how different its behaviours are for different z, "
        "where exploration begins",
    )
    exploration_episodes: int = Field(
        1, ge=0, description="first episodes of a task, lived through with z drawn from the prior"
    )

    tasks: int = Field(5, ge=1, description="training tasks that are visited in an iteration")
    initial_episodes: int = Field(
        10, ge=1, description="episodes of every training task before the first update"
    )
    prior_episodes: int = Field(
        2,
        ge=1,
        description="episodes of a visit with z drawn from the prior; they are the task's new context",
    )
    posterior_episodes: int = Field(
        0,
        ge=0,
        description="episodes of a visit that follow, z inferred anew before each, which are context too",
    )
    extra_episodes: int = Field(
        3,
        ge=0,
        validate_default=True,
        description="episodes of a visit that follow these, for the critics alone",
    )
    capacity: int = Field(
        1_000_000, ge=1, description="transitions that are kept of each training task"
    )

    updates: int = Field(2000, ge=1, description="gradient steps of an iteration")
    meta_batch_size: int = Field(
        16, ge=1, description="training tasks of a gradient step, drawn with replacement"
    )
    batch_size: int = Field(
        256, ge=1, description="transitions of each for policy and critics, of all that are kept"
    )
    context_size: int = Field(
        100, ge=1, description="transitions of each for the encoder, of the task's newest context"
    )
    hindsight: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of transitions that are told of a goal that was achieved later (HER)",
    )
    learning_rate: Schedule = Field(3e-4, description="Adam's step size")
    gamma: float = Field(0.99, gt=0, le=1, description="γ")
    tau: float = Field(
        0.005, gt=0, le=1, description="share τ by which targets follow the critics at every step"
    )
    reward_scale: float = Field(
        5.0, gt=0, description="critics learn from so many times the reward"
    )
    temperature: float = Field(
        1.0,
        gt=0,
        description="α, weight of the entropy beside scaled rewards; the first, if learned",
    )
    learn_temperature: bool = Field(
        False, description="move α to where the policy has the entropy of target_entropy"
    )
    target_entropy: float | None = Field(
        None,
        description="in nats; none: −1 for every entry of an action, or half of the most that discrete ones can have",
    )
    kl_coef: Schedule = Field(
        0.1,
        description="weight of KL(posterior ‖ prior), summed over entries of z and the tasks of a gradient step, beside the "
        "mean squared errors of the critics; it belongs to reward_scale², meta_batch and latent_width",
    )
    regularization: float = Field(
        1e-3,
        ge=0,
        description="weight of the mean squares of means and log-deviations before the tanh",
    )

    @field_validator("kl_coef")
    @classmethod
    def _at_least_zero(cls, given: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if min(given if isinstance(given, tuple) else (given,)) < 0:
            raise ValueError("give numbers of at least 0")
        return given

    @field_validator("extra_episodes")
    @classmethod
    def _explored(cls, given: int, known: ValidationInfo) -> int:
        """Defaults are looked at, too; fields that are wrong themselves are not in `known`."""
        prior, explored = (
            known.data.get("prior_episodes", 0),
            known.data.get("exploration_episodes", 0),
        )
        if given + known.data.get("posterior_episodes", 0) and prior < explored:
            raise ValueError(
                f"what follows fewer prior_episodes ({prior}) than exploration_episodes ({explored}) knows no posterior; "
                "raise prior_episodes"
            )
        return given
