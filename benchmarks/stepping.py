"""Speed of stepping MuJoCo robots: beside the limit, beside other libraries, with a model a task.

The limit is ONE native call of ``mujoco.rollout`` that replays the same models, states and controls
in open loop, on the same number of threads; beside it stands the speed of native calls alone, one a
step. Contenders take turns within a round, in another order every time; a ratio is the median over
rounds of ratios within a round. Episodes do not end within a round, so that all step the same kind
of state; peers step robots without contact forces, and so does Gymnasium's Ant-v5.

    pip install envpool
    python benchmarks/stepping.py limit|peers|models [--rounds 9] [--rows 40 160 400]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import gymnasium
import mujoco
import mujoco.rollout
import numpy as np
import torch

from metarl import Rng, make_family
from metarl.adapters.mujoco import MujocoEnv

THREADS = len(os.sched_getaffinity(0))
PROCESSES = 40  # of the libraries that give each environment one
SECONDS = 0.5  # about so much time for each contender in a round
ROBOTS = {
    "half-cheetah": (
        "half-cheetah-vel",
        {"variant": "promp", "horizon": 10_000},
        "HalfCheetah-v5",
        {},
    ),
    "ant": (
        "ant-dir",
        {"contact_cost": 0.0, "horizon": 10_000},
        "Ant-v5",
        {"include_cfrc_ext_in_observation": False, "terminate_when_unhealthy": False},
    ),
    "ant with contact forces": ("ant-goal", {"horizon": 10_000}, "", {}),
}


def closed_loop(robot: str, rows: int) -> MujocoEnv:
    """Our environment at the start of an episode, one that does not end."""
    name, options, *_ = ROBOTS[robot]
    family = make_family(name, **options)
    if hasattr(family, "terminated"):
        family.terminated = lambda after: np.zeros(after.qpos.shape[:2], bool)
    env = family.make(1)
    env.reset(family.tasks("train", rows, Rng(0)), Rng(0))
    return env


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def step_all(env: Any, actions: Iterable[Any]) -> None:
    """One step with each of `actions`."""
    for action in actions:
        env.step(action)


def rounds_of(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round, after one that does not count."""
    names, taken = list(contenders), {name: [] for name in contenders}
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            spent = seconds(contenders[name])
            if number:
                taken[name].append(spent)
    return taken


# -------------------------------------------------------------------------------------------------
# The limit


def limit(robot: str, rows: int, rounds: int) -> None:
    """Closed loop with the family's observation and reward, beside one open-loop call."""
    env = closed_loop(robot, rows)
    family = env._family
    pool = mujoco.rollout.Rollout(nthread=THREADS)
    steps = max(5, round(SECONDS * rate(env, rows) / rows))
    action = 2 * torch.rand(steps, rows, 1, family.spec.action_width) - 1
    control = action.numpy().astype(np.float64) * env._reach + env._middle
    control = control[:, :, 0].swapaxes(0, 1).repeat(family.frame_skip, axis=1)
    states = np.zeros((rows, control.shape[1], env._state.shape[1]))
    sensors = np.zeros((rows, control.shape[1], env._sensors.shape[2]))
    begun = np.zeros_like(env._state)
    each_step = [np.ascontiguousarray(one) for one in np.split(control, steps, axis=1)]

    def native(state: np.ndarray, given: np.ndarray, out: np.ndarray, sensed: np.ndarray) -> None:
        pool.rollout(
            env._models,
            env._data,
            state,
            given,
            control_spec=int(mujoco.mjtState.mjSTATE_CTRL),
            skip_checks=True,
            nstep=given.shape[1],
            state=out,
            sensordata=sensed,
            chunk_size=-(-rows // THREADS),
        )

    def closed() -> None:
        step_all(env, action)

    def stepwise() -> None:
        now = begun.copy()
        for given in each_step:
            native(now, given, env._states, env._sensors)
            now[:] = env._states[:, -1]

    def open_loop() -> None:
        native(begun, control, states, sensors)

    contenders, taken = [closed, stepwise, open_loop], []
    for number in range(rounds + 1):
        env.reset(env._tasks, Rng(number))
        begun[:] = env._state
        turn = number % 3
        spent = {}
        for work in contenders[turn:] + contenders[:turn]:
            env.reset(env._tasks, Rng(number))
            spent[work] = seconds(work)
        if number:
            taken.append([spent[work] for work in contenders])
    ours, bare, whole = zip(*taken, strict=True)
    share = [b / a for a, b in zip(ours, whole, strict=True)]
    ceiling = statistics.median(b / a for a, b in zip(bare, whole, strict=True))
    speed = rows * steps / statistics.median(ours)
    print(
        f"{robot:24} {rows:5} rows: {speed:9,.0f} steps/s, {statistics.median(share):.2f} of the "
        f"limit (rounds {min(share):.2f} to {max(share):.2f}); native calls alone: {ceiling:.2f}"
    )


def rate(env: MujocoEnv, rows: int) -> float:
    """Steps a second, roughly."""
    action = torch.zeros(rows, 1, env._family.spec.action_width)
    return 5 * rows / seconds(lambda: [env.step(action) for _ in range(5)])


# -------------------------------------------------------------------------------------------------
# Peers


def peers(robot: str, rows: int, rounds: int) -> None:
    """The same number of steps in every library."""
    import envpool
    from stable_baselines3.common.vec_env import SubprocVecEnv

    *_, theirs, options = ROBOTS[robot]
    if not theirs:
        return
    env = closed_loop(robot, rows)
    steps = max(5, round(SECONDS * rate(env, rows) / rows))
    action = (2 * torch.rand(steps, rows, 1, env._family.spec.action_width) - 1).float()
    arrays = action[:, :, 0].numpy()

    def make() -> gymnasium.Env:
        return gymnasium.make(theirs, **options)

    sync = gymnasium.vector.SyncVectorEnv([make] * rows)
    parallel = gymnasium.vector.AsyncVectorEnv([make] * PROCESSES)
    processes = SubprocVecEnv([make] * PROCESSES, start_method="fork")
    pooled_options = dict(options)
    pooled_options.pop("include_cfrc_ext_in_observation", None)
    if theirs.startswith("Ant"):
        pooled_options["use_contact_force"] = False
    pooled = envpool.make_gymnasium(
        theirs.replace("v5", "v4"), num_envs=rows, num_threads=THREADS, **pooled_options
    )
    for each in (sync, parallel, processes, pooled):
        each.reset()

    # The slow ones take fewer steps.
    some = max(1, steps // 4)
    few = max(1, steps * rows // PROCESSES // 8)
    repeated = [arrays[0, :PROCESSES]] * few

    def step_envpool() -> None:
        for each in arrays:
            pooled.step(each.astype(np.float64))

    contenders = {
        "metarl": partial(step_all, env, action),
        "envpool": step_envpool,
        "gymnasium sync": partial(step_all, sync, arrays[:some]),
        "gymnasium async": partial(step_all, parallel, repeated),
        "sb3 subproc": partial(step_all, processes, repeated),
    }
    counts = {"gymnasium sync": some * rows}
    counts |= dict.fromkeys(("gymnasium async", "sb3 subproc"), few * PROCESSES)
    taken = rounds_of(contenders, rounds)
    speeds = {}
    for name, spent in taken.items():
        speeds[name] = [counts.get(name, steps * rows) / one for one in spent]
    for name, speed in speeds.items():
        ratios = [ours / other for ours, other in zip(speeds["metarl"], speed, strict=True)]
        print(
            f"{robot:14} {rows:4} rows  {name:16} {statistics.median(speed):9,.0f} steps/s  "
            f"metarl: {statistics.median(ratios):5.2f} × ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    for each in (sync, parallel, processes, pooled):
        each.close()


# -------------------------------------------------------------------------------------------------
# A model a task


def models(rounds: int) -> None:
    """40 tasks × 20 lanes of the walker: a model for every task, beside one shared model."""
    family = make_family("walker-params", horizon=10_000)
    shared = make_family("walker-params", horizon=10_000)
    shared.task_model = lambda model, row: model
    tasks, envs = family.tasks("train", 40, Rng(0)), {}
    action = 2 * torch.rand(40, 40, 20, 6) - 1
    for name, each in (("a model a task", family), ("one model", shared)):
        each.terminated = lambda after: np.zeros(after.qpos.shape[:2], bool)
        envs[name] = each.make(20)

    def play(env: MujocoEnv) -> None:
        env.reset(tasks, Rng(0))
        step_all(env, action)

    making = seconds(lambda: envs["a model a task"].reset(tasks, Rng(0)))
    taken = rounds_of({name: partial(play, env) for name, env in envs.items()}, rounds)
    ratios = [own / one for own, one in zip(*taken.values(), strict=True)]
    print(
        f"walker-params, 40 × 20: a model a task costs {statistics.median(ratios):.2f} × one model "
        f"(rounds {min(ratios):.2f} to {max(ratios):.2f}), resets included"
    )
    print(f"a reset takes {making:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("limit", "peers", "models"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, nargs="+", default=[40, 160, 400])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    processor = platform.processor() or platform.machine()
    print(f"{processor}, {THREADS} threads, mujoco {mujoco.__version__}")
    if chosen.what == "models":
        models(chosen.rounds)
    else:
        for robot in ROBOTS:
            for rows in chosen.rows:
                (limit if chosen.what == "limit" else peers)(robot, rows, chosen.rounds)
