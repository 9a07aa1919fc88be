"""The options of the families that need an extra package; imports neither torch nor gymnasium."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from metarl.config.registry import Settings


class ExtraConfig(Settings):
    """What all of them share."""

    workers: NonNegativeInt = 0
    """processes that share the environments; 0: this one steps them all"""


# -------------------------------------------------------------------------------------------------
# Meta-World


class MetaworldConfig(ExtraConfig):
    """What all benchmarks share."""

    package = extra = "metaworld"

    goals_seed: NonNegativeInt = 0
    """seed that the package draws the benchmark's 50 goals a class with"""
    reward_function_version: Literal["v2", "v1"] = "v2"
    """the package's rewards: v2, between 0 and 10 in every step; v1, of each class"""
    terminate_on_success: bool = False
    """episodes end with success, as in the package's evaluation"""
    horizon: int = Field(500, ge=1, le=500)
    """longest episode, in steps, H"""


class ML1Config(MetaworldConfig):
    """Meta-World ML1: one manipulation with hidden goals (Yu et al. 2020, arXiv:1910.10897)."""

    configures = "metarl_envs.metaworld:ML1"

    env: str = "reach-v3"
    """which manipulation, such as push-v3 or pick-place-v3"""


class ML10Config(MetaworldConfig):
    """Meta-World ML10: ten manipulations to learn from, five others for test (Yu et al. 2020)."""

    configures = "metarl_envs.metaworld:ML10"


class ML45Config(MetaworldConfig):
    """Meta-World ML45: 45 manipulations to learn from, five others for test (Yu et al. 2020)."""

    configures = "metarl_envs.metaworld:ML45"


class MultiTaskConfig(MetaworldConfig):
    """What MT10 and MT50 share."""

    show_class: bool = False
    """also observe which manipulation it is, as a one-hot"""


class MT10Config(MultiTaskConfig):
    """Meta-World MT10: ten manipulations, goals visible (Yu et al. 2020); closed."""

    configures = "metarl_envs.metaworld:MT10"


class MT50Config(MultiTaskConfig):
    """Meta-World MT50: fifty manipulations, goals visible (Yu et al. 2020); closed."""

    configures = "metarl_envs.metaworld:MT50"


# -------------------------------------------------------------------------------------------------
# Gymnasium-Robotics


class RoboticsConfig(ExtraConfig):
    """What goal-conditioned environments share."""

    package = "gymnasium_robotics"
    extra = "robotics"

    reward: Literal["sparse", "dense"] = "sparse"
    """at the goal only, or larger the nearer it is"""


class FetchReachConfig(RoboticsConfig):
    """An arm whose gripper must go to a hidden place (Plappert et al. 2018, arXiv:1802.09464)."""

    configures = "metarl_envs.robotics:FetchReach"

    horizon: PositiveInt = 50
    """longest episode, in steps, H"""


class FetchPushConfig(RoboticsConfig):
    """An arm that must push a block to a hidden place on a table (Plappert et al. 2018)."""

    configures = "metarl_envs.robotics:FetchPush"

    horizon: PositiveInt = 50
    """longest episode, in steps, H"""


class PointMazeConfig(RoboticsConfig):
    """A ball that must be rolled to a hidden place in a maze (Fu et al. 2020, D4RL)."""

    configures = "metarl_envs.robotics:PointMaze"
    variants: ClassVar = {"medium": {"horizon": 600}, "large": {"horizon": 800}}

    variant: Literal["u", "medium", "large"] = "u"
    """the plan of the maze"""
    horizon: PositiveInt = 300
    """longest episode, in steps, H"""


# -------------------------------------------------------------------------------------------------
# MiniGrid


class MinigridConfig(ExtraConfig):
    """What all grids share."""

    package = extra = "minigrid"

    view: Literal[7, 5, 3] = 7
    """cells along each side of the observed square"""


class MinigridFourRoomsConfig(MinigridConfig):
    """MiniGrid's four rooms with a hidden goal to remember (Chevalier-Boisvert et al. 2023)."""

    configures = "metarl_envs.minigrid:MinigridFourRooms"

    horizon: PositiveInt = 100
    """longest episode, in steps, H"""


class MinigridBallsConfig(MinigridConfig):
    """A bandit to be seen: balls at two of three places (Chevalier-Boisvert et al. 2023)."""

    configures = "metarl_envs.minigrid:MinigridBalls"


class MinigridFetchConfig(MinigridConfig):
    """MiniGrid's room of things, one hidden kind of which pays (Chevalier-Boisvert et al. 2023)."""

    configures = "metarl_envs.minigrid:MinigridFetch"

    size: int = Field(5, ge=5)
    """cells along each side of the room, walls included"""
    things: int = Field(2, ge=1, le=6)
    """how many things lie in the room"""
    horizon: PositiveInt = 125
    """longest episode, in steps, H"""
    observation: Literal["symbols", "pixels"] = "symbols"
    """what cells are seen as: one-hots, or an image of 4 × 4 pixels each"""
