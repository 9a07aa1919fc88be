"""What a family may offer besides, and the rules that it fits the protocols in core/family.py."""

from collections.abc import Iterator

import numpy as np
import torch

from metarl.checker import fixes
from metarl.checker.probe import Probe
from metarl.checker.rules import NotOffered, Skipped, require, require_array, rule
from metarl.checker.values import part, require_same
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
from metarl.core.predictions import KnowsPosterior, Predictions, Questions
from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, Scene, tree_map

_ROUNDING = 1e-4


@rule(
    why="evaluation, hindsight and pictures use what a family offers",
    fix=fixes.OFFERS,
)
def offers(probe: Probe) -> str:
    """What is offered returns arrays of the right shape."""
    return ", ".join(_offered(probe.family, probe)) or NotOffered("nothing is offered")


@rule(why="videos and reports show what an agent does", fix=fixes.FRAME)
def frame(probe: Probe) -> str:
    """A picture, where environments offer one and it can be drawn here.

    A missing library is no fault of the family.
    """
    env = probe.family.make(1)
    if not isinstance(env, HasFrames):
        return NotOffered("no pictures are offered")
    env.reset(probe.tasks, probe.rng)
    try:
        picture = env.frame(0, 0)
    except Exception as error:
        if isinstance(error, MetaRLError) and error.__cause__ is None:
            return NotOffered(str(error))
        causes = (error, error.__cause__, error.__context__)
        if any(isinstance(cause, MetaRLError | ImportError) for cause in causes):
            return Skipped(f"nothing was drawn: {error}")
        raise
    array = isinstance(picture, np.ndarray) and picture.dtype == np.uint8
    require(
        array and picture.shape[2:] == (3,),
        "frame is no array of uint8 of shape [height, width, 3]",
    )
    return f"{' × '.join(map(str, picture.shape[:2]))} pixels"


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
    if isinstance(family, KnowsPosterior):
        _posterior(family, probe)
        yield "posterior"
    if isinstance(family, Drawable):
        _scene(family, probe)
        yield "scene"


def _rollout(probe: Probe) -> Rollout:
    """The trace as agents are shown it."""
    step = probe.whole.step
    return Rollout(
        inputs=Inputs(probe.whole.obs),
        action=probe.whole.action,
        log_prob=torch.zeros_like(step.reward),
        reward=step.reward,
        next_obs=step.next_obs,
        terminated=step.terminated,
        truncated=step.truncated,
        valid=torch.ones_like(step.terminated),
        index=probe.tasks.index,
    )


def _expected_reward(family: KnowsExpectedReward, probe: Probe) -> None:
    reward = family.expected_reward(probe.tasks, _rollout(probe))
    require_array("expected_reward", reward, probe.whole.step.reward.shape)


def _goal_reward(family: HasGoalReward, probe: Probe) -> None:
    achieved = probe.spec.achieved(probe.whole.step.next_obs)
    desired = probe.tasks.params[:, : probe.spec.goal_width].unsqueeze(1).expand_as(achieved)
    require_array("goal_reward", family.goal_reward(achieved, desired), achieved.shape[:-1])


def _posterior(family: KnowsPosterior, probe: Probe) -> None:
    """Shapes; what comes later tells nothing of what is believed now, and nothing of the prior."""
    rollout, questions = _rollout(probe), family.questions()
    _questions(questions, probe, rollout)
    times = torch.tensor([0, 1, len(rollout.valid)])
    predicted = family.posterior_predictions(rollout, times)
    shape = (len(times), *rollout.valid.shape[1:], len(questions.obs))
    _predictions(predicted, shape, questions)
    early = family.posterior_predictions(rollout.first_steps(1), times[:2])
    require_same(
        tree_map(lambda x: x[:2], predicted),
        early,
        "posterior_predictions at times 0 and 1, with and without the steps after them",
        rounding=True,
    )
    first = part(early, slice(1))
    require_same(
        first,
        tree_map(lambda x: x[:, :1, :1].expand_as(x), first),
        "posterior_predictions at time 0 in all rows and lanes",
        rounding=True,
    )


def _questions(questions: object, probe: Probe, rollout: Rollout) -> None:
    kind = type(questions).__name__
    require(isinstance(questions, Questions), f"questions gives {kind}, no Questions")
    assert isinstance(questions, Questions)
    count, widths = len(questions.obs), (probe.spec.obs_width,)
    action, dtype = probe.whole.action, torch.int64 if probe.spec.discrete else None
    require_array("questions: obs", questions.obs, (count, *widths))
    require_array("questions: action", questions.action, (count, *action.shape[3:]), dtype)
    require_array("questions: next_obs", questions.next_obs, (count, *widths))
    if questions.successors is not None:
        successors = len(questions.successors)
        require_array("questions: successors", questions.successors, (successors, *widths))
    if questions.rewards is not None:
        low, high = questions.rewards
        require(low < high, f"questions: rewards {questions.rewards} are not the lower one first")
        off = torch.minimum((rollout.reward - low).abs(), (rollout.reward - high).abs())
        told = f"questions: a step pays neither of the rewards {questions.rewards}"
        require(off.amax() < _ROUNDING, told)


def _predictions(predicted: object, shape: tuple[int, ...], questions: Questions) -> None:
    kind = type(predicted).__name__
    require(isinstance(predicted, Predictions), f"posterior_predictions gives {kind}")
    assert isinstance(predicted, Predictions)
    require_array("posterior_predictions: reward", predicted.reward, shape)
    require_array("posterior_predictions: variance", predicted.variance, shape)
    require(not (predicted.variance < 0).any(), "posterior_predictions: a variance is negative")
    if questions.successors is None:
        return
    name = "posterior_predictions: successor"
    require(predicted.successor is not None, f"{name} is None, but questions has successors")
    assert predicted.successor is not None
    require_array(name, predicted.successor, (*shape, len(questions.successors)))
    sums = predicted.successor.sum(-1)
    proper = (predicted.successor >= 0).all() and (sums - 1).abs().amax() < _ROUNDING
    require(proper, f"{name}: probabilities are negative, or do not add up to 1")


def _scene(family: Drawable, probe: Probe) -> None:
    obs = probe.whole.obs[:, 0, 0]
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
