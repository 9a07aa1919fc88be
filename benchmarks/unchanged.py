"""Did a refactoring change a number? Short training runs of two checkouts, compared bit for bit.

Every run of `RUNS` is trained for three iterations and evaluated by the old checkout, then by the
new one, each in processes of its own. Compared are, in this order:

* the records of ``metrics.jsonl``, without times;
* the agent's state in ``checkpoints/latest.pt`` and ``checkpoints/best.pt``: parameters, optimizer,
  moments, replay;
* the scores in ``result.json``;
* what ``metarl evaluate`` prints, with the mode of the configuration and with the other one.

Values are compared by key where both sides have the same keys, otherwise in the order in which they
stand in the file, so that keys may be renamed; only parameters must also keep their names. NaN
equals NaN. A number that is new in a record or a score counts as a difference, unless its key is
listed in `ADDED`.

All runs are written with the keys of version 0.5, which a newer version must accept.

OLD and NEW are checkouts, such as git worktrees, each with a virtual environment in which it is
installed. Run this with any Python that has torch, from the root of the repository::

    git worktree add ../v0.5 c026012 && make -C ../v0.5 install
    python benchmarks/unchanged.py ../v0.5 .
    python benchmarks/unchanged.py ../v0.5 . --only rl2-gru,maml-trpo --out /tmp/unchanged
    python benchmarks/unchanged.py OLD NEW --old-python PYTHON --new-python PYTHON

It prints a line a run. The exit code is 1 if a run differs or fails, 2 if there was nothing to run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ADDED: tuple[str, ...] = ()
"""Keys of metrics, scores and summaries that the new checkout has and the old one has not."""

TIMES = {"second", "seconds", "minute", "minutes", "hours", "elapsed", "time", "fps", "sps"}
"""A metric with one of these words in its key measures the machine and is not compared."""

HASH = re.compile(r"[0-9a-f]{16,}")
"""Text is not compared, except for hashes, such as that of the tasks of an evaluation."""

PACKAGES = ("metarl", "metarl_envs", "metarl_configs")
"""What a checkout installs; all of it must be found inside the checkout."""

TIMEOUT = 600
"""Seconds after which a process counts as failed."""


# --------------------------------------------------------------------------------------------------
# What is run


@dataclass(frozen=True)
class Run:
    """One training run. ``{files}`` in its texts stands for the folder of `FILES`."""

    name: str
    config: str
    overrides: str  # key=value …, separated by spaces
    split: str = "test"  # of the evaluations
    other_mode: str = "greedy"  # the mode that the configuration does not have
    beside: str = ""  # strategies that are evaluated on the same tasks


COMMON = (
    "env_steps=null",
    "iterations=3",
    "validate_every=1",
    "checkpoint_every=1",
    "validation_tasks=8",
    "test_tasks=8",
)
RL2 = "agent.trials=8 agent.epochs=2 agent.minibatches=2 agent.memory_width=16"
OPTIONS = f"{RL2} agent.encoder=[16] family.horizon=20"
MAML = "agent.tasks=4 agent.lanes=4 agent.body=[16] agent.inner_steps=1 episodes=8"
PEARL = (
    "agent.body=[16,16] agent.tasks=3 agent.initial_episodes=2 agent.capacity=100 "
    "agent.updates=15 agent.meta_batch=4 agent.batch=8 train_tasks=6"
)
OWN_OPTIONS = "agent.ready_made=[{files}/own_options.py:Stay,{files}/own_options.py:Up]"
CONTEXT = f"{PEARL} agent.encoder=[16,16] agent.context=10 episodes=3"

RUNS = (
    # RL² and PPO
    Run(
        "rl2-gru",
        "rl2/bernoulli-bandit",
        f"{RL2} episodes=20",
        beside="random,greedy,epsilon-greedy,thompson,ucb1,gittins",
    ),
    Run("rl2-lstm", "rl2/gridnavi", f"{RL2} agent.memory=lstm seed=3"),
    Run(
        "rl2-pair-readout",
        "rl2/tabular-mdp",
        f"{RL2} episodes=4",
        beside="psrl,opsrl,beb,certainty-equivalence,value-iteration",
    ),
    Run(
        "ppo",
        "rl2/point",
        f"{RL2} agent.memory=none agent.activation=relu agent.discount=0.95 episodes=1",
    ),
    Run(
        "rl2-normalised",
        "rl2/point",
        f"{RL2} agent.normalise_obs=true agent.normalise_reward=true family.horizon=30",
    ),
    Run("rl2-half-cheetah", "rl2/half-cheetah-dir", f"family=half-cheetah-vel {OPTIONS}"),
    # RL² over options
    Run("rl2-options-learned", "rl2/four-rooms-options", f"{OPTIONS} agent.option_length=4"),
    Run(
        "rl2-options-fixed",
        "rl2/four-rooms-options",
        f"{OPTIONS} agent.options=3 agent.termination=fixed agent.option_length=3",
    ),
    Run(
        "rl2-options-random",
        "rl2/four-rooms-options",
        f"family=taxi {OPTIONS} agent.options=3 agent.termination=random agent.option_length=3",
    ),
    Run(
        "rl2-options-heads",
        "rl2/point",
        f"{OPTIONS} agent.options=3 agent.sub_body=null agent.option_length=4",
    ),
    Run(
        "rl2-options-ready",
        "rl2/gridnavi",
        f"{RL2} agent.normalise_obs=false {OWN_OPTIONS}",
    ),
    # MAML
    Run("maml-trpo", "maml/point", f"{MAML} agent.inner_steps=2 episodes=12 family.horizon=30"),
    Run(
        "maml-gru",
        "maml/point",
        f"{MAML} agent.memory=gru agent.memory_width=8 family.horizon=20",
    ),
    Run("maml-ant", "maml/ant-dir", f"{MAML} family.horizon=20"),
    Run("fomaml", "maml/point", f"agent.variant=fomaml {MAML} family.horizon=30"),
    Run("e-maml", "maml/tabular-mdp", f"agent.variant=e-maml {MAML} agent.step_sizes=[1.0,0.5]"),
    Run("promp", "maml/half-cheetah-dir", f"agent.variant=promp {MAML} family.horizon=20"),
    Run("meta-sgd", "maml/bernoulli-bandit", f"agent.variant=meta-sgd {MAML}"),
    Run("reptile", "maml/point", f"family=sparse-point agent.variant=reptile {MAML}"),
    Run("famp", "maml/four-rooms-famp", f"{MAML} agent.options=3 family.horizon=30"),
    Run("mlsh", "maml/movement-bandits", f"{MAML} agent.inner_steps=2 episodes=12"),
    # PEARL and soft actor-critic
    Run("pearl", "pearl/point-short", CONTEXT, other_mode="sample"),
    Run("pearl-discrete", "pearl/point-short", f"family=gridnavi {CONTEXT}", other_mode="sample"),
    Run("sac-hindsight", "pearl/goal-maze", f"{PEARL} family.horizon=20", other_mode="sample"),
    Run(
        "sac-multi-task",
        "pearl/point-short",
        f"agent.variant=sac {PEARL} agent.task_input=onehot episodes=2",
        split="train",
        other_mode="sample",
    ),
    # Gymnasium
    Run("gymnasium", "{files}/cart_pole.yaml", "family={files}/cart_pole.py:CartPole"),
    Run("gymnasium-workers", "{files}/cart_pole.yaml", "family={files}/cart_pole.py:InWorkers"),
)

FILES = {
    "cart_pole.py": '''\
import gymnasium
from metarl.adapters.gymnasium import GymnasiumFamily


class CartPole(GymnasiumFamily):
    """Cart-poles that are pushed with an unknown force."""

    horizon = 20

    def build(self):
        return gymnasium.make("CartPole-v1")

    def row(self, split, rng):
        return [rng.uniform(5, 15)]

    def apply(self, env, row):
        env.unwrapped.force_mag = row[0]


class InWorkers(CartPole):
    """The same in two processes."""

    workers = 2
''',
    "cart_pole.yaml": """\
agent:
  name: rl2
  memory: gru
  memory_width: 16
  encoder: [16]
  body: [16]
  trials: 6
  epochs: 2
  minibatches: 2
  learning_rate: [2e-3, 0.0]
  clip: 0.2
  discount: 0.95
  trace: [0.3, 0.95]
  entropy_weight: [0.03, 0.0]
  value_weight: 0.4
  max_grad_norm: 0.5
  normalise_obs: true
family: bernoulli-bandit
episodes: 2
iterations: 3
""",
    "own_options.py": '''\
import torch


class Stay:
    """Always the same action; it is over with a chance of about a half, by the observation."""

    action = 0

    def __init__(self, spec):
        self.weights = torch.arange(spec.obs_width) % 2

    def act(self, obs, noise, counter):
        return torch.full(obs.shape[:2], self.action)

    def ends(self, obs):
        return (obs * self.weights).sum(-1) > 0.5


class Up(Stay):
    action = 1
''',
}
"""Files that the runs need: a family, options and a configuration of a user's own."""


# --------------------------------------------------------------------------------------------------
# Running


@dataclass
class Side:
    """One of the two checkouts."""

    name: str  # "old" or "new"
    checkout: Path
    python: Path
    folder: Path  # its runs
    files: Path  # the folder of `FILES`
    seconds: float = 0.0  # spent so far

    def metarl(self, *arguments: str) -> str:
        """What ``python -m metarl`` prints.

        Raises:
            Failure: it did not end well.
        """
        return self.call("-m", "metarl", *arguments)

    def call(self, *arguments: str) -> str:
        """What this side's Python prints, run in its checkout with one thread."""
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        for library in ("OMP", "MKL", "OPENBLAS"):
            environment[f"{library}_NUM_THREADS"] = "1"

        began = time.perf_counter()
        try:
            done = subprocess.run(  # noqa: S603  (the two checkouts that the user names)
                [str(self.python), *arguments],
                cwd=self.checkout,
                env=environment,
                capture_output=True,
                encoding="utf-8",
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"no end after {TIMEOUT} s: {' '.join(arguments[:4])}") from None
        finally:
            self.seconds += time.perf_counter() - began

        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no message"]
            command = " ".join(arguments[:4])
            raise Failure(f"exit code {done.returncode} of {command}: {lines[-1]}")
        return done.stdout

    def check(self) -> None:
        """Look whether this side runs its own checkout.

        Raises:
            Failure: no Python there, or one that finds the packages elsewhere.
        """
        if not self.python.is_file():
            raise Failure(f"there is no {self.python}; run make install in {self.checkout}")
        code = (
            "from importlib.util import find_spec\n"
            f"for spec in filter(None, map(find_spec, {PACKAGES})): print(spec.origin)\n"
        )
        found = [Path(line).resolve() for line in self.call("-c", code).splitlines()]
        elsewhere = [str(path) for path in found if self.checkout.resolve() not in path.parents]
        if elsewhere or not found:
            raise Failure(
                f"{self.python} finds {', '.join(elsewhere) or 'no metarl'}, not what is in "
                f"{self.checkout}; run make install there"
            )

    def results(self, run: Run) -> dict[str, Any]:
        """Train and evaluate `run` → all that is compared, by where it stands.

        Raises:
            Failure: a command failed or left a file out.
        """
        folder = self.folder / run.name
        files = str(self.files)
        config = run.config.replace("{files}", files)
        overrides = run.overrides.replace("{files}", files).split()
        self.metarl("train", config, *COMMON, *overrides, "--out", str(folder), "--quiet")

        evaluate = ("evaluate", str(folder), "--split", run.split, "--tasks", "20", "--json")
        beside = ("--beside", run.beside) if run.beside else ()
        evaluation = self.metarl(*evaluate, *beside)
        other = self.metarl(*evaluate, "--mode", run.other_mode)

        try:
            lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            return {
                "metrics.jsonl": [json.loads(line) for line in lines],
                "latest.pt": agent_state(folder / "checkpoints" / "latest.pt"),
                "best.pt": agent_state(folder / "checkpoints" / "best.pt"),
                "result.json": result["scores"],
                "evaluate": json.loads(evaluation)["scores"],
                f"evaluate --mode {run.other_mode}": json.loads(other)["scores"],
            }
        except (OSError, ValueError, KeyError) as error:
            raise Failure(f"{folder}: {type(error).__name__}: {error}") from None


class Failure(Exception):
    """A process that failed; the message says which and why."""


def agent_state(path: Path) -> dict[str, Any]:
    """What a checkpoint keeps of the agent."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["agent"]
    return state


# --------------------------------------------------------------------------------------------------
# Comparing


Value = Tensor | bool | int | float | str | None


@dataclass
class Comparison:
    """What was compared of one run, and the first difference."""

    tensors: int = 0
    numbers: int = 0
    different: int = 0  # values, each entry of a tensor being one
    first: str | None = None

    def report(self, difference: str, count: int = 1) -> None:
        """Note `count` different values; the first text stays."""
        self.different += count
        if self.first is None:
            self.first = difference

    @property
    def verdict(self) -> str:
        """In a few words."""
        if self.first is None:
            return "equal"
        more = self.different - 1
        return f"{self.first} (and {more:,} more)" if more else self.first


def compare(old: dict[str, Any], new: dict[str, Any]) -> Comparison:
    """The results of one run on both sides."""
    comparison = Comparison()
    for source in old:
        compare_source(comparison, source, old[source], new[source])
        if source.endswith(".pt"):
            compare_names(comparison, source, old[source], new[source])
    return comparison


def compare_source(comparison: Comparison, source: str, old: Any, new: Any) -> None:
    """All values of one file or printout, in their order."""
    old_keys, new_keys = keys(old), keys(new)
    skipped: set[str] = set()
    if source == "metrics.jsonl":
        skipped.update(key for key in old_keys | new_keys if is_time(key))
    if not source.endswith(".pt"):
        skipped.update(key for key in ADDED if key not in old_keys)
    old_values = list(values(old, source, skipped))
    new_values = list(values(in_order_of(old, new), source, skipped))

    if len(old_values) != len(new_values):  # which belongs to which is not known
        comparison.report(
            f"{source}: {len(old_values):,} → {len(new_values):,} values; "
            f"keys only in old: {listed(old_keys - new_keys - skipped)}; "
            f"keys only in new: {listed(new_keys - old_keys - skipped)}"
        )
        return
    for (place, before), (_, after) in zip(old_values, new_values, strict=True):
        compare_values(comparison, place, before, after)


def compare_names(
    comparison: Comparison,
    source: str,
    old: dict[str, Any],
    new: dict[str, Any],
) -> None:
    """The parameters, each with the one of the same name."""
    old_params, new_params = old["params"], new.get("params", {})
    for name in old_params:
        if name not in new_params:
            comparison.report(f"{source} params.{name}: is missing in new")
        elif not identical(old_params[name], new_params[name]):
            comparison.report(f"{source} params.{name}: another tensor has this name in new")
    for name in new_params:
        if name not in old_params:
            comparison.report(f"{source} params.{name}: is missing in old")


def compare_values(comparison: Comparison, place: str, old: Value, new: Value) -> None:
    """Two values in the same place."""
    if isinstance(old, Tensor):
        comparison.tensors += 1
    else:
        comparison.numbers += 1

    if identical(old, new):
        return
    if isinstance(old, Tensor) and isinstance(new, Tensor) and of_one_form(old, new):
        differs = differing_entries(old, new)
        entry = differs.nonzero()[0].tolist()
        before, after = old[tuple(entry)].item(), new[tuple(entry)].item()
        comparison.report(f"{place} {entry}: {before!r} → {after!r}", int(differs.sum()))
    else:
        comparison.report(f"{place}: {shown(old)} → {shown(new)}")


def values(tree: Any, place: str, skipped: set[str]) -> Iterator[tuple[str, Value]]:
    """(where, value) of every tensor, number and hash in nested dicts and lists, in their order."""
    if isinstance(tree, dict):
        for key, branch in tree.items():
            if key not in skipped:
                yield from values(branch, f"{place} {key}", skipped)
    elif isinstance(tree, list | tuple):
        for index, branch in enumerate(tree):
            yield from values(branch, f"{place}[{index}]", skipped)
    elif not isinstance(tree, str) or HASH.fullmatch(tree):
        yield place, tree


def in_order_of(old: Any, new: Any) -> Any:
    """`new`, with the keys of its dicts in the order of `old` wherever all of old's are there."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() <= new.keys():
        ordered = {key: in_order_of(old[key], new[key]) for key in old}
        return ordered | {key: value for key, value in new.items() if key not in old}
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        return [in_order_of(before, after) for before, after in zip(old, new, strict=True)]
    return new


def keys(tree: Any) -> set[str]:
    """All keys in nested dicts and lists."""
    found: set[str] = set()
    if isinstance(tree, dict):
        found.update(str(key) for key in tree)
    if isinstance(tree, dict | list | tuple):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            found |= keys(branch)
    return found


def is_time(key: str) -> bool:
    """Whether a key names a time or a rate: ``env_steps_per_second``."""
    words = re.split(r"[^a-z]+", key.lower())
    return not TIMES.isdisjoint(words)


def identical(old: Value, new: Value) -> bool:
    """Of the same type and shape, and bit for bit the same; NaN is NaN."""
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        return of_one_form(old, new) and not differing_entries(old, new).any()
    if isinstance(old, float) and isinstance(new, float):
        both_nan = math.isnan(old) and math.isnan(new)
        return both_nan or struct.pack("d", old) == struct.pack("d", new)
    return type(old) is type(new) and old == new


def of_one_form(old: Tensor, new: Tensor) -> bool:
    """Whether two tensors have the same type and shape."""
    return old.dtype == new.dtype and old.shape == new.shape


def differing_entries(old: Tensor, new: Tensor) -> Tensor:
    """[…] bool, like the two tensors: the entries whose bits differ."""
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[old.itemsize]
    differs = old.contiguous().view(integers) != new.contiguous().view(integers)
    return differs & ~(old.isnan() & new.isnan())


def shown(value: Value) -> str:
    """A value in a line."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return repr(value)


def listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


# --------------------------------------------------------------------------------------------------
# The command


def both(run: Run, sides: tuple[Side, Side]) -> Comparison:
    """Let old and new do `run`, one after the other, and compare; a failure is a difference."""
    results, failed = [], Comparison()
    for side in sides:
        try:
            results.append(side.results(run))
        except Failure as failure:
            failed.report(f"{side.name} failed: {failure}")
    if failed.first is not None:
        return failed
    return compare(*results)


def run_all(chosen: list[Run], sides: tuple[Side, Side]) -> int:
    """Print a table as the runs end → how many are not equal."""
    wide = max(len(run.name) for run in chosen)
    print(f"{'run':{wide}}  tensors  numbers  result", flush=True)
    different = 0
    for run in chosen:
        found = both(run, sides)
        different += found.first is not None
        counts = f"{found.tensors:7,}  {found.numbers:7,}"
        print(f"{run.name:{wide}}  {counts}  {found.verdict}", flush=True)
    times = ", ".join(f"{side.name} {side.seconds:.0f} s" for side in sides)
    print(f"\n{len(chosen) - different} of {len(chosen)} runs are equal ({times})")
    return different


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", type=Path, help="checkout that is known to be right")
    parser.add_argument("new", type=Path, help="checkout that must give the same numbers")
    parser.add_argument("--old-python", type=Path, help="default: OLD/.venv/bin/python")
    parser.add_argument("--new-python", type=Path, help="default: NEW/.venv/bin/python")
    parser.add_argument("--only", metavar="NAME,…", help="these runs alone")
    parser.add_argument("--out", type=Path, help="empty folder for the runs, which are kept")
    args = parser.parse_args()

    known = [run.name for run in RUNS]
    args.only = args.only.split(",") if args.only else known
    unknown = [name for name in args.only if name not in known]
    if unknown:
        parser.error(f"no run is called {', '.join(unknown)}; there are {', '.join(known)}")
    if args.out is not None and args.out.exists() and any(args.out.iterdir()):
        parser.error(f"{args.out} is not empty; choose another --out")
    return args


def main(args: argparse.Namespace, folder: Path) -> int:
    """Run everything below `folder` → the exit code."""
    files = folder / "files"
    files.mkdir(parents=True)
    for name, text in FILES.items():
        (files / name).write_text(text, encoding="utf-8")

    pythons = {"old": args.old_python, "new": args.new_python}
    sides = []
    for name, checkout in (("old", args.old.absolute()), ("new", args.new.absolute())):
        python = pythons[name] or checkout / ".venv" / "bin" / "python"
        python = python.absolute()  # not resolved: a link is what makes it the environment's
        side = Side(name, checkout, python, folder / name, files)
        try:
            side.check()
        except Failure as failure:
            print(f"{name}: {failure}", file=sys.stderr)
            return 2
        sides.append(side)

    chosen = [run for run in RUNS if run.name in args.only]
    return 1 if run_all(chosen, (sides[0], sides[1])) else 0


if __name__ == "__main__":
    arguments = read_arguments()
    if arguments.out is not None:
        sys.exit(main(arguments, arguments.out.absolute()))
    with tempfile.TemporaryDirectory(prefix="unchanged-") as scratch:
        sys.exit(main(arguments, Path(scratch)))
