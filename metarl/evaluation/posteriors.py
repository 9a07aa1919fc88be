"""What an agent inferred of tasks: its posterior over a latent variable, and the true task rows."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from metarl.core.agent import Agent, Mode
from metarl.core.errors import ConfigError
from metarl.core.family import Family
from metarl.core.types import Belief, Spec, Tasks
from metarl.evaluation.meta_test import evaluation_rng, sample_tasks, trial
from metarl.evaluation.stats import Array


@runtime_checkable
class InfersLatent(Protocol):
    """An agent that infers a latent task variable."""

    def inferred(self, belief: Belief) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the posterior, [N, Z] each."""


@dataclass(frozen=True)
class Inference:
    """Posteriors over a latent variable of Z independent entries, of N tasks after K rounds."""

    title: str
    means: Array  # [K, N, Z]
    stds: Array  # [K, N, Z] standard deviations
    params: Array  # [N, P] the task rows
    names: tuple[str, ...]  # [P] of the entries of a task row
    episodes_consumed: tuple[int, ...]  # [K] episodes of a task by the end of each round


def infer(
    agent: Agent,
    family: Family,
    *,
    episodes: int,
    tasks: int = 100,
    split: str = "test",
    mode: Mode = "sample",
    seed: int = 0,
    train_set: Tasks | None = None,
    device: str | torch.device = "cpu",
) -> Inference:
    """The posteriors of `agent` after every adaptation, in the rollouts of `evaluate`.

    Raises:
        MetaRLError: an agent that infers nothing (see `InfersLatent`), or an error of `evaluate`.
    """
    name = type(agent).__name__
    if not isinstance(agent, InfersLatent):
        raise ConfigError(
            f"{name} infers no latent task variable; choose an agent that does, such as pearl"
        )
    rng = evaluation_rng(seed)
    rows = sample_tasks(family, split, tasks, rng, train_set).to(torch.device(device))
    lanes = agent.lanes
    env = family.make(lanes)
    means, stds = [], []
    for _, belief in trial(
        agent, env, family.spec, rows, episodes, mode, rng, lanes=lanes, train_set=train_set
    ):
        mean, std = agent.inferred(belief)
        if not mean.shape[1]:
            raise ConfigError(
                f"{name} was trained without a latent task variable, and infers nothing; "
                "set agent.latent_width above 0"
            )
        means.append(_to_numpy(mean))
        stds.append(_to_numpy(std))
    return Inference(
        f"What {name} inferred of {len(rows)} {split} tasks of {family.spec.name}",
        np.stack(means),
        np.stack(stds),
        _to_numpy(rows.params),
        _entry_names(family.spec),
        tuple(range(lanes, lanes * len(means) + 1, lanes)),
    )


def _to_numpy(tensor: Tensor) -> Array:
    return tensor.detach().double().cpu().numpy()


def _entry_names(spec: Spec) -> tuple[str, ...]:
    """[P]: a task row begins with its goal."""
    names = []
    for entry in range(spec.task_width):
        name, width = "task row", spec.task_width
        if entry < spec.goal_width:
            name, width = "goal", spec.goal_width
        names.append(name if width == 1 else f"{name}, entry {entry + 1} of {width}")
    return tuple(names)
