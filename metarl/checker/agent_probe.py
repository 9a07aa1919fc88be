"""Probing an agent: short trials and small iterations of training on one family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from metarl.checker.rules import require, require_array
from metarl.checker.values import part, require_leading, require_same
from metarl.collect.collector import collect, task_info
from metarl.collect.world import LocalWorld
from metarl.core.agent import Actor, Agent, Mode
from metarl.core.errors import ConfigError
from metarl.core.family import BatchEnv, Family
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import (
    Acted,
    Belief,
    GoalReward,
    Spec,
    TaskInfo,
    Tasks,
    append_axes,
    first_cue,
    replace,
)

CPU = torch.device("cpu")
TRAIN_TASKS = 8
ROWS = 4  # tasks of a trial
ROUNDS = 2  # of a trial

T = TypeVar("T")
Build = Callable[[Spec, int], Agent]
"""(spec, seed) → an agent that was not trained."""


class _Disguised:
    """A family whose environments meet the tasks of `params` [S, P] by their index alone."""

    def __init__(self, family: Family, params: Tensor):
        self.spec, self.tasks = family.spec, family.tasks
        self._family, self._params = family, params

    def make(self, lanes: int) -> BatchEnv:
        """An environment of the family."""
        return _DisguisedEnv(self._family.make(lanes), self._params)


class _DisguisedEnv:
    def __init__(self, env: BatchEnv, params: Tensor):
        self.step, self._env, self._params = env.step, env, params

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        return self._env.reset(replace(tasks, params=self._params[tasks.index]), rng)


class SmallWorld:
    """The protocol `World` and nothing else, with a fixed training set.

    `told`: it says what its training set is. `disguised`: the tasks that it gives have each other's
    params, but are met and shown as they are. `with_family`: it also has a `family` that makes
    environments.
    """

    def __init__(
        self,
        family: Family,
        episodes: int,
        train_set: Tasks,
        told: bool,
        disguised: bool,
        with_family: bool = False,
    ):
        self.episodes = episodes
        self.progress = 0.0
        self.env_steps = 0
        shown = replace(train_set, params=train_set.params.roll(int(disguised), 0))
        self.train_set = shown if told else None
        self.tasks = LocalWorld(family, episodes, shown, CPU).tasks
        self._world = LocalWorld(family, episodes, train_set, CPU)
        self._params = train_set.params
        if with_family:
            self.family = _Disguised(family, train_set.params) if disguised else family

    @property
    def goal_reward(self) -> GoalReward:
        """The family's."""
        return self._world.goal_reward

    def task_rows(self, tasks: Tasks) -> Tensor:
        """The hidden rows."""
        return self._world.task_rows(self._true(tasks))

    def pseudo_regret(self, tasks: Tasks, rollout: Rollout) -> Tensor:
        """What expected rewards are short of the optimum."""
        return self._world.pseudo_regret(self._true(tasks), rollout)

    def task_info(self, agent: Agent, tasks: Tasks) -> TaskInfo:
        """What `agent` may know of `tasks`."""
        return self._world.task_info(agent, self._true(tasks))

    def collect(
        self,
        agent: Actor,
        belief: Belief,
        tasks: Tasks,
        episodes: int,
        rng: Rng,
    ) -> tuple[Rollout, Belief]:
        """Roll out `episodes` whole episodes in every lane."""
        collected = self._world.collect(agent, belief, self._true(tasks), episodes, rng)
        self.env_steps = self._world.env_steps
        return collected

    def _true(self, tasks: Tasks) -> Tasks:
        return replace(tasks, params=self._params[tasks.index])


class Watched:
    """Acts as an agent does, and raises CheckFailed where that breaks a promise."""

    def __init__(self, agent: Agent, spec: Spec):
        self.agent = agent
        self.spec = spec
        self.task_input = agent.task_input
        self.lanes = agent.lanes

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """The prior belief."""
        belief = self._untouched("begin", self.agent.begin, info, lanes)
        cue = first_cue(self.spec, info.rows, lanes, CPU)
        require_same(cue, belief.cue, "the cue is not first_cue(…)")
        return self._checked("begin", belief)

    def act(self, belief: Belief, obs: Tensor, *given: Any) -> tuple[Acted, Belief]:
        """A decision; only the lane changes."""
        acted, after = self._untouched("act", self.agent.act, belief, obs, *given)
        self._require_acted(acted, obs)
        kept = replace(after, lane=belief.lane)
        require_same(belief, kept, "act changes more of the belief than its lane")
        return acted, self._checked("act", after)

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Only the row changes."""
        after = self._untouched("adapt", self.agent.adapt, belief, rollout)
        kept = replace(after, row=belief.row)
        require_same(belief, kept, "adapt changes more of the belief than its row")
        return self._checked("adapt", after)

    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """The cue is the last one."""
        after = self._untouched("replay", self.agent.replay, belief, rollout)
        last = rollout.reshape_lanes(belief.cue.shape[1]).last_cue(self.spec)
        require_same(last, after.cue, "the cue after replay is not how the last step ended")
        return self._checked("replay", after)

    def _untouched(self, name: str, method: Callable[..., T], *given: Any) -> T:
        """Its result; what is given and the agent stay as they are."""
        before = part(given, ...)
        agent = part(self.agent.state_dict(), ...)
        result = method(*given)
        require_same(before, given, f"{name} changes what it is given, in place")
        require_same(agent, self.agent.state_dict(), f"{name} changes the agent's state_dict")
        return result

    def _checked(self, name: str, belief: Belief) -> Belief:
        """The belief, if row and lane fit its cue, which is compared elsewhere."""
        size = belief.cue.shape[:2]
        require_leading(f"{name}: row", belief.row, size[:1])
        require_leading(f"{name}: lane", belief.lane, size)
        return belief

    def _require_acted(self, acted: Acted, obs: Tensor) -> None:
        """Raises CheckFailed unless `acted` is a decision on obs [N, M, O]."""
        size = tuple(obs.shape[:2])
        require_same(obs, acted.inputs.obs, "act: inputs.obs is not the observation")
        require_array("log_prob", acted.log_prob, size)
        require_leading("act: extras", acted.extras, size)
        spec = self.spec
        require_array("action", acted.action, (*size, *spec.action_shape), spec.action_type)
        if not spec.discrete:
            return
        last = torch.tensor(spec.nvec or spec.action_width) - 1
        low, high = acted.action.aminmax()
        inside = ((acted.action >= 0) & (acted.action <= last)).all()
        require(inside, f"actions from {low} to {high}, not from 0 to {last.tolist()}")
        valid = spec.valid_choices(obs)
        if valid is not None:
            taken = spec.encode_action(acted.action).bool()
            require(not (taken & ~valid).any(), "an action that the mask rules out")


@dataclass(frozen=True)
class AgentProbe:
    """An agent under examination; trials are of some `rows` of its training tasks."""

    build: Build
    family: Family
    needs_train_tasks: bool = True
    needs_family: bool = False
    rows: Tensor = torch.arange(ROWS)  # noqa: RUF009  (never changed)
    other: Agent | None = None
    rng = Rng(0).child("check")

    @cached_property
    def train_set(self) -> Tasks:
        tasks = self.family.tasks("train", TRAIN_TASKS, self.rng)
        return Tasks.numbered(tasks.params, tasks.split)

    @property
    def tasks(self) -> Tasks:
        return self.train_set[self.rows]

    # -- agents

    def fresh(self, seed: int = 0) -> Agent:
        """One that was not trained."""
        spec = self.family.spec
        agent = self.build(spec, seed)
        if agent.task_input == "onehot":
            agent = self.build(replace(spec, task_width=TRAIN_TASKS), seed)
        return agent

    @cached_property
    def agent(self) -> Agent:
        """The one that trials are tried with: `other`, or one that is watched and never trained."""
        if self.other is None:
            return cast(Agent, Watched(self.fresh(), self.family.spec))
        return self.other

    @cached_property
    def strategy(self) -> str:
        """Why it cannot be trained, if it is a strategy: without state, it refuses to iterate."""
        agent = self.fresh()
        if not agent.state_dict():
            try:
                self.iterate(agent)
            except ConfigError as error:
                return str(error)
        return ""

    def trained(self) -> Agent:
        """One after its first iteration; a strategy as it is."""
        agent = self.fresh()
        if not self.strategy:
            self.iterate(agent)
        return agent

    # -- trials

    def begin(self, lanes: int | None = None) -> Belief:
        """The prior belief."""
        info = task_info(self.agent, self.family.spec, self.tasks, ROUNDS, self.train_set)
        return self.agent.begin(info, lanes or self.agent.lanes)

    def collect(
        self,
        belief: Belief,
        number: int = 0,
        mode: Mode = "sample",
    ) -> tuple[Rollout, Belief]:
        """Episode `number` of every lane."""
        env = self.family.make(belief.cue.shape[1])
        rng = self.rng.child("episode", number)
        return collect(self.agent, env, self.family.spec, belief, self.tasks, 1, rng, mode)

    def trial(
        self,
        between: Callable[[], object] = tuple,
        renamed: int = 0,
    ) -> dict[str, object]:
        """What happens in a trial, with leading axis N.

        Args:
            between: what is done before every adaptation.
            renamed: by how much the index of the tasks is changed before it.
        """
        belief = self.begin()
        lived: dict[str, object] = {}
        for number in range(ROUNDS):
            rollout, belief = self.collect(belief, number)
            between()
            belief = self.agent.adapt(belief, replace(rollout, index=rollout.index + renamed))
            lived[f"round {number + 1}"] = {"acting": acting(rollout), "belief": belief}
        return lived

    def on(self, rows: Tensor) -> AgentProbe:
        """The same with other tasks."""
        return replace(self, rows=rows, other=self.agent)

    def trial_of(self, agent: Agent) -> dict[str, object]:
        """The same with another agent."""
        return replace(self, other=agent).trial()

    # -- training

    def iterate(
        self,
        agent: Agent,
        number: int = 0,
        disguised: bool = False,
    ) -> tuple[dict[str, float], int]:
        """An iteration, in a world of its own → metrics and steps."""
        episodes, told = ROUNDS * agent.lanes, self.needs_train_tasks
        with_family = self.needs_family
        world = SmallWorld(self.family, episodes, self.train_set, told, disguised, with_family)
        world.progress = number / 2
        return agent.iterate(world, self.rng.child("iteration", number)), world.env_steps

    def outcome(
        self,
        agent: Agent | None = None,
        number: int = 0,
        disguised: bool = False,
    ) -> dict[str, object]:
        """An iteration's metrics, the state and a trial after it; by default of a fresh agent.

        A strategy has no iterations.
        """
        agent = self.fresh() if agent is None else agent
        metrics = {} if self.strategy else self.iterate(agent, number, disguised)[0]
        state = part(agent.state_dict(), ...)
        return {"metrics": metrics, "state_dict": state, "trial": self.trial_of(agent)}


def acting(rollout: Rollout) -> dict[str, Tensor]:
    """[N, M, …] sums over the episode, of what waiting lanes do not change."""
    kept = {"log_prob": rollout.log_prob, "action": rollout.action, "reward": rollout.reward}
    return {name: (x * append_axes(rollout.valid, x.dim())).sum(0) for name, x in kept.items()}
