"""A trial in which a teacher says what it would do, whoever acts."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.core.agent import Agent, Mode, World
from metarl.core.rng import Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Belief, Tasks, append_axes, replace


class Lesson:
    """Acts as one of its agents does; ``extras["label"]`` has the teacher's action.

    Its belief holds those of all, whose cue is the same: what was really done.
    """

    def __init__(self, student: Agent, teacher: Agent, behavior: Agent | None, students: int):
        """The student acts in the first `students` rows; elsewhere `behavior`, or the teacher."""
        self._agents = {"student": student, "teacher": teacher}
        if behavior is not None:
            self._agents["behavior"] = behavior
        self._actor = "teacher" if behavior is None else "behavior"
        self._students = students

    def begin_in(self, world: World, tasks: Tasks) -> Belief:
        """The prior beliefs of all, each of them told of `tasks` what it is shown."""
        beliefs = {}
        for name, agent in self._agents.items():
            beliefs[name] = agent.begin(world.task_info(agent, tasks), lanes=1)
        return Belief(
            beliefs["student"].cue,
            row={name: belief.row for name, belief in beliefs.items()},
            lane={name: belief.lane for name, belief in beliefs.items()},
        )

    def act(
        self,
        belief: Belief,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, Belief]:
        """The actions of all, of which one is taken in each row."""
        acted, lanes = {}, {}
        for name, agent in self._agents.items():
            own = self._own(belief, name)
            acted[name], after = agent.act(own, obs, noise, counter, mode)
            lanes[name] = after.lane
            noise = noise.substream
        taken, own_action = acted[self._actor].action, acted["student"].action
        row = torch.arange(len(taken), device=taken.device)
        action = torch.where(append_axes(row < self._students, taken.dim()), own_action, taken)
        label = {"label": acted["teacher"].action}
        lesson = replace(acted["student"], action=action, extras=label)
        return lesson, replace(belief, lane=lanes)

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Each adapts by its rule, to what was done."""
        rows = {}
        for name, agent in self._agents.items():
            rows[name] = agent.adapt(self._own(belief, name), rollout).row
        return replace(belief, row=rows)

    def _own(self, belief: Belief, name: str) -> Belief:
        return Belief(belief.cue, belief.row[name], belief.lane[name])
