"""What a family may offer besides, and the rule that it fits the protocols in core/family.py."""

from collections.abc import Iterator

import numpy as np
import torch

from metarl.checker.probe import Probe
from metarl.checker.rules import require, require_array, rule
from metarl.core.errors import MetaRLError
from metarl.core.family import (
    Drawable,
    Family,
    HasFrames,
    HasGoalReward,
    HasMeanOptimum,
    KnowsExpectedReward,
    KnowsOptimum,
)
from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, Scene


@rule(
    why="evaluation, hindsight and pictures use what a family offers",
    fix="see the docstrings in metarl/core/family.py and of metarl.core.types.Scene",
)
def offers(probe: Probe) -> str:
    """What is offered returns arrays of the right shape, and a picture if one can be drawn here."""
    return ", ".join(_offered(probe.family, probe)) or "nothing"


def _offered(family: Family, probe: Probe) -> Iterator[str]:
    if isinstance(family, KnowsOptimum):
        require_array("optimum", family.optimum(probe.tasks), (len(probe.tasks),))
        yield "optimum"
    if isinstance(family, HasMeanOptimum):
        mean = family.mean_optimum
        require(isinstance(mean, float), f"mean_optimum is {mean!r}, no float")
        yield "mean_optimum"
    if isinstance(family, KnowsExpectedReward):
        _expected_reward(family, probe)
        yield "expected_reward"
    if isinstance(family, HasGoalReward):
        _goal_reward(family, probe)
        yield "goal_reward"
    if isinstance(family, Drawable):
        _scene(family, probe)
        yield "scene"
    env = family.make(1)
    if isinstance(env, HasFrames):
        env.reset(probe.tasks, probe.rng)
        yield _frame(env)


def _expected_reward(family: KnowsExpectedReward, probe: Probe) -> None:
    step = probe.trace.step
    rollout = Rollout(
        inputs=Inputs(probe.trace.obs),
        action=probe.trace.action,
        log_prob=torch.zeros_like(step.reward),
        reward=step.reward,
        next_obs=step.next_obs,
        terminated=step.terminated,
        truncated=step.truncated,
        valid=torch.ones_like(step.terminated),
        index=probe.tasks.index,
    )
    reward = family.expected_reward(probe.tasks, rollout)
    require_array("expected_reward", reward, step.reward.shape)


def _goal_reward(family: HasGoalReward, probe: Probe) -> None:
    achieved = probe.spec.achieved(probe.trace.step.next_obs)
    desired = probe.tasks.params[:, : probe.spec.goal_width].unsqueeze(1).expand_as(achieved)
    require_array("goal_reward", family.goal_reward(achieved, desired), achieved.shape[:-1])


def _scene(family: Drawable, probe: Probe) -> None:
    obs = probe.trace.obs[:, 0, 0]
    scene = family.scene(probe.tasks.params[0], obs)
    kind = type(scene).__name__
    require(isinstance(scene, Scene), f"scene is {kind}, no metarl.core.types.Scene")
    require_array("scene: path", scene.path, (len(obs), 2))
    for name, width in {"goal": 2, "walls": 4, "others": 2}.items():
        places = vars(scene)[name]
        if places is not None:
            require_array(f"scene: {name}", places, (len(places), width))
    left, right, bottom, top = scene.limits
    ordered = left < right and bottom < top
    require(ordered, f"scene: limits {scene.limits} are not left < right, bottom < top")


def _frame(env: HasFrames) -> str:
    """A missing library is no fault of the family."""
    try:
        picture = env.frame(0, 0)
    except Exception as error:
        causes = (error, error.__cause__, error.__context__)
        if any(isinstance(cause, MetaRLError | ImportError) for cause in causes):
            return f"frame (nothing was drawn: {error})"
        raise
    array = isinstance(picture, np.ndarray) and picture.dtype == np.uint8
    require(
        array and picture.shape[2:] == (3,),
        "frame is no array of uint8 of shape [height, width, 3]",
    )
    return "frame"
