"""The next step for a broken promise, in the words of each kind of family."""

from dataclasses import dataclass

from metarl.adapters.gymnasium import GymnasiumFamily, GymnasiumVectorFamily
from metarl.adapters.mujoco import Simulated
from metarl.checker.probe import Probe


@dataclass(frozen=True)
class Fix:
    """What to do in a family of tensors; other kinds, where they have words of their own."""

    tensors: str
    gymnasium: str = ""
    """One environment a lane, and vector environments."""
    vector: str = ""
    """Vector environments, where they differ."""
    mujoco: str = ""

    def __call__(self, probe: Probe) -> str:
        """For the family that is examined."""
        family = probe.family
        fitting = self.tensors
        if isinstance(family, GymnasiumVectorFamily):
            fitting = self.vector or self.gymnasium
        elif isinstance(family, GymnasiumFamily):
            fitting = self.gymnasium
        elif isinstance(family, Simulated):
            fitting = self.mujoco
        return fitting or self.tensors


_ENV_GENERATOR = (
    "draw from env.np_random alone, which super().reset(seed=seed) seeds, and let reset(seed=…) "
    "begin everything anew"
)

# -------------------------------------------------------------------------------------------------
# Spec and tasks

SPEC = Fix(
    "correct the Spec of the family",
    gymnasium="correct the attributes of the class (horizon, goal_width, achieved_goal, splits, "
    "closed, hidden, metrics), which its Spec is made of",
)
TASKS = Fix(
    "make row i from rng.child(split).streams(torch.arange(count)), or return "
    "Tasks(all rows, …).draw(count, …)",
    gymnasium="in row(split, rng) draw from rng alone, and return the same number of numbers every "
    "time; or let rows(split) return all rows, the same in every call",
)
VARIETY = Fix(
    "draw different rows in tasks(split, count, rng)",
    gymnasium="draw different rows in row(split, rng), from rng",
)
SPLITS = Fix(
    "draw each split from rng.child(split), or set closed=True in the Spec and let every split "
    "hold all tasks",
    gymnasium="let row(split, rng) draw numbers that rarely repeat, or rows(split) return other "
    "rows for every split; or set closed = True and give every split all tasks",
)

# -------------------------------------------------------------------------------------------------
# Steps and episodes

STEPS = Fix(
    "return new float32 and bool tensors of shape [N, M, …] in every step, as in metarl.Step, "
    "and the metrics that the Spec names",
    gymnasium="return observations of the space, a finite reward and two flags from step, and the "
    "metrics in info",
    mujoco="return new arrays [N, M, …] from observe, reward, terminated and measure, finite in "
    "every state that random controls lead to",
)
CONTINUITY = Fix("return the same observation as obs and next_obs, except at the end of an episode")
SUCCESSOR = Fix(
    "compute next_obs first; then start the next episode, whose first observation is obs",
    vector="choose autoreset_mode DISABLED, or SAME_STEP with final_obs in info",
)
AUTORESET = Fix(
    "start the next episode in the step that ends one",
    vector="choose autoreset_mode DISABLED, and let reset(options={'reset_mask': …}) start lanes",
)
HORIZON = Fix(
    "count steps in every lane, from 0 in every episode, and truncate at spec.horizon only",
    gymnasium="set horizon to the number of steps after which the environment truncates, or let it "
    "truncate at its own limit only; count its steps from 0 in every reset",
)

# -------------------------------------------------------------------------------------------------
# Repetition

SEED = Fix(
    "draw from tasks.streams(rng.child(…), lanes) with a counter, not from a global generator",
    gymnasium=_ENV_GENERATOR,
    mujoco="draw from the noise that start is given, at its counter, and from no other generator",
)
RESET = Fix(
    "set everything that step() changes in reset(), clocks and counters included",
    gymnasium="set everything that step changes in the environment's reset, clocks and counters "
    "included; what apply changes, it must set for every task",
    mujoco="keep nothing on the family that observe, reward, terminated or start change",
)
RANDOMNESS = Fix(
    "draw [N, M] numbers from tasks.streams(rng, lanes), not one for all",
    gymnasium=_ENV_GENERATOR,
    vector="seed every lane with its own entry of reset(seed=[…]), not one generator for all",
    mujoco="draw [N, M, …] numbers from the noise that start is given, not one for all",
)
ROWS = Fix(
    "compute every row from its own params and from tasks.streams alone",
    gymnasium="keep what belongs to one environment on it: nothing on the class, in the module or "
    "on the family that step, reset or apply change",
    vector="give every lane of the vector environment a generator and a state of its own",
    mujoco="compute every row of observe, reward and terminated from its own row alone: no mean "
    "over the axes [N, M]",
)
LANES = Fix(
    "compute every lane from its own entry of tasks.streams(rng, lanes) alone",
    gymnasium=ROWS.gymnasium,
    vector=ROWS.vector,
    mujoco=ROWS.mujoco,
)
STATE = Fix(
    "keep plain data in family and environment (no lambda, no handle), or define __getstate__",
    gymnasium="keep plain data on the family (no lambda, no handle); an environment is copied by "
    f"its seed and its actions, so that these must decide everything: {_ENV_GENERATOR}",
    mujoco="keep plain data on the family (no lambda, no handle); what is not in MuJoCo's state is "
    "not copied",
)

# -------------------------------------------------------------------------------------------------
# Adaptation

EFFECT = Fix(
    "let reward or dynamics depend on tasks.params; if they do only where random actions rarely "
    "get, leave it",
    gymnasium="let apply(env, row) set what step reads; if the row matters only where random "
    "actions rarely get, leave it",
    mujoco="let reward read params, or task_model the row; if the row matters only where random "
    "controls rarely get, leave it",
)
HIDDEN = Fix(
    "remove the goal from the observation; task_input: goal or row shows it to an agent",
    gymnasium='name the part of the observation in hidden = ("…",), or leave it out of the '
    "environment; task_input: goal or row shows it to an agent",
    mujoco="leave the goal out of observe; task_input: goal or row shows it to an agent",
)
PERSISTENCE = Fix(
    "keep the tasks of reset() until the next reset(), reset everything else at the end of an "
    "episode, and draw all random numbers from tasks.streams(rng, lanes)",
    gymnasium="draw no task in the environment's reset, which begins every episode: let apply set "
    "what reset leaves alone, or set apply_after_reset = True",
    vector="draw no task in the vector environment's reset: apply is called once, before resets",
)
OFFERS = Fix("see metarl/core/family.py, metarl/core/predictions.py and metarl.core.types.Scene")
FRAME = Fix(
    "return an array of uint8 of shape [height, width, 3] from the environment's frame(row, lane)",
    gymnasium='let build() set render_mode="rgb_array", and render return such an array',
)
