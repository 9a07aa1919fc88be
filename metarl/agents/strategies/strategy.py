"""What the classical strategies share: they are agents that learn nothing, and the chance that they need."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import torch
from torch import Tensor

from metarl.agents.strategies.config import RandomConfig
from metarl.core.agent import Agent, Mode, World
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Belief, Inputs, Spec, TaskInfo, first_cue, replace


class Strategy(Agent):
    """A fixed rule: it begins, acts and adapts like every agent, but there is nothing to train and nothing to keep.

    A rule that draws at random means it, so `mode` changes nothing. `log_prob` is zero where a rule does not know it.
    """

    lanes = 1
    spec: Spec

    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """Adapt to it; and the cue says how it ended."""
        lived = rollout.reshape_lanes(belief.cue.shape[1])
        return replace(self.adapt(belief, lived), cue=lived.last_cue(self.spec))

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Raises a MetaRLError: there is nothing to train."""
        raise MetaRLError(
            "this agent is a fixed rule and learns nothing; see it beside a run: metarl evaluate RUN --beside NAME"
        )

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""

    def warm_start(self, state: dict[str, Any]) -> None:
        """Nothing to begin from."""


class Random(Strategy):
    """Uniform over the discrete actions, or over the cube [−1, 1]ᴬ."""

    def __init__(self, config: RandomConfig, spec: Spec, rng: Rng, device: torch.device) -> None:
        self.task_input = "none"
        self.spec = spec

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """No belief."""
        return Belief(cue=first_cue(self.spec, info.rows, lanes, info.device))

    def act(
        self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: Mode
    ) -> tuple[Acted, Belief]:
        """Any action."""
        width = self.spec.action_width
        if self.spec.discrete:
            action = random_argmax(obs.new_zeros(width), noise, counter)
            density = 1 / width
        else:
            action = 2 * noise.uniform(counter, width) - 1
            density = 0.5**width
        log_prob = torch.full_like(obs[..., 0], math.log(density))
        return Acted(Inputs(obs=obs, cue=belief.cue), action, log_prob), belief

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Nothing is believed."""
        return belief


# ---------------------------------------------------------------------------------------------------------------------
# Chance


def random_argmax(score: Tensor, noise: Streams, counter: int) -> Tensor:
    """[N, M] int64: the best of `score` [N, M, A] (or broadcast to it), ties broken at random."""
    best = score == score.amax(-1, keepdim=True)
    return (best * noise.uniform(counter, score.shape[-1])).argmax(-1)


def sample_dirichlet(concentration: Tensor, noise: Streams) -> Tensor:
    """Draws of Dirichlet(`concentration` [..., S]), entries ≥ 1, one stream of `noise` [...] a draw → [..., S].

    Normalised gamma variables; so the first entry of two is Beta(concentration[0], concentration[1]).
    """
    weight = sample_gamma(concentration, noise.split(0, concentration.shape[-1]))
    return weight / weight.sum(-1, keepdim=True)


def sample_gamma(shape: Tensor, noise: Streams) -> Tensor:
    """Draws of Gamma(`shape`, 1), entries ≥ 1, one stream of `noise` an entry → like `shape`.

    Marsaglia & Tsang 2000 (ACM TOMS 26): with d = shape − ⅓, propose d (1 + x / √(9 d))³ for a normal x. At least
    95 % of the proposals are accepted; the entries that are refused propose again.
    """
    assert (shape >= 1).all(), "a smaller shape might propose for ever"
    d = shape.flatten() - 1 / 3
    keys, value = noise.keys.flatten(), torch.empty_like(d)
    waiting = torch.arange(len(d), device=d.device)
    for attempt in count():
        stream, d_left = Streams(keys[waiting], ahead=1), d[waiting]
        x = stream.normal(2 * attempt, 1).squeeze(-1)
        u = stream.uniform(2 * attempt + 1, 1).squeeze(-1)
        v = (1 + x / (9 * d_left).sqrt()) ** 3
        accepted = u.log() < x.square() / 2 + d_left * (
            1 - v + v.log()
        )  # never where v < 0: its logarithm is NaN
        value[waiting[accepted]] = (d_left * v)[accepted]
        waiting = waiting[~accepted]
        if not len(waiting):
            break
    return value.view_as(shape)
