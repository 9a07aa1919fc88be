"""Algorithms of Stable-Baselines3 (Raffin et al. 2021, JMLR 22:268), trained in their own loop.

Their policy has no memory, or is shown the task: a baseline for what adapts. `RecurrentPPO` of
sb3-contrib is RL² made independently: a trial is an episode of it, whose observations have a cue.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.her import HerReplayBuffer
from torch import Tensor, nn
from torch.distributions import Categorical as TorchCategorical

from metarl.adapters.sb3 import FamilyVecEnv, TrialVecEnv
from metarl.adapters.task_observation import observed
from metarl.adapters.vector import FamilyVectorEnv
from metarl.agents.learning_agent import LearningAgent, expand_to_lanes
from metarl.agents.sb3.config import SB3Config
from metarl.agents.sb3.model import make_model, model_bytes, restore_model
from metarl.core.agent import Mode, World
from metarl.core.errors import ConfigError, MetaRLError, note
from metarl.core.family import Family
from metarl.core.rng import Rng, Streams, seeding_globals
from metarl.core.types import (
    Acted,
    Belief,
    Inputs,
    Params,
    Spec,
    TaskInfo,
    first_cue,
    replace,
)
from metarl.nn.distributions import (
    Categorical,
    Gaussian,
    MultiCategorical,
    Primitive,
    SquashedGaussian,
)

_CPU = torch.device("cpu")
_NEVER = sys.maxsize  # an interval


class SB3(LearningAgent):
    """The agent. The lane of its belief is the LSTM's state; the row is the task, if it is shown.

    Continuous actions are as its environments get them, within ±1; `log_prob` is that of the draw
    before it is clipped, and 0 for TD3, which draws none.
    """

    def __init__(
        self,
        config: SB3Config,
        spec: Spec,
        rng: Rng,
        device: torch.device,
        model: Any = None,
    ):
        """`model`: a trained one of Stable-Baselines3, to act by."""
        self.config = config
        self.task_input = config.task_input
        self.spec = spec
        self.device = device
        self._rng = rng
        self.model = self._untrained() if model is None else model
        self.model.policy.set_training_mode(False)

    def _untrained(self) -> Any:
        with seeding_globals(_seed(self._rng.child("weights"))):
            model = make_model(self.config, self.spec, self.device)
        model.policy.set_training_mode(False)
        return model

    # -- a trial on a task

    def begin(self, info: TaskInfo, lanes: int) -> Belief:
        """An empty memory."""
        lane: Any = ()
        if self.config.recurrent:
            layers, _, width = self.model.policy.lstm_hidden_state_shape
            zeros = torch.zeros(info.rows, lanes, layers, width, device=info.device)
            lane = (zeros, zeros)
        return Belief(first_cue(self.spec, info.rows, lanes, info.device), info.shown, lane)

    @torch.no_grad()
    def act(
        self,
        belief: Belief,
        obs: Tensor,
        noise: Streams,
        counter: int,
        mode: Mode,
    ) -> tuple[Acted, Belief]:
        """Choose an action; the most likely one is that of ``predict(…, deterministic=True)``."""
        inputs = Inputs(obs, task=expand_to_lanes(belief.row, obs))
        if self.config.recurrent:
            inputs = replace(inputs, cue=belief.cue)
        if self.config.algorithm == "td3":
            action = self.model.policy.actor(self._observed(inputs)).unflatten(0, obs.shape[:2])
            return Acted(inputs, _unscaled(action), torch.zeros_like(obs[..., 0])), belief
        distribution, belief = self._distribution(inputs, belief)
        if isinstance(distribution, SquashedGaussian):
            normal = noise.normal(counter, self.spec.action_width) * (mode == "sample")
            action, log_prob = distribution.draw(normal)
            return Acted(inputs, _unscaled(action), log_prob), belief
        sampled = mode == "sample"
        action = distribution.sample(noise, counter) if sampled else distribution.mode()
        log_prob = distribution.log_prob(action)
        if not self.spec.discrete:
            action = action.clamp(-1.0, 1.0)
        return Acted(inputs, action, log_prob), belief

    def _distribution(
        self, inputs: Inputs, belief: Belief
    ) -> tuple[Primitive | SquashedGaussian, Belief]:
        """That of actions [N, M], and the belief with the memory after these inputs."""
        size = inputs.obs.shape[:2]
        observed, policy = self._observed(inputs), self.model.policy
        if self.config.recurrent:
            states = tuple(x.flatten(0, 1).transpose(0, 1).contiguous() for x in belief.lane)
            starts = torch.zeros(size.numel(), device=self.device)
            drawn, states = policy.get_distribution(observed, states, starts)
            lane = tuple(x.transpose(0, 1).unflatten(0, size) for x in states)
            belief = replace(belief, lane=lane)
        elif self.config.on_policy:
            drawn = policy.get_distribution(observed)
        else:
            mean, log_std, more = policy.actor.get_action_dist_params(observed)
            drawn = policy.actor.action_dist.proba_distribution(mean, log_std, **more)
        theirs = drawn.distribution
        if isinstance(theirs, list):
            each = (Categorical(choice.logits.unflatten(0, size)) for choice in theirs)
            return MultiCategorical(tuple(each)), belief
        if isinstance(theirs, TorchCategorical):
            return Categorical(theirs.logits.unflatten(0, size)), belief
        mean, log_std = (x.unflatten(0, size) for x in (theirs.mean, theirs.stddev.log()))
        kind = SquashedGaussian if self._acting.squash_output else Gaussian
        return kind(mean, log_std), belief

    def _observed(self, inputs: Inputs) -> Any:
        """What the policy observes [N · M, …], as its environments show it."""
        shown = inputs.task
        if shown is None:
            shown = inputs.obs[..., :0].float()
        parts = observed(self.spec, self.task_input, inputs.obs, shown)
        if isinstance(parts, dict):
            return {name: _channels_first(x.flatten(0, 1)) for name, x in parts.items()}
        if inputs.cue is not None:
            parts = torch.cat([parts, inputs.cue], dim=-1)
        return _channels_first(parts.flatten(0, 1))

    # -- training

    def iterate(self, world: World, rng: Rng) -> dict[str, float]:
        """A chunk of `learn` on environments of their own, whose episodes begin anew."""
        model = self.model
        envs = VecMonitor(self._envs(world, rng))
        if isinstance(getattr(model, "replay_buffer", None), HerReplayBuffer):
            model.replay_buffer.env = envs
        placeholder, before, seed = model.env, model.num_timesteps, _seed(rng.child("learning"))
        model.set_env(envs)
        episodes = _Episodes()
        with seeding_globals(seed), _paced(model, world.progress):
            envs.seed(seed)
            model.action_space.seed(seed)
            if self.config.on_policy:
                steps = model.n_steps * model.n_envs
            else:
                steps = self.config.iteration_steps
                self._prepare_replay(episodes)
            self._learn(steps, episodes)
            model.predict(model._last_obs, deterministic=True)  # lets go of the graph of the loss
        model.set_env(placeholder)
        model.policy.set_training_mode(False)
        world.env_steps += model.num_timesteps - before
        return {"return": float(np.mean(episodes.returns)), **self._logged()}

    def _learn(self, steps: int, episodes: BaseCallback) -> None:
        self.model.learn(steps, episodes, log_interval=_NEVER, reset_num_timesteps=False)

    def _envs(self, world: World, rng: Rng) -> VecEnv:
        """Environments of the training tasks of an iteration.

        Raises:
            MetaRLError: the world has no family to make them of.
            ConfigError: no episode would end within an iteration.
        """
        family: Family | None = getattr(world, "family", None)
        if family is None:
            raise MetaRLError(
                "sb3: Stable-Baselines3 steps environments itself: train in a world that has a "
                f"family, such as local; {type(world).__name__} has none"
            )
        config = self.config
        self._require_episodes(world)
        tasks, places = world.tasks(config.tasks, rng), None
        if config.task_input == "onehot":
            assert world.train_set is not None
            if len(tasks) > len(world.train_set):
                raise ConfigError(
                    f"agent.tasks: {len(tasks)} of {len(world.train_set)} training tasks; set "
                    "lanes instead"
                )
            tasks, places = world.train_set, tasks.index.tolist()
        tasks, shown = tasks.to(_CPU), config.task_input
        if config.recurrent:
            return TrialVecEnv(
                family, tasks, episodes=world.episodes, num_envs=config.lanes, task_input=shown
            )
        envs = FamilyVectorEnv(family, tasks, task=places, lanes=config.lanes, task_input=shown)
        return FamilyVecEnv(envs)

    def _require_episodes(self, world: World) -> None:
        """Raises a ConfigError where no episode ends within an iteration."""
        config, model = self.config, self.model
        name, steps = "iteration_steps", config.iteration_steps // model.n_envs
        if config.on_policy:
            name, steps = "arguments: n_steps", model.n_steps
        longest, what = self.spec.horizon, "episodes"
        if config.recurrent:
            longest, what = longest * world.episodes, "trials"
        if steps < longest:
            raise ConfigError(
                f"agent.{name}: an iteration has {steps} steps in each of {model.n_envs} "
                f"environments, where {what} begin anew; they last up to {longest}: raise it"
            )
        whole = longest * model.n_envs
        if config.hindsight and model.learning_starts < whole:
            raise ConfigError(
                f"agent.arguments: learning_starts: hindsight needs whole episodes; set {whole}"
            )

    def _prepare_replay(self, episodes: BaseCallback) -> None:
        """End the episodes that are under way in the replay buffer, as by a time limit.

        Where it was lost, fill it before learning goes on.
        """
        model = self.model
        buffer = model.replay_buffer
        if isinstance(buffer, HerReplayBuffer):
            last = buffer._current_ep_start != buffer.pos
            for env in np.flatnonzero(last).tolist():
                buffer.dones[buffer.pos - 1, env] = True
                buffer.timeouts[buffer.pos - 1, env] = True
                buffer._compute_episode_length(env)
        else:
            buffer.timeouts[buffer.pos - 1] = 1 - buffer.dones[buffer.pos - 1]
        if model.num_timesteps and not buffer.size():
            note(
                "sb3: the replay buffer is not kept in checkpoints: it is filled anew by "
                f"{model.learning_starts} steps, so the run goes on, but not bit-exact"
            )
            updates, model.gradient_steps = model.gradient_steps, 0
            self._learn(model.learning_starts, episodes)
            model.gradient_steps = updates

    def _logged(self) -> dict[str, float]:
        """What Stable-Baselines3 recorded of its learning."""
        values: dict[str, Any] = dict(self.model.logger.name_to_value)
        self.model.logger.dump()
        metrics = {}
        for name, value in values.items():
            group, _, key = name.rpartition("/")
            # of values that are all the same, nothing is explained
            if group == "train" and not (key == "explained_variance" and isnan(value)):
                metrics[key] = float(value)
        return metrics

    # -- checkpoints

    @property
    def _acting(self) -> nn.Module:
        """The part of the policy that chooses actions."""
        policy = self.model.policy
        acting: nn.Module = policy if self.config.on_policy else policy.actor
        return acting

    @property
    def params(self) -> Params:
        """Of the policy, or of the actor where there is one apart."""
        return dict(self._acting.named_parameters())

    def acting_state(self) -> dict[str, Any]:
        """The parameters and statistics of the policy, or of the actor."""
        return {"params": {name: x.clone() for name, x in self._acting.state_dict().items()}}

    def state_dict(self) -> dict[str, Any]:
        """The acting state, and the bytes of Stable-Baselines3's own file as "model_zip"."""
        blank = make_model(self.config, self.spec, self.device, whole=False)
        data = bytearray(model_bytes(self.model, blank))
        return self.acting_state() | {"model_zip": torch.frombuffer(data, dtype=torch.uint8)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, with an empty replay buffer."""
        model = self._untrained()
        restore_model(model, state["model_zip"].numpy().tobytes())
        self.model = model

    def warm_start(self, state: dict[str, Any]) -> None:
        """Take over the policy of another agent; all else is as before training.

        Raises:
            ConfigError: parameters of another architecture.
        """
        self.model = self._untrained()
        try:
            self._acting.load_state_dict(state["params"])
        except RuntimeError as error:
            raise ConfigError(f"warm_start: {' '.join(str(error).split()):.200}") from error
        if hasattr(self.model, "actor_target"):
            self.model.actor_target.load_state_dict(self._acting.state_dict())


class _Episodes(BaseCallback):
    """The returns of the episodes that end, of trials in the place of episodes."""

    def __init__(self) -> None:
        super().__init__()
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        self.returns += [info["episode"]["r"] for info in infos if "episode" in info]
        return True


@contextmanager
def _paced(model: Any, progress: float) -> Iterator[None]:
    """Within, schedules see the `progress` of the whole training, not of a chunk."""
    model._current_progress_remaining = 1.0 - progress
    vars(model)["_update_current_progress_remaining"] = lambda *chunk: None
    try:
        yield
    finally:
        del vars(model)["_update_current_progress_remaining"]


def _seed(rng: Rng) -> int:
    return rng.key & 0xFFFF_FFFF


def _unscaled(action: Tensor) -> Tensor:
    """As `unscale_action` rounds it for the bounds ±1."""
    return -1.0 + 0.5 * (action + 1.0) * 2.0


def _channels_first(x: Tensor) -> Tensor:
    """Images [B, height, width, channels] as Stable-Baselines3 has them; all else as it is."""
    return x.movedim(-1, 1) if x.dim() == 4 else x
