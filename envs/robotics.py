"""Goals of Gymnasium-Robotics: a gripper, a block or a ball must go to a hidden place."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np

from metarl.adapters.from_gymnasium.spaces import Array, Info
from metarl.adapters.gymnasium import Env
from metarl_envs.extra import ExtraFamily, package
from metarl_envs.extra_config import RoboticsConfig

if TYPE_CHECKING:
    from torch import Tensor

_MAZES = {"u": "UMaze", "medium": "Medium", "large": "Large"}


class _Goals(ExtraFamily):
    """The goal, which the package would draw and show, is the task, and hidden."""

    hidden = ("desired_goal",)
    achieved_goal = "achieved_goal"

    @property
    def _dense(self) -> bool:
        return self.config.reward == "dense"

    def make_env(self, name: str) -> Env:
        """The package's environment of that name."""
        gymnasium.register_envs(package("gymnasium_robotics", RoboticsConfig))
        return gymnasium.make(
            name,
            max_episode_steps=self.config.horizon,
            reward_type=self.config.reward,
            render_mode="rgb_array",
            disable_env_checker=True,
        )


# -------------------------------------------------------------------------------------------------
# Fetch


class _Fetch(_Goals):
    """What reaching and pushing share.

    ============  ==================================================================================
    observation   achieved_goal [3] place of the gripper (push: of the block); observation: [10]
                  place of the gripper, its fingers, velocities; push: [25] also place, orientation
                  and velocities of the block
    action        [4] shift of the gripper, in 5 cm; the fingers, which are blocked
    reward        sparse: 0 closer to the goal than 5 cm, else −1; dense: −distance, in meters
    start         reach: always the same; push: the block lies somewhere else on the table in every
                  episode
    episode       H steps, then truncated
    task row      [3] goal, as the package draws it: uniform within 15 cm of the gripper's first
                  place along each axis; push: on the table
    ============  ==================================================================================

    Plappert et al. 2018 (arXiv:1802.09464), v4 of the environments.
    """

    goal_width = 3
    apply_after_reset = True  # reset draws a goal, and shows it in the part that is hidden
    name: ClassVar[str]

    def build(self) -> Env:
        """The package's environment."""
        return self.make_env(self.name)

    def row(self, split: str, rng: np.random.Generator) -> Array:
        """A goal, drawn in the order in which the package draws."""
        first, spread, height = self._range
        goal = first + rng.uniform(-spread, spread, size=3)
        if height is not None:
            goal[2] = height
        return goal

    def apply(self, env: Env, row: Array) -> None:
        """Set the goal."""
        fetch: Any = env.unwrapped
        fetch.goal = row

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """[...]: see the table."""
        distance = (achieved - desired).norm(dim=-1)
        return -distance if self._dense else -(distance > 0.05).to(distance.dtype)

    @cached_property
    def _range(self) -> tuple[Array, float, float | None]:
        """First place of the gripper [3], half-width of the goals around it, a block's height."""
        env = self.build()
        fetch: Any = env.unwrapped
        height = fetch.height_offset if fetch.has_object else None
        found = (fetch.initial_gripper_xpos.copy(), fetch.target_range, height)
        env.close()
        return found


class FetchReach(_Fetch):
    """The gripper must go there."""

    name = "FetchReach-v4"


class FetchPush(_Fetch):
    """The block must go there."""

    name = "FetchPush-v4"


# -------------------------------------------------------------------------------------------------
# Point maze


class PointMaze(_Goals):
    """A ball in a maze (Fu et al. 2020, arXiv:2004.07219; v3 of the environments).

    ============  ==================================================================================
    observation   achieved_goal [2] place of the ball; observation [4] place and velocity
    action        [2] force
    reward        sparse: 1 closer to the goal than 45 cm, else 0; dense: exp(−distance), in meters
    start         within 25 cm, along both axes, of the middle of a cell that is not the goal's
    episode       H steps, then truncated; being at the goal does not end it
    task row      [2] goal, as the package draws it: uniform within 25 cm of the middle of a free
                  cell
    variants      u: 7 cells, H = 300; medium: 26, H = 600; large: 46, H = 800
    ============  ==================================================================================
    """

    goal_width = 2

    def build(self) -> Env:
        """The package's environment, started at the task's goal."""
        env = self.make_env(f"PointMaze_{_MAZES[self.config.variant]}-v3")
        maze: Any = env.unwrapped
        Path(maze.tmp_xml_file_path).unlink()  # the package leaves it behind
        return _Aimed(env)

    def row(self, split: str, rng: np.random.Generator) -> Array:
        """A goal, drawn in the order in which the package draws."""
        cells, spread = self._cells
        cell = cells[rng.integers(low=0, high=len(cells))]
        return cell + [rng.uniform(-spread, spread) for _ in range(2)]

    def apply(self, env: Env, row: Array) -> None:
        """Set the goal for the next reset."""
        assert isinstance(env, _Aimed)
        env.goal = row

    def goal_reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """[...]: see the table."""
        distance = (achieved - desired).norm(dim=-1)
        return (-distance).exp() if self._dense else (distance <= 0.45).to(distance.dtype)

    @cached_property
    def _cells(self) -> tuple[Array, float]:
        """The middles of the free cells [C, 2], and how far goals lie from them along each axis."""
        env = self.build()
        maze: Any = env.unwrapped
        found = np.array(maze.maze.unique_goal_locations), maze.position_noise_range
        env.close()
        return found


class _Aimed(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Starts episodes with a chosen goal, the ball in another cell."""

    goal: Array

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        """The package's own start for a goal in this cell, then exactly this goal."""
        inner: Any = self.unwrapped
        goal_cell = inner.maze.cell_xy_to_rowcol(self.goal)
        obs, info = self.env.reset(seed=seed, options={"goal_cell": goal_cell})
        inner.goal = self.goal
        inner.update_target_site_pos()
        return obs, info
