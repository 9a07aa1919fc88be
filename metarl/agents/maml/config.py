"""Options of MAML; imports no torch, so that mistakes are reported at once."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from metarl.agents.config import TASK_INPUT, TaskInput
from metarl.config.schema import Schedule
from metarl.options.config import OptionsConfig


class MAMLConfig(OptionsConfig):
    """MAML: parameters from which a policy-gradient step on a task goes far (Finn et al. 2017, arXiv:1703.03400).

    Variants: MAML with a trust region (TRPO); `fomaml`, first-order; `e-maml`, which also credits exploration (Stadie et al.
    2018, arXiv:1803.01118); `promp` (Rothfuss et al. 2019, arXiv:1810.06784); `meta-sgd`, which learns the step sizes (Li
    et al. 2017, arXiv:1707.09835); `reptile` (Nichol et al. 2018, arXiv:1803.02999). With options: `famp`, whose inner steps
    move the master alone, from where it always begins (Kuric & van Hoof 2023, arXiv:2212.11726); `mlsh`, which relearns the
    master for every task and improves the sub-policies under it, first-order (Frans et al. 2018, arXiv:1710.09767).
    """

    configures: ClassVar[str] = "metarl.agents.maml.agent:MAML"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
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

    preset: Literal["maml", "fomaml", "e-maml", "promp", "meta-sgd", "reptile", "famp", "mlsh"] = (
        Field("maml", description="whose defaults the other options take")
    )
    task_input: TaskInput = Field("none", description=TASK_INPUT)
    hidden_sizes: tuple[int, ...] = Field((64, 64), description="widths of the hidden layers")
    activation: Literal["tanh", "relu"] = Field(
        "tanh", description="activation of the hidden layers"
    )
    memory: Literal["none", "gru", "lstm"] = Field(
        "none", description="recurrent memory, emptied at every episode"
    )
    memory_width: int = Field(32, ge=1, description="units of the memory")
    initial_std: float = Field(
        1.0, gt=0, description="standard deviation of the first policy (continuous actions)"
    )

    tasks: int = Field(20, ge=1, description="tasks of an iteration")
    episodes_per_task: int = Field(
        20,
        ge=1,
        description="episodes of a task that an inner step is taken on, lived through side by side",
    )
    inner_steps: int = Field(
        1,
        ge=0,
        description="inner steps that meta-training prepares for; 0: none, one policy for all tasks (pretraining)",
    )
    step_sizes: tuple[float, ...] = Field(
        (0.1,),
        description="α of the first inner step, of the second …; the last one serves all that follow",
    )
    learn_step_sizes: bool = Field(
        False, description="learn a step size for every parameter, beginning at step_sizes"
    )
    inner_loss: Literal["log_likelihood", "likelihood_ratio"] = Field(
        "log_likelihood",
        description="policy gradient of the inner step: the same gradient, another Hessian",
    )
    first_order: bool = Field(False, description="leave out the derivative of the inner gradient")
    adapted: Literal["master", "all"] = Field(
        "master",
        description="what inner steps move where there are options: the master alone, or the options as well",
    )
    learn_master: bool = Field(
        True,
        description="whether meta-training moves the master that adaptation begins from, too, or the options alone",
    )
    gamma: float = Field(0.99, gt=0, le=1, description="γ, over an episode")
    gae_lambda: float = Field(1.0, ge=0, le=1, description="λ of generalised advantage estimation")

    outer: Literal["trpo", "ppo", "reptile"] = Field(
        "trpo",
        description="the outer step: a trust region, clipped ratios, or towards the adapted parameters",
    )
    exploration_credit: float = Field(
        0.0,
        ge=0,
        description="weight of the credit that actions before a step get for the return after it",
    )
    max_kl: Schedule = Field(
        0.01, description="trpo: δ, the largest mean divergence of the adapted policies, in nats"
    )
    damping: float = Field(
        1e-5, ge=0, description="trpo: added to the diagonal of the Fisher matrix"
    )
    cg_iterations: int = Field(10, ge=1, description="trpo: iterations of conjugate gradient")
    line_search_steps: int = Field(
        15, ge=1, description="trpo: tries of the line search, each 0.8 as long as the one before"
    )
    clip_range: float = Field(0.3, gt=0, description="ppo: ε")
    epochs: int = Field(5, ge=1, description="ppo: gradient steps on an iteration's episodes")
    learning_rate: Schedule = Field(1e-3, description="ppo: Adam's step size")
    kl_coef: float = Field(
        5e-4,
        ge=0,
        description="ppo: weight of the divergence of the policies before each inner step",
    )
    outer_step_size: Schedule = Field(
        0.1, description="reptile: share of the way to the mean of the adapted parameters"
    )

    @field_validator("learn_master")
    @classmethod
    def _something(cls, given: bool, known: ValidationInfo) -> bool:
        if not given and known.data.get("pretrained_options"):
            raise ValueError(
                "of options that are ready nothing is learned but the master; set learn_master to true"
            )
        if not given and known.data.get("options") == 0:
            raise ValueError(
                "without options that are learned nothing would be; set options, such as 4"
            )
        return given

    @field_validator("outer")
    @classmethod
    def _moves_options(cls, given: str, known: ValidationInfo) -> str:
        learned = known.data.get("options") or (
            known.data.get("pretrained_options") and known.data.get("termination") == "learned"
        )
        if given == "reptile" and learned and known.data.get("adapted") == "master":
            raise ValueError(
                "reptile goes to where inner steps lead, which move the master alone; set adapted to all"
            )
        return given

    @field_validator("step_sizes", "max_kl")
    @classmethod
    def _above_zero(cls, given: float | tuple[float, ...]) -> float | tuple[float, ...]:
        numbers = given if isinstance(given, tuple) else (given,)
        if not numbers or min(numbers) <= 0:
            raise ValueError("give numbers above 0")
        return given
