"""The options of the families that come with metarl; imports no torch, so that mistakes are reported at once."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from metarl.config.registry import Settings


class BernoulliBanditConfig(Settings):
    """Arms that pay 1 with unknown probabilities; an episode is one pull (Duan et al. 2016, section 3.1)."""

    configures: ClassVar[str] = "metarl_envs.bandit:BernoulliBandit"

    arms: int = Field(5, ge=2, description="number of arms, k")


class GaussianBanditConfig(Settings):
    """Arms that pay normal rewards of variance 1 with unknown means; an episode is one pull."""

    configures: ClassVar[str] = "metarl_envs.bandit:GaussianBandit"

    arms: int = Field(5, ge=2, description="number of arms, k")


class TabularMDPConfig(Settings):
    """Random finite Markov decision processes (Osband et al. 2013; Duan et al. 2016, section 3.2)."""

    configures: ClassVar[str] = "metarl_envs.mdp:TabularMDP"

    states: int = Field(10, ge=2, description="number of states, S")
    actions: int = Field(5, ge=2, description="number of actions, A")
    horizon: int = Field(10, ge=1, description="steps of an episode, H")


class PointConfig(Settings):
    """A point in the plane that must go to an unseen goal (Finn et al. 2017, section 5.2)."""

    configures: ClassVar[str] = "metarl_envs.point:Point"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "maml": {},
        "pearl": {"start_range": 1.0, "goal_range": 1.0, "arrival": 0.0, "horizon": 20},
    }

    variant: Literal["maml", "pearl"] = Field(
        "maml", description="whose defaults the other options take"
    )
    start_range: float = Field(
        0.0, ge=0, description="episodes start uniformly on the square of this half-width"
    )
    goal_range: float = Field(
        0.5, gt=0, description="goals are uniform on the square of this half-width"
    )
    step_size: float = Field(0.1, gt=0, description="farthest move along an axis in one step")
    arrival: float = Field(
        0.01,
        ge=0,
        description="the episode ends closer to the goal than this along both axes; 0: it does not",
    )
    horizon: int = Field(100, ge=1, description="longest episode, in steps, H")


class SparsePointConfig(Settings):
    """A point that is paid only within a small circle around an unseen goal on a half circle (Rakelly et al. 2019)."""

    configures: ClassVar[str] = "metarl_envs.sparse_point:SparsePoint"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "pearl": {},
        "varibad": {"goals": None, "dense": False, "horizon": 100},
    }

    variant: Literal["pearl", "varibad"] = Field(
        "pearl", description="whose defaults the other options take"
    )
    goals: int | None = Field(
        100,
        ge=5,
        description="goals, evenly spaced on the half circle, a fifth of them for test; none: anywhere on it",
    )
    dense: bool = Field(
        True, description="agents may learn from the distance to the goal as a second reward"
    )
    radius: float = Field(0.2, gt=0, description="the reward is paid this close to the goal")
    step_size: float = Field(0.1, gt=0, description="farthest move along an axis in one step")
    horizon: int = Field(20, ge=1, description="steps of an episode, H")


class GridNaviConfig(Settings):
    """A 5 × 5 grid whose hidden goal must be found and then be remembered (Zintgraf et al. 2020, VariBAD)."""

    configures: ClassVar[str] = "metarl_envs.gridnavi:GridNavi"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"all": {}, "held-out": {}}

    variant: Literal["all", "held-out"] = Field(
        "all",
        description="which goals: all 21 in every split, or some kept for validation and test",
    )
    horizon: int = Field(15, ge=1, description="steps of an episode, H")


class FourRoomsConfig(Settings):
    """Four rooms joined by doorways, where moves slip; goals are held out in each (Bacon et al. 2017, option-critic)."""

    configures: ClassVar[str] = "metarl_envs.four_rooms:FourRooms"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "held-out": {},
        "option-critic": {},
        "option-critic-moved": {},
    }

    variant: Literal["held-out", "option-critic", "option-critic-moved"] = Field(
        "held-out",
        description="which goals: some of every room kept for validation and test, or the one goal of option-critic "
        "or those that it moves to, the same in every split",
    )
    horizon: int = Field(1000, ge=1, description="longest episode, in steps, H")


class MovementBanditsConfig(Settings):
    """Two places in sight of which one pays, always the same; observations of named parts (Frans et al. 2018, MLSH)."""

    configures: ClassVar[str] = "metarl_envs.movement_bandits:MovementBandits"

    horizon: int = Field(50, ge=1, description="steps of an episode, H")


class TaxiConfig(Settings):
    """A taxi that is told neither where its passenger waits nor where to take it (Kuric & van Hoof 2023, FAMP)."""

    configures: ClassVar[str] = "metarl_envs.taxi:Taxi"

    horizon: int = Field(1500, ge=1, description="longest episode, in steps, H")


class GoalMazeConfig(Settings):
    """A point in a maze with a sparse reward at a goal that chance hardly ever finds, for hindsight."""

    configures: ClassVar[str] = "metarl_envs.goal_maze:GoalMaze"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"u": {}, "medium": {"horizon": 100}}

    variant: Literal["u", "medium"] = Field("u", description="the plan of the maze")
    step_size: float = Field(
        0.2, gt=0, le=0.5, description="farthest move along an axis in one step, in cells"
    )
    radius: float = Field(0.3, gt=0, description="the goal is reached this close to it, in cells")
    horizon: int = Field(50, ge=1, description="steps of an episode, H")
