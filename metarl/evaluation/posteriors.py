"""What an agent inferred of tasks: its posterior over a latent variable, and the true task rows."""

from dataclasses import dataclass

import numpy as np

from metarl.core.agent import Agent, InfersLatent
from metarl.core.errors import ConfigError
from metarl.core.family import Family
from metarl.core.protocol import EvalProtocol
from metarl.core.types import Spec
from metarl.evaluation.meta_test import to_numpy, trial
from metarl.evaluation.stats import Array


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
    protocol: EvalProtocol,
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
    rows, lanes = protocol.rows(family, agent), agent.lanes
    means, stds = [], []
    for _, belief in trial(agent, family, rows, protocol):
        mean, std = agent.inferred(belief)
        if not mean.shape[1]:
            raise ConfigError(
                f"{name} was trained without a latent task variable, and infers nothing; "
                "set agent.latent_width above 0"
            )
        means.append(to_numpy(mean))
        stds.append(to_numpy(std))
    return Inference(
        f"What {name} inferred of {len(rows)} {rows.split} tasks of {family.spec.name}",
        np.stack(means),
        np.stack(stds),
        to_numpy(rows.params),
        _entry_names(family.spec),
        tuple(range(lanes, lanes * len(means) + 1, lanes)),
    )


def _entry_names(spec: Spec) -> tuple[str, ...]:
    """[P]: a task row begins with its goal."""
    names = []
    for entry in range(spec.task_width):
        name, width = "task row", spec.task_width
        if entry < spec.goal_width:
            name, width = "goal", spec.goal_width
        names.append(name if width == 1 else f"{name}, entry {entry + 1} of {width}")
    return tuple(names)
