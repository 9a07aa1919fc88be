"""What the classical strategies share: agents without training, and their random numbers."""

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from metarl.config.registry import Settings
from metarl.core.agent import Agent, Mode, World
from metarl.core.errors import ConfigError
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Belief, Inputs, Spec, TaskInfo, first_cue, replace


class Strategy(Agent):
    """A fixed rule: it begins, acts and adapts like every agent, but has no parameters to train.

    `mode` changes nothing: a rule that draws at random always does. `log_prob` is zero where a rule
    does not know it.
    """

    task_input: Literal["none", "row"] = "none"
    lanes = 1
    needs: ClassVar[str] = "any family"
    """The kind of family that the rule is made for."""

    def __init__(
        self,
        config: Settings,
        spec: Spec,
        rng: Rng,
        device: torch.device,
    ):
        self.config = config
        self.spec = spec
        if not self.suits(spec):
            name = type(config).__name__.removesuffix("Config")
            raise ConfigError(
                f"{name} needs {self.needs}, which {spec.name} is not: choose another agent"
            )

    def suits(self, spec: Spec) -> bool:
        """Whether the family is one that it `needs`."""
        return True

    def acted(
        self,
        belief: Belief,
        obs: Tensor,
        action: Tensor,
        log_prob: float = 0.0,
    ) -> Acted:
        """The record of an action [N, M, …] on obs [N, M, O]."""
        size = obs.shape[:-1]
        chance = torch.full(size, log_prob, device=obs.device)
        return Acted(Inputs(obs, belief.cue), action, chance)

    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """`adapt`, and the cue of the last step."""
        rollout = rollout.reshape_lanes(belief.cue.shape[1])
        return replace(self.adapt(belief, rollout), cue=rollout.last_cue(self.spec))

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Raises a ConfigError: there is nothing to train."""
        raise ConfigError(
            "a classical strategy learns nothing; compare a run: metarl evaluate RUN --against NAME"
        )

    def acting_state(self) -> dict[str, Any]:
        """Nothing: a rule acts by its configuration."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""

    def warm_start(self, state: dict[str, Any]) -> None:
        """Nothing to start from."""


class Random(Strategy):
    """Uniform over the valid choices, or over the cube [−1, 1]ᴬ."""

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """No belief."""
        return Belief(first_cue(self.spec, info.rows, lanes, info.device))

    def act(
        self,
        belief: Belief,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, Belief]:
        """A random action."""
        action = self.spec.random_action(noise.uniform(counter, self.spec.action_width), obs)
        acted = self.acted(belief, obs, action)
        return replace(acted, log_prob=acted.log_prob - self._log_size(obs)), belief

    def _log_size(self, obs: Tensor) -> Tensor | float:
        """Of the set of actions: of a number of choices, or a volume."""
        spec = self.spec
        if not spec.discrete:
            return spec.action_width * math.log(2)
        valid = spec.valid_choices(obs)
        counts = list(spec.nvec or (spec.action_width,))
        if valid is None:
            return math.log(math.prod(counts))
        return sum(part.sum(-1).log() for part in valid.split(counts, dim=-1))

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Nothing to learn."""
        return belief


# -------------------------------------------------------------------------------------------------
# Random numbers


def random_argmax(score: Tensor, noise: Streams, counter: int) -> Tensor:
    """[N, M] int64: the best of `score` [N, M, A] (or broadcast to it), ties broken at random."""
    best = score == score.amax(-1, keepdim=True)
    return (best * noise.uniform(counter, score.shape[-1])).argmax(-1)


def sample_dirichlet(concentration: Tensor, noise: Streams) -> Tensor:
    """Dirichlet(`concentration` [..., S] ≥ 1) draws, one stream of `noise` [...] each → [..., S].

    Normalized gamma variables; the first entry of two is Beta(concentration[0], concentration[1]).
    """
    gamma = sample_gamma(concentration, noise.split(0, concentration.shape[-1]))
    return gamma / gamma.sum(-1, keepdim=True)


def sample_gamma(shape: Tensor, noise: Streams) -> Tensor:
    """Draws of Gamma(`shape`, 1), shapes ≥ 1, one stream of `noise` each → like `shape`.

    Marsaglia & Tsang 2000 (ACM TOMS 26): with d = shape − ⅓, propose d (1 + x / √(9 d))³ for a
    normal x. At least 95 % of the proposals are accepted; rejected entries propose again.
    """
    assert (shape >= 1).all(), "a smaller shape might propose forever"
    d = shape.flatten() - 1 / 3
    keys = noise.keys.flatten()
    draws = torch.empty_like(d)
    waiting = torch.arange(len(d), device=d.device)
    counter = 0
    while len(waiting):
        stream = Streams(keys[waiting], ahead=1)
        d_left = d[waiting]
        x = stream.normal(counter, 1).squeeze(-1)
        u = stream.uniform(counter + 1, 1).squeeze(-1)
        v = (1 + x / (9 * d_left).sqrt()) ** 3
        bound = x.square() / 2 + d_left * (1 - v + v.log())  # NaN where v < 0: not accepted
        accepted = u.log() < bound
        draws[waiting[accepted]] = (d_left * v)[accepted]
        waiting = waiting[~accepted]
        counter += 2
    return draws.view_as(shape)
