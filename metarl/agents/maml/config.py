"""Configuration of MAML; imports no torch, so that errors are reported at once."""

from typing import Annotated, ClassVar, Literal

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from metarl.agents.config import PRESET, TaskInput
from metarl.algorithms.config import Fraction, UnitInterval
from metarl.config.numbers import NonNegativeSchedule, PositiveSchedule
from metarl.nn.config import ImageConfig
from metarl.options.config import OptionsConfig

Preset = Annotated[
    Literal["maml", "fomaml", "e-maml", "promp", "meta-sgd", "reptile", "famp", "mlsh"], PRESET
]


class MAMLConfig(OptionsConfig, ImageConfig):
    """MAML: an initialization for policy-gradient steps (Finn et al. 2017, arXiv:1703.03400).

    Each preset is an agent by its own name; those with options are `famp` and `mlsh`.
    """

    configures = "metarl.agents.maml.agent:MAML"
    small: ClassVar = {"tasks": 3, "episodes_per_task": 4}
    variants: ClassVar = {
        "maml": {},
        "fomaml": {"first_order": True},
        "e-maml": {"exploration_credit": 1.0},
        "promp": {"inner_loss": "likelihood_ratio", "outer": "ppo"},
        "meta-sgd": {"learn_step_sizes": True},
        "reptile": {"outer": "reptile"},
        "famp": {"options": 4, "learn_master": False, "inner_loss": "likelihood_ratio"},
        "mlsh": {
            "options": 2,
            "termination": "fixed",
            "learn_master": False,
            "first_order": True,
            "outer": "ppo",
            "clip_range": 0.2,
        },
    }

    preset: Preset = "maml"
    task_input: TaskInput = "none"
    hidden_sizes: tuple[PositiveInt, ...] = (64, 64)
    """widths of the hidden layers"""
    activation: Literal["tanh", "relu"] = "tanh"
    """activation of these layers"""
    memory: Literal["none", "gru", "lstm"] = "none"
    """recurrent memory, emptied at every episode"""
    memory_width: PositiveInt = 32
    """units of the memory"""
    initial_std: PositiveFloat = 1.0
    """standard deviation of the first policy (continuous actions)"""

    tasks: PositiveInt = 20
    """tasks of an iteration"""
    episodes_per_task: PositiveInt = 20
    """parallel episodes of a task that an inner step is taken on"""
    inner_steps: NonNegativeInt = 1
    """inner steps in meta-training; 0: one policy for all tasks (pretraining)"""
    step_sizes: tuple[PositiveFloat, ...] = (0.1,)
    """α of the first inner step, of the second …; the last is repeated"""
    learn_step_sizes: bool = False
    """learn a step size for every parameter, initially step_sizes"""
    inner_loss: Literal["log_likelihood", "likelihood_ratio"] = "log_likelihood"
    """inner policy gradient: equal gradients, unequal Hessians"""
    first_order: bool = False
    """leave out the derivative of the inner gradient"""
    adapted: Literal["master", "all"] = "master"
    """with options: inner steps adapt the master only, or all"""
    learn_master: bool = True
    """with options: meta-training also learns the master's initialization"""
    gamma: Fraction = 0.99
    """discount γ, over an episode"""
    gae_lambda: UnitInterval = 1.0
    """λ of GAE"""

    outer: Literal["trpo", "ppo", "reptile"] = "trpo"
    """outer step: trust region, clipped ratios, or to adapted parameters"""
    exploration_credit: NonNegativeFloat = 0.0
    """credit of actions before an inner step for the return after it"""
    max_kl: PositiveSchedule = 0.01
    """trpo: δ, the largest mean KL divergence of the adapted policies, in nats"""
    damping: NonNegativeFloat = 1e-5
    """trpo: added to the diagonal of the Fisher matrix"""
    cg_iterations: PositiveInt = 10
    """trpo: conjugate-gradient iterations"""
    line_search_steps: PositiveInt = 15
    """trpo: tries of the line search, each 0.8 as long as the one before"""
    clip_range: PositiveFloat = 0.3
    """ppo: ε"""
    epochs: PositiveInt = 5
    """ppo: gradient steps on an iteration's episodes"""
    learning_rate: NonNegativeSchedule = 1e-3
    """ppo: Adam's step size"""
    kl_coef: NonNegativeFloat = 5e-4
    """ppo: η, weight of the KL divergence before each inner step"""
    outer_step_size: NonNegativeSchedule = 0.1
    """reptile: ε, share of the way to the mean of the adapted parameters"""

    @field_validator("step_sizes")
    @classmethod
    def _some(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value:
            raise ValueError("give one or more numbers above 0")
        return value

    @field_validator("learn_master")
    @classmethod
    def _learns_something(cls, value: bool, others: ValidationInfo) -> bool:
        if value:
            return value
        if others.data.get("pretrained_options"):
            raise ValueError(
                "with pretrained options only the master learns; set learn_master to true"
            )
        if others.data.get("options") == 0:
            raise ValueError("without options there is no master; set options, such as 4")
        return value

    @field_validator("outer")
    @classmethod
    def _reptile_adapts_all(cls, value: str, others: ValidationInfo) -> str:
        data = others.data
        learned = data.get("options") or (
            data.get("pretrained_options") and data.get("termination") == "learned"
        )
        if value == "reptile" and learned and data.get("adapted") == "master":
            raise ValueError("reptile learns only what inner steps adapt; set adapted to all")
        return value


class FOMAMLPreset(MAMLConfig):
    """First-order MAML: no derivative of the inner gradient (Finn et al. 2017, section 5.2)."""

    preset: Annotated[Literal["fomaml"], PRESET] = "fomaml"


class EMAMLPreset(MAMLConfig):
    """E-MAML: also credits exploration before the step (Stadie et al. 2018, arXiv:1803.01118)."""

    preset: Annotated[Literal["e-maml"], PRESET] = "e-maml"


class ProMPPreset(MAMLConfig):
    """ProMP: clipped ratios instead of a trust region (Rothfuss et al. 2019, arXiv:1810.06784)."""

    preset: Annotated[Literal["promp"], PRESET] = "promp"


class MetaSGDPreset(MAMLConfig):
    """Meta-SGD: MAML that learns a step size a parameter (Li et al. 2017, arXiv:1707.09835)."""

    preset: Annotated[Literal["meta-sgd"], PRESET] = "meta-sgd"


class ReptilePreset(MAMLConfig):
    """Reptile: towards the adapted parameters (Nichol et al. 2018, arXiv:1803.02999)."""

    preset: Annotated[Literal["reptile"], PRESET] = "reptile"


class FAMPPreset(MAMLConfig):
    """FAMP: adapts only the master over options (Kuric & van Hoof 2023, arXiv:2212.11726)."""

    preset: Annotated[Literal["famp"], PRESET] = "famp"


class MLSHPreset(MAMLConfig):
    """MLSH: relearns the master over sub-policies (Frans et al. 2018, arXiv:1710.09767)."""

    preset: Annotated[Literal["mlsh"], PRESET] = "mlsh"
