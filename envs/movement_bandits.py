"""Two places in sight, of which one pays: which one must be found out."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from metarl.core.rng import Rng
from metarl.core.types import Scene, Spec, Step, Tasks
from metarl_envs.config import MovementBanditsConfig

SIDE = 400.0
STRIDE = 20.0
RADIUS = 50.0
MOVES = ((0.0, 0.0), (STRIDE, 0.0), (-STRIDE, 0.0), (0.0, STRIDE), (0.0, -STRIDE))

_GAPS = 400  # along each axis, where a mean is taken over goals


class MovementBandits:
    """A walker starts in the middle of a square and sees two places, of which always the same one pays.

    ============  =====================================================================================
    observation   position [2], first goal [2], second goal [2], all divided by the side of the square, 400
    action        stay, or move by 20: right, left, up, down
    reward        1 closer than 50 to the goal that pays, after the move, else 0
    episode       starts in the middle with both goals drawn anew from the square; H steps, then truncated
    task row      [2] which goal pays, as a one-hot: the two tasks are those of every split
    ============  =====================================================================================

    Frans et al. 2018 (MLSH, arXiv:1710.09767), section 6.1, by the authors' code.
    """

    def __init__(self, config: MovementBanditsConfig) -> None:
        self.spec = Spec(
            "movement-bandits",
            observation={"position": 2, "first_goal": 2, "second_goal": 2},
            action_width=len(MOVES),
            discrete=True,
            horizon=config.horizon,
            task_width=2,
            splits=("train", "validation", "test"),
            closed=True,
        )

    def tasks(self, split: str, count: int, rng: Rng) -> Tasks:
        """`count` rows of which goal pays."""
        return Tasks(torch.eye(2), torch.arange(2), split).draw(count, rng.child(split))

    def make(self, lanes: int) -> _Movements:
        return _Movements(self.spec.horizon, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the mean return, over goals, of the fewest moves that lead into the circle; the last of them is paid."""
        paid = (self.spec.horizon + 1 - _fewest_moves().clamp(min=1)).clamp(min=0).mean()
        return paid.to(tasks.params.device).expand(len(tasks))

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The walker's way in an episode, the place that pays and the one that does not."""
        goals = obs[0, 2:].view(2, 2)
        pays = params > 0.5
        return Scene(
            obs[:, :2],
            limits=(0.0, 1.0, 0.0, 1.0),
            goal=goals[pays],
            goal_radius=RADIUS / SIDE,
            others=goals[~pays],
        )


class _Movements:
    """N tasks × M lanes."""

    def __init__(self, horizon: int, lanes: int) -> None:
        self._horizon = horizon
        self._lanes = lanes

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        device = tasks.params.device
        self._pays = tasks.params.argmax(1).view(-1, 1, 1, 1).expand(-1, self._lanes, 1, 2)
        self._chance = tasks.streams(rng, self._lanes)
        self._moves = torch.tensor(MOVES, device=device) / SIDE
        self._never = torch.zeros(len(tasks), self._lanes, dtype=torch.bool, device=device)
        self._time = 0
        return self._begin()

    def _begin(self) -> Tensor:
        """[N, M, 6]: every lane in the middle, before goals of its own."""
        self._goals = self._chance.uniform(self._time // self._horizon, 4)
        self._goal = self._goals.unflatten(-1, (2, 2)).gather(2, self._pays).squeeze(2)
        self._position = torch.full_like(self._goal, 0.5)
        return torch.cat([self._position, self._goals], dim=-1)

    def step(self, action: Tensor) -> Step:
        self._time += 1
        self._position = self._position + self._moves[action]
        paid = (self._position - self._goal).square().sum(-1) < (RADIUS / SIDE) ** 2
        next_obs = torch.cat([self._position, self._goals], dim=-1)
        ended = self._time % self._horizon == 0
        return Step(
            obs=self._begin() if ended else next_obs,
            next_obs=next_obs,
            reward=paid.float(),
            terminated=self._never,
            truncated=~self._never if ended else self._never,
            success=paid,
        )


@functools.cache
def _fewest_moves() -> Tensor:
    """[gaps along x, gaps along y]: how many moves lead into the circle, the gaps evenly spaced over the square."""
    gap = SIDE / 2 * (torch.arange(_GAPS) + 0.5) / _GAPS
    fewest = torch.full((_GAPS, _GAPS), torch.inf)
    for along_x in range(int(SIDE / 2 / STRIDE) + 1):
        left = (gap - STRIDE * along_x).unsqueeze(1).abs()
        reach = (
            (RADIUS**2 - left.square()).clamp(min=0).sqrt()
        )  # along y, once so much is left along x
        along_y = ((gap - reach) / STRIDE).ceil().clamp(min=0)
        inside = (
            gap - STRIDE * along_y
        ).abs() < reach  # not where a move leads past what little is in reach
        fewest = torch.where(inside, fewest.minimum(along_x + along_y), fewest)
    return fewest
