"""One step of an agent as an ONNX graph, for machines without torch.

=========  =====================  ==================================================================
inputs     obs [B, O]             the observation
           cue [B, A + 2]         with memory: the last action (one-hot), its reward, done; at the
                                  beginning of a trial zeros, and done 1
           task [B, P]            what the agent is shown of its task, if anything
           memory_0 [B, …] …      zeros at the beginning of a trial, then what came out
outputs    action [B], [B, A]     the most likely one
           logits [B, A]          of discrete actions; else mean and log_std [B, A]
           next_memory_0 …        for the next step
=========  =====================  ==================================================================
"""

import io
import logging
import warnings
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from metarl.agents.rl2.agent import RL2
from metarl.collect.collector import collect, task_info
from metarl.core.agent import Agent
from metarl.core.disk import write_atomically
from metarl.core.errors import ConfigError, MetaRLError, install_command
from metarl.core.types import Inputs
from metarl.experiments.building import Loaded, open_run
from metarl.experiments.loading import OPENING, Opening
from metarl.nn.policy import Policy
from metarl.nn.transformer import TransformerMemory

_TASKS = 4  # on which the graph is compared with torch
_TOLERANCE = 1e-4


class _Step(nn.Module):
    """The graph."""

    def __init__(self, agent: RL2, policy: Policy):
        super().__init__()
        self.agent, self.policy = agent, policy
        self.params = {name: x.detach() for name, x in agent.params.items()}
        self.memory, self._structure = tree_flatten(policy.start(1, 1, agent.device))
        self.names = ["obs"]
        if policy.recurrent:
            self.names.append("cue")
        if agent.task_input != "none":
            self.names.append("task")

    @property
    def input_names(self) -> list[str]:
        return self.names + self.memory_names

    @property
    def memory_names(self) -> list[str]:
        return [f"memory_{i}" for i in range(len(self.memory))]

    def first_memory(self) -> list[Tensor]:
        """[B, …] each: that of the tasks on which the graph is compared."""
        return [part[0].expand(_TASKS, *part.shape[2:]) for part in self.memory]

    @property
    def output_names(self) -> list[str]:
        heads = ["logits"] if self.policy.discrete else ["mean", "log_std"]
        return ["action", *heads, *(f"next_{name}" for name in self.memory_names)]

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.input_names, (x.unsqueeze(1) for x in arrays), strict=True))
        inputs = Inputs(given["obs"], cue=given.get("cue"), task=given.get("task"))
        memory = tree_unflatten([given[name] for name in self.memory_names], self._structure)
        normalized = self.agent.ppo.normalize(inputs)
        decision, memory = self.policy.step(self.params, normalized, memory)
        heads = [decision.heads["action"]]
        if not self.policy.discrete:
            heads.append(decision.heads["log_std"].expand_as(heads[0]))
        outputs = (decision.actions.mode(), *heads, *tree_leaves(memory))
        return tuple(x.squeeze(1) for x in outputs)


def export_step(run: str | Path, file: Path, opening: Opening = OPENING) -> Path:
    """Write the step of a run's agent, compared with torch on episodes of its family.

    Raises:
        ConfigError: the agent adapts by more than forward passes, or onnx is not installed.
        MetaRLError: the graph computes something else.
    """
    try:
        runtime, _ = import_module("onnxruntime"), import_module("onnxscript")
    except ImportError as error:
        raise ConfigError(f"--onnx: {error.name} is missing: {install_command('onnx')}") from None
    loaded = open_run(run, replace(opening, device="cpu"))
    step = _Step(*_forward_agent(loaded.agent)).eval()
    arrays = _recorded(loaded, step)
    graph = _graph(step, [x[0] for x in arrays.values()])
    _compare(runtime.InferenceSession(graph), step, arrays)
    write_atomically(file, graph)
    return file


def _forward_agent(agent: Agent) -> tuple[RL2, Policy]:
    if not isinstance(agent, RL2) or not isinstance(agent.policy, Policy):
        raise ConfigError(
            f"--onnx: {type(agent).__name__} acts or adapts by more than a forward pass of one "
            "policy; agents like rl2 and ppo without options do not"
        )
    if agent.policy.nvec:
        raise ConfigError("--onnx: MultiDiscrete actions are not exported; use metarl.load")
    if isinstance(agent.policy.memory, TransformerMemory):
        raise ConfigError("--onnx: a transformer reads a cache that grows; use memory gru or keyed")
    return agent, agent.policy


def _recorded(loaded: Loaded, step: _Step) -> dict[str, Tensor]:
    """[T, B, …]: what the agent met on a few test tasks."""
    family, agent = loaded.family(), loaded.agent
    protocol = loaded.protocol(tasks=_TASKS)
    tasks = protocol.rows(family)
    belief = agent.begin(task_info(agent, family.spec, tasks, 1, protocol.train_set), lanes=1)
    rollout, _ = collect(
        agent,
        family.make(1),
        family.spec,
        belief,
        tasks,
        episodes=loaded.config.episodes,
        rng=protocol.rng,
    )
    return {name: vars(rollout.inputs)[name].squeeze(2) for name in step.names}


def _graph(step: _Step, first: list[Tensor]) -> bytes:
    """The ONNX graph, for any number of observations at once."""
    memory = step.first_memory()
    batch = torch.export.Dim("batch")
    buffer = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # or it tells what it does not need
    with warnings.catch_warnings(action="ignore"):
        program: Any = torch.onnx.export(
            step,
            (*first, *memory),
            input_names=step.input_names,
            output_names=step.output_names,
            dynamic_shapes=(({0: batch},) * len(step.input_names),),
            dynamo=True,
            verbose=False,
        )
    program.save(buffer)
    return buffer.getvalue()


def _compare(session: Any, step: _Step, arrays: dict[str, Tensor]) -> None:
    """Raises a MetaRLError unless the graph does on recorded steps what torch does."""
    count = len(step.memory)
    memory = step.first_memory()
    for now in zip(*arrays.values(), strict=True):
        given = [*now, *memory]
        expected = step(*given)
        feed = {name: x.numpy() for name, x in zip(step.input_names, given, strict=True)}
        found = session.run(step.output_names, feed)
        for name, x, y in zip(step.output_names[1:], expected[1:], found[1:], strict=True):
            if not np.allclose(x.numpy(), y, atol=_TOLERANCE, rtol=_TOLERANCE):
                raise MetaRLError(f"--onnx: {name} of the graph is not that of torch")
        memory = list(expected[len(expected) - count :])
