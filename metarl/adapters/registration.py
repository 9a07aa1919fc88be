"""Registers every family with Gymnasium; to be imported by those who make environments by name::

    import gymnasium
    import metarl.adapters.registration

    env = gymnasium.make("metarl/point-v0", split="test", task=3, task_input="row", goal_range=0.3)
    envs = gymnasium.make_vec("metarl/point-v0", num_envs=8, split="test")

or in a string alone, ``"metarl.adapters.registration:metarl/point-v0"``. (Gymnasium has no entry
points of its own since 1.0.) Stable-Baselines3 makes environments by these names, too. Keyword
arguments are those of `metarl.adapters.vector.make_env`, `make_vector_env` and `draw`, and the
family's own hyper-parameters. Imports no torch: a family is imported when it is made.
"""

import gymnasium

from metarl.config.registry import names

for _name in names("family"):
    gymnasium.register(
        f"metarl/{_name}-v0",
        entry_point="metarl.adapters.vector:make_env",
        vector_entry_point="metarl.adapters.vector:make_vector_env",
        kwargs={"family": _name},
    )
