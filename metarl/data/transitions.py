"""Transitions, what a replay buffer keeps of them, and their goals in hindsight."""

import torch
from torch import Tensor

from metarl.core.types import GoalReward, Spec, replace, tree
from metarl.data.replay import Column


@tree
class Transitions:
    """B transitions of each of N tasks."""

    obs: Tensor  # [N, B, O]
    action: Tensor  # [N, B] or [N, B, D] int64, or [N, B, A]
    reward: Tensor  # [N, B] of the environment
    training_reward: Tensor  # [N, B] for critics: the same, unless the family has a dense one
    next_obs: Tensor  # [N, B, O] the true successor
    terminated: Tensor  # [N, B] bool: nothing followed; False at the horizon
    future: Tensor | None = None  # [N, B, G] goal that the episode achieves now or later
    task: Tensor | None = None  # [N, B, P] what is shown of the task, its goal in front
    valid: Tensor | None = None  # [N, B] bool: False at padding; None: there is none


def transition_columns(spec: Spec) -> dict[str, Column]:
    """What `Transitions` are made of, for a family of this `spec`."""
    width = spec.action_shape[0] if spec.action_shape else None
    action = Column(width, spec.action_type)
    return {
        "obs": Column(spec.obs_width, spec.obs_type),
        "action": action,
        "reward": Column(),
        "training_reward": Column(),
        "next_obs": Column(spec.obs_width, spec.obs_type),
        "terminated": Column(dtype=torch.bool),
    }


def hindsight(
    batch: Transitions,
    chosen: Tensor,
    spec: Spec,
    goal_reward: GoalReward,
) -> Transitions:
    """The batch with `chosen` [N, B] bool transitions relabeled by their `future` goal.

    Hindsight experience replay (Andrychowicz et al. 2017, arXiv:1707.01495): the goal that is shown
    and both rewards change; whether an episode terminated stays as it was.
    """
    assert batch.future is not None
    assert batch.task is not None
    reward = goal_reward(spec.achieved(batch.next_obs), batch.future)
    task = torch.cat([batch.future, batch.task[..., spec.goal_width :]], dim=-1)
    return replace(
        batch,
        task=torch.where(chosen.unsqueeze(-1), task, batch.task),
        reward=torch.where(chosen, reward, batch.reward),
        training_reward=torch.where(chosen, reward, batch.training_reward),
    )
