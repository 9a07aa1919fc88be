"""A family with goals: be where the goal is."""

import torch
from torch import Tensor

from metarl import Rng, Spec, Step, Tasks


class Reach:
    """A point moves by up to .2 along both axes; reward −1 while it is over .15 from the goal."""

    spec = Spec(
        "reach",
        observation={"time": 1, "position": 2},
        action_width=2,
        discrete=False,
        horizon=5,
        task_width=3,
        goal_width=2,
        achieved_goal="position",
    )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        index = torch.arange(count)
        return Tasks(rng.child(split).rows(count, 3) - 0.5, index, split)

    def make(self, lanes: int) -> "Reaching":
        return Reaching(self, lanes)

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return -((achieved - desired).norm(dim=-1) > 0.15).float()


class Reaching:
    def __init__(self, family: Reach, lanes: int) -> None:
        self.family, self.lanes = family, lanes

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        self.goal = tasks.params[:, None, :2].expand(-1, self.lanes, -1)
        self.state = torch.zeros(len(tasks), self.lanes, 3)
        return self.state

    def step(self, action: Tensor) -> Step:
        time = self.state[..., :1] + 1
        position = self.state[..., 1:] + 0.2 * action.clamp(-1, 1)
        next_obs = torch.cat([time, position], dim=-1)
        reward = self.family.goal_reward(position, self.goal)
        over = time.squeeze(-1) == self.family.spec.horizon
        self.state = next_obs.masked_fill(over.unsqueeze(-1), 0.0)
        return Step(self.state, next_obs, reward, torch.zeros_like(over), over, success=reward == 0)
