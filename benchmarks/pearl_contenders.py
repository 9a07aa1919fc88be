"""The contenders of pearl_speed.py: a gradient step of each, same widths, as much random data."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch

# Each process imports what its contender needs: one environment seldom has all of it.

TASKS, STEPS = 100, 1000  # tasks that have a buffer, and transitions in each


@dataclass(frozen=True)
class Workload:
    obs: int
    action: int
    tasks: int  # of a gradient step
    batch: int  # transitions of each
    context: int
    encoder: tuple[int, ...]
    body: tuple[int, ...]
    steps: int  # of a turn
    latent: int = 5


WORKLOADS = {
    "half-cheetah-vel": Workload(20, 6, 16, 256, 100, (200, 200, 200), (300, 300, 300), steps=10),
    "small": Workload(2, 2, 4, 64, 64, (64, 64, 64), (64, 64, 64), steps=200),
}


def metarl_agent(work: Workload, **options):
    """Our agent, with nothing in its replay."""
    from metarl.core.types import Spec
    from metarl.experiments.building import make_agent

    spec = Spec("random", {"obs": work.obs}, work.action, discrete=False, horizon=200, task_width=1)
    return make_agent(
        "pearl",
        spec,
        latent_width=work.latent,
        encoder_sizes=work.encoder,
        hidden_sizes=work.body,
        meta_batch_size=work.tasks,
        batch_size=work.batch,
        context_size=work.context,
        **options,
    )


def rollout(work: Workload, steps: int):
    """A random rollout of `steps` of every task."""
    from metarl.core.rollout import Rollout
    from metarl.core.types import Inputs

    axes = (steps, TASKS, 1)
    nothing = torch.zeros(axes, dtype=torch.bool)
    return Rollout(
        inputs=Inputs(torch.randn(*axes, work.obs)),
        action=2 * torch.rand(*axes, work.action) - 1,
        log_prob=torch.zeros(axes),
        reward=torch.randn(axes),
        next_obs=torch.randn(*axes, work.obs),
        terminated=nothing,
        truncated=(torch.arange(1, steps + 1) % 200 == 0).view(-1, 1, 1).expand(axes),
        valid=~nothing,
        index=torch.arange(TASKS),
    )


def metarl(work: Workload) -> Callable[[], object]:
    """Ours, as in `iterate`."""
    agent, generator = metarl_agent(work), torch.Generator().manual_seed(0)
    agent.buffer.begin_context(torch.arange(TASKS))
    agent.buffer.add(rollout(work, STEPS), context=True)
    kl_coef = agent.config.kl_coef
    return lambda: agent._update(
        *agent._sample_batches(None, None, agent._draw_tasks(generator), generator),
        kl_coef,
        generator,
    )


def oyster(work: Workload, path: str) -> Callable[[], object]:
    """Theirs, built as in its launch_experiment.py, with the settings of its configs/default.py."""
    import numpy as np

    sys.path.insert(0, path)
    if find_spec("gym") is None:
        import gymnasium

        sys.modules |= {"gym": gymnasium, "gym.spaces": gymnasium.spaces}
    if find_spec("gtimer") is None:
        sys.modules["gtimer"] = types.ModuleType("gtimer")
    from rlkit.data_management.env_replay_buffer import Box
    from rlkit.torch.networks import FlattenMlp, MlpEncoder
    from rlkit.torch.sac.agent import PEARLAgent
    from rlkit.torch.sac.policies import TanhGaussianPolicy
    from rlkit.torch.sac.sac import PEARLSoftActorCritic

    torch.distributions.Distribution.set_default_validate_args(False)
    seen, body = work.obs + work.latent, list(work.body)
    inference = {"recurrent": False, "use_information_bottleneck": True}
    inference |= {"sparse_rewards": False, "use_next_obs_in_context": False}
    encoder = MlpEncoder(
        hidden_sizes=list(work.encoder),
        input_size=work.obs + work.action + 1,
        output_size=2 * work.latent,
    )
    policy = TanhGaussianPolicy(
        hidden_sizes=body, obs_dim=seen, latent_dim=work.latent, action_dim=work.action
    )
    critics = [
        FlattenMlp(hidden_sizes=body, input_size=width, output_size=1)
        for width in (seen + work.action, seen + work.action, seen)
    ]
    algorithm = PEARLSoftActorCritic(
        env=types.SimpleNamespace(
            observation_space=Box(-np.inf, np.inf, (work.obs,), np.float32),
            action_space=Box(-1, 1, (work.action,), np.float32),
        ),
        train_tasks=list(range(TASKS)),
        eval_tasks=[],
        nets=[PEARLAgent(work.latent, encoder, policy, **inference), *critics],
        latent_dim=work.latent,
        meta_batch=work.tasks,
        batch_size=work.batch,
        embedding_batch_size=work.context,
        embedding_mini_batch_size=work.context,
        replay_buffer_size=STEPS,
        **dict.fromkeys(("policy_lr", "qf_lr", "vf_lr", "context_lr"), 0.0003),
        **inference,
        discount=0.99,
        soft_target_tau=0.005,
        reward_scale=5.0,
        kl_lambda=0.1,
    )
    rng = np.random.default_rng(0)
    for buffer in (algorithm.replay_buffer, algorithm.enc_replay_buffer):
        for task in range(TASKS):
            obs, after = rng.standard_normal((2, STEPS, work.obs))
            actions, rewards = rng.uniform(-1, 1, (STEPS, work.action)), rng.standard_normal(STEPS)
            for step in zip(obs, actions, rewards, [0] * STEPS, after, strict=True):
                buffer.add_sample(task, *step, env_info={})
    algorithm.training_mode(True)
    return lambda: algorithm._do_training(np.random.choice(TASKS, work.tasks))
