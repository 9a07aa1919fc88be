"""Episodes that somebody recorded elsewhere, as a rollout that agents can learn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from metarl.core.arrays import flag, float32, short
from metarl.core.errors import MetaRLError
from metarl.core.rollout import Rollout, stack_lanes
from metarl.core.types import Inputs, Spec, first_cue, replace, tree_map


@dataclass(frozen=True)
class Recording:
    """One whole episode of T steps, in arrays of any kind."""

    obs: ArrayLike  # [T + 1, O] observations, the last one at the end of the episode
    action: ArrayLike  # [T] or [T, D] whole numbers if discrete, else [T, A]
    reward: ArrayLike  # [T]
    terminated: bool  # the task ended it; if not, it was truncated


def recorded(spec: Spec, episodes: Sequence[Recording], lanes: int = 1) -> Rollout:
    """The rollout [T, 1, M] of one row whose episode i was recorded in lane i mod M.

    Cues are those of the lane. What only the agent that acted could know is missing: `log_prob` is
    zero, the inputs show no task and no latent, and there are no extras.

    Raises:
        MetaRLError: no episodes, not as many for every lane, or one that cannot be of this family.
    """
    if not isinstance(episodes, Sequence) or not all(isinstance(x, Recording) for x in episodes):
        raise MetaRLError(f"episodes: give a list of Recordings, not {short(episodes)}")
    if not episodes or len(episodes) % lanes:
        raise MetaRLError(
            f"episodes: {len(episodes)} were recorded; give at least one, and equally many for "
            f"each lane of the agent, a multiple of {lanes}"
        )
    parts = [_checked(spec, episode, f"episode {i}") for i, episode in enumerate(episodes)]
    return stack_lanes([_stream(spec, parts[lane::lanes]) for lane in range(lanes)])


def _checked(spec: Spec, episode: Recording, name: str) -> dict[str, Any]:
    """The arrays of one episode, [T, …].

    Raises:
        MetaRLError: an array is of a wrong type or shape, or an action does not exist.
    """
    obs = torch.from_numpy(float32(episode.obs, f"{name}: obs"))
    action = torch.from_numpy(float32(episode.action, f"{name}: action"))
    reward = torch.from_numpy(float32(episode.reward, f"{name}: reward"))
    terminated = flag(episode.terminated, f"{name}: terminated")
    steps = len(reward) if reward.dim() else 0
    if not 1 <= steps <= spec.horizon:
        raise MetaRLError(
            f"{name}: it has {steps} steps, and those of {spec.name} have 1 to {spec.horizon}"
        )

    for what, array, shape in (
        ("obs", obs, [steps + 1, spec.obs_width]),
        ("action", action, [steps, *spec.action_shape]),
        ("reward", reward, [steps]),
    ):
        actual = list(array.shape)
        if actual != shape:
            raise MetaRLError(
                f"{name}: {what} is of shape {actual}; beside {steps} rewards give {shape}"
            )
    if spec.discrete:
        action = _choices(spec, action, name)

    last = torch.arange(steps) == steps - 1
    return {
        "obs": obs[:-1].to(spec.obs_type),
        "next_obs": obs[1:].to(spec.obs_type),
        "action": action,
        "reward": reward,
        "terminated": last & terminated,
        "truncated": last & (not terminated),
    }


def _choices(spec: Spec, action: Tensor, name: str) -> Tensor:
    """The actions [T] or [T, D] as int64.

    Raises:
        MetaRLError: one is no choice.
    """
    last = torch.tensor(spec.nvec or spec.action_width) - 1
    if not ((action >= 0) & (action <= last) & (action == action.round())).all():
        raise MetaRLError(f"{name}: actions must be integers from 0 to {last.tolist()}")
    return action.long()


def _stream(spec: Spec, parts: Sequence[dict[str, Any]]) -> Rollout:
    """One lane in which the episodes follow one another: [T of all, 1, 1, …]."""
    arrays = tree_map(lambda *pieces: torch.cat(pieces)[:, None, None], *parts)
    reward = arrays["reward"]
    rollout = Rollout(
        inputs=Inputs(arrays.pop("obs")),
        log_prob=torch.zeros_like(reward),
        valid=torch.ones_like(reward, dtype=torch.bool),
        index=torch.zeros(1, dtype=torch.long),
        **arrays,
    )
    cues = torch.cat([first_cue(spec, 1, 1, reward.device)[None], rollout.cues(spec)[:-1]])
    return replace(rollout, inputs=replace(rollout.inputs, cue=cues))
