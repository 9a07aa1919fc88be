"""A bandit that needs exploration, rewards as input and memory; its scores can be calculated."""

import torch

from metarl import Rng, Spec, Step, Tasks


class Vault:
    """Arm 0 pays .15 for sure. One of the other four pays 1 half of the time; three pay nothing.

    An episode is one pull. In 20 pulls:

    * an agent that maximizes the next reward alone stays with arm 0, since an unknown arm pays
      1/4 · 1/2 = .125 on average: 3.0
    * an agent that knows nothing but the last pull can at best stay with what paid and try the next
      arm else: a cycle of three failures and a visit of two pulls to the vault that pays 1 on
      average, 1/5 a pull: 4.0
    * an agent that tries the arms in turn until one pays, and stays with it, knows the vault after
      s pulls: s = 4 c + i in cycle c with probability 1/4 · 2^-(c + 1) for each place i = 1 … 4,
      and then has 1 + (20 − s) / 2: about 7.8
    """

    def __init__(self) -> None:
        self.spec = Spec(
            "vault",
            {"constant": 1},
            action_width=5,
            discrete=True,
            horizon=1,
            task_width=1,
            closed=True,
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        index = torch.arange(count)
        return Tasks(1 + (rng.child(split).rows(count, 1) * 4).floor(), index, split)

    def make(self, lanes: int) -> "VaultEnv":
        return VaultEnv(lanes)


class VaultEnv:
    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def reset(self, tasks: Tasks, rng: Rng) -> torch.Tensor:
        self.vault, self.noise, self.time = tasks.params.long(), tasks.streams(rng, self.lanes), 0
        self.obs = torch.ones(len(tasks), self.lanes, 1)
        return self.obs

    def step(self, action: torch.Tensor) -> Step:
        opened = self.noise.uniform(self.time, 1).squeeze(-1) < 0.5
        self.time += 1
        reward = torch.where(action == 0, 0.15, ((action == self.vault) & opened).float())
        ended = torch.ones_like(opened)
        return Step(
            obs=self.obs, next_obs=self.obs, reward=reward, terminated=ended, truncated=~ended
        )
