"""Scenes as small pictures, painted with NumPy: as libraries film environments while they run."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.core.family import Drawable
from metarl.core.types import Scene

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Color = tuple[int, int, int]

_SIZE = 256  # pixels: height and width
_MARGIN = 8  # pixels around what is seen
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_WALL, _OTHER = (89, 89, 89), (140, 140, 140)
_GOAL, _NEAR = (44, 160, 44), (213, 236, 213)
_PATH = np.array([[181, 212, 233], [8, 48, 107]])  # at its start and at its end


class ScenePictures:
    """The running episodes of N · M lanes, as their family's `scene` shows them."""

    def __init__(self, family: Drawable):
        self._family = family
        self._seen: list[list[Tensor]] = []  # of every lane the observations [O] of its episode

    def begin(self, obs: Tensor, begun: Flags) -> None:
        """Lanes `begun` [N · M] begin an episode with `obs` [N, M, O]."""
        if not self._seen:
            self._seen = [[] for _ in begun]
        for place, first in enumerate(obs.flatten(0, 1)):
            if begun[place]:
                self._seen[place] = [first]

    def see(self, obs: Tensor, begun: Flags) -> None:
        """Lanes begin an episode where `begun`; the episodes of the others go on to `obs`."""
        self.begin(obs, begun)
        for place, following in enumerate(obs.flatten(0, 1)):
            if not begun[place]:
                self._seen[place].append(following)

    def frames(self, params: Tensor) -> tuple[NDArray[np.uint8], ...]:
        """[height, width, 3] of every lane on the task rows `params` [N, P]: its path so far."""
        lanes = len(self._seen) // len(params)
        scenes = (
            self._family.scene(params[place // lanes], torch.stack(seen))
            for place, seen in enumerate(self._seen)
        )
        return tuple(map(paint, scenes))


def paint(scene: Scene) -> NDArray[np.uint8]:
    """[height, width, 3]: walls gray, goals green, the path from light to dark blue."""
    canvas = _Canvas(scene)
    path = _points(scene.path)
    if scene.walls is not None:
        for left, bottom, width, height in scene.walls.tolist():
            canvas.box(left, bottom, left + width, bottom + height)
    goals = _points(scene.goal)
    for goal in goals:
        canvas.disc(goal, canvas.pixels(scene.goal_radius), _NEAR)
    for place in _points(scene.others):
        canvas.disc(place, 6, _OTHER)
        canvas.disc(place, 4, _WHITE)
    canvas.line(path)
    for goal in goals:
        canvas.disc(goal, 5, _GOAL)
    canvas.disc(path[0], 4, _BLACK)
    canvas.disc(path[0], 2.5, _WHITE)
    canvas.disc(path[-1], 4, _PATH[-1])
    return canvas.picture


def _points(places: Tensor | None) -> Array:
    """[..., 2] as float64; none: [0, 2]."""
    return np.zeros((0, 2)) if places is None else places.double().numpy()


class _Canvas:
    """A white square on which places are given in the lengths of the scene."""

    def __init__(self, scene: Scene):
        corners = np.reshape(scene.limits, (2, 2)).T
        goals = _points(scene.goal)
        around = [goals - scene.goal_radius, goals + scene.goal_radius]
        points = np.concatenate([corners, _points(scene.path), *around])
        low, high = points.min(0), points.max(0)
        self._scale = (_SIZE - 2 * _MARGIN) / (high - low).max()  # pixels of a length
        self._middle = (low + high) / 2
        self.picture = np.full((_SIZE, _SIZE, 3), _WHITE, np.uint8)
        self._y, self._x = np.mgrid[:_SIZE, :_SIZE] + 0.5

    def pixels(self, length: float) -> float:
        return length * self._scale

    def disc(self, center: Array, radius: float, color: Color | Array) -> None:
        """`radius` in pixels."""
        x, y = self._place(center)
        self.picture[(self._x - x) ** 2 + (self._y - y) ** 2 <= radius**2] = color

    def box(self, left: float, bottom: float, right: float, top: float) -> None:
        """A wall."""
        (x, y), (far_x, far_y) = self._place(np.array([[left, top], [right, bottom]]))
        inside = (self._x >= x) & (self._x <= far_x) & (self._y >= y) & (self._y <= far_y)
        self.picture[inside] = _WALL

    def line(self, path: Array) -> None:
        """`path` [T, 2], two pixels wide."""
        places = self._place(path)
        lengths = np.ceil(np.abs(np.diff(places, axis=0)).max(-1, initial=0)).astype(int)
        time = np.concatenate(
            [[0.0], *(i + np.arange(1, n + 1) / n for i, n in enumerate(lengths) if n)]
        )
        steps = np.arange(len(places))
        x, y = (np.interp(time, steps, along) for along in places.T)
        color = _PATH[0] + (time / max(len(path) - 1, 1))[:, None] * (_PATH[1] - _PATH[0])
        for right, down in np.ndindex(2, 2):
            columns, rows = (
                np.clip(np.round(along).astype(int) - shift, 0, _SIZE - 1)
                for along, shift in ((x, right), (y, down))
            )
            self.picture[rows, columns] = color

    def _place(self, points: Array) -> Array:
        """[..., 2] from the scene's lengths to pixels, right and down."""
        away = (points - self._middle) * self._scale
        return away * (1, -1) + _SIZE / 2
