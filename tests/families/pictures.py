"""Environments of a user that show images, make several choices at once, and rule some out."""

import gymnasium
import numpy as np
from gymnasium import spaces

from metarl.adapters.gymnasium import GymnasiumFamily

HORIZON = 5
HEIGHT, WIDTH = 10, 12
MASK = ([1, 1, 0], [1, 1])


class Lights(gymnasium.Env):
    """A picture with a bright column; the reward says whether the first choice is the goal."""

    render_mode = None

    def __init__(self, shape=(HEIGHT, WIDTH, 3), beside=None, mask="info", actions=None):
        parts = {"image": spaces.Box(0, 255, shape, np.uint8), "phase": spaces.Discrete(3)}
        if beside is not None:
            parts["beside"] = beside
        if mask == "observation":
            parts["action_mask"] = spaces.MultiBinary(5)
        self.observation_space = spaces.Dict(parts)
        self.action_space = actions or spaces.MultiDiscrete([3, 2])
        self.mask = mask
        self.goal = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), self.info()

    def step(self, action):
        assert action in self.action_space
        if self.mask:
            assert action[0] != 2, "ruled out"
        self.time += 1
        reward = float(np.ravel(action)[0] == self.goal)
        return self.observe(), reward, False, self.time == HORIZON, self.info()

    def observe(self):
        image = self.np_random.integers(0, 256, self.observation_space["image"].shape, np.uint8)
        seen = {"image": image, "phase": self.time % 3}
        for name in self.observation_space.spaces.keys() - seen.keys():
            seen[name] = self.observation_space[name].high.copy() if name == "beside" else None
        if self.mask == "observation":
            seen["action_mask"] = np.concatenate(MASK)
        return seen

    def info(self):
        return {"action_mask": tuple(map(np.array, MASK))} if self.mask == "info" else {}


class Masked(GymnasiumFamily):
    """The mask stands in info."""

    horizon = HORIZON
    action_mask = "action_mask"
    mask = "info"

    def build(self):
        return Lights(mask=self.mask)

    def rows(self, split):
        return [[0.0, self.splits.index(split)], [1.0, self.splits.index(split)]]

    def apply(self, env, row):
        env.unwrapped.goal = int(row[0])


class MaskedSeen(Masked):
    """The mask is a part of the observation."""

    mask = "observation"


class Steered(Masked):
    """Images, and a continuous action."""

    action_mask = None
    mask = None

    def build(self):
        return Lights(mask=None, actions=spaces.Box(-1, 1, (2,), np.float32))

    def apply(self, env, row):
        env.unwrapped.goal = row[0]


class Framed(Masked):
    """One picture, large enough for the convolutions of Stable-Baselines3, and nothing beside."""

    action_mask = None
    hidden = ("phase",)

    def build(self):
        return Lights((40, 36, 3), mask=None)
