"""What the learning agents share: their state is that of their engine."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from metarl.algorithms.learner import Learner
from metarl.core.agent import Agent
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, Params, replace, where


class LearningAgent(Agent):
    """An agent whose whole state is held by its `learner`, such as a `PPO` or a `SAC`.

    It is shown no task, and adapts in one lane by what `act` remembers, unless it says otherwise.
    """

    task_input: Literal["none", "row", "goal", "onehot"] = "none"
    lanes = 1
    learner: Learner

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Nothing to do: `act` has seen every step, and the cue holds the last outcome."""
        return belief

    @torch.no_grad()
    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """`act` on every recorded observation for its memory alone, then `adapt`."""
        steps = rollout.reshape_lanes(belief.cue.shape[1])
        noise = Rng(0).streams(steps.index, belief.cue.shape[1])
        cues = steps.cues(self.spec)
        recorded = zip(steps.inputs.obs, steps.valid, cues, strict=True)
        for time, (obs, valid, cue) in enumerate(recorded):
            _, after = self.act(belief, obs, noise, time, "greedy")
            lane = where(valid, after.lane, belief.lane)
            belief = replace(belief, lane=lane, cue=where(valid, cue, belief.cue))
        return self.adapt(belief, rollout)

    @property
    def params(self) -> Params:
        """The parameters θ."""
        return self.learner.params

    def acting_state(self) -> dict[str, Any]:
        """What acting needs: no optimizer and no replay buffer."""
        return self.learner.acting_state()

    def state_dict(self) -> dict[str, Any]:
        """All that training changes."""
        return self.learner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.learner.load_state_dict(state)

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take over the acting state of another agent; all else is as before training.

        Raises:
            ConfigError: parameters of another architecture.
        """
        self.learner.warm_start(state)


def expand_to_lanes(x: Tensor | None, obs: Tensor) -> Tensor | None:
    """What belongs to a task [N, W], beside obs [..., N, M, O] of its lanes: [..., N, M, W]."""
    return None if x is None else x.unsqueeze(1).expand(*obs.shape[:-1], -1)


def return_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Mean return of an episode, before any adaptation (the first rollout) and after all of it."""
    first = float(rollouts[0].episode_returns().mean())
    last = float(rollouts[-1].episode_returns().mean())
    return {"return": last, "first_return": first, "last_return": last}
