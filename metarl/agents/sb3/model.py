"""Models of Stable-Baselines3: made of our options, written as its own file, and read from one."""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.save_util import load_from_zip_file, recursive_setattr
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.her import HerReplayBuffer
from torch import nn

from metarl.adapters.sb3 import SpacesVecEnv, spaces_of
from metarl.adapters.task_observation import TaskInput, shows_goals
from metarl.agents.sb3.config import CONTRIB, Algorithm, SB3Config
from metarl.core.errors import (
    CheckpointError,
    ConfigError,
    MetaRLError,
    install_command,
    note,
    one_line,
    shown,
)
from metarl.core.types import Spec

_CLASSES: dict[Algorithm, str] = {
    "ppo": "PPO",
    "sac": "SAC",
    "td3": "TD3",
    "recurrent-ppo": "RecurrentPPO",
    "tqc": "TQC",
    "crossq": "CrossQ",
}
_POLICIES: dict[str, Algorithm] = {
    "stable_baselines3.common.policies": "ppo",  # also A2C's, which acts alike
    "stable_baselines3.sac.policies": "sac",
    "stable_baselines3.td3.policies": "td3",  # also DDPG's
    "sb3_contrib.common.recurrent.policies": "recurrent-ppo",
    "sb3_contrib.tqc.policies": "tqc",
    "sb3_contrib.crossq.policies": "crossq",
}
"""The module of a model's policy → the algorithm whose class opens it."""

_SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf")
_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num")
_ADDRESS = re.compile(rb" at 0x[0-9a-f]+")  # in its descriptions of objects
_SMALLEST_IMAGE = 36  # which the convolutions of Stable-Baselines3 have room for
_MOMENT = (1980, 1, 1, 0, 0, 0)  # the same model is the same file


def make_model(config: SB3Config, spec: Spec, device: torch.device, *, whole: bool = True) -> Any:
    """The untrained model, its weights drawn from torch's global generator; not `whole`: without.

    Raises:
        ConfigError: sb3-contrib is missing, or Stable-Baselines3 refuses an argument or the family.
    """
    cls = _class_of(config.algorithm)
    observations, actions = spaces_of(
        spec, config.task_input, spec.shown_width(config.task_input), config.recurrent
    )
    if config.hindsight and not shows_goals(spec, config.task_input):
        raise ConfigError(f"hindsight: {spec.name} does not say which goal is achieved")
    given = _arguments(config)
    if config.hindsight:
        given["replay_buffer_class"] = HerReplayBuffer
    if config.action_noise:
        noise = np.full(spec.action_width, config.action_noise)
        given["action_noise"] = NormalActionNoise(0 * noise, noise)
    count = config.lanes if config.recurrent else config.tasks * config.lanes
    env = SpacesVecEnv(count, observations, actions)
    policy = _policy_of(config, observations)
    try:
        with telling():
            model = cls(policy, env, device=device, _init_setup_model=whole, **given)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ConfigError(f"agent.arguments: {one_line(error)}") from error
    model.set_logger(Logger(None, []))
    return model


def _policy_of(config: SB3Config, observations: Any) -> str:
    """The name of a policy for this space of observations; small images are flattened."""
    if hasattr(observations, "spaces"):
        return "MultiInputPolicy"
    if config.recurrent:
        return "MlpLstmPolicy"
    if len(observations.shape) == 3 and min(observations.shape[:2]) >= _SMALLEST_IMAGE:
        return "CnnPolicy"
    return "MlpPolicy"


def _class_of(algorithm: Algorithm) -> Any:
    package = "sb3_contrib" if algorithm in CONTRIB else "stable_baselines3"
    try:
        return getattr(import_module(package), _CLASSES[algorithm])
    except ImportError:
        command = install_command("contrib")
        raise ConfigError(f"agent.algorithm: {algorithm} needs sb3-contrib: {command}") from None


def _arguments(config: SB3Config) -> dict[str, Any]:
    """A copy, with schedules and classes in the place of their names."""
    given = deepcopy(config.arguments)
    for name in _SCHEDULES:
        values = given.get(name)
        if isinstance(values, list):
            try:
                first, last, share = [*map(float, values), 1.0][:3]
            except (TypeError, ValueError):
                raise ConfigError(
                    f"agent.arguments: {name} is {values}; give a number, [first, last] or "
                    "[first, last, share]"
                ) from None
            given[name] = LinearSchedule(first, last, share)
    networks = given.get("policy_kwargs")
    if isinstance(networks, dict) and isinstance(networks.get("activation_fn"), str):
        activation = getattr(nn, networks["activation_fn"], None)
        if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
            raise ConfigError(
                "agent.arguments: activation_fn is a class of torch.nn, such as ReLU or Tanh"
            )
        networks["activation_fn"] = activation
    return given


@contextmanager
def telling() -> Iterator[None]:
    """What Stable-Baselines3 warns of is told in a line each."""
    with warnings.catch_warnings(record=True, action="always", category=UserWarning) as caught:
        yield
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        note(f"Stable-Baselines3: {shown(' '.join(text.split()), 300)}")


# -------------------------------------------------------------------------------------------------
# Files


def model_bytes(model: Any, blank: Any) -> bytes:
    """What `model.save` writes; `blank` is such a model that is not `whole`.

    It has the options, and no trace of when and how this one was trained: models that are alike
    are the same bytes.
    """
    for names in model._get_torch_save_params():
        for name in names:
            part = name.partition(".")[0]
            setattr(blank, part, getattr(model, part))
    for name in (*_COUNTERS, "target_entropy"):  # which follows from the actions
        if hasattr(model, name):
            setattr(blank, name, getattr(model, name))
    written, timeless = io.BytesIO(), io.BytesIO()
    blank.save(written)
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(timeless, "w") as copy:
        for member in source.namelist():
            content = _ADDRESS.sub(b"", source.read(member)) if member == "data" else None
            copy.writestr(zipfile.ZipInfo(member, _MOMENT), content or source.read(member))
    return timeless.getvalue()


def restore_model(model: Any, data: bytes) -> None:
    """Take over the parameters, optimizers and counters of such bytes; nothing is unpickled.

    Raises:
        ValueError, RuntimeError: they are those of another model.
    """
    file = io.BytesIO(data)
    _, params, variables = load_from_zip_file(file, load_data=False, device=model.device)
    model.set_parameters(params, exact_match=True)
    for name in model._get_torch_save_params()[1]:
        recursive_setattr(model, f"{name}.data", (variables or {})[name].data)
    counters = _plain_data(file)
    for name in _COUNTERS:
        setattr(model, name, int(counters[name]))


def read_model(path: Path, spec: Spec, device: torch.device, trust: bool) -> tuple[SB3Config, Any]:
    """A file of Stable-Baselines3, and the options that an agent has which acts by it.

    Raises:
        CheckpointError: it may not be opened, or cannot be.
        ConfigError: its algorithm is none of ours, or its spaces are not those of the family.
    """
    if not trust:
        raise CheckpointError(
            f"{path} is a model of Stable-Baselines3, whose files are pickles: opening it executes "
            "what they hold; look where it comes from, then add --trust"
        )
    try:
        module = _plain_data(path)["policy_class"]["__module__"]
        if module not in _POLICIES:
            known = ", ".join(_CLASSES.values())
            raise ConfigError(f"{path} has a policy of {shown(module)}; there is: {known}, A2C")
        algorithm = _POLICIES[module]
        cls = _class_of(algorithm)
        with telling():
            data, _, _ = load_from_zip_file(path, device=device)
            assert data is not None
            env = SpacesVecEnv(1, data["observation_space"], data["action_space"])
            small = {"buffer_size": 1} if "buffer_size" in data else {}
            model = cls.load(path, env=env, device=device, **small)
    except MetaRLError:
        raise
    except Exception as error:  # whatever reading another file leads to
        raise CheckpointError(f"{path} cannot be opened: {one_line(error)}") from error
    config = SB3Config(algorithm=algorithm, task_input=_task_input(path, model, spec, algorithm))
    return config, model


def _task_input(path: Path, model: Any, spec: Spec, algorithm: Algorithm) -> TaskInput:
    """What the model was shown of the task, by the space of its observations."""
    expected: list[str] = []
    inputs: tuple[TaskInput, ...] = ("none", "row", "goal")
    for task_input in inputs:
        trials = algorithm == "recurrent-ppo"
        try:
            width = spec.shown_width(task_input)
            observations, actions = spaces_of(spec, task_input, width, trials)
        except ConfigError:  # no goals, or no trials of them
            continue
        if _shape(observations) == _shape(model.observation_space):
            if model.action_space != actions:
                raise ConfigError(
                    f"{path} has actions {model.action_space}; those of {spec.name} are {actions}"
                )
            return task_input
        expected.append(f"{_shape(observations)} with task_input {task_input}")
    raise ConfigError(
        f"{path} has observations of shape {_shape(model.observation_space)}; those of "
        f"{spec.name} are {', '.join(expected)}"
    )


def _shape(space: Any) -> Any:
    """Of arrays, or of each part of a Dict."""
    parts = getattr(space, "spaces", None)
    return {name: part.shape for name, part in parts.items()} if parts else space.shape


def _plain_data(file: Any) -> dict[str, Any]:
    """The options and counters in a file, without what is pickled among them."""
    with zipfile.ZipFile(file) as archive:
        return dict(json.loads(archive.read("data")))
