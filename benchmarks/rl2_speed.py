"""Speed of RL² beside sb3-contrib's RecurrentPPO, on the 10-armed bandit with 100 pulls.

Both collect the same number of whole trials and learn from them in the same number of passes and
minibatches, with one recurrent layer of the same width, linear heads, and the same number of torch
threads. The peer's environment is a batched NumPy bandit, so that its time is spent in its own
sampling and learning. Rounds are interleaved; the score is the ratio within a round.

    pip install sb3-contrib
    python benchmarks/rl2_speed.py [--trials 1000] [--width 256] [--threads 2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from importlib.metadata import version

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import VecEnv

from metarl.collect.world import LocalWorld
from metarl.core.rng import Rng
from metarl.experiments.building import make_agent, make_family

ARMS, PULLS, EPOCHS, MINIBATCHES = 10, 100, 4, 4
PACKAGES = ("metarl-torch", "torch", "sb3-contrib", "stable-baselines3")


class BanditVecEnv(VecEnv):
    """Trials of PULLS pulls as the peer's episodes; observation: previous action, reward, done."""

    def __init__(self, trials: int) -> None:
        width = ARMS + 2
        super().__init__(trials, spaces.Box(0, 1, (width,), np.float32), spaces.Discrete(ARMS))
        self.rng = np.random.default_rng(0)
        self.rows = np.arange(trials)

    def reset(self):
        self.means = self.rng.random((self.num_envs, ARMS))
        self.pulls = 0
        obs = np.zeros((self.num_envs, ARMS + 2), np.float32)
        obs[:, -1] = 1
        return obs

    def step_async(self, actions):
        self.actions = actions

    def step_wait(self):
        mean = self.means[self.rows, self.actions]
        reward = (self.rng.random(self.num_envs) < mean).astype(np.float32)
        self.pulls += 1
        done = self.pulls == PULLS
        obs = np.zeros((self.num_envs, ARMS + 2), np.float32)
        obs[self.rows, self.actions] = 1
        obs[:, -2], obs[:, -1] = reward, 1
        infos = [{} for _ in self.rows]
        if done:
            for row, info in zip(obs, infos, strict=True):
                info["terminal_observation"] = row
            obs = self.reset()
        return obs, reward, np.full(self.num_envs, done), infos

    def close(self):
        pass

    def get_attr(self, name, indices=None):
        return [None] * self.num_envs

    def set_attr(self, name, value, indices=None):
        pass

    def env_method(self, name, *args, indices=None, **kwargs):
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper, indices=None):
        return [False] * self.num_envs


def ours(memory: str, trials: int, width: int):
    """A function that runs one iteration of metarl's RL²."""
    family = make_family("bernoulli-bandit", arms=ARMS)
    options = {
        "memory": memory,
        "memory_width": width,
        "trials": trials,
        "epochs": EPOCHS,
        "minibatches": MINIBATCHES,
    }
    agent = make_agent("rl2", family.spec, **options)
    world = LocalWorld(family, PULLS, None, torch.device("cpu"))
    iterations = iter(range(10**9))
    return lambda: agent.iterate(world, Rng(0).child(next(iterations)))


def peer(trials: int, width: int):
    """A function that runs one iteration of RecurrentPPO."""
    model = RecurrentPPO(
        "MlpLstmPolicy",
        BanditVecEnv(trials),
        n_steps=PULLS,
        batch_size=trials * PULLS // MINIBATCHES,
        n_epochs=EPOCHS,
        device="cpu",
        policy_kwargs={
            "lstm_hidden_size": width,
            "net_arch": [],
            "shared_lstm": True,
            "enable_critic_lstm": False,
        },
    )
    return lambda: model.learn(trials * PULLS, reset_num_timesteps=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("trials", 1000), ("width", 256), ("threads", 2), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    contenders = {
        "sb3-contrib RecurrentPPO (LSTM)": peer(args.trials, args.width),
        "metarl RL² (LSTM)": ours("lstm", args.trials, args.width),
        "metarl RL² (GRU)": ours("gru", args.trials, args.width),
    }
    print(f"{platform.machine()}, {args.threads} threads")
    print(f"{args.trials} trials × {PULLS} pulls, width {args.width}")
    print(", ".join(f"{package} {version(package)}" for package in PACKAGES))
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(args.rounds + 1):  # the first warms up
        for name, iterate in contenders.items():
            began = time.perf_counter()
            iterate()
            if round_:
                speeds[name].append(args.trials * PULLS / (time.perf_counter() - began))
    base = next(iter(speeds.values()))
    for name, found in speeds.items():
        ratios = [a / b for a, b in zip(found, base, strict=True)]
        speed, ratio = statistics.median(found), statistics.median(ratios)
        print(f"{name:34} {speed:9,.0f} env steps/s   ratio {ratio:5.2f}")


if __name__ == "__main__":
    main()
