"""What a family may offer besides, and the rule that it gives what `metarl.core.family.Family` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.checker.probe import Probe
from metarl.checker.rules import require, rule
from metarl.core.errors import MetaRLError
from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, Scene


@rule(
    why="evaluation, hindsight and pictures call what a family offers by its name",
    fix="the docstrings of metarl.Family and metarl.core.types.Scene say what each takes and gives",
)
def offers(probe: Probe) -> str:
    """What is offered gives arrays of the right shape, and a picture where there is something to draw with."""
    offered = [name for name in _OFFERS if hasattr(probe.family, name)]
    for name in offered:
        _OFFERS[name](probe.family, probe)
    return ", ".join([*offered, *_frame(probe)]) or "nothing"


def _array(name: str, x: Any, shape: tuple[int, ...]) -> None:
    seen = f"{x.dtype} of shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
    real = isinstance(x, Tensor) and x.is_floating_point() and x.shape == shape
    require(real, f"{name} gives {seen}, not real numbers of shape {list(shape)}")
    require(bool(x.isfinite().all()), f"{name} gives a number that is not finite")


def _optimum(family: Any, probe: Probe) -> None:
    _array("optimum", family.optimum(probe.tasks), (len(probe.tasks),))


def _mean_optimum(family: Any, probe: Probe) -> None:
    require(
        isinstance(family.mean_optimum, float), f"mean_optimum is {family.mean_optimum!r}, no float"
    )


def _expected_reward(family: Any, probe: Probe) -> None:
    trace, step = probe.trace, probe.trace.step
    rollout = Rollout(
        inputs=Inputs(trace.obs),
        action=trace.action,
        log_prob=torch.zeros_like(step.reward),
        reward=step.reward,
        next_obs=step.next_obs,
        terminated=step.terminated,
        truncated=step.truncated,
        valid=torch.ones_like(step.terminated),
        index=probe.tasks.index,
    )
    _array(
        "expected_reward", family.expected_reward(probe.tasks, rollout), tuple(step.reward.shape)
    )


def _goal_reward(family: Any, probe: Probe) -> None:
    achieved = probe.trace.step.next_obs[..., probe.spec.part(str(probe.spec.achieved_goal))]
    desired = probe.tasks.params[:, : probe.spec.goal_width].unsqueeze(1).expand_as(achieved)
    _array("goal_reward", family.goal_reward(achieved, desired), tuple(achieved.shape[:-1]))


def _scene(family: Any, probe: Probe) -> None:
    obs = probe.trace.obs[:, 0, 0]
    scene = family.scene(probe.tasks.params[0], obs)
    require(
        isinstance(scene, Scene), f"scene gives {type(scene).__name__}, no metarl.core.types.Scene"
    )
    _array("scene: path", scene.path, (len(obs), 2))
    for name, places, width in (
        ("goal", scene.goal, 2),
        ("walls", scene.walls, 4),
        ("others", scene.others, 2),
    ):
        if places is not None:
            _array(f"scene: {name}", places, (len(places), width))
    left, right, bottom, top = scene.limits
    require(
        left < right and bottom < top,
        f"scene: limits {scene.limits} are not left < right, bottom < top",
    )


_OFFERS: dict[str, Callable[[Any, Probe], None]] = {
    "optimum": _optimum,
    "mean_optimum": _mean_optimum,
    "expected_reward": _expected_reward,
    "goal_reward": _goal_reward,
    "scene": _scene,
}


def _frame(probe: Probe) -> list[str]:
    """The picture that an environment may offer; a machine that cannot draw is no fault of the family's."""
    env: Any = probe.family.make(1)
    if not hasattr(env, "frame"):
        return []
    env.reset(probe.tasks, probe.rng)
    try:
        picture = env.frame(0, 0)
    except Exception as error:
        causes = (error, error.__cause__, error.__context__)
        if any(isinstance(cause, MetaRLError | ImportError) for cause in causes):
            return [f"frame (nothing was drawn: {error})"]
        raise
    fits = (
        isinstance(picture, np.ndarray)
        and picture.dtype == np.uint8
        and picture.ndim == 3
        and picture.shape[2] == 3
    )
    require(fits, "frame gives no array of uint8 of shape [height, width, 3]")
    return ["frame"]
