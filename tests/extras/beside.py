"""A family beside the environments of its package, stepped by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from helpers import random_action

from metarl.adapters.from_gymnasium.lanes import seed_of
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.types import Step, Tasks, tree_map

Begin = Callable[[Tasks, int], tuple[gymnasium.Env, Any]]
"""(one task, seed of the episode) → an environment at its start, and the observation."""


def lived(
    family: Family, tasks: Tasks, steps: int, lanes: int = 2
) -> tuple[torch.Tensor, torch.Tensor, Step]:
    """First obs [N, M, O], random actions [T, N, M, …] and steps [T, N, M, …]."""
    env, noise = family.make(lanes), tasks.streams(Rng(99), lanes)
    first = env.reset(tasks, Rng(0))
    actions = [random_action(family.spec, noise, t) for t in range(steps)]
    return (
        first,
        torch.stack(actions),
        tree_map(lambda *x: torch.stack(x), *[env.step(a) for a in actions]),
    )


def same_by_hand(
    family: Family,
    tasks: Tasks,
    steps: int,
    begin: Begin,
    flat: Callable[[Any], Any],
    told: str,
    lanes: int = 2,
) -> int:
    """Assert that every lane steps as the environment of `begin` does; how many episodes ended."""
    first, actions, step = lived(family, tasks, steps, lanes)
    keys = tasks.streams(Rng(0), lanes).keys
    ends = 0
    for row, lane in np.ndindex(len(tasks), lanes):
        age, episode, obs = 0, 0, first
        env, seen = begin(tasks[row : row + 1], seed_of(int(keys[row, lane]), 0))
        for time in range(steps):
            np.testing.assert_array_equal(obs[row, lane].numpy(), flat(seen))
            now = tree_map(lambda x: x[time, row, lane], step)  # noqa: B023  (used at once)
            seen, reward, terminated, truncated, info = env.step(actions[time, row, lane].numpy())
            age, over = age + 1, terminated or truncated or age + 1 == family.spec.horizon
            np.testing.assert_array_equal(now.next_obs.numpy(), flat(seen))
            assert float(now.reward) == np.float32(reward)
            assert bool(now.terminated) == terminated
            assert bool(now.truncated) == (over and not terminated)
            assert bool(now.success) == bool(info.get(told, reward > 0))
            if over:
                ends, age, episode = ends + 1, 0, episode + 1
                env, seen = begin(tasks[row : row + 1], seed_of(int(keys[row, lane]), episode))
            obs = step.obs[time]
    return ends
