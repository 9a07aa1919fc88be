"""Adaptation curves: how well an agent does on tasks it has not seen, episode by episode."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from metarl.collect.collector import adaptation_rounds, collect, task_info
from metarl.collect.pool import LocalPool, Pool, Worker
from metarl.collect.shards import shards
from metarl.core.agent import Agent, DescribesActing
from metarl.core.errors import ConfigError, blaming
from metarl.core.family import (
    BatchEnv,
    Family,
    HasMeanOptimum,
    KnowsExpectedReward,
    KnowsOptimum,
    make_env,
)
from metarl.core.progress import listened, part, tell
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Belief, Spec, Step, Tasks
from metarl.evaluation.scores import Scores
from metarl.evaluation.stats import Array

_CHUNK = 2048  # task rows × lanes evaluated side by side


def evaluate(
    agent: Agent,
    family: Family,
    protocol: EvalProtocol | None = None,
    pool: Pool | None = None,
    **changes: Any,
) -> Scores:
    """Let `agent` adapt to the tasks of a protocol: begin, then act and adapt in rounds.

    ``evaluate(agent, family, episodes=10, tasks=1000, split="test", mode="sample", seed=0)`` names
    the settings of an `EvalProtocol`, or changes of the one that is given; `tasks` may be `Tasks`
    of one's own. An agent of M lanes has `episodes` / M rounds, and adapts to M episodes after
    each. The result has R = 1; `combine` joins several runs.

    Args:
        pool: who meets the tasks, `protocol.shard_rows` in a job; None: this process.

    Raises:
        MetaRLError: a split that the family does not have, episodes that the agent's lanes cannot
            share evenly, or an agent that must be shown what these tasks cannot show.
    """
    protocol = protocol.changed(**changes) if protocol else EvalProtocol(**changes)
    rows = protocol.rows(family, agent)
    chunk = max(1, _CHUNK // agent.lanes)
    parts_of_rows = list(shards(len(rows), min(chunk, protocol.shard_rows or chunk)))
    jobs = []
    for number, some in enumerate(parts_of_rows):
        jobs.append(EvaluateJob(rows[some], protocol, number, len(parts_of_rows)))
    parts = (pool or LocalPool(family)).run(agent, jobs)
    figures = {name: np.concatenate([x[name] for x in parts], 1)[None] for name in parts[0]}
    mean_optimum = None
    given = isinstance(protocol.tasks, Tasks)
    closed = family.spec.closed and not given
    trained = protocol.train_set is not None and rows.split == "train" and not given
    drawn = not given and not trained and rows.split != "ood"
    if drawn and isinstance(family, HasMeanOptimum):
        mean_optimum = family.mean_optimum
    return Scores(
        returns=figures.pop("return"),
        success=figures.pop("success", None),
        metrics=figures,
        optimum=to_numpy(family.optimum(rows)) if isinstance(family, KnowsOptimum) else None,
        mean_optimum=mean_optimum,
        task_index=rows.index.cpu().numpy(),
        lanes=agent.lanes,
        split=rows.split,
        closed=closed,
        tasks_fixed=closed or (trained and len(rows) == len(protocol.train_set or ())),
        adapt=protocol.adapt,
        mode=protocol.mode,
        test_mode=protocol.mode_of(testing=True),
        test_rounds=max(1, protocol.test_episodes // agent.lanes),
        seed=protocol.seed,
        task_hash=_hash(rows),
        acting=agent.acting if isinstance(agent, DescribesActing) else "",
    )


# -------------------------------------------------------------------------------------------------
# Meeting tasks


def trial(
    agent: Agent,
    family: Family,
    tasks: Tasks,
    protocol: EvalProtocol,
    env: BatchEnv | None = None,
    lanes: int = 0,
) -> Iterator[tuple[Rollout, Belief]]:
    """Begin, then act and adapt in rounds until all episodes of `protocol` are used; then test.

    Each round yields its rollout, and the belief after adapting to it. The environment is `env`, or
    a new one, with so many `lanes`: the agent's own, or more, to see other randomness as well.

    Raises:
        MetaRLError: the agent's lanes cannot share the episodes evenly, or it is shown a one-hot,
            which given tasks do not have.
    """
    spec, lanes = family.spec, lanes or agent.lanes
    if agent.task_input == "onehot" and isinstance(protocol.tasks, Tasks):
        raise ConfigError("tasks: an agent that is shown a one-hot knows only its training tasks")
    rounds = adaptation_rounds(agent, protocol.episodes)
    tests = adaptation_rounds(agent, protocol.test_episodes)
    prior = agent.begin(task_info(agent, spec, tasks, rounds, protocol.train_set), lanes=lanes)
    world = env or make_env(family, lanes)
    if listened():
        world = _Watched(world, spec, rounds + tests)

    rng = protocol.rng

    def adapt_in_rounds(belief: Belief) -> Iterator[tuple[Rollout, Belief]]:
        for k in range(rounds + tests):
            testing = k >= (rounds if tests else rounds - 1)
            rollout, belief = collect(
                agent,
                world,
                spec,
                belief,
                tasks,
                1,
                rng.child("episode", k),
                protocol.mode_of(testing),
            )
            if not protocol.adapt:
                belief = prior
            elif k < rounds:
                belief = agent.adapt(belief, rollout)
            yield rollout, belief

    return adapt_in_rounds(prior)


class _Watched:
    """An environment that tells how many steps of so many episodes a lane are over."""

    def __init__(self, env: BatchEnv, spec: Spec, episodes: int):
        self._env, self._horizon, self._episodes = env, spec.horizon, episodes
        self._what = f"episodes of {spec.name}"
        self._begun = self._time = 0

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        self._begun += 1
        self._time = 0
        return self._env.reset(tasks, rng)

    def step(self, action: Tensor) -> Step:
        step = self._env.step(action)
        self._time += 1
        done = self._begun - 1 + self._time / self._horizon
        tell(f"{self._what}: {self._begun} of {self._episodes}", done / self._episodes)
        return step


@dataclass(frozen=True)
class EvaluateJob:
    """Trials on some of the tasks of a protocol."""

    steps_envs: ClassVar[bool] = True
    tasks: Tasks
    protocol: EvalProtocol
    number: int
    """Among the jobs of the evaluation."""
    count: int

    def run(self, agent: Agent, worker: Worker) -> dict[str, Array]:
        """[K, N] each: see `_evaluate_rows`."""
        with blaming(agent), part("", self.number, self.count):
            return _evaluate_rows(agent, worker, self.tasks, self.protocol)


def _evaluate_rows(
    agent: Agent,
    worker: Worker,
    tasks: Tasks,
    protocol: EvalProtocol,
) -> dict[str, Array]:
    """[K, N] each, the mean of the lanes: "return", "success" and metrics, where there are some."""
    family = worker.family
    figures: dict[str, list[Array]] = defaultdict(list)
    expected = family.expected_reward if isinstance(family, KnowsExpectedReward) else None
    for rollout, _ in trial(agent, family, tasks, protocol, env=worker.env(agent.lanes)):
        reward = expected(tasks, rollout) if expected else rollout.reward
        figures["return"].append(to_numpy(rollout.episode_returns(reward)[0].mean(-1)))
        if rollout.success is not None:
            success = (rollout.success & rollout.valid).any(0)
            figures["success"].append(to_numpy(success.double().mean(-1)))
        for name, values in rollout.episode_metrics().items():
            figures[name].append(to_numpy(values[0].mean(-1)))
    return {name: np.stack(rounds) for name, rounds in figures.items()}


def to_numpy(tensor: Tensor) -> Array:
    """In float64, on the CPU."""
    return tensor.detach().double().cpu().numpy()


def _hash(tasks: Tasks) -> str:
    """Which tasks these are, to compare results by."""
    content = tasks.split.encode() + tasks.params.cpu().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
