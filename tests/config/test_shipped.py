"""What comes with metarl: every agent that learns has a configuration to begin with."""

from __future__ import annotations

from metarl.agents.learning_agent import LearningAgent
from metarl.config.files import load_config, shipped
from metarl.config.registry import find, names


def test_every_agent_that_learns_has_a_shipped_configuration_of_its_own_name():
    learning = {name for name in names("agent") if issubclass(_class(name), LearningAgent)}
    assert {"rl2", "maml", "pearl"} < learning
    assert "random" not in learning
    assert learning <= {load_config(name).agent.name for name in shipped()}


def _class(name: str) -> type:
    cls: type = find("agent", name).load()
    return cls
