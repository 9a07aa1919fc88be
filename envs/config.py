"""The options of the families that come with metarl; imports no torch, to report errors at once."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from metarl.config.registry import Settings


class BanditConfig(Settings):
    """What both bandits share."""

    arms: int = Field(5, ge=2)
    """number of arms, k"""


class BernoulliBanditConfig(BanditConfig):
    """Bandits with rewards 0 or 1; an episode is one pull (Duan et al. 2016, section 3.1)."""

    configures = "metarl_envs.bandit:BernoulliBandit"


class GaussianBanditConfig(BanditConfig):
    """Bandits with normal rewards of variance 1; an episode is one pull."""

    configures = "metarl_envs.bandit:GaussianBandit"


class FactoredBanditConfig(Settings):
    """Bandits whose arm is several choices at once, whose values add up: MultiDiscrete."""

    configures = "metarl_envs.factored_bandit:FactoredBandit"

    factors: int = Field(3, ge=2)
    """number of choices that an action makes, D"""
    arms: int = Field(4, ge=2)
    """number of options of each choice, k"""


class TabularMDPConfig(Settings):
    """Random finite MDPs (Osband et al. 2013; Duan et al. 2016, section 3.2)."""

    configures = "metarl_envs.mdp:TabularMDP"

    states: int = Field(10, ge=2)
    """number of states, S"""
    actions: int = Field(5, ge=2)
    """number of actions, A"""
    horizon: PositiveInt = 10
    """steps of an episode, H"""


class PointConfig(Settings):
    """A point in the plane that must go to a hidden goal (Finn et al. 2017, section 5.2)."""

    configures = "metarl_envs.point:Point"
    variants: ClassVar = {
        "pearl": {"start_range": 1.0, "goal_range": 1.0, "arrival": 0.0, "horizon": 20},
    }

    variant: Literal["maml", "pearl"] = "maml"
    """whose defaults the other options take"""
    start_range: NonNegativeFloat = 0.0
    """episodes start uniformly on the square of this half-width"""
    goal_range: PositiveFloat = 0.5
    """goals are uniform on the square of this half-width"""
    step_size: PositiveFloat = 0.1
    """farthest move along an axis in one step"""
    arrival: NonNegativeFloat = 0.01
    """episodes end this close to the goal along both axes; 0: never"""
    horizon: PositiveInt = 100
    """longest episode, in steps, H"""


class SparsePointConfig(Settings):
    """A point rewarded only near a hidden goal on a half circle (Rakelly et al. 2019)."""

    configures = "metarl_envs.sparse_point:SparsePoint"
    variants: ClassVar = {"varibad": {"goals": None, "dense": False, "horizon": 100}}

    variant: Literal["pearl", "varibad"] = "pearl"
    """whose defaults the other options take"""
    goals: int | None = Field(100, ge=5)
    """evenly spaced goals on a half circle, a fifth for test; none: anywhere on it"""
    dense: bool = True
    """agents may learn from the distance to the goal as a second reward"""
    radius: PositiveFloat = 0.2
    """distance to the goal that is rewarded"""
    step_size: PositiveFloat = 0.1
    """farthest move along an axis in one step"""
    horizon: PositiveInt = 20
    """steps of an episode, H"""


class GridNaviConfig(Settings):
    """A 5 × 5 grid with a hidden goal to find and remember (Zintgraf et al. 2020, VariBAD)."""

    configures = "metarl_envs.gridnavi:GridNavi"
    variants: ClassVar = {"all": {}, "held-out": {}}

    variant: Literal["all", "held-out"] = "all"
    """all 21 goals in every split, or some held out for validation and test"""
    horizon: PositiveInt = 15
    """steps of an episode, H"""


class FourRoomsConfig(Settings):
    """Four rooms with doorways, where moves slip; goals are held out (Bacon et al. 2017)."""

    configures = "metarl_envs.four_rooms:FourRooms"
    variants: ClassVar = {"held-out": {}, "option-critic": {}, "option-critic-moved": {}}

    variant: Literal["held-out", "option-critic", "option-critic-moved"] = "held-out"
    """goals: some of every room held out for validation and test; the one goal of option-critic, or
    those that it moves to, in every split"""
    horizon: PositiveInt = 1000
    """longest episode, in steps, H"""


class MovementBanditsConfig(Settings):
    """Two visible places of which one is rewarded (Frans et al. 2018, MLSH)."""

    configures = "metarl_envs.movement_bandits:MovementBandits"

    horizon: PositiveInt = 50
    """steps of an episode, H"""


class TaxiConfig(Settings):
    """A taxi whose passenger and destination are hidden (Kuric & van Hoof 2023, FAMP)."""

    configures = "metarl_envs.taxi:Taxi"

    horizon: PositiveInt = 1500
    """longest episode, in steps, H"""


class GoalMazeConfig(Settings):
    """A point in a maze with a sparse reward that is rarely found at random, for hindsight."""

    configures = "metarl_envs.goal_maze:GoalMaze"
    variants: ClassVar = {"medium": {"horizon": 100}}

    variant: Literal["u", "medium"] = "u"
    """the plan of the maze"""
    step_size: float = Field(0.2, gt=0, le=0.5)
    """farthest move along an axis in one step, in cells"""
    radius: PositiveFloat = 0.3
    """the goal is reached this close to it, in cells"""
    horizon: PositiveInt = 50
    """steps of an episode, H"""
