"""`collect`: the only loop that steps an environment, in training and in evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.agent import Agent, Mode
from metarl.buffer import Recorder, Rollout
from metarl.env import BatchEnv, Family
from metarl.errors import Mistake
from metarl.rng import Rng
from metarl.types import Belief, GoalReward, Spec, Step, Tasks, View, next_cue, one_hot, replace, where


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
        Mistake: the family gave an observation or a reward of the wrong shape or type or that is not finite, or an
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
            after = replace(after, cue=where(valid, after.cue, belief.cue), lane=where(valid, after.lane, belief.lane))
        belief, obs = after, step.obs
        if step.done.any():
            left = left - (step.done & valid).long()
            valid = left > 0
            all_valid = bool(valid.all())
            if not valid.any():
                rollout = recorder.rollout(tasks)
                _check_finite(rollout, spec, agent)
                return rollout, belief
    raise Mistake(f"{spec.name}: an episode outlived the horizon of {spec.horizon} steps; end it with truncated = True")


def view(agent: Agent, spec: Spec, tasks: Tasks, episodes: int, train_set: Tasks | None = None) -> View:
    """What `agent` may know of `tasks`, by its `task_input`: nothing, rows, goals, or their place in the `train_set`.

    `episodes` are those to come in every lane.

    Raises:
        Mistake: a one-hot of tasks that have no place in a fixed training set.
    """
    shown = None
    if agent.task_input == "row":
        shown = tasks.params
    elif agent.task_input == "goal":
        shown = tasks.params[:, : spec.goal_width]
    elif agent.task_input == "onehot":
        if train_set is None or tasks.split != "train":
            raise Mistake(
                f"task_input onehot: a {tasks.split} task has no place in a one-hot of fixed training tasks; "
                "set train_tasks, and evaluate on the split train"
            )
        shown = one_hot(tasks.index, len(train_set))
    return View(rows=len(tasks), episodes=episodes, device=tasks.params.device, shown=shown)


def rounds(agent: Agent, episodes: int) -> int:
    """How often `agent` adapts in a trial of `episodes`: it lives through as many as it has lanes between two times.

    Raises:
        Mistake: the episodes cannot be shared out evenly among the lanes.
    """
    count, rest = divmod(episodes, agent.lanes)
    if rest:
        raise Mistake(
            f"episodes: {episodes} cannot be shared out among the {agent.lanes} lanes of {type(agent).__name__}; "
            f"set episodes to a multiple of agent.lanes, such as {(count + 1) * agent.lanes}"
        )
    return count


class TrainingWorld:
    """The training tasks of one family and `collect` on them, with the count of what was consumed."""

    def __init__(self, family: Family, episodes: int, train_set: Tasks | None, device: torch.device) -> None:
        """`train_set`: the fixed tasks to train on, a task's index being its place; None: fresh ones whenever asked for."""
        self.family = family
        self.episodes = episodes
        self.progress = 0.0
        self.env_steps = 0
        self.device = device
        self.train_set = None if train_set is None else train_set.to(device)
        self._envs: dict[int, BatchEnv] = {}

    @property
    def goal_reward(self) -> GoalReward:
        """What achieved goals pay, by the family.

        Raises:
            Mistake: it has none.
        """
        reward: GoalReward | None = getattr(self.family, "goal_reward", None)
        if reward is None:
            raise Mistake(
                f"hindsight: {self.family.spec.name} does not know what goals pay; give it a method goal_reward"
            )
        return reward

    def tasks(self, count: int, rng: Rng) -> Tasks:
        """`count` training tasks: fresh ones, or rows of the fixed set, which is walked through before a row returns."""
        if self.train_set is None:
            return self.family.tasks("train", count, rng.child("tasks")).to(self.device)
        return self.train_set.draw(count, rng.child("tasks")).to(self.device)

    def view(self, agent: Agent, tasks: Tasks) -> View:
        """What `agent` may know of `tasks`."""
        return view(agent, self.family.spec, tasks, rounds(agent, self.episodes), self.train_set)

    def collect(
        self, agent: Agent, belief: Belief, tasks: Tasks, episodes: int, rng: Rng, mode: Mode = "sample"
    ) -> tuple[Rollout, Belief]:
        """`collect` in an environment that is kept for as many lanes as the belief has."""
        lanes = belief.cue.shape[1]
        if lanes not in self._envs:
            self._envs[lanes] = self.family.make(lanes)
        rollout, belief = collect(agent, self._envs[lanes], self.family.spec, belief, tasks, episodes, rng, mode)
        self.env_steps += rollout.env_steps
        return rollout, belief


# ---------------------------------------------------------------------------------------------------------------------
# What a family can get wrong


def check_array(name: str, array: Tensor, shape: tuple[int, ...], dtype: torch.dtype, spec: Spec, time: int) -> None:
    """Raises a Mistake where `array` is not what the spec promises."""
    if array.shape != shape or array.dtype != dtype:
        raise Mistake(
            f"{spec.name}: {name} at step {time} is {array.dtype} of shape {list(array.shape)}; "
            f"the family's spec asks for {dtype} of shape {list(shape)}"
        )


def check_step(step: Step, spec: Spec, lanes: tuple[int, int], time: int) -> None:
    """Raises a Mistake where a part of `step` has not the shape [N, M, …] or the type of the spec."""
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
            raise Mistake(
                f"{type(agent).__name__}: {name} of task {int(rollout.index[row])} is not finite at step {time}; "
                "its parameters are NaN or too large: lower the learning rate, or scale the rewards down"
            )
        raise Mistake(
            f"{spec.name}: {name} of task {int(rollout.index[row])} is not finite at step {time}; "
            "mend the family (a NaN would spoil the agent)"
        )
