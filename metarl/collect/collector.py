"""`collect`: the only loop that steps an environment, in training and in evaluation."""

import torch
from torch import Tensor

from metarl.core.agent import Actor, Agent, Mode
from metarl.core.arrays import short
from metarl.core.errors import ConfigError, FamilyError, MetaRLError, calling
from metarl.core.family import BatchEnv
from metarl.core.rng import Rng
from metarl.core.rollout import Recorder, Rollout
from metarl.core.types import Belief, Spec, Step, TaskInfo, Tasks, next_cue, one_hot, replace, where

_LOOK = 16
"""Steps on a GPU after which `collect` looks whether all lanes are done; those too many are cut
off."""


@torch.no_grad()
def collect(
    agent: Actor,
    env: BatchEnv,
    spec: Spec,
    belief: Belief,
    tasks: Tasks,
    episodes: int,
    rng: Rng,
    mode: Mode = "sample",
) -> tuple[Rollout, Belief]:
    """Roll out `episodes` whole episodes in every lane of every row; lanes that finish early wait.

    Raises:
        FamilyError: a wrong shape or type, a number that is not finite, an endless episode, or
            whatever else the environment raises, in one line.
        MetaRLError: an action of the agent or its log-probability is not finite.
    """
    rows, lanes = belief.cue.shape[:2]
    noise = tasks.streams(rng.child("act"), lanes)
    recorder = Recorder(capacity=episodes * spec.horizon)
    with calling(f"{spec.name}: reset"):
        obs = env.reset(tasks, rng.child("env"))
    check_array("obs", obs, (rows, lanes, spec.obs_width), spec.obs_type, spec, time=0)
    left = torch.full((rows, lanes), episodes, device=obs.device)  # episodes to go
    valid = left > 0
    waits = not obs.is_cpu  # whoever looks at a tensor of a GPU, waits for it
    waiting = waits  # whether some lanes may have finished

    for time in range(recorder.capacity):
        looks = not waits or (time + 1) % _LOOK == 0 or time + 1 == recorder.capacity
        acted, after = agent.act(belief, obs, noise, time, mode)
        asked = (acted.action, obs, tasks.index, spec, agent, time)
        if looks:
            _check_action(*asked)
        try:
            with calling(f"{spec.name}: step {time}"):
                step = env.step(acted.action)
        except FamilyError:
            _check_action(*asked)  # whoever gave what no environment can take is to blame
            raise
        check_step(step, spec, (rows, lanes), time)
        recorder.write(acted, step, valid)
        after = replace(after, cue=next_cue(spec, acted.action, step))
        belief = _freeze_waiting(valid, after, belief) if waiting else after
        obs = step.obs
        if waits or step.done.any():
            left = left - (step.done & valid).long()
            valid = left > 0
            if looks:
                waiting = waits or not valid.all()
                if not valid.any():
                    rollout = recorder.rollout(tasks)
                    if waits:
                        rollout = rollout.first_steps(int(rollout.valid.any(2).any(1).sum()))
                    _require_finite(_arrays(rollout), rollout.index, spec, agent)
                    return rollout, belief
    raise FamilyError(f"{spec.name}: an episode is too long; truncate it at step {spec.horizon}")


def _check_action(
    action: Tensor, obs: Tensor, index: Tensor, spec: Spec, agent: Actor, time: int
) -> None:
    """Raises a MetaRLError for an action that is not finite: nothing to give to a robot."""
    if not spec.discrete and not action.sum().isfinite():
        given = {"obs": obs.unsqueeze(0), "action": action.unsqueeze(0)}
        _require_finite(given, index, spec, agent, time)


def _freeze_waiting(valid: Tensor, after: Belief, before: Belief) -> Belief:
    """The belief `after` a step; lanes that wait keep the cue and the state of `before`."""
    cue = torch.where(valid.unsqueeze(-1), after.cue, before.cue)
    lane = after.lane
    if lane is not before.lane:
        lane = where(valid, lane, before.lane)
    return replace(after, cue=cue, lane=lane)


def task_info(
    agent: Agent,
    spec: Spec,
    tasks: Tasks,
    episodes: int,
    train_set: Tasks | None = None,
) -> TaskInfo:
    """What `agent` may know of `tasks`, by its `task_input`.

    That is nothing, their rows, their goals, or a one-hot of their index in the `train_set`.
    `episodes` are those to come in every lane.

    Raises:
        ConfigError: a one-hot of tasks that are not of a fixed training set.
    """
    shown = None
    if agent.task_input in ("row", "goal"):
        shown = tasks.params[:, : spec.shown_width(agent.task_input)]
    elif agent.task_input == "onehot":
        if train_set is None or tasks.split != "train":
            raise ConfigError(
                f"task_input onehot: a {tasks.split} task has no place in a one-hot of fixed "
                "training tasks; set train_tasks, and evaluate on the split train"
            )
        shown = one_hot(tasks.index, len(train_set))
    return TaskInfo(rows=len(tasks), episodes=episodes, device=tasks.params.device, shown=shown)


def adaptation_rounds(agent: Agent, episodes: int) -> int:
    """How often `agent` adapts in a trial of `episodes`: after every `agent.lanes` of them.

    Raises:
        ConfigError: the number of episodes is no multiple of the agent's lanes.
    """
    count, rest = divmod(episodes, agent.lanes)
    if rest:
        raise ConfigError(
            f"episodes: {episodes} cannot be shared out among the {agent.lanes} lanes of "
            f"{type(agent).__name__}; set a multiple, such as {(count + 1) * agent.lanes}"
        )
    return count


# -------------------------------------------------------------------------------------------------
# What a family can get wrong


_FLAGS = ("terminated", "truncated", "success")
_OPTIONAL = ("success", "training_reward")


def check_array(
    name: str,
    array: Tensor,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    spec: Spec,
    time: int,
) -> None:
    """Raises a FamilyError unless `array` has the shape and the type of the spec."""
    if not isinstance(array, Tensor):
        raise FamilyError(f"{spec.name}: {name} at step {time} is {short(array)}, not a tensor")
    if array.shape != shape or array.dtype != dtype:
        raise FamilyError(
            f"{spec.name}: {name} at step {time} is {array.dtype} of shape {list(array.shape)}; "
            f"the family's spec asks for {dtype} of shape {list(shape)}"
        )


def check_step(
    step: Step,
    spec: Spec,
    lanes: tuple[int, int],
    time: int,
) -> None:
    """Raises a FamilyError unless all arrays have the shape [N, M, …] and the type of the spec.

    The metrics must be those that the spec names.
    """
    if not isinstance(step, Step):
        raise FamilyError(f"{spec.name}: step {time} gives {short(step)}, not a metarl.Step")
    arrays = vars(step).copy()
    metrics = arrays.pop("metrics")
    if not isinstance(metrics, dict) or metrics.keys() != set(spec.metrics):
        raise FamilyError(
            f"{spec.name}: the metrics at step {time} are {list(metrics or ())}; the family's spec "
            f"names {list(spec.metrics)}: give all of them in every step, and no others"
        )
    for name, array in metrics.items():
        check_array(
            f"metric {name}",
            array,
            lanes,
            torch.float32,
            spec,
            time,
        )
    for name, array in arrays.items():
        if array is not None or name not in _OPTIONAL:
            shape = (*lanes, spec.obs_width) if name in ("obs", "next_obs") else lanes
            dtype = torch.bool if name in _FLAGS else torch.float32
            if name in ("obs", "next_obs"):
                dtype = spec.obs_type
            check_array(
                name,
                array,
                shape,
                dtype,
                spec,
                time,
            )


def _arrays(rollout: Rollout) -> dict[str, Tensor]:
    """[T, N, M, …] each: what must be finite, in the order of cause and effect."""
    return {
        "obs": rollout.inputs.obs,
        "log_prob": rollout.log_prob,
        "action": rollout.action,
        "reward": rollout.reward,
        "next_obs": rollout.next_obs,
        **{f"metric {metric}": array for metric, array in rollout.metrics.items()},
    }


def _require_finite(
    arrays: dict[str, Tensor],
    index: Tensor,
    spec: Spec,
    agent: Actor,
    first: int = 0,
) -> None:
    """Raises for the first number of `arrays` [T, N, M, …] from step `first` that is not finite.

    Lanes that wait count, too: masking would not remove a NaN, for 0 · NaN is NaN.
    """
    found = []
    for name, array in arrays.items():
        if not torch.isfinite(array.sum()):
            bad = ~torch.isfinite(array.reshape(*array.shape[:3], -1)).all(-1)  # [T, N, M]
            for time, row, _ in bad.nonzero()[:1].tolist():
                found.append((time, row, name))
    if not found:
        return
    time, row, name = min(found, key=lambda place: place[0])
    what = f"{name} of task {int(index[row])} is not finite at step {first + time}"
    if name in ("log_prob", "action"):
        raise MetaRLError(
            f"{type(agent).__name__}: {what}; its parameters are NaN or too large: "
            "lower the learning rate, or scale the rewards down"
        )
    raise FamilyError(
        f"{spec.name}: {what}; fix the environment: a non-finite value would corrupt all results"
    )
