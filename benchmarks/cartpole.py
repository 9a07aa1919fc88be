"""CartPole whose force and its sign are hidden, as a user would write it.

CART=benchmarks/cartpole.py:UnknownCart
metarl config --suggest $CART > suggested.yaml
metarl train suggested.yaml family=$CART env_steps=1_000_000 --seeds 0,1,2
metarl train rl2/point family=$CART env_steps=1_000_000 --seeds 0,1,2
"""

import gymnasium

from metarl.adapters.gymnasium import GymnasiumFamily


class UnknownCart(GymnasiumFamily):
    """Pushes of unknown strength and direction."""

    splits = ("train", "validation", "test")

    def build(self):
        return gymnasium.make("CartPole-v1", max_episode_steps=200)

    def row(self, split, rng):
        return [rng.uniform(5, 15) * rng.choice([-1, 1])]

    def apply(self, env, row):
        env.unwrapped.force_mag = row[0]
