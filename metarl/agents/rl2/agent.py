"""RL² (Duan et al. 2016, arXiv:1611.02779; Wang et al. 2016, arXiv:1611.05763): the memory is the belief.

A trial is K episodes of one task. The policy sees (observation, previous action, previous reward, done) and keeps its
memory over the episodes of the trial, which becomes the learner; PPO (Schulman et al. 2017) maximises the return of the
whole trial, so that exploring in the first episode is paid for by the later ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metarl.agents.rl2 import config as settings
from metarl.algorithms.losses import ppo_loss, standardised
from metarl.algorithms.returns import gae
from metarl.config.schema import at
from metarl.core.agent import Mode, World
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import Acted, Belief, Inputs, Params, Spec, View, first_cue, replace, tree, tree_map, where
from metarl.nn.normalizer import Moments
from metarl.nn.policy import Policy, check_shapes
from metarl.options.option_policy import layered, skills_of
from metarl.options.pretrained import Skills

_TARGET_WINDOW = 10.0  # the moments of the value targets remember about so many iterations


@tree
class _Level:
    """What PPO needs of one decision process: a flat policy acts in one, options are another (see `Policy.views`)."""

    action: Tensor  # [T, N, M] or [T, N, M, A]
    log_prob: Tensor  # [T, N, M]
    advantage: Tensor  # [T, N, M], standardised over the iteration
    value_target: Tensor  # [T, N, M], standardised by running moments
    valid: Tensor  # [T, N, M] where something was decided


@tree
class _Trials:
    """N whole trials."""

    inputs: Inputs  # [T, N, M, …]
    levels: dict[str, _Level]

    def rows(self, chosen: Tensor) -> _Trials:
        """Some of them, whole: [T, n, M, …]."""
        return tree_map(lambda x: x.index_select(1, chosen), self)


class RL2:
    """The agent; its belief's lane is the memory, its row the task where that is shown."""

    lanes = 1

    def __init__(
        self, options: settings.RL2, spec: Spec, rng: Rng, device: torch.device, skills: Skills | None = None
    ) -> None:
        self.options = options
        self.task_input = options.task_input
        self.spec = spec
        self.device = device
        flat = Policy(
            input_width=Policy.width(spec, cue=self._remembers, task=spec.shown_width(options.task_input)),
            action_width=spec.action_width,
            discrete=spec.discrete,
            memory=options.memory,
            memory_width=options.memory_width,
            encoder=options.encoder,
            body=options.body,
            activation=options.activation,
            initial_std=options.initial_std,
            obs_width=spec.obs_width,
            pair_input=options.pair_input,
            readout=options.readout,
        )
        self.policy = layered(flat, options, skills)
        self.params: Params = {}
        self._optimise(self.policy.init(rng.child("weights").generator()))
        self.obs_moments = Moments.unknown(spec.obs_width, device)
        self.reward_moments = Moments.unknown(1, device)
        self.target_moments = Moments.unknown(0, device)
        """With a memory, one column a step of the trial: what is to come shrinks with it."""

    # -- meeting a task

    def begin(self, view: View, lanes: int) -> Belief:
        """An empty memory."""
        return Belief(
            cue=first_cue(self.spec, view.rows, lanes, view.device),
            row=() if view.shown is None else (view.shown,),
            lane=self.policy.start(view.rows, lanes, view.device),
        )

    def act(self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: Mode) -> tuple[Acted, Belief]:
        """Feed the last step's outcome and the new observation to the memory, and decide."""
        inputs = self._seen(belief, obs)
        begins = belief.cue[..., -1] == 1
        acted, memory = self.policy.act(self.params, self._scaled(inputs), belief.lane, begins, noise, counter, mode)
        return replace(acted, inputs=replace(inputs, option=acted.inputs.option)), replace(belief, lane=memory)

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Nothing to do: the memory has seen every step already, and the cue holds the last."""
        return belief

    @torch.no_grad()
    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """Feed the recorded steps to the memory as if they were one's own; where a lane waits, so does the memory."""
        lived = rollout.in_lanes(belief.cue.shape[1])
        for obs, valid, cue in zip(lived.inputs.obs, lived.valid, lived.cues(self.spec), strict=True):
            _, memory = self.policy.attend(self.params, self._scaled(self._seen(belief, obs)), belief.lane)
            belief = replace(belief, lane=where(valid, memory, belief.lane), cue=where(valid, cue, belief.cue))
        return belief

    def _seen(self, belief: Belief, obs: Tensor) -> Inputs:
        """All that the policy sees when it acts on obs [N, M, O]."""
        shown = [row.unsqueeze(1).expand(*obs.shape[:2], -1) for row in belief.row]
        return Inputs(obs=obs, cue=belief.cue if self._remembers else None, task=shown[0] if shown else None)

    @property
    def _remembers(self) -> bool:
        """Whether there is a memory, which cues are for."""
        return self.options.memory != "none"

    def skills(self) -> Skills | None:
        """What it does, as options for other agents."""
        return skills_of(self.policy, self.params, self._scaled)

    # -- meta-training

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Collect `trials` trials and improve the policy on them by PPO."""
        tasks = world.tasks(self.options.trials, rng)
        belief = self.begin(world.view(self, tasks), lanes=1)
        trial, _ = world.collect(self, belief, tasks, world.episodes, rng)
        batch = self._learnable(trial, trace=at(self.options.trace, world.progress))
        for group in self._optimiser.param_groups:
            group["lr"] = at(self.options.learning_rate, world.progress)

        metrics: list[dict[str, Tensor]] = []
        generator = rng.child("minibatches").generator()
        entropy_weight = {
            "action": at(self.options.entropy_weight, world.progress),
            "option": at(self.options.option_entropy_weight, world.progress),
        }
        minibatches = min(self.options.minibatches, len(tasks))
        for _ in range(self.options.epochs):
            for rows in torch.randperm(len(tasks), generator=generator).to(self.device).tensor_split(minibatches):
                metrics.append(self._update(batch.rows(rows), entropy_weight))

        self._watch(trial)
        logged = {name: float(torch.stack([m[name] for m in metrics]).mean()) for name in metrics[0]}
        returns = trial.episode_returns().mean((1, 2))
        return {
            "return": float(returns.sum()),
            "first_return": float(returns[0]),
            "last_return": float(returns[-1]),
            **logged,
            **self.policy.usage(trial),
        }

    def _learnable(self, trial: Rollout, trace: float) -> _Trials:
        """Advantages over whole trials: credit flows across the ends of episodes and stops at the end of the trial."""
        width = len(trial.valid) if self._remembers else 1  # without memory, nothing tells how much is to come
        moments = self.target_moments.columns(width)
        end = ~torch.cat([trial.valid[1:], torch.zeros_like(trial.valid[:1])])  # of the trial, not of an episode
        reward = trial.reward * trial.valid
        levels, targets = {}, []
        for name, view in self.policy.views(trial).items():
            value = _by_step(moments.restore, view.extras["value"]) * trial.valid
            next_value = torch.cat([value[1:], torch.zeros_like(value[:1])])
            advantage = gae(reward, value, next_value, end, self.options.discount, trace) * trial.valid
            targets.append(advantage + value)
            advantage = standardised(advantage, view.valid)
            levels[name] = _Level(view.action, view.log_prob, advantage, targets[-1], view.valid)
        seen, valid = torch.stack(targets), trial.valid.expand(len(targets), *trial.valid.shape)
        seen, valid = (x.movedim(1, -1).reshape(-1, width) for x in (seen, valid))
        moments = moments.update(seen, valid, _TARGET_WINDOW)
        self.target_moments = tree_map(lambda new, old: torch.cat([new, old[width:]]), moments, self.target_moments)
        return _Trials(
            inputs=self._scaled(trial.inputs),
            levels={
                name: replace(level, value_target=_by_step(moments.standardise, level.value_target))
                for name, level in levels.items()
            },
        )

    def _update(self, batch: _Trials, entropy_weight: dict[str, float]) -> dict[str, Tensor]:
        """One gradient step on some whole trials, their memory recomputed from the start."""
        rows, lanes = batch.inputs.obs.shape[1:3]
        decision = self.policy.unroll(self.params, batch.inputs, self.policy.start(rows, lanes, self.device))
        total, metrics = torch.zeros((), device=self.device), dict[str, Tensor]()
        for name, level in batch.levels.items():
            loss, found = ppo_loss(
                decision.levels[name],
                level.action,
                level.log_prob,
                level.advantage,
                level.value_target,
                level.valid,
                clip=self.options.clip,
                value_weight=self.options.value_weight,
                entropy_weight=entropy_weight[name],
            )
            total = total + loss
            metrics |= {key if name == "action" else f"{name}_{key}": value for key, value in found.items()}
        self._optimiser.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.params.values(), self.options.max_grad_norm)
        self._optimiser.step()
        return metrics | {"grad_norm": norm}

    # -- scales

    def _scaled(self, inputs: Inputs) -> Inputs:
        """Inputs as the policy takes them; the moments change between iterations only."""
        if self.options.normalise_obs:
            inputs = replace(inputs, obs=self.obs_moments.standardise(inputs.obs))
        if self.options.normalise_reward and inputs.cue is not None:
            action, reward, done = inputs.cue.split([self.spec.action_width, 1, 1], dim=-1)
            inputs = replace(inputs, cue=torch.cat([action, reward / self.reward_moments.scale, done], dim=-1))
        return inputs

    def _watch(self, trial: Rollout) -> None:
        if self.options.normalise_obs:
            self.obs_moments = self.obs_moments.update(trial.inputs.obs, trial.valid.unsqueeze(-1))
        if self.options.normalise_reward:
            self.reward_moments = self.reward_moments.update(trial.reward.unsqueeze(-1), trial.valid.unsqueeze(-1))

    # -- keeping

    def _optimise(self, params: Params) -> None:
        """Adopt parameters, with a fresh optimiser."""
        self.params = {name: value.to(self.device).requires_grad_() for name, value in params.items()}
        self._optimiser = torch.optim.Adam(self.params.values(), lr=1.0, eps=1e-5)

    def state_dict(self) -> dict[str, Any]:
        """Parameters, optimiser and moments."""
        return {
            "params": {name: value.detach().clone() for name, value in self.params.items()},
            "optimiser": copy.deepcopy(self._optimiser.state_dict()),
            "moments": {
                "obs": self.obs_moments.state_dict(),
                "reward": self.reward_moments.state_dict(),
                "target": self.target_moments.state_dict(),
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.warm_start(state)
        self._optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))  # torch would share its tensors

    def warm_start(self, state: dict[str, Any]) -> None:
        """Parameters and moments of another run; a fresh optimiser.

        Raises:
            Mistake: parameters of another architecture.
        """
        check_shapes(self.params, state.get("params", {}))
        self._optimise({name: value.clone() for name, value in state["params"].items()})
        moments = {name: Moments.from_state_dict(value, self.device) for name, value in state["moments"].items()}
        self.obs_moments, self.reward_moments, self.target_moments = (
            moments["obs"],
            moments["reward"],
            moments["target"],
        )


def _by_step(change: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`change`, which works on a last axis T, on x [T, N, M]."""
    return change(x.movedim(0, -1)).movedim(-1, 0)
