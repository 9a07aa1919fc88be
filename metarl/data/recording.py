"""Episodes that somebody recorded elsewhere, as a rollout that agents can learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from metarl.core.errors import MetaRLError
from metarl.core.rollout import Rollout, stack_lanes
from metarl.core.types import Inputs, Spec, first_cue, replace, tree_map


@dataclass(frozen=True)
class Recording:
    """One whole episode of T steps, in arrays of any kind."""

    obs: ArrayLike  # [T + 1, O] what was acted on, and last what the episode ended in
    action: ArrayLike  # [T] whole numbers if discrete, else [T, A]
    reward: ArrayLike  # [T]
    terminated: bool  # the task ended it; if not, it was cut off


def recorded(spec: Spec, episodes: Sequence[Recording], lanes: int = 1) -> Rollout:
    """The rollout [T, 1, M] of one row that lived through `episodes` in so many lanes; episode i is in lane i mod M.

    Cues are those that the lane would have seen. What only the agent that acted could know is not there: `log_prob` is
    zero, the inputs show no task and no latent, and there are no extras.

    Raises:
        MetaRLError: no episodes, or not as many for every lane, or one that cannot be of this family.
    """
    if not episodes or len(episodes) % lanes:
        several = f"a multiple of {lanes}, the agent's lanes" if lanes > 1 else "at least one"
        raise MetaRLError(f"episodes: {len(episodes)} were recorded; give {several}")
    parts = [_checked(spec, episode, f"episode {place}") for place, episode in enumerate(episodes)]
    return stack_lanes([_stream(spec, parts[lane::lanes]) for lane in range(lanes)])


def _checked(spec: Spec, episode: Recording, name: str) -> dict[str, Tensor]:
    """Its arrays, [T, …]."""
    arrays = {
        what: _array(getattr(episode, what), f"{name}: {what}")
        for what in ("obs", "action", "reward")
    }
    steps = len(arrays["reward"]) if arrays["reward"].dim() else 0
    if not 1 <= steps <= spec.horizon:
        raise MetaRLError(
            f"{name}: it has {steps} steps, and those of {spec.name} have 1 to {spec.horizon}"
        )
    shapes = {
        "obs": [steps + 1, spec.obs_width],
        "action": [steps] if spec.discrete else [steps, spec.action_width],
        "reward": [steps],
    }
    for what, shape in shapes.items():
        if list(arrays[what].shape) != shape:
            raise MetaRLError(
                f"{name}: {what} is of shape {list(arrays[what].shape)}; beside {steps} rewards give {shape}"
            )
    obs, action = arrays["obs"], arrays["action"]
    if spec.discrete and not torch.isin(action, torch.arange(spec.action_width)).all():
        raise MetaRLError(f"{name}: an action is none of 0 to {spec.action_width - 1}")
    last = torch.arange(steps) == steps - 1
    return {
        "obs": obs[:-1],
        "next_obs": obs[1:],
        "action": action.long() if spec.discrete else action,
        "reward": arrays["reward"],
        "terminated": last & bool(episode.terminated),
        "truncated": last & (not episode.terminated),
    }


def _array(given: ArrayLike, name: str) -> Tensor:
    try:
        array = torch.as_tensor(np.asarray(given, np.float32))
    except (TypeError, ValueError, RuntimeError) as error:
        raise MetaRLError(f"{name} is no array of numbers: {error}") from None
    if not torch.isfinite(array).all():
        raise MetaRLError(f"{name} is not finite everywhere")
    return array


def _stream(spec: Spec, parts: Sequence[dict[str, Tensor]]) -> Rollout:
    """One lane [T, 1, 1] in which the episodes follow one another."""
    arrays = tree_map(lambda *pieces: torch.cat(pieces).unsqueeze(1).unsqueeze(1), *parts)
    reward = arrays["reward"]
    rollout = Rollout(
        inputs=Inputs(arrays["obs"]),
        action=arrays["action"],
        log_prob=torch.zeros_like(reward),
        reward=reward,
        next_obs=arrays["next_obs"],
        terminated=arrays["terminated"],
        truncated=arrays["truncated"],
        valid=torch.ones_like(reward, dtype=torch.bool),
        index=torch.zeros(1, dtype=torch.long),
    )
    cue = torch.cat([first_cue(spec, 1, 1, reward.device).unsqueeze(0), rollout.cues(spec)[:-1]])
    return replace(rollout, inputs=replace(rollout.inputs, cue=cue))
