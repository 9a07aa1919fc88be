"""Meta-reinforcement learning on current PyTorch: agents that adapt to a new task in a few episodes.

What is imported from here is imported when it is first used, so that ``import metarl`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarl.agent import Agent, make_agent
    from metarl.check import check_family
    from metarl.config import Config, load_config, parse
    from metarl.env import BatchEnv, Family, make_family
    from metarl.errors import Mistake
    from metarl.evaluation import Scores, combine, evaluate
    from metarl.find import Settings
    from metarl.loading import load
    from metarl.recording import Recording, recorded
    from metarl.rng import Rng
    from metarl.run import build, train
    from metarl.session import Session
    from metarl.training import Update, learn
    from metarl.types import Spec, Step, Tasks

_HOME = {
    "metarl.agent": ("Agent", "make_agent"),
    "metarl.check": ("check_family",),
    "metarl.config": ("Config", "load_config", "parse"),
    "metarl.env": ("BatchEnv", "Family", "make_family"),
    "metarl.errors": ("Mistake",),
    "metarl.evaluation": ("Scores", "combine", "evaluate"),
    "metarl.find": ("Settings",),
    "metarl.loading": ("load",),
    "metarl.recording": ("Recording", "recorded"),
    "metarl.rng": ("Rng",),
    "metarl.run": ("build", "train"),
    "metarl.session": ("Session",),
    "metarl.training": ("Update", "learn"),
    "metarl.types": ("Spec", "Step", "Tasks"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Agent",
    "BatchEnv",
    "Config",
    "Family",
    "Mistake",
    "Recording",
    "Rng",
    "Scores",
    "Session",
    "Settings",
    "Spec",
    "Step",
    "Tasks",
    "Update",
    "build",
    "check_family",
    "combine",
    "evaluate",
    "learn",
    "load",
    "load_config",
    "make_agent",
    "make_family",
    "parse",
    "recorded",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'metarl' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
