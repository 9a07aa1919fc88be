"""What an agent inferred of tasks that it met: its posterior over a latent variable, round by round, beside the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarl.core.agent import Agent, Mode
from metarl.core.errors import MetaRLError
from metarl.core.family import Family
from metarl.core.types import Belief, Spec, Tasks
from metarl.evaluation.meta_test import evaluation_rng, sample_tasks, trial
from metarl.evaluation.stats import Array


@dataclass(frozen=True)
class Inference:
    """Posteriors over a latent variable of Z entries, independent of each other, of N tasks after each of K rounds."""

    title: str
    means: Array  # [K, N, Z]
    stds: Array  # [K, N, Z] standard deviations
    params: Array  # [N, P] what the tasks are
    names: tuple[str, ...]  # [P] what the entries of a task row are
    episodes_consumed: tuple[int, ...]  # [K] how many episodes of a task were lived through by then


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
    """Let `agent` meet what `evaluate` lets it meet with the same arguments, and ask after every adaptation.

    An agent that infers a latent variable offers ``inferred(belief)`` → mean and standard deviation, [N, Z] each.

    Raises:
        MetaRLError: the agent infers none, or whatever `evaluate` objects to.
    """
    ask: Callable[[Belief], tuple[Tensor, Tensor]] | None = getattr(agent, "inferred", None)
    if ask is None:
        raise MetaRLError(
            f"{type(agent).__name__} infers no latent task variable; choose an agent that does, such as pearl"
        )
    rng = evaluation_rng(seed)
    rows = sample_tasks(family, split, tasks, rng, train_set).to(torch.device(device))
    env, lanes = family.make(agent.lanes), agent.lanes
    means, stds = [], []
    for _, belief in trial(
        agent, env, family.spec, rows, episodes, mode, rng, lanes=lanes, train_set=train_set
    ):
        mean, std = ask(belief)
        if not mean.shape[1]:
            raise MetaRLError(
                f"{type(agent).__name__} was trained without a latent task variable, and infers nothing; "
                "set agent.latent_width above 0"
            )
        means.append(_numbers(mean))
        stds.append(_numbers(std))
    return Inference(
        title=f"What {type(agent).__name__} inferred of {len(rows)} {split} tasks of {family.spec.name}",
        means=np.stack(means),
        stds=np.stack(stds),
        params=_numbers(rows.params),
        names=tuple(_name(family.spec, entry) for entry in range(rows.params.shape[1])),
        episodes_consumed=tuple(lanes * (k + 1) for k in range(len(means))),
    )


def _numbers(tensor: Tensor) -> Array:
    numbers: Array = tensor.detach().double().cpu().numpy()
    return numbers


def _name(spec: Spec, entry: int) -> str:
    """Of an entry of the task row, whose front is the goal."""
    name, width = (
        ("goal", spec.goal_width) if entry < spec.goal_width else ("task row", spec.task_width)
    )
    return name if width == 1 else f"{name}, entry {entry + 1} of {width}"
