"""Configuration of distillation; imports no torch, so that errors are reported at once."""

from typing import Annotated, ClassVar, Literal

from pydantic import PositiveInt

from metarl.agents.config import PRESET, MemoryAgentConfig
from metarl.algorithms.config import ImitationConfig, UnitInterval

Preset = Annotated[Literal["distill", "ad", "dpt", "dagger"], PRESET]


class DistillConfig(MemoryAgentConfig, ImitationConfig):
    """Distillation: a policy with memory imitates another agent in its trials.

    Laskin et al. 2022 (AD), Lee et al. 2023 (DPT), Ross et al. 2011 (DAgger).
    """

    configures = "metarl.agents.distill.agent:Distill"
    other_agents: ClassVar = ("teacher", "behavior")
    small: ClassVar = {"teacher": "random", "trials": 6}
    variants: ClassVar = {
        "distill": {},
        "ad": {},
        "dpt": {"behavior": "random"},
        "dagger": {"student_share": 0.5},
    }

    preset: Preset = "distill"
    teacher: str = ""
    """who is imitated: a strategy, a run, or path/to/file.py:Class; it may be shown the task"""
    behavior: str = ""
    """who acts in the trials, named alike; empty: the teacher"""
    student_share: UnitInterval = 0.0
    """share of trials in which the agent acts itself, and the teacher says what it would do"""
    trials: PositiveInt = 256
    """trials of an iteration, one task each"""


class ADPreset(DistillConfig):
    """AD: the actions of a teacher that learns (Laskin et al. 2022, arXiv:2210.14215)."""

    preset: Annotated[Literal["ad"], PRESET] = "ad"


class DPTPreset(DistillConfig):
    """DPT: best actions in anybody's trials (Lee et al. 2023, arXiv:2306.14892)."""

    preset: Annotated[Literal["dpt"], PRESET] = "dpt"


class DAggerPreset(DistillConfig):
    """DAgger: a teacher's actions in trials of one's own (Ross et al. 2011, arXiv:1011.0686)."""

    preset: Annotated[Literal["dagger"], PRESET] = "dagger"
