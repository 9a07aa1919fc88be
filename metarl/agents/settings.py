"""The options of the agents that come with metarl; imports no torch, so that mistakes are reported at once."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from metarl.config import Schedule
from metarl.find import Settings

TaskInput = Literal["none", "row", "goal", "onehot"]
TASK_INPUT = "what the agent is shown of the task: nothing, its row (an oracle), its goal, or a one-hot of train_tasks"


class Layer(Settings):
    """Options of the option layer, for agents whose policy may act through it."""

    options: int = Field(0, ge=0, description="options that a master chooses among; 0: none, a flat policy")
    ready_made: tuple[str, ...] = Field(
        (),
        description="options that are ready and are not learned instead: runs, or path/to/file.py:Class of one's own",
    )
    termination: Literal["fixed", "random", "learned"] = Field(
        "learned", description="what ends an option: its length, a length drawn when it begins, or what it learned"
    )
    option_length: int = Field(
        10,
        ge=1,
        description="steps of an option: exactly, or in the mean, or in the mean at first where it learns to end",
    )
    sub_body: tuple[int, ...] | None = Field(
        (64,),
        description="hidden layers of the sub-policies, which see the observation alone; none: they are heads beside the "
        "master's, and see what it sees",
    )
    initial_gain: float = Field(
        0.01, gt=0, description="scale of the first policy's outputs: how different the first options are"
    )

    @field_validator("ready_made")
    @classmethod
    def _instead(cls, given: tuple[str, ...], known: ValidationInfo) -> tuple[str, ...]:
        if given and known.data.get("options"):
            raise ValueError("options that are ready are chosen instead of others; set options to 0")
        return given


class RL2(Layer):
    """RL²: a recurrent policy learns to learn inside a trial, trained with PPO (Duan et al. 2016, arXiv:1611.02779)."""

    configures: ClassVar[str] = "metarl.agents.rl2:RL2"

    task_input: TaskInput = Field("none", description=TASK_INPUT)
    memory: Literal["gru", "lstm", "none"] = Field(
        "gru", description="recurrent memory; none: nothing is remembered, and with one episode it is plain PPO"
    )
    memory_width: int = Field(64, ge=1, description="units of the memory")
    encoder: tuple[int, ...] = Field((), description="widths of the layers before the memory")
    body: tuple[int, ...] = Field((), description="widths of the layers after the memory")
    activation: Literal["tanh", "relu"] = Field("tanh", description="activation of these layers")
    pair_input: bool = Field(
        False,
        description="also give the memory the previous observation times the previous action, alone and times the reward",
    )
    readout: Literal["linear", "observation"] = Field(
        "linear", description="heads: one linear map of the memory, or one whose weights are linear in the observation"
    )
    initial_std: float = Field(1.0, gt=0, description="standard deviation of the first policy (continuous actions)")
    trials: int = Field(500, ge=1, description="trials, one task each, in an iteration")
    epochs: int = Field(4, ge=1, description="passes over the trials of an iteration")
    minibatches: int = Field(10, ge=1, description="minibatches of whole trials in a pass")
    learning_rate: Schedule = Field((2e-3, 0.0), description="Adam's step size")
    clip: float = Field(0.2, gt=0, description="PPO's ε")
    discount: float = Field(0.99, gt=0, le=1, description="γ, over the whole trial")
    trace: Schedule = Field((0.3, 0.95), description="λ of generalised advantage estimation, over the whole trial")
    entropy_weight: Schedule = Field((0.03, 0.0), description="weight of the entropy bonus")
    option_entropy_weight: Schedule = Field((0.03, 0.0), description="weight of the entropy of the choice of options")
    value_weight: float = Field(0.5, ge=0, description="weight of the value loss (targets are normalised)")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    normalise_obs: bool = Field(False, description="standardise observations by their running moments")
    normalise_reward: bool = Field(
        False,
        description="divide the reward in the cue by its running standard deviation, or by a tenth of its mean if larger",
    )

    @field_validator("pair_input")
    @classmethod
    def _remembered(cls, given: bool, known: ValidationInfo) -> bool:
        if given and known.data.get("memory") == "none":
            raise ValueError("the previous action is shown to a memory alone; set memory to gru or lstm")
        return given

    @field_validator("normalise_obs")
    @classmethod
    def _as_they_are(cls, given: bool, known: ValidationInfo) -> bool:
        if given and known.data.get("ready_made"):
            raise ValueError("options that are ready see observations as they are; set normalise_obs to false")
        return given


class MAML(Layer):
    """MAML: parameters from which a policy-gradient step on a task goes far (Finn et al. 2017, arXiv:1703.03400).

    Variants: MAML with a trust region (TRPO); `fomaml`, first-order; `e-maml`, which also credits exploration (Stadie et al.
    2018, arXiv:1803.01118); `promp` (Rothfuss et al. 2019, arXiv:1810.06784); `meta-sgd`, which learns the step sizes (Li
    et al. 2017, arXiv:1707.09835); `reptile` (Nichol et al. 2018, arXiv:1803.02999). With options: `famp`, whose inner steps
    move the master alone, from where it always begins (Kuric & van Hoof 2023, arXiv:2212.11726); `mlsh`, which relearns the
    master for every task and improves the sub-policies under it, first-order (Frans et al. 2018, arXiv:1710.09767).
    """

    configures: ClassVar[str] = "metarl.agents.maml:MAML"
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
            "clip": 0.2,
        },
    }

    variant: Literal["maml", "fomaml", "e-maml", "promp", "meta-sgd", "reptile", "famp", "mlsh"] = Field(
        "maml", description="whose defaults the other options take"
    )
    task_input: TaskInput = Field("none", description=TASK_INPUT)
    body: tuple[int, ...] = Field((64, 64), description="widths of the hidden layers")
    activation: Literal["tanh", "relu"] = Field("tanh", description="activation of the hidden layers")
    memory: Literal["none", "gru", "lstm"] = Field("none", description="recurrent memory, emptied at every episode")
    memory_width: int = Field(32, ge=1, description="units of the memory")
    initial_std: float = Field(1.0, gt=0, description="standard deviation of the first policy (continuous actions)")

    tasks: int = Field(20, ge=1, description="tasks of an iteration")
    lanes: int = Field(
        20, ge=1, description="episodes of a task that an inner step is taken on, lived through side by side"
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
    learn_step_sizes: bool = Field(False, description="learn a step size for every parameter, beginning at step_sizes")
    inner_loss: Literal["log_likelihood", "likelihood_ratio"] = Field(
        "log_likelihood", description="policy gradient of the inner step: the same gradient, another Hessian"
    )
    first_order: bool = Field(False, description="leave out the derivative of the inner gradient")
    adapted: Literal["master", "all"] = Field(
        "master", description="what inner steps move where there are options: the master alone, or the options as well"
    )
    learn_master: bool = Field(
        True,
        description="whether meta-training moves the master that adaptation begins from, too, or the options alone",
    )
    discount: float = Field(0.99, gt=0, le=1, description="γ, over an episode")
    trace: float = Field(1.0, ge=0, le=1, description="λ of generalised advantage estimation")

    outer: Literal["trpo", "ppo", "reptile"] = Field(
        "trpo", description="the outer step: a trust region, clipped ratios, or towards the adapted parameters"
    )
    exploration_credit: float = Field(
        0.0, ge=0, description="weight of the credit that actions before a step get for the return after it"
    )
    max_kl: Schedule = Field(0.01, description="trpo: δ, the largest mean divergence of the adapted policies, in nats")
    damping: float = Field(1e-5, ge=0, description="trpo: added to the diagonal of the Fisher matrix")
    conjugate_gradients: int = Field(10, ge=1, description="trpo: iterations of conjugate gradient")
    backtracks: int = Field(15, ge=1, description="trpo: tries of the line search, each 0.8 as long as the one before")
    clip: float = Field(0.3, gt=0, description="ppo: ε")
    epochs: int = Field(5, ge=1, description="ppo: gradient steps on an iteration's episodes")
    learning_rate: Schedule = Field(1e-3, description="ppo: Adam's step size")
    kl_weight: float = Field(
        5e-4, ge=0, description="ppo: weight of the divergence of the policies before each inner step"
    )
    outer_step_size: Schedule = Field(
        0.1, description="reptile: share of the way to the mean of the adapted parameters"
    )

    @field_validator("learn_master")
    @classmethod
    def _something(cls, given: bool, known: ValidationInfo) -> bool:
        if not given and known.data.get("ready_made"):
            raise ValueError("of options that are ready nothing is learned but the master; set learn_master to true")
        if not given and known.data.get("options") == 0:
            raise ValueError("without options that are learned nothing would be; set options, such as 4")
        return given

    @field_validator("outer")
    @classmethod
    def _moves_options(cls, given: str, known: ValidationInfo) -> str:
        learned = known.data.get("options") or (
            known.data.get("ready_made") and known.data.get("termination") == "learned"
        )
        if given == "reptile" and learned and known.data.get("adapted") == "master":
            raise ValueError("reptile goes to where inner steps lead, which move the master alone; set adapted to all")
        return given

    @field_validator("step_sizes", "max_kl")
    @classmethod
    def _above_zero(cls, given: float | tuple[float, ...]) -> float | tuple[float, ...]:
        numbers = given if isinstance(given, tuple) else (given,)
        if not numbers or min(numbers) <= 0:
            raise ValueError("give numbers above 0")
        return given


class PEARL(Settings):
    """PEARL: soft actor-critic on a task variable that is inferred from context (Rakelly et al. 2019, arXiv:1903.08254).

    Variants: PEARL; `sac`, which infers nothing: shown the task (`task_input`), it is multi-task or, with `hindsight`,
    goal-conditioned soft actor-critic.
    """

    configures: ClassVar[str] = "metarl.agents.pearl:PEARL"
    needs_train_tasks: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "pearl": {},
        "sac": {"latent_width": 0, "exploration_episodes": 0, "extra_episodes": 0},
    }

    variant: Literal["pearl", "sac"] = Field("pearl", description="whose defaults the other options take")
    task_input: TaskInput = Field("none", description=TASK_INPUT)
    latent_width: int = Field(5, ge=0, description="entries of the task variable z; 0: nothing is inferred")
    encoder: tuple[int, ...] = Field((200, 200, 200), description="hidden layers of the context encoder")
    next_obs_input: bool = Field(
        False, description="also show the encoder what a step led to: needed where the dynamics differ between tasks"
    )
    body: tuple[int, ...] = Field((300, 300, 300), description="hidden layers of the policy, and of each critic")
    initial_gain: float = Field(
        1.0,
        gt=0,
        description="scale of the first policy's outputs: how different its behaviours are for different z, "
        "where exploration begins",
    )
    exploration_episodes: int = Field(
        1, ge=0, description="first episodes of a task, lived through with z drawn from the prior"
    )

    tasks: int = Field(5, ge=1, description="training tasks that are visited in an iteration")
    initial_episodes: int = Field(10, ge=1, description="episodes of every training task before the first update")
    prior_episodes: int = Field(
        2, ge=1, description="episodes of a visit with z drawn from the prior; they are the task's new context"
    )
    posterior_episodes: int = Field(
        0, ge=0, description="episodes of a visit that follow, z inferred anew before each, which are context too"
    )
    extra_episodes: int = Field(
        3, ge=0, validate_default=True, description="episodes of a visit that follow these, for the critics alone"
    )
    capacity: int = Field(1_000_000, ge=1, description="transitions that are kept of each training task")

    updates: int = Field(2000, ge=1, description="gradient steps of an iteration")
    meta_batch: int = Field(16, ge=1, description="training tasks of a gradient step, drawn with replacement")
    batch: int = Field(256, ge=1, description="transitions of each for policy and critics, of all that are kept")
    context: int = Field(100, ge=1, description="transitions of each for the encoder, of the task's newest context")
    hindsight: float = Field(
        0.0, ge=0, le=1, description="share of transitions that are told of a goal that was achieved later (HER)"
    )
    learning_rate: Schedule = Field(3e-4, description="Adam's step size")
    discount: float = Field(0.99, gt=0, le=1, description="γ")
    target_rate: float = Field(
        0.005, gt=0, le=1, description="share τ by which targets follow the critics at every step"
    )
    reward_scale: float = Field(5.0, gt=0, description="critics learn from so many times the reward")
    temperature: float = Field(
        1.0, gt=0, description="α, weight of the entropy beside scaled rewards; the first, if learned"
    )
    learn_temperature: bool = Field(False, description="move α to where the policy has the entropy of target_entropy")
    target_entropy: float | None = Field(
        None,
        description="in nats; none: −1 for every entry of an action, or half of the most that discrete ones can have",
    )
    kl_weight: Schedule = Field(
        0.1,
        description="weight of KL(posterior ‖ prior), summed over entries of z and the tasks of a gradient step, beside the "
        "mean squared errors of the critics; it belongs to reward_scale², meta_batch and latent_width",
    )
    regularisation: float = Field(
        1e-3, ge=0, description="weight of the mean squares of means and log-deviations before the tanh"
    )

    @field_validator("kl_weight")
    @classmethod
    def _at_least_zero(cls, given: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if min(given if isinstance(given, tuple) else (given,)) < 0:
            raise ValueError("give numbers of at least 0")
        return given

    @field_validator("extra_episodes")
    @classmethod
    def _explored(cls, given: int, known: ValidationInfo) -> int:
        """Defaults are looked at, too; fields that are wrong themselves are not in `known`."""
        prior, explored = known.data.get("prior_episodes", 0), known.data.get("exploration_episodes", 0)
        if given + known.data.get("posterior_episodes", 0) and prior < explored:
            raise ValueError(
                f"what follows fewer prior_episodes ({prior}) than exploration_episodes ({explored}) knows no posterior; "
                "raise prior_episodes"
            )
        return given
