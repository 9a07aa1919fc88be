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

from metarl.agents.rl2.config import RL2Config
from metarl.algorithms.losses import ppo_loss, standardize
from metarl.algorithms.returns import gae
from metarl.config.schema import schedule_value
from metarl.core.agent import Mode, World
from metarl.core.rng import Rng, Streams
from metarl.core.rollout import Rollout
from metarl.core.types import (
    Acted,
    Belief,
    Inputs,
    Params,
    Spec,
    TaskInfo,
    first_cue,
    replace,
    tree,
    tree_map,
    where,
)
from metarl.nn.normalizer import Normalizer
from metarl.nn.policy import Policy, check_shapes
from metarl.options.option_policy import options_from_policy, with_options
from metarl.options.pretrained import PretrainedOptions

_TARGET_WINDOW = 10.0  # the moments of the value targets remember about so many iterations


@tree
class _Level:
    """What PPO needs of one decision process: a flat policy acts in one, options are another (see `Policy.decision_processes`)."""

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
        self,
        config: RL2Config,
        spec: Spec,
        rng: Rng,
        device: torch.device,
        skills: PretrainedOptions | None = None,
    ) -> None:
        self.config = config
        self.task_input = config.task_input
        self.spec = spec
        self.device = device
        flat = Policy(
            input_width=Policy.width(
                spec, cue=self._remembers, task=spec.shown_width(config.task_input)
            ),
            action_width=spec.action_width,
            discrete=spec.discrete,
            memory=config.memory,
            memory_width=config.memory_width,
            encoder_sizes=config.encoder_sizes,
            hidden_sizes=config.hidden_sizes,
            activation=config.activation,
            initial_std=config.initial_std,
            obs_width=spec.obs_width,
            pair_input=config.pair_input,
            readout=config.readout,
        )
        self.policy = with_options(flat, config, skills)
        self.params: Params = {}
        self._set_params(self.policy.init(rng.child("weights").generator()))
        self.obs_normalizer = Normalizer.initial(spec.obs_width, device)
        self.reward_normalizer = Normalizer.initial(1, device)
        self.value_normalizer = Normalizer.initial(0, device)
        """With a memory, one column a step of the trial: what is to come shrinks with it."""

    # -- meeting a task

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """An empty memory."""
        return Belief(
            cue=first_cue(self.spec, info.rows, lanes, info.device),
            row=() if info.shown is None else (info.shown,),
            lane=self.policy.start(info.rows, lanes, info.device),
        )

    def act(
        self, belief: Belief, obs: Tensor, noise: Streams, counter: int, mode: Mode
    ) -> tuple[Acted, Belief]:
        """Feed the last step's outcome and the new observation to the memory, and decide."""
        inputs = self._seen(belief, obs)
        begins = belief.cue[..., -1] == 1
        acted, memory = self.policy.act(
            self.params, self._normalize_inputs(inputs), belief.lane, begins, noise, counter, mode
        )
        return replace(acted, inputs=replace(inputs, option=acted.inputs.option)), replace(
            belief, lane=memory
        )

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Nothing to do: the memory has seen every step already, and the cue holds the last."""
        return belief

    @torch.no_grad()
    def replay(self, belief: Belief, rollout: Rollout) -> Belief:
        """Feed the recorded steps to the memory as if they were one's own; where a lane waits, so does the memory."""
        lived = rollout.reshape_lanes(belief.cue.shape[1])
        for obs, valid, cue in zip(
            lived.inputs.obs, lived.valid, lived.cues(self.spec), strict=True
        ):
            _, memory = self.policy.attend(
                self.params, self._normalize_inputs(self._seen(belief, obs)), belief.lane
            )
            belief = replace(
                belief, lane=where(valid, memory, belief.lane), cue=where(valid, cue, belief.cue)
            )
        return belief

    def _seen(self, belief: Belief, obs: Tensor) -> Inputs:
        """All that the policy sees when it acts on obs [N, M, O]."""
        shown = [row.unsqueeze(1).expand(*obs.shape[:2], -1) for row in belief.row]
        return Inputs(
            obs=obs, cue=belief.cue if self._remembers else None, task=shown[0] if shown else None
        )

    @property
    def _remembers(self) -> bool:
        """Whether there is a memory, which cues are for."""
        return self.config.memory != "none"

    def skills(self) -> PretrainedOptions | None:
        """What it does, as options for other agents."""
        return options_from_policy(self.policy, self.params, self._normalize_inputs)

    # -- meta-training

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """Collect `trials` trials and improve the policy on them by PPO."""
        tasks = world.tasks(self.config.trials, rng)
        belief = self.begin(world.task_info(self, tasks), lanes=1)
        trial, _ = world.collect(self, belief, tasks, world.episodes, rng)
        batch = self._prepare_batch(
            trial, gae_lambda=schedule_value(self.config.gae_lambda, world.progress)
        )
        for group in self._optimizer.param_groups:
            group["lr"] = schedule_value(self.config.learning_rate, world.progress)

        metrics: list[dict[str, Tensor]] = []
        generator = rng.child("minibatches").generator()
        entropy_coef = {
            "action": schedule_value(self.config.entropy_coef, world.progress),
            "option": schedule_value(self.config.option_entropy_coef, world.progress),
        }
        minibatches = min(self.config.minibatches, len(tasks))
        for _ in range(self.config.epochs):
            for rows in (
                torch.randperm(len(tasks), generator=generator)
                .to(self.device)
                .tensor_split(minibatches)
            ):
                metrics.append(self._update(batch.rows(rows), entropy_coef))

        self._update_normalizers(trial)
        logged = {
            name: float(torch.stack([m[name] for m in metrics]).mean()) for name in metrics[0]
        }
        returns = trial.episode_returns().mean((1, 2))
        return {
            "return": float(returns.sum()),
            "first_return": float(returns[0]),
            "last_return": float(returns[-1]),
            **logged,
            **self.policy.usage(trial),
        }

    def _prepare_batch(self, trial: Rollout, gae_lambda: float) -> _Trials:
        """Advantages over whole trials: credit flows across the ends of episodes and stops at the end of the trial."""
        width = (
            len(trial.valid) if self._remembers else 1
        )  # without memory, nothing tells how much is to come
        moments = self.value_normalizer.columns(width)
        end = ~torch.cat(
            [trial.valid[1:], torch.zeros_like(trial.valid[:1])]
        )  # of the trial, not of an episode
        reward = trial.reward * trial.valid
        levels, targets = {}, []
        for name, process in self.policy.decision_processes(trial).items():
            value = _by_step(moments.denormalize, process.extras["value"]) * trial.valid
            next_value = torch.cat([value[1:], torch.zeros_like(value[:1])])
            advantage = (
                gae(reward, value, next_value, end, self.config.gamma, gae_lambda) * trial.valid
            )
            targets.append(advantage + value)
            advantage = standardize(advantage, process.valid)
            levels[name] = _Level(
                process.action, process.log_prob, advantage, targets[-1], process.valid
            )
        seen, valid = torch.stack(targets), trial.valid.expand(len(targets), *trial.valid.shape)
        seen, valid = (x.movedim(1, -1).reshape(-1, width) for x in (seen, valid))
        moments = moments.update(seen, valid, _TARGET_WINDOW)
        self.value_normalizer = tree_map(
            lambda new, old: torch.cat([new, old[width:]]), moments, self.value_normalizer
        )
        return _Trials(
            inputs=self._normalize_inputs(trial.inputs),
            levels={
                name: replace(level, value_target=_by_step(moments.normalize, level.value_target))
                for name, level in levels.items()
            },
        )

    def _update(self, batch: _Trials, entropy_coef: dict[str, float]) -> dict[str, Tensor]:
        """One gradient step on some whole trials, their memory recomputed from the start."""
        rows, lanes = batch.inputs.obs.shape[1:3]
        decision = self.policy.unroll(
            self.params, batch.inputs, self.policy.start(rows, lanes, self.device)
        )
        total, metrics = torch.zeros((), device=self.device), dict[str, Tensor]()
        for name, level in batch.levels.items():
            loss, found = ppo_loss(
                decision.levels[name],
                level.action,
                level.log_prob,
                level.advantage,
                level.value_target,
                level.valid,
                clip_range=self.config.clip_range,
                value_coef=self.config.value_coef,
                entropy_coef=entropy_coef[name],
            )
            total = total + loss
            metrics |= {
                key if name == "action" else f"{name}_{key}": value for key, value in found.items()
            }
        self._optimizer.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.params.values(), self.config.max_grad_norm)
        self._optimizer.step()
        return metrics | {"grad_norm": norm}

    # -- scales

    def _normalize_inputs(self, inputs: Inputs) -> Inputs:
        """Inputs as the policy takes them; the moments change between iterations only."""
        if self.config.normalize_obs:
            inputs = replace(inputs, obs=self.obs_normalizer.normalize(inputs.obs))
        if self.config.normalize_reward and inputs.cue is not None:
            action, reward, done = inputs.cue.split([self.spec.action_width, 1, 1], dim=-1)
            inputs = replace(
                inputs, cue=torch.cat([action, reward / self.reward_normalizer.scale, done], dim=-1)
            )
        return inputs

    def _update_normalizers(self, trial: Rollout) -> None:
        if self.config.normalize_obs:
            self.obs_normalizer = self.obs_normalizer.update(
                trial.inputs.obs, trial.valid.unsqueeze(-1)
            )
        if self.config.normalize_reward:
            self.reward_normalizer = self.reward_normalizer.update(
                trial.reward.unsqueeze(-1), trial.valid.unsqueeze(-1)
            )

    # -- keeping

    def _set_params(self, params: Params) -> None:
        """Adopt parameters, with a fresh optimiser."""
        self.params = {
            name: value.to(self.device).requires_grad_() for name, value in params.items()
        }
        self._optimizer = torch.optim.Adam(self.params.values(), lr=1.0, eps=1e-5)

    def state_dict(self) -> dict[str, Any]:
        """Parameters, optimiser and moments."""
        return {
            "params": {name: value.detach().clone() for name, value in self.params.items()},
            "optimiser": copy.deepcopy(self._optimizer.state_dict()),
            "moments": {
                "obs": self.obs_normalizer.state_dict(),
                "reward": self.reward_normalizer.state_dict(),
                "target": self.value_normalizer.state_dict(),
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.warm_start(state)
        self._optimizer.load_state_dict(
            copy.deepcopy(state["optimiser"])
        )  # torch would share its tensors

    def warm_start(self, state: dict[str, Any]) -> None:
        """Parameters and moments of another run; a fresh optimiser.

        Raises:
            ConfigError: parameters of another architecture.
        """
        check_shapes(self.params, state.get("params", {}))
        self._set_params({name: value.clone() for name, value in state["params"].items()})
        moments = {
            name: Normalizer.from_state_dict(value, self.device)
            for name, value in state["moments"].items()
        }
        self.obs_normalizer, self.reward_normalizer, self.value_normalizer = (
            moments["obs"],
            moments["reward"],
            moments["target"],
        )


def _by_step(change: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`change`, which works on a last axis T, on x [T, N, M]."""
    return change(x.movedim(0, -1)).movedim(-1, 0)
