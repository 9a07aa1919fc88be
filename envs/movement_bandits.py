"""Two visible places of which one is rewarded: which one must be found out."""

import functools

import torch
from torch import Tensor

from metarl.core.rng import Rng
from metarl.core.types import Scene, Spec, Tasks
from metarl_envs.config import MovementBanditsConfig
from metarl_envs.episodes import TensorEnv, Transition

SIDE = 400.0
STRIDE = 20.0
RADIUS = 50.0
MOVES = ((0.0, 0.0), (STRIDE, 0.0), (-STRIDE, 0.0), (0.0, STRIDE), (0.0, -STRIDE))

_GAPS = 400  # along each axis, where a mean is taken over goals


class MovementBandits:
    """A walker starts in the middle of a square and observes two goals; one of them is rewarded.

    ============  ==================================================================================
    observation   position [2], first goal [2], second goal [2], all divided by the side of the
                  square, 400
    action        stay, or move by 20: right, left, up, down
    reward        1 closer than 50 to the rewarded goal, after the move, else 0
    episode       starts in the middle with both goals drawn anew from the square; H steps, then
                  truncated
    task row      [2] which goal is rewarded, as a one-hot: the two tasks are those of every split
    ============  ==================================================================================

    Frans et al. 2018 (MLSH, arXiv:1710.09767), section 6.1, by the authors' code.
    """

    Settings = MovementBanditsConfig

    def __init__(self, config: MovementBanditsConfig):
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
        """`count` rows of which goal is rewarded."""
        return Tasks.listed(torch.eye(2), split, count, rng)

    def make(self, lanes: int) -> TensorEnv:
        """N tasks × `lanes` lanes."""
        return _Movements(self, lanes)

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the mean return, over goals, of the fewest moves into the circle.

        The last of these moves is rewarded already.
        """
        rewarded = self.spec.horizon + 1 - _fewest_moves().clamp(min=1)
        return rewarded.clamp(min=0).mean().to(tasks.params.device).expand(len(tasks))

    def scene(self, params: Tensor, obs: Tensor) -> Scene:
        """The walker's path in an episode, the rewarded goal and the other one."""
        goals = obs[0, 2:].view(2, 2)
        rewarded = params > 0.5
        return Scene(
            obs[:, :2],
            limits=(0.0, 1.0, 0.0, 1.0),
            goal=goals[rewarded],
            goal_radius=RADIUS / SIDE,
            others=goals[~rewarded],
        )


class _Movements(TensorEnv):
    """N tasks × M lanes; the state is the position [N, M, 2]."""

    def load(self, tasks: Tasks, rng: Rng) -> None:
        self._rewarded = tasks.params.argmax(1).view(-1, 1, 1, 1).expand(-1, self.lanes, 1, 2)
        self._randomness = tasks.streams(rng, self.lanes)
        self._moves = tasks.params.new_tensor(MOVES) / SIDE

    def start(self) -> Tensor:
        self._goals = self._randomness.uniform(self.time // self.horizon, 4)
        self._goal = self._goals.unflatten(-1, (2, 2)).gather(2, self._rewarded).squeeze(2)
        return torch.full_like(self._goal, 0.5)

    def observe(self, state: Tensor) -> Tensor:
        return torch.cat([state, self._goals], dim=-1)

    def move(self, state: Tensor, action: Tensor) -> Transition:
        position = state + self._moves[action]
        arrived = (position - self._goal).square().sum(-1) < (RADIUS / SIDE) ** 2
        return Transition(position, reward=arrived.float(), success=arrived)


@functools.cache
def _fewest_moves() -> Tensor:
    """[gaps along x, gaps along y]: how many moves lead into the circle, gaps evenly spaced."""
    gap = SIDE / 2 * (torch.arange(_GAPS) + 0.5) / _GAPS
    fewest = torch.full((_GAPS, _GAPS), torch.inf)
    for along_x in range(int(SIDE / 2 / STRIDE) + 1):
        left = (gap - STRIDE * along_x).unsqueeze(1).abs()
        # half the chord along y, once so much is left along x
        reach = (RADIUS**2 - left.square()).clamp(min=0).sqrt()
        along_y = ((gap - reach) / STRIDE).ceil().clamp(min=0)
        # false where a move leads across the chord
        inside = (gap - STRIDE * along_y).abs() < reach
        fewest = torch.where(inside, fewest.minimum(along_x + along_y), fewest)
    return fewest
