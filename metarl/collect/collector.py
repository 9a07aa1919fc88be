"""`collect`: the only loop that steps an environment, in training and in evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core.agent import Agent, Mode
from metarl.core.errors import FamilyError
from metarl.core.family import BatchEnv
from metarl.core.rng import Rng
from metarl.core.rollout import Recorder, Rollout
from metarl.core.types import Belief, Spec, Step, TaskInfo, Tasks, next_cue, one_hot, replace, where


@torch.no_grad()
def collect(
    agent: Agent,
    env: BatchEnv,
    spec: Spec,
    belief: Belief,
    tasks: Tasks,
    episodes: int,
    rng: Rng,
    mode: Mode = "sample",
) -> tuple[Rollout, Belief]:
    """Let every lane of every row live through `episodes` whole episodes, starting from a reset.

    Lanes that finish early wait: belief and cue stay as their last step left them.

    Raises:
        FamilyError: the family gave an observation or a reward of the wrong shape or type or that is not finite, or an
            episode outlived its horizon; or the agent's actions or their log-probabilities are NaN.
    """
    rows, lanes = belief.cue.shape[:2]
    noise = tasks.streams(rng.child("act"), lanes)
    recorder = Recorder(capacity=episodes * spec.horizon)
    obs = env.reset(tasks, rng.child("env"))
    left = torch.full((rows, lanes), episodes, device=obs.device)
    valid, all_valid = left > 0, True

    check_array("obs", obs, (rows, lanes, spec.obs_width), torch.float32, spec, time=0)
    for time in range(recorder.capacity):
        acted, after = agent.act(belief, obs, noise, time, mode)
        step = env.step(acted.action)
        check_step(step, spec, (rows, lanes), time)
        recorder.write(acted, step, valid)
        after = replace(after, cue=next_cue(spec, acted.action, step))
        if not all_valid:
            after = replace(
                after,
                cue=where(valid, after.cue, belief.cue),
                lane=where(valid, after.lane, belief.lane),
            )
        belief, obs = after, step.obs
        if step.done.any():
            left = left - (step.done & valid).long()
            valid = left > 0
            all_valid = bool(valid.all())
            if not valid.any():
                rollout = recorder.rollout(tasks)
                _check_finite(rollout, spec, agent)
                return rollout, belief
    raise FamilyError(
        f"{spec.name}: an episode outlived the horizon of {spec.horizon} steps; end it with truncated = True"
    )


def task_info(
    agent: Agent, spec: Spec, tasks: Tasks, episodes: int, train_set: Tasks | None = None
) -> TaskInfo:
    """What `agent` may know of `tasks`, by its `task_input`: nothing, rows, goals, or their place in the `train_set`.

    `episodes` are those to come in every lane.

    Raises:
        FamilyError: a one-hot of tasks that have no place in a fixed training set.
    """
    shown = None
    if agent.task_input == "row":
        shown = tasks.params
    elif agent.task_input == "goal":
        shown = tasks.params[:, : spec.goal_width]
    elif agent.task_input == "onehot":
        if train_set is None or tasks.split != "train":
            raise FamilyError(
                f"task_input onehot: a {tasks.split} task has no place in a one-hot of fixed training tasks; "
                "set train_tasks, and evaluate on the split train"
            )
        shown = one_hot(tasks.index, len(train_set))
    return TaskInfo(rows=len(tasks), episodes=episodes, device=tasks.params.device, shown=shown)


def rounds(agent: Agent, episodes: int) -> int:
    """How often `agent` adapts in a trial of `episodes`: it lives through as many as it has lanes between two times.

    Raises:
        FamilyError: the episodes cannot be shared out evenly among the lanes.
    """
    count, rest = divmod(episodes, agent.lanes)
    if rest:
        raise FamilyError(
            f"episodes: {episodes} cannot be shared out among the {agent.lanes} lanes of {type(agent).__name__}; "
            f"set episodes to a multiple of agent.lanes, such as {(count + 1) * agent.lanes}"
        )
    return count


# ---------------------------------------------------------------------------------------------------------------------
# What a family can get wrong


def check_array(
    name: str, array: Tensor, shape: tuple[int, ...], dtype: torch.dtype, spec: Spec, time: int
) -> None:
    """Raises a FamilyError where `array` is not what the spec promises."""
    if array.shape != shape or array.dtype != dtype:
        raise FamilyError(
            f"{spec.name}: {name} at step {time} is {array.dtype} of shape {list(array.shape)}; "
            f"the family's spec asks for {dtype} of shape {list(shape)}"
        )


def check_step(step: Step, spec: Spec, lanes: tuple[int, int], time: int) -> None:
    """Raises a FamilyError where a part of `step` has not the shape [N, M, …] or the type of the spec."""
    for name in ("obs", "next_obs"):
        check_array(name, getattr(step, name), (*lanes, spec.obs_width), torch.float32, spec, time)
    check_array("reward", step.reward, lanes, torch.float32, spec, time)
    for name in ("terminated", "truncated"):
        check_array(name, getattr(step, name), lanes, torch.bool, spec, time)
    for name, array, dtype in (
        ("success", step.success, torch.bool),
        ("training_reward", step.training_reward, torch.float32),
    ):
        if array is not None:
            check_array(name, array, lanes, dtype, spec, time)


def _check_finite(rollout: Rollout, spec: Spec, agent: Agent) -> None:
    """Tells the first of all; lanes that wait count too, for 0 · NaN is NaN."""
    found: list[tuple[int, int, str]] = []
    for name, array in (
        ("obs", rollout.inputs.obs),
        ("log_prob", rollout.log_prob),
        ("action", rollout.action),
        ("reward", rollout.reward),
        ("next_obs", rollout.next_obs),
    ):
        if not torch.isfinite(array.sum()):
            bad = ~torch.isfinite(array.reshape(*rollout.valid.shape, -1)).all(-1)
            found += [(time, row, name) for time, row, _ in bad.nonzero()[:1].tolist()]
    if found:
        time, row, name = min(found, key=lambda mistake: mistake[0])
        if name in ("log_prob", "action"):
            raise FamilyError(
                f"{type(agent).__name__}: {name} of task {int(rollout.index[row])} is not finite at step {time}; "
                "its parameters are NaN or too large: lower the learning rate, or scale the rewards down"
            )
        raise FamilyError(
            f"{spec.name}: {name} of task {int(rollout.index[row])} is not finite at step {time}; "
            "mend the family (a NaN would spoil the agent)"
        )
