"""Whether `metarl compare` finds a fault, and not other seeds.

Three benchmarks of one problem are run: five seeds; five others of the same; five others of an
agent that takes a random action in a share of its steps; 18 % of them cost 6.6 % of the score.

    python benchmarks/planted_fault.py [--out bench/planted] [--share 0.18] [--jobs 2]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

SUITE = """
title: A planted fault
problems:
  bandit:
    family: {name: bernoulli-bandit, arms: 5}
    settings: {episodes: 100, env_steps: 1_500_000, validation_tasks: 500, test_tasks: 2000}
    agents:
      rl2: {config}
"""
CONFIG = """
agent:
  name: {agent}
  memory_width: 64
  trials: 500
  minibatches: 10
  learning_rate: [8e-3, 0.0]
  gae_lambda: [0.3, 0.98, 0.6]
  entropy_coef: [0.03, 0.0, 0.8]
  max_grad_norm: 0.5
family: bernoulli-bandit
episodes: 100
env_steps: 1_500_000
"""
AGENT = '''"""RL² with a fault."""

import torch

from metarl.agents.rl2.agent import RL2
from metarl.agents.rl2.config import RL2Config
from metarl.core.types import replace


class Careless(RL2):
    """In a share of its steps it does not do what it decided."""

    Settings = RL2Config

    def act(self, belief, obs, noise, counter, mode):
        acted, belief = super().act(belief, obs, noise, counter, mode)
        draws = noise.substream.uniform(counter, 2)
        other = (draws[..., 0] * self.spec.action_width).long()
        action = torch.where(draws[..., 1] < {share}, other, acted.action)
        return replace(acted, action=action), belief
'''


def benchmark(out: Path, name: str, seeds: str, agent: str, jobs: int) -> Path:
    """The folder of a benchmark, which is run unless it is done."""
    suite, config = out / f"{name}.yaml", out / f"{name}-rl2.yaml"
    config.write_text(CONFIG.format(agent=agent), encoding="utf-8")
    suite.write_text(SUITE.replace("{config}", str(config)), encoding="utf-8")
    command = [sys.executable, "-m", "metarl", "benchmark", str(suite), "--seeds", seeds]
    command += ["--out", str(out / name), "--jobs", str(jobs), "--resume"]
    subprocess.run(command, check=True)  # noqa: S603  (ourselves)
    return out / name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench/planted"))
    parser.add_argument("--share", type=float, default=0.18, help="of steps with a random action")
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    careless = chosen.out / "careless.py"
    careless.write_text(AGENT.format(share=chosen.share), encoding="utf-8")
    first = benchmark(chosen.out, "first", "0-4", "rl2", chosen.jobs)
    same = benchmark(chosen.out, "same", "5-9", "rl2", chosen.jobs)
    worse = benchmark(chosen.out, "fault", "5-9", f"{careless}:Careless", chosen.jobs)
    for other, expected in ((same, 0), (worse, 1)):
        command = [sys.executable, "-m", "metarl", "compare", str(first), str(other)]
        done = subprocess.run(command, check=False)  # noqa: S603  (ourselves)
        print(f"{other.name}: exit code {done.returncode}, expected {expected}")


if __name__ == "__main__":
    main()
