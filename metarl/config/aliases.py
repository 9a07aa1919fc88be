"""Other names of our keys: those of version 0.5 keep loading, other libraries' are answered."""

from collections.abc import Collection, Mapping
from typing import Any

from metarl.core.errors import ConfigError

RENAMED = {
    "backtracks": "line_search_steps",
    "batch": "batch_size",
    "body": "hidden_sizes",
    "clip": "clip_range",
    "conjugate_gradients": "cg_iterations",
    "context": "context_size",
    "discount": "gamma",
    "encoder": "encoder_sizes",
    "entropy_weight": "entropy_coef",
    "kl_weight": "kl_coef",
    "lanes": "episodes_per_task",
    "meta_batch": "meta_batch_size",
    "normalise_obs": "normalize_obs",
    "normalise_reward": "normalize_reward",
    "option_entropy_weight": "option_entropy_coef",
    "ready_made": "pretrained_options",
    "regularisation": "regularization",
    "sub_body": "sub_hidden_sizes",
    "target_rate": "tau",
    "trace": "gae_lambda",
    "value_weight": "value_coef",
    "variant": "preset",
}
"""Key of version 0.5 → key of today, wherever a class has the second and not the first."""

FOREIGN = {
    "alpha": "temperature",
    "buffer_size": "capacity",
    "cg_damping": "damping",
    "cg_iters": "cg_iterations",
    "cg_max_steps": "cg_iterations",
    "clip_coef": "clip_range",
    "clip_eps": "clip_range",
    "clip_param": "clip_range",
    "discount_factor": "gamma",
    "ent_coef": "entropy_coef",
    "fast_lr": "step_sizes",
    "gradient_steps": "updates",
    "hidden_dims": "hidden_sizes",
    "hidden_size": "memory_width",
    "inner_lr": "step_sizes",
    "kl_lambda": "kl_coef",
    "lam": "gae_lambda",
    "lambda_": "gae_lambda",
    "latent_dim": "latent_width",
    "line_search_max_steps": "line_search_steps",
    "lr": "learning_rate",
    "max_kl_step": "max_kl",
    "meta_lr": "learning_rate",
    "n_epochs": "epochs",
    "net_arch": "hidden_sizes",
    "num_inner_grad_steps": "inner_steps",
    "num_minibatches": "minibatches",
    "num_steps": "inner_steps",
    "n_itr": "iterations",
    "num_iterations": "iterations",
    "polyak": "tau",
    "ppo_epoch": "epochs",
    "replay_size": "capacity",
    "soft_target_tau": "tau",
    "target_kl": "max_kl",
    "total_timesteps": "env_steps",
    "update_epochs": "epochs",
    "value_loss_coef": "value_coef",
    "vf_coef": "value_coef",
}
"""Key of garage, CleanRL, Stable-Baselines3, learn2learn or ProMP → ours of the same meaning."""


def current(key: str) -> str:
    """The key of today for one of version 0.5."""
    return RENAMED.get(key, key)


def translate(
    given: Mapping[str, Any], known: Collection[str], place: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """`given` with the keys of today, of which there are `known`.

    Returns:
        The translated mapping, and each of its keys as it was written.

    Raises:
        ConfigError: two keys at `place` mean the same.
    """
    translated: dict[str, Any] = {}
    written: dict[str, str] = {}
    for key, value in given.items():
        new = current(key) if key not in known and current(key) in known else key
        if new in translated:
            raise ConfigError(
                f"{place}{key}: means the same as {place}{written[new]}; give one of them"
            )
        translated[new] = value
        written[new] = key
    return translated, written
