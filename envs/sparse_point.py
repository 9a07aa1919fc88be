"""Two-dimensional navigation with a sparse reward."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm

from metarl.core.predictions import Predictions, Questions
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Scene, Spec, Tasks, tree_map
from metarl_envs.config import SparsePointConfig
from metarl_envs.episodes import TensorEnv, Transition
from metarl_envs.sparse_goals import (
    COARSE_ROUNDING,
    goals_at_distance,
    grid,
    on_circle,
    rewarded,
    weights,
)

_SHUFFLE = 1337  # PEARL's seed: which of its goals are for test
_ASKED = 33  # points of the half circle
_NUMBERS = 2**21  # in the largest array of a posterior


class SparsePoint:
    """A point starts in the center of the unit circle; its hidden goal lies on the upper half.

    =================  =============================================================================
    observation        [2] position
    action             [2] move, in units of `step_size`, clipped to [−1, 1]
    reward             1 − d within the radius of the goal, else 0, for the distance
                       d = ‖position − goal‖₂ after the move
    training reward    −d, where `dense`; variant varibad has none
    episode            H steps, then truncated
    task row           [2] goal. Variant pearl: 100 evenly spaced ones, both ends of the half circle
                       among them, of which a fixed shuffle gives 80 to train and 20 to test;
                       validation has the 99 midpoints of neighbors; varibad: uniform on the half
                       circle. In the split ood, goals on the lower half: the midpoints mirrored, or
                       uniform
    =================  =============================================================================

    Rakelly et al. 2019 (PEARL, arXiv:1903.08254), section 6.3, and Zintgraf et al. 2021 (VariBAD),
    by their code.
    """

    Settings = SparsePointConfig

    def __init__(self, config: SparsePointConfig):
        self.config = config
        self.spec = Spec(
            "sparse-point",
            observation={"position": 2},
            action_width=2,
            discrete=False,
            horizon=config.horizon,
            task_width=2,
            goal_width=2,
            achieved_goal="position",
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` goals."""
        if self.config.goals is None:
            angle = math.pi * rng.child(split).rows(count, 1).squeeze(1)
            if split == "ood":
                angle = -angle
            return Tasks.numbered(on_circle(angle), split)
        goals = on_circle(_angles(self.config.goals, split))
        return Tasks.listed(goals, split, count, rng)

    def make(self, lanes: int) -> TensorEnv:
        """N tasks × `lanes` lanes."""
        return _SparsePoints(self, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the return of moving as far towards the goal as each axis allows."""
        env = self.make(lanes=1)
        position = env.reset(tasks, Rng(0))
        goal = tasks.params.unsqueeze(1)
        total = goal.new_zeros(len(tasks))
        for _ in range(self.config.horizon):
            step = env.step((goal - position) / self.config.step_size)
            total += step.reward.squeeze(1)
            position = step.next_obs
        return total

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """[...]: the reward at `achieved` [..., 2] where `desired` [..., 2] is the goal."""
        return self.reward(vector_norm(achieved - desired, dim=-1))

    def reward(self, distance: Tensor) -> Tensor:
        """[...]: the reward at this `distance` [...] to the goal."""
        return (1 - distance) * (distance <= self.config.radius)

    def questions(self) -> Questions:
        """Staying at evenly spaced points of the half circle, both ends among them."""
        place = on_circle(torch.linspace(0, math.pi, _ASKED))
        return Questions(place, torch.zeros_like(place), next_obs=place)

    def posterior_predictions(self, rollout: Rollout, times: Tensor) -> Predictions:
        """[K, N, M, 33]: mean and variance of the reward over the goals that explain all steps.

        The prior is that of the split, also where a run trains on a few of its tasks: train's goals
        where they are listed, else uniform, on a fine grid until there is a reward. The last step
        of an episode tells as much as others: an observer knows where every action leads.
        """
        prior = self._prior().to(rollout.reward.device)
        steps, _, lanes = rollout.valid.shape
        numbers = max(steps, _ASKED) * lanes * len(prior)  # a row's
        rows = torch.arange(len(rollout.index), device=prior.device)
        parts: list[Predictions] = []
        for some in rows.split(max(1, _NUMBERS // numbers)):
            parts.append(self._predictions(prior, rollout.rows(some), times))
        return tree_map(lambda *x: torch.cat(x, dim=1), *parts)

    def _predictions(self, prior: Tensor, rollout: Rollout, times: Tensor) -> Predictions:
        """`posterior_predictions` under the uniform prior on goals [G, 2]."""
        radius = self.config.radius
        weight = weights(prior, rollout, times, radius)
        goals = prior.expand(*weight.shape[1:], 2)  # [N, M, G, 2]
        if self.config.goals is None:
            # a reward leaves two goals, which are known better than on the grid
            two = goals_at_distance(rollout)
            of_two = weights(two, rollout, times, radius, COARSE_ROUNDING)
            found = rewarded(rollout, times)  # [K, N, M, 1]
            weight = torch.cat([weight * ~found, of_two * found], dim=-1)
            goals = torch.cat([goals, two], dim=-2)
        place = self.questions().obs.to(prior.device)
        reward = self.goal_reward(place[:, None], goals.unsqueeze(-3)).double()  # [N, M, Q, G]
        mean = torch.einsum("knmg,nmqg->knmq", weight, reward)
        square = torch.einsum("knmg,nmqg->knmq", weight, reward.square())
        variance = (square - mean.square()).clamp(min=0)
        return Predictions(mean.float(), variance.float())

    def _prior(self) -> Tensor:
        """[G, 2]: goals that are equally likely in the split train; on a grid where any may be."""
        if self.config.goals is None:
            return grid()
        return on_circle(_angles(self.config.goals, "train"))

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The point's path, and other goals of the circle."""
        others = on_circle(torch.linspace(0, math.copysign(math.pi, float(params[1])), 30))
        return Scene(
            obs,
            limits=(-1.5, 1.5, -1.5, 1.5),
            goal=params.unsqueeze(0),
            goal_radius=self.config.radius,
            others=others,
        )


class _SparsePoints(TensorEnv):
    """N goals × M lanes; the state is the position [N, M, 2]."""

    family: SparsePoint

    def load(self, tasks: Tasks, rng: Rng) -> None:
        self._goal = tasks.params.unsqueeze(1)  # [N, 1, 2]

    def start(self) -> Tensor:
        return self._goal.new_zeros(*self.shape, 2)

    def move(self, state: Tensor, action: Tensor) -> Transition:
        config = self.family.config
        position = state + config.step_size * action.clamp(-1, 1)
        distance = vector_norm(position - self._goal, dim=-1)
        return Transition(
            position,
            reward=self.family.reward(distance),
            success=distance <= config.radius,
            training_reward=-distance if config.dense else None,
        )


def _angles(goals: int, split: str) -> Tensor:
    """[n] float64: the angles of the split's goals, out of so many evenly spaced ones."""
    # in float32 the sine of π is negative
    angle = torch.linspace(0, math.pi, goals, dtype=torch.float64)
    middle = (angle[1:] + angle[:-1]) / 2
    shuffled = angle[torch.from_numpy(np.random.RandomState(_SHUFFLE).permutation(goals))]
    tests = goals // 5
    return {
        "train": shuffled[:-tests],
        "validation": middle,
        "test": shuffled[-tests:],
        "ood": -middle,
    }[split]
