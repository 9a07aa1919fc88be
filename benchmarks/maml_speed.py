"""Speed of MAML-TRPO beside pytorch-maml-rl and learn2learn: a meta-iteration on 2-D navigation.

20 tasks × 20 episodes × 100 steps before and after one inner step, a 2×64 tanh policy, 10
iterations of conjugate gradient with damping 1e-5. Every contender is a process with a policy of
its own; they take turns, and the score is the ratio within a round. Sampling is the time of the
rollouts (pytorch-maml-rl's workers also fit the baseline and take the inner step there); learning
is the rest of the iteration. The number of line-search steps differs from round to round, so it is
printed beside the seconds, as is the number of Fisher-vector products.

    python benchmarks/maml_speed.py [--rounds 5] [--threads 1 2] [--peer-python PYTHON]
                                    [--pytorch-maml-rl PATH] [--learn2learn PATH]

The peers are the user's own copies, in an environment of their own if need be (`--peer-python`),
since they require an old gym:

* pytorch-maml-rl: a checkout of tristandeleu/pytorch-maml-rl, with torch, `numpy<2`, `gym==0.17.3`,
  cloudpickle and scipy. It calls torch.lstsq, which torch 2 no longer has; that function is
  supplied here. Its best setting is a worker a core and one torch thread each. In its own script
  sampling overlaps with the first pass of learning; here sampling comes first, to be timed.
* learn2learn: a checkout, or the unpacked sdist 0.2.0, with `cython<3` and
  ``python setup.py build_ext --inplace`` (delete learn2learn/data/*.c first), cherry-rl 0.2, tqdm
  and the same gym. Its example is run unchanged, except for the policy above (its own is 2×100
  relu) and 2 tasks instead of 20, whose seconds are multiplied by 10. Its image data sets are not
  imported, because they need torchvision.

No contender's episodes end at the goal (`arrival=0`; the peers' environments are patched to return
done = False): all last 100 steps.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path

from turns import Contender, Turns

TASKS, EPISODES, SOME_TASKS = 20, 20, 2
DISCOUNT, STEP_SIZE, MAX_KL, DAMPING, ITERATIONS = 0.99, 0.1, 0.01, 1e-5, 10

Figures = dict[str, list[dict[str, float]]]
"""Contender → the figures of each round."""

# Each process imports what its contender needs: one environment seldom has all of it.


class TimedTurns:
    """A contender's turns, with the time of sampling and the number of calls that matter."""

    def __init__(self) -> None:
        self._turns = Turns()
        self.calls = {"products": 0, "tries": 0}
        self.sampling = 0.0

    def wait(self) -> None:
        """Ends the process where no turn follows."""
        self._turns.wait()
        self.calls = dict.fromkeys(self.calls, 0)
        self.sampling, self._began = 0.0, time.perf_counter()

    def report(self, length: float, times: int = 1) -> None:
        """`length`: mean length of the episodes; `times`: a whole iteration over what was run."""
        total = time.perf_counter() - self._began
        figures = {
            "sampling": times * self.sampling,
            "learning": times * (total - self.sampling),
            "total": times * total,
        }
        self._turns.report(figures | self.calls | {"length": length})

    def timed(self, function: Callable) -> Callable:
        """`function`, with its seconds counted as sampling."""

        def call(*args, **kwargs):
            began = time.perf_counter()
            found = function(*args, **kwargs)
            self.sampling += time.perf_counter() - began
            return found

        return call

    def counted(self, name: str, function: Callable) -> Callable:
        """`function`, with its calls counted."""

        def call(*args, **kwargs):
            self.calls[name] += 1
            return function(*args, **kwargs)

        return call


def endless(env_class: type) -> None:
    """Let a peer's episodes go on at the goal."""
    step = env_class.step

    def call(env, action):
        obs, reward, _, info = step(env, action)
        return obs, reward, False, info

    env_class.step = call


def metarl(turns: TimedTurns, threads: int) -> None:
    """Ours."""
    import torch

    from metarl.agents.maml import agent as maml
    from metarl.collect.world import LocalWorld
    from metarl.core.rng import Rng
    from metarl.experiments.building import make_agent, make_family

    torch.set_num_threads(threads)
    family = make_family("point", arrival=0)
    agent = make_agent(
        "maml",
        family.spec,
        hidden_sizes=(64, 64),
        activation="tanh",
        tasks=TASKS,
        episodes_per_task=EPISODES,
        inner_steps=1,
        step_sizes=(STEP_SIZE,),
        gamma=DISCOUNT,
        max_kl=MAX_KL,
        damping=DAMPING,
        cg_iterations=ITERATIONS,
    )
    step = maml.trust_region_step

    def counted_step(start, loss, gradient, product, evaluate, **options):
        product = turns.counted("products", product)
        evaluate = turns.counted("tries", evaluate)
        return step(start, loss, gradient, product, evaluate, **options)

    maml.trust_region_step = counted_step
    world = LocalWorld(family, 2 * EPISODES, None, torch.device("cpu"))
    world.collect = turns.timed(world.collect)
    for number in range(10**9):
        turns.wait()
        steps = world.env_steps
        agent.iterate(world, Rng(0).child("iteration", number))
        turns.report(length=(world.env_steps - steps) / (2 * TASKS * EPISODES))


def pytorch_maml_rl(turns: TimedTurns, path: str, workers: int) -> None:
    """Deleu's, by the classes and settings of its own script."""
    sys.path.insert(0, path)
    import gym
    import torch
    from maml_rl.baseline import LinearFeatureBaseline
    from maml_rl.envs.navigation import Navigation2DEnv  # and its package registers it
    from maml_rl.metalearners import MAMLTRPO
    from maml_rl.samplers import MultiTaskSampler
    from maml_rl.utils.helpers import get_input_size, get_policy_for_env

    torch.lstsq = lambda target, matrix: (torch.linalg.lstsq(matrix, target).solution, None)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    endless(Navigation2DEnv)
    env = gym.make("2DNavigation-v0", low=-0.5, high=0.5)
    policy = get_policy_for_env(env, hidden_sizes=[64, 64], nonlinearity="tanh")
    policy.share_memory()
    sampler = MultiTaskSampler(
        "2DNavigation-v0",
        env_kwargs={"low": -0.5, "high": 0.5},
        batch_size=EPISODES,
        policy=policy,
        baseline=LinearFeatureBaseline(get_input_size(env)),
        env=env,
        seed=0,
        num_workers=workers,
    )
    learner = MAMLTRPO(policy, fast_lr=STEP_SIZE)
    products = learner.hessian_vector_product
    learner.hessian_vector_product = lambda *args, **options: turns.counted(
        "products", products(*args, **options)
    )
    learner._async_gather = turns.counted("tries", learner._async_gather)

    @turns.timed
    def sample():
        futures = sampler.sample_async(
            sampler.sample_tasks(num_tasks=TASKS),
            num_steps=1,
            fast_lr=STEP_SIZE,
            gamma=DISCOUNT,
            gae_lambda=1.0,
        )
        return futures, sampler.sample_wait(futures)

    while True:
        turns.wait()
        futures, (before, after) = sample()
        learner.step(
            *futures,
            max_kl=MAX_KL,
            cg_iters=ITERATIONS,
            cg_damping=DAMPING,
            ls_max_steps=15,
            ls_backtrack_ratio=0.8,
        )
        turns.calls["tries"] -= 1  # the first is the loss to be beaten
        lengths = [batch.lengths for batch in (*before[0], *after)]
        turns.report(length=statistics.mean(itertools.chain.from_iterable(lengths)))


def learn2learn(turns: TimedTurns, path: str, workers: int) -> None:
    """The example, which samples its tasks at the beginning of every iteration."""
    sys.path += [path, f"{path}/examples/rl"]
    sys.modules["learn2learn.vision"] = types.ModuleType("learn2learn.vision")
    import maml_trpo
    import torch
    from learn2learn.gym.envs.particles.particles_2d import Particles2DEnv

    torch.set_num_threads(1)
    endless(Particles2DEnv)
    lengths: list[float] = []
    envs = maml_trpo.l2l.gym.AsyncVectorEnv
    runner = maml_trpo.ch.envs.Runner
    trpo = maml_trpo.trpo
    tasks_of = envs.sample_tasks
    run = turns.timed(runner.run)
    products = trpo.hessian_vector_product

    def sample_tasks(env, count):
        if count == SOME_TASKS:
            if lengths:
                turns.calls["tries"] -= 1
                turns.report(statistics.mean(lengths), times=TASKS // SOME_TASKS)
            lengths.clear()
            turns.wait()
        return tasks_of(env, count)

    def sampled(*args, **options):
        replay = run(*args, **options)
        lengths.append(len(replay) / EPISODES)
        return replay

    envs.sample_tasks, runner.run = sample_tasks, sampled
    trpo.hessian_vector_product = lambda *args: turns.counted("products", products(*args))
    maml_trpo.meta_surrogate_loss = turns.counted("tries", maml_trpo.meta_surrogate_loss)
    maml_trpo.DiagNormalPolicy = partial(
        maml_trpo.DiagNormalPolicy, hiddens=[64, 64], activation="tanh"
    )
    maml_trpo.main(
        env_name="Particles2D-v1",
        adapt_lr=STEP_SIZE,
        num_iterations=10**9,
        meta_bsz=SOME_TASKS,
        adapt_bsz=EPISODES,
        gamma=DISCOUNT,
        num_workers=workers,
    )


CONTENDERS = {"metarl": metarl, "pytorch-maml-rl": pytorch_maml_rl, "learn2learn": learn2learn}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1, 2],
        help="torch threads of metarl, each a contender",
    )
    parser.add_argument("--pytorch-maml-rl", metavar="PATH", type=Path)
    parser.add_argument("--workers", type=int, default=2, help="of pytorch-maml-rl")
    parser.add_argument("--learn2learn", metavar="PATH", type=Path)
    parser.add_argument(
        "--environments", type=int, default=10, help="processes of learn2learn; its example has 10"
    )
    parser.add_argument(
        "--peer-python", metavar="PYTHON", default=sys.executable, help="interpreter of the peers"
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        name, options = json.loads(args.serve)
        CONTENDERS[name](TimedTurns(), **options)
    peers, ours = {}, {}
    if args.pytorch_maml_rl:
        options = {"path": str(args.pytorch_maml_rl.resolve()), "workers": args.workers}
        peers["pytorch-maml-rl"] = Contender(args.peer_python, __file__, "pytorch-maml-rl", options)
    if args.learn2learn:
        options = {"path": str(args.learn2learn.resolve()), "workers": args.environments}
        peers["learn2learn (2 tasks × 10)"] = Contender(
            args.peer_python, __file__, "learn2learn", options
        )
    for threads in args.threads:
        ours[f"metarl, threads: {threads}"] = Contender(
            sys.executable, __file__, "metarl", {"threads": threads}
        )
    contenders = peers | ours
    figures: Figures = {name: [] for name in contenders}
    for round_ in range(args.rounds + 1):  # the first warms up
        for name, contender in contenders.items():
            found = contender.turn()
            if round_:
                figures[name].append(found)
    for contender in contenders.values():
        contender.end()
    print_report(figures, list(peers), list(ours))


def print_report(figures: Figures, peers: list[str], ours: list[str]) -> None:
    """Medians over rounds of seconds, and of ratios within a round."""
    print(f"{platform.machine()}, {os.cpu_count()} cores")
    print(f"{TASKS} tasks × {EPISODES} episodes, before and after a step")
    print(f"{'':28} sampling s  learning s  total s  products  tries  episode length")
    for name, rounds in figures.items():
        of = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        print(
            f"{name:28} {of['sampling']:10.3f}  {of['learning']:10.2f}  {of['total']:7.2f}"
            f"  {of['products']:8.0f}  {of['tries']:5.0f}  {of['length']:14.1f}"
        )
    for peer, own in itertools.product(peers, ours):
        rounds = list(zip(figures[peer], figures[own], strict=True))
        found = []
        for key in ("sampling", "learning", "total"):
            ratio = statistics.median(theirs[key] / mine[key] for theirs, mine in rounds)
            found.append(f"{key} {ratio:.1f}")
        print(f"{own}, times as fast as {peer}: {', '.join(found)}")


if __name__ == "__main__":
    main()
