"""Configuration of PEARL; imports no torch, so that errors are reported at once."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from metarl.agents.config import PRESET, TaskInput
from metarl.algorithms.config import SACConfig, UnitInterval
from metarl.config.numbers import NonNegativeSchedule

Preset = Annotated[Literal["pearl", "sac", "mtsac"], PRESET]
_NO_LATENT: dict[str, Any] = {"latent_width": 0, "exploration_episodes": 0, "extra_episodes": 0}


class PEARLConfig(SACConfig):
    """PEARL: SAC on a latent task variable (Rakelly et al. 2019, arXiv:1903.08254).

    Presets: `pearl`; `sac` and `mtsac`, which infer nothing and may be shown the task.
    """

    configures = "metarl.agents.pearl.agent:PEARL"
    needs_train_tasks = True
    shards_gradients = True
    variants: ClassVar = {
        "pearl": {},
        "sac": _NO_LATENT,
        "mtsac": {**_NO_LATENT, "task_input": "onehot"},
    }
    small: ClassVar = {
        "initial_episodes": 2,
        "updates": 3,
        "batch_size": 16,
        "encoder_sizes": (16,),
        "teacher_sizes": (16,),
        "hidden_sizes": (16,),
    }

    preset: Preset = "pearl"
    task_input: TaskInput = "none"
    latent_width: NonNegativeInt = 5
    """entries of the latent task variable z; 0: none is inferred"""
    encoder_sizes: tuple[PositiveInt, ...] = (200, 200, 200)
    """hidden layers of the context encoder"""
    next_obs_input: bool = False
    """the encoder also sees the next observation: for dynamics that vary"""
    factors: Literal["gaussian", "natural"] = "gaussian"
    """of the posterior: means and variances, without the prior; or natural parameters, shift and
    precision, with the prior N(0, I) as a factor"""
    exploration_episodes: NonNegativeInt = 1
    """first episodes of a task, with z from the prior"""
    exploration_mode: Literal["as-told", "sample"] = "as-told"
    """how actions are chosen in them: as everywhere, or sampled in greedy evaluation, too"""
    mean_below: NonNegativeFloat = 0.0
    """act on the posterior's mean where each of its standard deviations is smaller; else on a z
    drawn from it; 0: it is always drawn"""

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
    context_sampling: Literal["steps", "prefixes"] = "steps"
    """the encoder's context in training: context_size single steps, or the first episodes of a
    visit as they followed each other, from one to all"""
    context_visits: PositiveInt = 1
    """prefixes are of one of so many newest visits to the task"""
    context_dropout: UnitInterval = 0.0
    """at most this share of a prefix's steps is left out"""
    hindsight: UnitInterval = 0.0
    """share of transitions relabeled with a later goal (HER)"""
    kl_coef: NonNegativeSchedule = 0.1
    """β, weight of KL(posterior ‖ prior), summed over z and tasks: scale it with reward_scale²"""

    teacher: Literal["none", "task", "outcomes"] = "none"
    """what else the encoder learns from: task, the training tasks' rows, which then also give z to
    policy and critics; outcomes, a decoder of rewards and next observations"""
    teacher_sizes: tuple[PositiveInt, ...] = (64, 64)
    """hidden layers of the teacher's networks"""
    teacher_std: PositiveFloat = 0.05
    """σ of the task row, standardized, given the z that teacher task makes of it"""
    decoder_coef: NonNegativeFloat = 1.0
    """weight of the squared error of teacher outcomes"""

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

    @model_validator(mode="after")
    def _infers_what_is_taught(self) -> Self:
        if not self.latent_width and self.teacher != "none":
            raise ValueError(
                f"teacher {self.teacher} has nothing to teach: latent_width is 0; set "
                "latent_width, or teacher to none"
            )
        if self.teacher == "task" and self.task_input == "onehot":
            raise ValueError(
                "task_input onehot shows which training task it is, and nothing is left to infer; "
                "set it, or teacher, to none"
            )
        return self


class SACPreset(PEARLConfig):
    """SAC: soft actor-critic; with hindsight, goal-conditioned (Haarnoja et al. 2018)."""

    preset: Annotated[Literal["sac"], PRESET] = "sac"


class MTSACPreset(PEARLConfig):
    """Multi-task SAC: shown which of the training tasks it is (Yu et al. 2020)."""

    preset: Annotated[Literal["mtsac"], PRESET] = "mtsac"
