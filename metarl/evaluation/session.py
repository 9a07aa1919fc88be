"""A deployed agent: one environment, one task, no batch."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike, NDArray

from metarl.core.agent import Agent, Mode, device_of
from metarl.core.arrays import flag, float32, short, single
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.core.rollout import Recorder, Rollout, stack_lanes
from metarl.core.types import Acted, Spec, Step, TaskInfo, Tasks, next_cue, replace, tree_map
from metarl.data.recording import Recording, recorded


class Session:
    """Meets one new task step by step, and adapts after every M episodes, M being its lanes.

    A step of it::

        session = Session(agent, family.spec)
        action = session.act(obs)
        session.observe(reward, next_obs, terminated, truncated)
    """

    def __init__(
        self,
        agent: Agent,
        spec: Spec,
        *,
        episodes: int = 1,
        mode: Mode = "sample",
        seed: int = 0,
        task: ArrayLike | None = None,
    ):
        """`episodes` to come in all, for agents that plan ahead; `task` [P], where it is shown."""
        self.agent, self.spec, self.mode = agent, spec, mode
        shown = None if task is None else torch.from_numpy(float32(task, "task")).view(1, -1)
        if (shown is None) != (agent.task_input == "none"):
            raise MetaRLError(
                f"task: this agent's task_input is {agent.task_input}; give a task just if it is "
                "shown one"
            )
        if shown is not None and agent.task_input != "onehot":
            width = spec.shown_width(agent.task_input)
            if shown.shape[1] != width:
                raise MetaRLError(f"task: {width} numbers are expected, not {shown.shape[1]}")
        self._device = device_of(agent)
        params = torch.zeros(1, 0) if shown is None else shown
        tasks = Tasks(params, torch.zeros(1, dtype=torch.long), "session")
        self._tasks = tasks.to(self._device)
        self._rng = Rng(seed).child("session")
        self._episode = 0
        rounds = -(-episodes // agent.lanes)
        shown = None if shown is None else self._tasks.params
        self.belief = agent.begin(TaskInfo(1, rounds, self._device, shown), lanes=1)
        self._acted: Acted | None = None
        self._round: list[Rollout] = []  # since the last adaptation
        self._start_episode()

    def act(self, obs: ArrayLike) -> int | NDArray[Any]:
        """The action on obs [O]: an int, choices [D], or an array [A] (clip it to [−1, 1]).

        Raises:
            MetaRLError: an observation of a wrong type or width or not finite, or no outcome of the
                last action.
        """
        if self._acted is not None:
            raise MetaRLError("act: report the outcome of the last action first, with observe")
        lane_obs = self._row("obs", obs)
        noise, counter = self._noise, self._recorder.length
        with torch.no_grad():
            self._acted, self.belief = self.agent.act(
                self.belief, lane_obs, noise, counter, self.mode
            )
        action = self._acted.action[0, 0]
        return int(action) if self.spec.single_choice else action.cpu().numpy()

    def observe(
        self,
        reward: float,
        next_obs: ArrayLike,
        terminated: bool,
        truncated: bool,
    ) -> None:
        """The outcome of the last action; next_obs [O] is the true successor, also at an end.

        Raises:
            MetaRLError: no action was taken, or an array is of a wrong type or width or not finite.
        """
        if self._acted is None:
            raise MetaRLError("observe: nothing was done yet; call act first")
        paid = torch.tensor([[single(reward, "reward")]])
        successor = self._row("next_obs", next_obs)
        ended = flag(terminated, "terminated")
        cut = flag(truncated, "truncated")
        step = Step(successor, successor, paid, torch.tensor([[ended]]), torch.tensor([[cut]]))
        step = tree_map(lambda x: x.to(self._device), step)
        self._recorder.write(self._acted, step, torch.ones_like(step.terminated))
        self.belief = replace(self.belief, cue=next_cue(self.spec, self._acted.action, step))
        self._acted = None
        if ended or cut:
            self._round.append(self._recorder.rollout(self._tasks))
            self._start_episode()
            if len(self._round) == self.agent.lanes:
                self.belief = self.agent.adapt(self.belief, stack_lanes(self._round))
                self._round = []
        elif self._recorder.length == self._recorder.capacity:
            raise MetaRLError(
                f"the episode is longer than the horizon of {self.spec.horizon} steps; "
                "report its end with terminated or truncated"
            )

    def replay(self, episodes: Sequence[Recording]) -> None:
        """Learn from recorded episodes, in their order, as if they had happened here.

        Raises:
            MetaRLError: episodes that cannot be of this family, or not as many as the agent adapts
                to, or an episode of this session is not over.
        """
        if self._acted is not None or self._recorder.length or self._round:
            raise MetaRLError(f"replay: finish the round of {self.agent.lanes} episodes first")
        given = recorded(self.spec, episodes, self.agent.lanes)
        for rollout in tree_map(lambda x: x.to(self._device), given).rounds():
            self.belief = self.agent.replay(self.belief, rollout)

    def _start_episode(self) -> None:
        self._recorder = Recorder(self.spec.horizon)
        self._noise = self._tasks.streams(self._rng.child("episode", self._episode), lanes=1)
        self._episode += 1

    def _row(self, name: str, obs: ArrayLike) -> torch.Tensor:
        array = float32(obs, name)
        if array.size != self.spec.obs_width:
            raise MetaRLError(
                f"{name}: {self.spec.obs_width} numbers are expected, not {short(obs)}"
            )
        return torch.from_numpy(array).view(1, 1, -1).to(self._device, self.spec.obs_type)
