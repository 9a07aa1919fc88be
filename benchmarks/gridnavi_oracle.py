"""A teacher for GridNavi: it is shown the goal, and takes one of the shortest ways to it.

Imitating it with a memory::

    metarl train dpt/bernoulli-bandit family=gridnavi episodes=4 agent.behavior=random
        agent.teacher=benchmarks/gridnavi_oracle.py:ShortestPath agent.normalize_obs=true
        agent.encoder_sizes=[64] agent.hidden_sizes=[64]
"""

from __future__ import annotations

import torch
from torch import Tensor

import metarl
from metarl.agents.strategies.config import RandomConfig
from metarl.agents.strategies.strategy import Strategy, random_argmax
from metarl.core.agent import Mode
from metarl.core.rng import Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Belief, TaskInfo, first_cue

_MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))


class ShortestPath(Strategy):
    """Every action that leads closer to the goal is as likely; on the goal it stays."""

    Settings = RandomConfig
    task_input = "row"

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """The goal."""
        return Belief(first_cue(self.spec, info.rows, lanes, info.device), row=info.shown)

    def act(
        self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: Mode
    ) -> tuple[Acted, Belief]:
        """One of the moves after which the goal is nearest."""
        moves = torch.tensor(_MOVES, dtype=obs.dtype)
        after = obs.unsqueeze(-2) + moves
        distance = (after - belief.row[:, None, None]).abs().sum(-1)
        return self.acted(belief, obs, random_argmax(-distance, noise, counter)), belief

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Nothing to learn."""
        return belief


if __name__ == "__main__":
    family = metarl.make_family("gridnavi")
    agent = ShortestPath(RandomConfig(), family.spec, metarl.Rng(0), torch.device("cpu"))
    print(metarl.evaluate(agent, family, episodes=4, tasks=210).totals.mean())
