"""The options of the MuJoCo families; imports neither torch nor mujoco."""

from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from metarl.config.registry import Settings


class RobotConfig(Settings):
    """What all robots share."""

    horizon: PositiveInt = 200
    """longest episode, in control steps, H"""
    threads: NonNegativeInt = 0
    """threads that step the robots; 0: one for every core"""


# -------------------------------------------------------------------------------------------------
# Half-cheetah


class HalfCheetahConfig(RobotConfig):
    """What speed and direction share."""

    show_torso: bool = True
    """also observe where the torso is, x included"""
    effort_cost: NonNegativeFloat = 0.05
    """cost of ‖a‖²"""


class HalfCheetahVelConfig(HalfCheetahConfig):
    """A half-cheetah that must run at a hidden speed (Finn et al. 2017; Rakelly et al. 2019)."""

    configures = "metarl_envs.half_cheetah:HalfCheetahVel"
    variants: ClassVar = {
        "maml": {"fastest": 2.0},
        "promp": {"horizon": 100, "show_torso": False},
    }

    variant: Literal["pearl", "maml", "promp"] = "pearl"
    """whose speeds, horizon and observation"""
    fastest: PositiveFloat = 3.0
    """speeds are uniform between 0 and this, m/s"""


class HalfCheetahDirConfig(HalfCheetahConfig):
    """A half-cheetah that must run in a hidden direction, to and fro (Finn et al. 2017); closed."""

    configures = "metarl_envs.half_cheetah:HalfCheetahDir"
    variants: ClassVar = {"promp": {"horizon": 100, "show_torso": False}}

    variant: Literal["pearl", "promp"] = "pearl"
    """whose horizon and observation"""


# -------------------------------------------------------------------------------------------------
# Ant


class AntConfig(RobotConfig):
    """What direction, goal and speed share."""

    contact_cost: NonNegativeFloat = 5e-4
    """cost of ‖contact forces, clipped to ±1‖²; 0: not computed"""


class AntDirConfig(AntConfig):
    """An ant that must walk in a hidden direction (Finn et al. 2017; Rakelly et al. 2019)."""

    configures = "metarl_envs.ant:AntDir"
    variants: ClassVar = {
        "plane": {"directions": "plane"},
        "maml": {"effort_cost": 0.005, "survival": 0.05},
        "promp": {"horizon": 100, "lowest": 0.0},
    }

    variant: Literal["forward-backward", "plane", "maml", "promp"] = "forward-backward"
    """PEARL's two directions; all of the plane; MAML's costs; ProMP's horizon"""
    directions: Literal["forward-backward", "plane"] = "forward-backward"
    """along x only, the same two in every split; or anywhere in the plane"""
    effort_cost: NonNegativeFloat = 0.5
    """cost of ‖a‖²"""
    survival: float = 1.0
    """reward of every step"""
    lowest: float = 0.2
    """the episode ends where the torso is below this height, or above 1 m"""


class AntGoalConfig(AntConfig):
    """An ant that must walk to a hidden place (Rakelly et al. 2019)."""

    configures = "metarl_envs.ant:AntGoal"
    survival: ClassVar[float] = 0.0

    farthest: PositiveFloat = 3.0
    """goals are uniform on the disc of this radius, meters"""
    effort_cost: NonNegativeFloat = 0.1
    """cost of ‖a‖²"""


class AntVelConfig(AntConfig):
    """An ant that must walk at a hidden speed (Finn et al. 2017)."""

    configures = "metarl_envs.ant:AntVel"

    fastest: PositiveFloat = 3.0
    """speeds are uniform between 0 and this, m/s"""
    effort_cost: NonNegativeFloat = 0.005
    """cost of ‖a‖²"""
    survival: float = 1.05
    """reward of every step"""


# -------------------------------------------------------------------------------------------------
# Others


class HumanoidDirConfig(RobotConfig):
    """A humanoid that must walk in a hidden direction (Rakelly et al. 2019)."""

    configures = "metarl_envs.humanoid:HumanoidDir"

    contacts: bool = True
    """whether contact forces cost; without, they are not computed"""


class RandomParamsConfig(RobotConfig):
    """What walker and hopper share."""

    scale: NonNegativeFloat = 3.0
    """exponents are uniform between ± this"""


class WalkerParamsConfig(RandomParamsConfig):
    """A walker of hidden masses, inertias, frictions and damping (Rakelly et al. 2019)."""

    configures = "metarl_envs.random_params:WalkerParams"


class HopperParamsConfig(RandomParamsConfig):
    """A hopper of hidden masses, inertias, frictions and damping (Rakelly et al. 2019)."""

    configures = "metarl_envs.random_params:HopperParams"
