"""MiniGrid's rooms, observed a few cells at a time: a goal to find, a kind of thing to fetch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from metarl.adapters.from_gymnasium.spaces import Array, Info
from metarl.adapters.gymnasium import Env
from metarl_envs.extra import ExtraFamily, package
from metarl_envs.extra_config import MinigridConfig

if TYPE_CHECKING:
    from torch import Tensor

    from metarl.core.types import Tasks

# MiniGrid's numbers of what may be in a cell
_UNSEEN, _EMPTY, _WALL, _KEY, _BALL, _GOAL = 0, 1, 2, 5, 6, 8
_COLORS = 6
_UP, _PICK_UP = 3, 3  # its numbers of this direction and of this action
_PLACES = ((-1, 0), (1, 0), (0, -1))  # left, right and ahead of who looks up
_AHEAD = 2
_TILE = 4  # pixels along each side of a cell
_ROOM = 9  # columns and rows of four rooms from one wall to the next


class MinigridFourRooms(ExtraFamily):
    """Four rooms of 8 × 8 cells, with a goal that is visible only from near.

    ============  ==================================================================================
    observation   cells: for each of v × v cells in front of the agent, a one-hot of unseen, empty,
                  wall, goal; direction: [4] where the agent looks, a one-hot
    action        one of 3: turn left, turn right, go ahead
    reward        1 − 0.9 t / H on reaching the goal after t steps, else 0
    start         agent and doorways anywhere, others in every episode
    episode       terminates at the goal, truncated after H steps
    task row      [2] column and row of the goal: 192 cells of train, 32 of validation and 32 of
                  test, in a fixed order
    ============  ==================================================================================

    Chevalier-Boisvert et al. 2023 (MiniGrid).
    """

    goal_width = 2

    def build(self) -> Env:
        """The package's environment."""
        horizon = self.config.horizon
        env = package("minigrid.envs", MinigridConfig).FourRoomsEnv(
            max_steps=horizon, agent_view_size=self.config.view, render_mode="rgb_array"
        )
        kinds = (_UNSEEN, _EMPTY, _WALL, _GOAL)
        return TimeLimit(_Room(env, _is_elsewhere, kinds, actions=3), horizon)

    def rows(self, split: str) -> list[Any]:
        """All of them."""
        along = [place for place in range(1, 2 * _ROOM) if place != _ROOM]
        cells = np.random.default_rng(0).permutation([(x, y) for x in along for y in along])
        return list(np.split(cells, [192, 224])[self.splits.index(split)])

    def apply(self, env: Env, row: Array) -> None:
        """Set the goal, which the package leaves to those who make the environment."""
        rooms: Any = env.unwrapped
        rooms._goal_default_pos = (int(row[0]), int(row[1]))


class MinigridBalls(ExtraFamily):
    """A bandit to be seen: balls lie at two of three places, whose values are hidden.

    ============  ==================================================================================
    observation   image [4 v × 4 v × 3] of v × v cells in front of the agent, as bytes
    action        one of 3: pick up what lies to the left, to the right, or ahead
    reward        the value of that place if a ball lies there, else 0
    start         the agent in the middle, balls of any color at two of the places
    episode       one pull, which terminates
    task row      [3] the values of the places, uniform on [0, 1]
    ============  ==================================================================================

    It is MiniGrid's Fetch, but for the balls and the mission, a text, which is hidden. Who sees,
    without memory, earns 1/2 in the mean; who knows the values 2/3.

    Chevalier-Boisvert et al. 2023 (MiniGrid).
    """

    horizon = 1

    def build(self) -> Env:
        """The package's environment."""
        env = package("minigrid.envs", MinigridConfig).FetchEnv(
            size=5,
            numObjs=1,
            agent_view_size=self.config.view,
            render_mode="rgb_array",
        )
        return _Balls(env)

    def row(self, split: str, rng: np.random.Generator) -> Array:
        """Values of three places."""
        return rng.uniform(size=3)

    def apply(self, env: Env, row: Array) -> None:
        """Set what the places are worth."""
        room: Any = env.unwrapped
        room.values = row

    def optimum(self, tasks: Tasks) -> Tensor:
        """[N]: the mean over pairs of places of the better one."""
        first, second = tasks.params[:, [0, 0, 1]], tasks.params[:, [1, 2, 2]]
        return first.maximum(second).mean(-1)


class MinigridFetch(ExtraFamily):
    """A room of things, keys and balls of six colors, one hidden kind of which pays.

    ============  ==================================================================================
    observation   cells: for each of v × v cells in front of the agent, a one-hot of unseen, empty,
                  wall, key, ball, and colours: one of six colors; direction: [4] where the agent
                  looks, a one-hot; or, as pixels, image [4 v × 4 v × 3]
    action        one of 4: turn left, turn right, go ahead, pick up
    reward        1 − 0.9 t / H on picking up the right thing after t steps, else 0
    start         agent and things anywhere, others in every episode, one of the right kind among
                  them
    episode       terminates when anything is picked up, truncated after H steps
    task row      [2] color and type (0 key, 1 ball) of what pays: six kinds of train, one of each
                  color; of the others two of validation and four of test
    ============  ==================================================================================

    The package's mission, a text of what to fetch, is hidden.

    Chevalier-Boisvert et al. 2023 (MiniGrid).
    """

    apply_after_reset = True

    def build(self) -> Env:
        """The package's environment."""
        config = self.config
        env = package("minigrid.envs", MinigridConfig).FetchEnv(
            size=config.size,
            numObjs=config.things,
            max_steps=config.horizon,
            agent_view_size=config.view,
            render_mode="rgb_array",
        )
        kinds = (_UNSEEN, _EMPTY, _WALL, _KEY, _BALL)
        pixels = config.observation == "pixels"
        room = _Room(env, _has_what_pays, kinds, actions=4, colors=True, pixels=pixels)
        return TimeLimit(room, config.horizon)

    def rows(self, split: str) -> list[tuple[int, int]]:
        """All of them."""
        known = [(color, color % 2) for color in range(_COLORS)]
        others = [(color, 1 - kind) for color, kind in known]
        return {"train": known, "validation": others[:2], "test": others[2:]}[split]

    def apply(self, env: Env, row: Array) -> None:
        """Set what pays, which every reset draws anew."""
        constants = package("minigrid.core.constants", MinigridConfig)
        color = constants.IDX_TO_COLOR[int(row[0])]
        kind = constants.IDX_TO_OBJECT[(_KEY, _BALL)[int(row[1])]]
        room: Any = env.unwrapped
        room.pays = (color, kind)
        room.targetColor, room.targetType = room.pays


# -------------------------------------------------------------------------------------------------
# Environments


class _Balls(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Pixels; two balls in place of all things, and values of the places that they lie at."""

    def __init__(self, env: Env):
        super().__init__(env)
        inner: Any = self.unwrapped
        side = _TILE * inner.agent_view_size
        self.observation_space = spaces.Box(0, 255, (side, side, 3), np.uint8)
        self.action_space = spaces.Discrete(len(_PLACES))

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        """The agent looks up from the middle of the room."""
        _, info = self.env.reset(seed=seed, options=options)
        room: Any = self.unwrapped
        middle = room.grid.width // 2
        for cell, thing in enumerate(room.grid.grid):
            if thing is not None and thing.can_pickup():
                room.grid.grid[cell] = None
        names = package("minigrid.core.constants", MinigridConfig).IDX_TO_COLOR
        ball = package("minigrid.core.world_object", MinigridConfig).Ball
        for place in room.np_random.permutation(len(_PLACES))[:2]:
            column, row = _PLACES[place]
            color = names[int(room.np_random.integers(_COLORS))]
            room.grid.set(middle + column, middle + row, ball(color))
        room.agent_pos, room.agent_dir = (middle, middle), _UP
        return _picture(room.gen_obs()["image"]), info

    def step(self, action: int) -> tuple[Any, Any, bool, bool, Info]:
        """Turn to the place, and pick up."""
        room: Any = self.unwrapped
        if action < _AHEAD:
            self.env.step(action)  # its numbers of turning left and right
        obs, _, _, _, info = self.env.step(_PICK_UP)
        reward = float(room.values[action]) if room.carrying else 0.0
        return _picture(obs["image"]), reward, True, False, info


class _Room(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Observations as choices, the first few actions only, success in the info, starts that fit.

    Starts are drawn from the environment's own generator until one fits the task.
    """

    def __init__(
        self,
        env: Env,
        fits: Callable[[Any], bool],
        kinds: Sequence[int],
        actions: int,
        colors: bool = False,
        pixels: bool = False,
    ):
        """`kinds`: MiniGrid's numbers of all that may be in a cell of this environment.

        `pixels`: observations are an image of the same cells instead.
        """
        super().__init__(env)
        self._fits = fits
        self._colors = colors
        self._pixels = pixels
        self._choice = np.zeros(1 + max(kinds), np.int64)
        self._choice[list(kinds)] = np.arange(len(kinds))
        inner: Any = self.unwrapped
        view = (inner.agent_view_size, inner.agent_view_size)
        parts: dict[str, Any] = {"cells": spaces.MultiDiscrete(np.full(view, len(kinds)))}
        if colors:
            # "colours" is data: it is a name in the specs of checkpoints
            parts["colours"] = spaces.MultiDiscrete(np.full(view, _COLORS))
        parts["direction"] = spaces.Discrete(4)
        self.observation_space = spaces.Dict(parts)
        if pixels:
            shape = (_TILE * view[0], _TILE * view[1], 3)
            self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(actions)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        """The first start that fits."""
        obs, info = self.env.reset(seed=seed, options=options)
        while not self._fits(self.unwrapped):
            obs, info = self.env.reset(options=options)
        return self._observe(obs), info

    def step(self, action: object) -> tuple[Any, Any, bool, bool, Info]:
        """What pays is a success."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(obs), reward, terminated, truncated, {**info, "success": bool(reward)}

    def _observe(self, obs: dict[str, Array]) -> Array | dict[str, Array]:
        image = obs["image"]  # [v, v, 3] what is in a cell, of which color, whether open
        if self._pixels:
            return _picture(image)
        parts = {"cells": self._choice[image[..., 0]], "direction": obs["direction"]}
        if self._colors:
            parts["colours"] = image[..., 1]
        return parts


def _picture(image: Array) -> Array:
    """[4 v, 4 v, 3] uint8: the package's picture of what the agent sees, from a table of tiles.

    ``RGBImgPartialObsWrapper`` computes it from the room and takes most of a step's time.
    """
    view = len(image)
    here = (view // 2, view - 1)  # column and row of the agent, which looks up
    tiles = [
        [_tile(*image[column, row].tolist(), (column, row) == here) for column in range(view)]
        for row in range(view)
    ]
    return np.asarray(tiles).swapaxes(1, 2).reshape(_TILE * view, _TILE * view, 3)


@cache
def _tile(kind: int, color: int, state: int, here: bool) -> Array:
    """[4, 4, 3] uint8: how the package draws a cell, with the agent in it if it is `here`."""
    thing = package("minigrid.core.world_object", MinigridConfig).WorldObj.decode(
        kind, color, state
    )
    drawn: Array = package("minigrid.core.grid", MinigridConfig).Grid.render_tile(
        thing, 3 if here else None, kind != _UNSEEN, _TILE
    )
    return drawn.astype(np.uint8)


def _is_elsewhere(rooms: Any) -> bool:
    """The agent does not start on its goal."""
    return tuple(rooms.agent_pos) != tuple(rooms._goal_default_pos)


def _has_what_pays(room: Any) -> bool:
    """A thing of the right color and type lies there."""
    return room.pays in [(thing.color, thing.type) for thing in room.grid.grid if thing is not None]
