"""A first configuration for any family, from its spec and some seconds of random actions."""

import math
from dataclasses import dataclass
from time import process_time
from typing import Any

import torch
from torch import Tensor

from metarl.collect.world import LocalWorld
from metarl.config.files import to_yaml
from metarl.config.schema import Config, parse
from metarl.core.errors import FamilyError, MetaRLError, one_line
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.types import Spec
from metarl.experiments.building import make_agent, make_family
from metarl.experiments.speed import measure_speed

_ROWS = 20  # tasks that are probed
_PROBED_BYTES = 4e8  # of their observations, at most
_TRIAL_BYTES = 1e9  # of the observations of an iteration, at most
_ITERATION = 60  # seconds that collecting its trials takes, if they are more than _FEW
_FEW = 20
_CPU = torch.device("cpu")
_COSTLY = 1_000  # environment steps a second: at fewer, ten million take some three hours
_MANY_ENTRIES = 6  # of an action; walkers and cheetahs have so many, ants and humanoids more
_SHORT = 50  # steps of a short episode
_EPISODES = {1: 100, 10: 10, _SHORT: 4, 500: 2}  # longest episode → episodes of a trial; else 1


def suggest(name: str, options: dict[str, Any]) -> str:
    """A complete configuration for the family called `name`, with reasons, as YAML.

    Repeated, it gives the same but for the expected time, unless a family makes about a thousand
    steps a second or few.

    Raises:
        MetaRLError: unknown family or options, or a family that cannot be stepped.
    """
    try:
        probe = _probe(make_family(name, **options))
        tree, reasons = _pearl(probe) if _suits_pearl(probe) else _rl2(probe)
        config = parse({**tree, "family": {"name": name, **options}})
        minutes = _minutes(config)
    except MetaRLError:
        raise
    except Exception as error:  # a stranger's family may raise anything
        line = one_line(error)
        raise FamilyError(f"{name} cannot be stepped: {line}; see metarl check {name}") from error

    time = f"env_steps: {config.env_steps:,} take about {minutes:.0f} minutes of a core like this."
    return "".join(f"# {reason}\n" for reason in [*reasons, time]) + to_yaml(config)


# -------------------------------------------------------------------------------------------------
# What a family is like


@dataclass(frozen=True)
class _Probe:
    """S steps of random actions."""

    spec: Spec
    obs: Tensor  # [S, O]
    reward: Tensor  # [S]
    terminated: bool
    speed: float  # environment steps a second of processor time

    @property
    def farthest(self) -> float:
        """The largest |observation|."""
        return float(self.obs.abs().max())

    @property
    def largest(self) -> float:
        """The largest |reward|."""
        return float(self.reward.abs().max())

    @property
    def sparse(self) -> bool:
        """Nearly all steps pay the same, in episodes that do not end by it."""
        usual = self.reward == self.reward.median()
        survival = self.terminated and bool(usual.all())
        return bool(usual.float().mean() > 0.9) and not survival


def _probe(family: Family) -> _Probe:
    """Up to 20 random trials; short episodes are repeated."""
    spec = family.spec
    agent = make_agent("random", spec)
    world = LocalWorld(family, max(1, _ROWS // spec.horizon), None, _CPU)
    most = int(_PROBED_BYTES / (world.episodes * _episode_bytes(spec)))
    rows = min(max(1, most), _ROWS)
    tasks = world.tasks(rows, Rng(0))
    belief = agent.begin(world.task_info(agent, tasks), lanes=1)
    began = process_time()
    trials, _ = world.collect(agent, belief, tasks, world.episodes, Rng(0))
    valid = trials.valid
    speed = valid.numel() / (process_time() - began)
    terminated = bool(trials.terminated[valid].any())
    return _Probe(spec, trials.inputs.obs[valid], trials.reward[valid], terminated, speed)


def _episode_bytes(spec: Spec) -> int:
    """Of all observations of an episode and their successors."""
    return 2 * spec.horizon * spec.obs_width * spec.obs_type.itemsize


def _minutes(config: Config) -> float:
    """Expected processor time of training."""
    return (config.env_steps or 0) / measure_speed(config).env_steps / 60


# -------------------------------------------------------------------------------------------------
# What suits it: a configuration without its family, and why it is so


def _suits_pearl(probe: _Probe) -> bool:
    """Whether every step tells of the task, and episodes are short, or steps too hard or costly.

    PEARL sees observations and rewards as they are: these must not be far from 1.
    """
    if probe.spec.discrete or probe.spec.images or probe.sparse:
        return False
    if probe.farthest > 100 or not 0.01 <= probe.largest <= 1000:
        return False
    hard = probe.spec.action_width > _MANY_ENTRIES or probe.speed < _COSTLY
    return 1 < probe.spec.horizon <= _SHORT or hard


def _rl2(probe: _Probe) -> tuple[dict[str, Any], list[str]]:
    spec, horizon = probe.spec, probe.spec.horizon
    episodes = next((count for longest, count in _EPISODES.items() if horizon <= longest), 1)
    steps = episodes * horizon
    trials = _clip(30_000 // steps, 40, 500)
    in_memory = max(4, int(_TRIAL_BYTES / (episodes * _episode_bytes(spec))))
    doublings = math.log2(max(1.0, _ITERATION * probe.speed / (steps * _FEW)))
    in_time = _FEW * 2 ** int(doublings)  # the same again, if the speed is about the same
    trials = min(trials, in_memory, in_time)
    gamma = round(_clip(1 - 1 / steps, 0.95, 0.99), 3)
    seen = probe.spec.without_images(probe.obs) if spec.images else probe.obs
    farthest = float(seen.abs().max()) if seen.numel() else 0.0
    far_from_1 = farthest > 1 or 0 < farthest < 0.1
    one_hot = bool(((probe.obs.sum(-1) == 1) & (probe.obs.amax(-1) == 1)).all())
    tabular = one_hot and 1 < spec.obs_width <= 20
    entropy = 0.01
    if spec.discrete:
        entropy = 0.05 if probe.sparse else 0.03
    agent = {
        "name": "rl2",
        "encoder_sizes": [64] * (far_from_1 and not spec.images),
        "hidden_sizes": [64],
        "pair_input": tabular,
        "readout": "observation" if tabular else "linear",
        "initial_std": 0.5,
        "trials": trials,
        "minibatches": _clip(trials // 16, 2, 8),
        "learning_rate": [2e-3, 0.0],
        "gamma": gamma,
        "gae_lambda": 0.95,
        "entropy_coef": [entropy, 0.0],
        "max_grad_norm": 0.5,
        "normalize_obs": far_from_1,
        "normalize_reward": not spec.discrete or not 0.5 <= probe.largest <= 5,
    }
    reasons = [
        "agent: rl2 learns to explore; actions are discrete, or rewards sparse, or steps cheap.",
        f"episodes: {episodes} of at most {horizon} steps, to explore and to use what was found.",
        f"gamma: credit goes back over up to {steps} steps, those of a trial.",
        f"entropy_coef: {entropy} keeps exploration alive; 0 at the end, to use what was learned.",
        f"normalize_…: a probe met observations up to {farthest:.2g}, rewards to "
        f"{probe.largest:.2g}.",
    ]
    if trials == in_time:
        reasons.append(f"trials: few, for this family makes {probe.speed:,.0f} steps a second.")
    if spec.images:
        reasons.append("conv_channels: images are read by convolutions, as bytes from 0 to 255.")
    if probe.sparse:
        reasons.append("rewards are sparse: if the return stays, more trials and entropy help.")
    env_steps = 1_000_000 if spec.images or trials == in_time else 10_000_000
    tree = {"agent": agent, "episodes": episodes, "env_steps": env_steps}
    return tree | _evaluation(steps), reasons


def _pearl(probe: _Probe) -> tuple[dict[str, Any], list[str]]:
    horizon = probe.spec.horizon
    short = horizon <= _SHORT
    deviation = float(probe.reward.std())
    if deviation < 1e-6 * probe.largest:  # rounding errors of a constant
        deviation = 3.0
    agent = {
        "name": "pearl",
        "latent_width": 10,
        "encoder_sizes": [128] * 3,
        "next_obs_input": True,
        "hidden_sizes": [64 if probe.spec.obs_width <= 10 else 128] * 2,
        "tasks": _clip(1200 // horizon, 5, 60),
        "initial_episodes": 4,
        "extra_episodes": 2,
        "capacity": 20_000,
        "updates": 500,
        "meta_batch_size": 32,
        "batch_size": 16,
        "context_size": 40,
        "learning_rate": [1e-3, 1e-4],
        "gamma": round(_clip(1 - 2 / horizon, 0.9, 0.99), 3),
        "reward_scale": float(f"{3 / deviation:.1g}"),
        "kl_coef": 0.01,
        "learn_temperature": True,
    }
    reasons = [
        "agent: pearl needs few steps; rewards are dense, episodes short or control hard or slow.",
        "episodes: 4, one to explore on the prior, then on the posterior of what came before.",
        f"gamma: credit goes back over half an episode of {horizon} steps; z carries the rest.",
        "reward_scale: rewards deviate by 3 then, beside which the entropy counts at first.",
        "train_tasks: so many that small networks do not learn them by heart.",
    ]
    tree = {
        "agent": agent,
        "train_tasks": 300 if short else 100,
        "env_steps": 200_000 if short else 1_000_000,
        "episodes": 4,
        "mode": "greedy",
        "score": "last",
        "validate_every": 4 if short else 10,
    }
    return tree | _evaluation(4 * horizon), reasons


def _evaluation(steps: int) -> dict[str, float]:
    """How many trials of so many `steps` are enough and do not take long."""
    tasks = _clip(60_000 // steps, 20, 500)
    return {"validation_tasks": tasks, "test_tasks": 2 * tasks}


def _clip(number: float, low: float, high: float) -> float:
    return min(max(number, low), high)
