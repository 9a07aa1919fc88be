"""Trained agents, from run folders and checkpoint files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from metarl import checkpoint
from metarl.agent import Agent, make_agent
from metarl.config import Config, parse
from metarl.counters import Counters
from metarl.env import Family, build_family
from metarl.errors import Mistake
from metarl.find import find
from metarl.types import Spec


@dataclass(frozen=True)
class Loaded:
    """A trained agent and all that belongs to it."""

    agent: Agent
    spec: Spec
    config: Config
    counters: Counters

    def family(self) -> Family:
        """The family that it was trained on."""
        return build_family(find("family", self.config.family.name), self.config.family.options)


def load(path: str | Path, device: torch.device | None = None) -> Loaded:
    """The agent of a run folder (its best checkpoint) or of a checkpoint file, on `device` or where it was trained.

    Raises:
        Mistake: nothing there that can be loaded.
    """
    content = checkpoint.load(checkpoint_path(Path(path)))
    config = parse(content["config"], where=str(path))
    spec = Spec(**content["spec"])
    agent = built(config if device is None else config.model_copy(update={"device": device.type}), spec)
    agent.load_state_dict(content["agent"])
    return Loaded(agent, spec, config, Counters(**content["counters"]))


def built(config: Config, spec: Spec) -> Agent:
    """The untrained agent of a configuration."""
    options = config.agent.options.model_dump()
    return make_agent(config.agent.name, spec, config.seed, config.device, **options)


def checkpoint_path(path: Path) -> Path:
    """A checkpoint file itself, or that of a run folder: the best one, or the latest before there is a best."""
    if not path.is_dir():
        return path
    for name in ("best", "latest", "previous"):
        if (found := path / "checkpoints" / f"{name}.pt").is_file():
            return found
    raise Mistake(f"{path} is no run folder: it has no checkpoints")
