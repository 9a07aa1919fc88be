"""The options of the families that need a package of their own; imports neither torch nor gymnasium."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from metarl.config.registry import Settings

_STEPS = "longest episode, in steps, H"


class ExtraConfig(Settings):
    """What all of them share."""

    workers: int = Field(
        0, ge=0, description="processes that share the environments; 0: this one steps them all"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Meta-World


class MetaworldConfig(ExtraConfig):
    """What all benchmarks share."""

    goals_seed: int = Field(
        0, ge=0, description="seed that the package draws the benchmark's 50 goals a class with"
    )
    reward_function_version: Literal["v2", "v1"] = Field(
        "v2",
        description="the package's rewards: v2, between 0 and 10 in every step, or v1, as large as each class has them",
    )
    terminate_on_success: bool = Field(
        False, description="episodes end with success, as in the package's evaluation"
    )
    horizon: int = Field(500, ge=1, le=500, description=_STEPS)


class ML1Config(MetaworldConfig):
    """Meta-World ML1: one manipulation with unseen goals (Yu et al. 2020, arXiv:1910.10897)."""

    configures: ClassVar[str] = "metarl_envs.metaworld:ML1"

    env: str = Field("reach-v3", description="which manipulation, such as push-v3 or pick-place-v3")


class ML10Config(MetaworldConfig):
    """Meta-World ML10: ten manipulations to learn from, five others for test (Yu et al. 2020)."""

    configures: ClassVar[str] = "metarl_envs.metaworld:ML10"


class ML45Config(MetaworldConfig):
    """Meta-World ML45: 45 manipulations to learn from, five others for test (Yu et al. 2020)."""

    configures: ClassVar[str] = "metarl_envs.metaworld:ML45"


class MultiTaskConfig(MetaworldConfig):
    """What MT10 and MT50 share."""

    show_class: bool = Field(
        False, description="also observe which manipulation it is, as a one-hot"
    )


class MT10Config(MultiTaskConfig):
    """Meta-World MT10: ten manipulations, goals in sight (Yu et al. 2020); closed."""

    configures: ClassVar[str] = "metarl_envs.metaworld:MT10"


class MT50Config(MultiTaskConfig):
    """Meta-World MT50: fifty manipulations, goals in sight (Yu et al. 2020); closed."""

    configures: ClassVar[str] = "metarl_envs.metaworld:MT50"


# ---------------------------------------------------------------------------------------------------------------------
# Gymnasium-Robotics


class RoboticsConfig(ExtraConfig):
    """What goals share."""

    reward: Literal["sparse", "dense"] = Field(
        "sparse", description="paid for being at the goal, or for being near it"
    )


class FetchReachConfig(RoboticsConfig):
    """An arm whose gripper must go to an unseen place (Plappert et al. 2018, arXiv:1802.09464)."""

    configures: ClassVar[str] = "metarl_envs.robotics:FetchReach"

    horizon: int = Field(50, ge=1, description=_STEPS)


class FetchPushConfig(RoboticsConfig):
    """An arm that must push a block to an unseen place on a table (Plappert et al. 2018, arXiv:1802.09464)."""

    configures: ClassVar[str] = "metarl_envs.robotics:FetchPush"

    horizon: int = Field(50, ge=1, description=_STEPS)


class PointMazeConfig(RoboticsConfig):
    """A ball that must be rolled to an unseen place in a maze (Fu et al. 2020, D4RL)."""

    configures: ClassVar[str] = "metarl_envs.robotics:PointMaze"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "u": {},
        "medium": {"horizon": 600},
        "large": {"horizon": 800},
    }

    variant: Literal["u", "medium", "large"] = Field("u", description="the plan of the maze")
    horizon: int = Field(300, ge=1, description=_STEPS)


# ---------------------------------------------------------------------------------------------------------------------
# MiniGrid


class MinigridConfig(ExtraConfig):
    """What all grids share."""

    view: Literal[7, 5, 3] = Field(
        7, description="cells along each side of the square that is seen"
    )


class MinigridFourRoomsConfig(MinigridConfig):
    """MiniGrid's four rooms, whose goal must be found and then be remembered (Chevalier-Boisvert et al. 2023)."""

    configures: ClassVar[str] = "metarl_envs.minigrid:MinigridFourRooms"

    horizon: int = Field(100, ge=1, description=_STEPS)


class MinigridFetchConfig(MinigridConfig):
    """MiniGrid's room of things of which one kind pays, without being told (Chevalier-Boisvert et al. 2023)."""

    configures: ClassVar[str] = "metarl_envs.minigrid:MinigridFetch"

    size: int = Field(5, ge=5, description="cells along each side of the room, walls included")
    things: int = Field(2, ge=1, le=6, description="how many things lie in the room")
    horizon: int = Field(125, ge=1, description=_STEPS)
