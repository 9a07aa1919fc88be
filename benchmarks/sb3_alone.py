"""Algorithms of Stable-Baselines3 as the agent `sb3`, and in a script of their own.

Each configuration is trained by `metarl train`, and by `model.learn` alone, with the same arguments
and environment steps. Both are evaluated by Stable-Baselines3's `evaluate_policy` on the same
tasks, ours by our own evaluation, too.

    python benchmarks/sb3_alone.py sb3/ppo-onehot [KEY=VALUE]... [--seeds 0 1 2]

With hindsight, alone means in Gymnasium-Robotics' own environment: trained there, and evaluated on
as many of its goals.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.her import HerReplayBuffer

import metarl
from metarl.adapters.sb3 import to_vec_env
from metarl.agents.sb3.model import make_model
from metarl.config.schema import Config
from metarl.core.rng import Rng, seeding_globals
from metarl.experiments.building import eval_protocol, family_of, spec_for_agent, train_set

_MANY = 20
_FETCH = "FetchReach-v4"
_TEST_SEED = 1_000_000


def mean_return(model: Any, config: Config, split: str, envs: VecEnv | None) -> float:
    """Mean return of an episode, or of a trial, by Stable-Baselines3's own evaluation."""
    family, settings = family_of(config), config.agent.settings
    rows = eval_protocol(config, family, split=split).rows(family)
    lanes = {"lanes": len(rows), "trial_episodes": config.episodes} if settings.recurrent else {}
    if envs is None:
        envs = VecMonitor(to_vec_env(family, rows, task_input=settings.task_input, **lanes))
    greedy = config.mode == "greedy"
    mean, _ = evaluate_policy(model, envs, n_eval_episodes=len(rows), deterministic=greedy)
    return float(mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("bench/sb3-alone"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    found: dict[str, list[float]] = {"metarl": [], "alone": []}
    for seed in chosen.seeds:
        config = metarl.load_config(chosen.config, [*chosen.overrides, f"seed={seed}"])
        folder = chosen.out / config.agent.settings.algorithm / f"seed-{seed}"
        metarl.train(config, folder, resume=True, quiet=True)
        run = metarl.load(folder / "checkpoints" / "latest.pt")
        hindsight = config.agent.settings.hindsight
        split = "train" if run.agent.task_input == "onehot" else "test"
        found["metarl"].append(mean_return(run.agent.model, config, split, None))
        its_own = make_vec_env(_FETCH, n_envs=10, seed=_TEST_SEED) if hindsight else None
        found["alone"].append(mean_return(learn_alone(config), config, split, its_own))
        ours = run.protocol(split=split)
        scores = metarl.evaluate(run.agent, run.family(), ours)
        own = scores.figure("total").mean()
        both = ", ".join(f"{name} {values[-1]:.3f}" for name, values in found.items())
        print(f"seed {seed}: {both}; by our evaluation {own:.3f}", flush=True)
    for name, values in found.items():
        print(f"{name}: {np.mean(values):.3f}, seeds {np.round(values, 3).tolist()}")


def learn_alone(config: Config) -> Any:
    """A model that `learn` has trained, with the arguments of the configuration."""
    settings = config.agent.settings
    if settings.hindsight:
        envs = make_vec_env(_FETCH, n_envs=settings.tasks * settings.lanes, seed=config.seed)
        arguments = dict(settings.arguments, replay_buffer_class=HerReplayBuffer)
        model = SAC("MultiInputPolicy", envs, seed=config.seed, **arguments)
        return model.learn(config.env_steps)
    envs = VecMonitor(_training_envs(config))
    with seeding_globals(config.seed):
        spec = spec_for_agent(config, family_of(config).spec)
        model = make_model(settings, spec, torch.device("cpu"))
        model.set_env(envs)
        envs.seed(config.seed)
        return model.learn(config.env_steps)


def _training_envs(config: Config) -> VecEnv:
    settings, family = config.agent.settings, family_of(config)
    shown = settings.task_input
    if settings.recurrent:
        tasks = family.tasks("train", _MANY * settings.lanes, Rng(config.seed).child("alone"))
        return to_vec_env(
            family, tasks, lanes=settings.lanes, task_input=shown, trial_episodes=config.episodes
        )
    tasks = train_set(config, family)
    assert tasks is not None, "one-hot"
    return to_vec_env(family, tasks, lanes=settings.lanes, task_input=shown)


if __name__ == "__main__":
    main()
