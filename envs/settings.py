"""The options of the families that come with metarl; imports no torch, so that mistakes are reported at once."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from metarl.find import Settings


class BernoulliBandit(Settings):
    """Arms that pay 1 with unknown probabilities; an episode is one pull (Duan et al. 2016, section 3.1)."""

    configures: ClassVar[str] = "metarl_envs.bandit:BernoulliBandit"

    arms: int = Field(5, ge=2, description="number of arms, k")


class GaussianBandit(Settings):
    """Arms that pay normal rewards of variance 1 with unknown means; an episode is one pull."""

    configures: ClassVar[str] = "metarl_envs.bandit:GaussianBandit"

    arms: int = Field(5, ge=2, description="number of arms, k")


class TabularMDP(Settings):
    """Random finite Markov decision processes (Osband et al. 2013; Duan et al. 2016, section 3.2)."""

    configures: ClassVar[str] = "metarl_envs.mdp:TabularMDP"

    states: int = Field(10, ge=2, description="number of states, S")
    actions: int = Field(5, ge=2, description="number of actions, A")
    horizon: int = Field(10, ge=1, description="steps of an episode, H")


class Point(Settings):
    """A point in the plane that must go to an unseen goal (Finn et al. 2017, section 5.2)."""

    configures: ClassVar[str] = "metarl_envs.point:Point"

    goal_range: float = Field(0.5, gt=0, description="goals are uniform on the square of this half-width")
    step_size: float = Field(0.1, gt=0, description="farthest move along an axis in one step")
    arrival: float = Field(0.01, ge=0, description="the episode ends closer to the goal than this along both axes")
    horizon: int = Field(100, ge=1, description="longest episode, in steps, H")
