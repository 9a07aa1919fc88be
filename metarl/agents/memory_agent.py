"""Agents whose belief is the memory of one policy."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.agents.config import MemoryAgentConfig
from metarl.agents.learning_agent import LearningAgent, expand_to_lanes
from metarl.algorithms.policy_learner import PolicyLearner
from metarl.core.agent import Mode
from metarl.core.errors import note
from metarl.core.rng import Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Belief, Inputs, Spec, TaskInfo, first_cue, replace, where
from metarl.nn.image_encoder import make_image_encoder
from metarl.nn.memory import make_memory
from metarl.nn.policy import Policy


def make_policy(config: MemoryAgentConfig, spec: Spec, *, value_head: bool = True) -> Policy:
    """The policy of a configuration; it sees the cue if it remembers."""
    images = make_image_encoder(config, spec)
    return Policy.for_spec(
        spec,
        images,
        cue=config.memory != "none",
        task=spec.shown_width(config.task_input),
        memory=make_memory(config, spec, images),
        memory_width=config.memory_width,
        encoder_sizes=config.encoder_sizes,
        hidden_sizes=config.hidden_sizes,
        activation=config.activation,
        initial_std=config.initial_std,
        pair_input=config.pair_input,
        readout=config.readout,
        value_head=value_head,
    )


class MemoryAgent(LearningAgent):
    """The lane of its belief is the memory; the row is the task, if it is shown."""

    learner: PolicyLearner

    def __init__(self, config: MemoryAgentConfig, spec: Spec, device: torch.device):
        self.task_input = config.task_input
        self.spec = spec
        self.device = device
        self._sees_cue = config.memory != "none"
        self._context = config.context if config.memory == "transformer" else None

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """An empty memory."""
        steps = info.episodes * self.spec.horizon
        if self._context is not None and steps > self._context:
            note(
                f"transformer: trials of up to {steps} steps are seen through a window of "
                f"{self._context}; agent.context={steps} sees all of them"
            )
            self._context = None  # said once
        return Belief(
            cue=first_cue(self.spec, info.rows, lanes, info.device),
            row=info.shown,
            lane=self.learner.policy.start(info.rows, lanes, info.device),
        )

    def act(
        self,
        belief: Belief,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, Belief]:
        """Feed the last step's outcome and obs [N, M, O] to the memory, and choose an action."""
        inputs = self._inputs(belief, obs)
        begins = belief.cue[..., -1] == 1
        acted, memory = self.learner.act(inputs, belief.lane, begins, noise, counter, mode)
        return acted, replace(belief, lane=memory)

    @torch.no_grad()
    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """Feed recorded steps to the memory; in lanes that wait it stays as it is."""
        policy = self.learner.policy
        steps = rollout.reshape_lanes(belief.cue.shape[1])
        cues = steps.cues(self.spec)
        for obs, valid, cue in zip(steps.inputs.obs, steps.valid, cues, strict=True):
            inputs = self.learner.normalize(self._inputs(belief, obs))
            inputs = policy.encode_images(self.params, inputs)
            _, memory = policy.attend(self.params, inputs, belief.lane)
            memory = where(valid, memory, belief.lane)
            belief = replace(belief, lane=memory, cue=where(valid, cue, belief.cue))
        return belief

    def _inputs(self, belief: Belief, obs: Tensor) -> Inputs:
        """What the policy sees on obs [N, M, O], not normalized."""
        inputs = Inputs(obs, task=expand_to_lanes(belief.row, obs))
        if self._sees_cue:
            inputs = replace(inputs, cue=belief.cue)
        return inputs
