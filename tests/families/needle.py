"""A family as a stranger would write it: one arm of k pays."""

import torch

from metarl import Rng, Settings, Spec, Step, Tasks


class Needle:
    """One arm of k pays 1, all others nothing; an episode is one pull."""

    class Settings(Settings):
        """How hard it is."""

        arms: int = 4

    def __init__(self, options: Settings) -> None:
        self.arms = options.arms
        self.spec = Spec(
            "needle",
            {"constant": 1},
            action_width=self.arms,
            discrete=True,
            horizon=1,
            task_width=1,
            closed=True,
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        index = torch.arange(count)
        return Tasks((rng.child(split).rows(count, 1) * self.arms).floor(), index, split)

    def make(self, lanes: int) -> "NeedleEnv":
        return NeedleEnv(lanes)


class NeedleEnv:
    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def reset(self, tasks: Tasks, rng: Rng) -> torch.Tensor:
        self.arm = tasks.params.long()
        self.obs = torch.ones(len(tasks), self.lanes, 1)
        return self.obs

    def step(self, action: torch.Tensor) -> Step:
        reward = (action == self.arm).float()
        ended = torch.ones_like(reward, dtype=torch.bool)
        return Step(
            obs=self.obs, next_obs=self.obs, reward=reward, terminated=ended, truncated=~ended
        )
