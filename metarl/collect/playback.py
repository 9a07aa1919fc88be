"""An actor that repeats recorded actions, whatever comes of them."""

from dataclasses import dataclass

from torch import Tensor

from metarl.core.agent import Mode
from metarl.core.rng import Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Belief, Inputs


@dataclass(frozen=True)
class Playback:
    """The actions of `recorded`, from its beginning; where it is too short, once more."""

    recorded: Rollout

    def act(
        self,
        belief: Belief,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, Belief]:
        """The action of step `counter`, in every lane; the belief is not used."""
        time = counter % len(self.recorded.action)
        action, log_prob = self.recorded.action[time], self.recorded.log_prob[time]
        return Acted(Inputs(obs), action, log_prob), belief
