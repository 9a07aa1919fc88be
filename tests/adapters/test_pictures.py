"""Images, several choices and masks of Gymnasium environments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families.pictures import (
    HEIGHT,
    HORIZON,
    MASK,
    WIDTH,
    Framed,
    Lights,
    Masked,
    MaskedSeen,
    Steered,
)
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from metarl.adapters.from_gymnasium.spaces import Actions
from metarl.adapters.gymnasium import GymnasiumFamily
from metarl.adapters.task_observation import unbounded
from metarl.adapters.vector import FamilyEnv, FamilyVectorEnv
from metarl.core.errors import ConfigError, FamilyError
from metarl.core.rng import Rng


def family(env, **attributes) -> GymnasiumFamily:
    """One whose environments `env` builds."""

    class Made(GymnasiumFamily):
        horizon = HORIZON

        def build(self):
            return env()

        def row(self, split, rng):
            return [rng.uniform()]

        def apply(self, env, row):
            pass

    for name, value in attributes.items():
        setattr(Made, name, value)
    return Made()


def seen(made: GymnasiumFamily, steps: int = 1) -> torch.Tensor:
    """[T + 1, O]: what one lane observes."""
    env = made.make(1)
    obs = [env.reset(made.tasks("train", 1, Rng(0)), Rng(0))]
    spec = made.spec
    for t in range(steps):
        uniform = torch.full((1, 1, spec.action_width), 0.5) + t / 100
        obs.append(env.step(spec.random_action(uniform, obs[-1])).obs)
    return torch.cat(obs)[:, 0]


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((HEIGHT, WIDTH, 3), (HEIGHT, WIDTH, 3)),
        ((3, HEIGHT, WIDTH), (HEIGHT, WIDTH, 3)),
        ((HEIGHT, WIDTH), (HEIGHT, WIDTH, 1)),
    ],
    ids=["channels last", "channels first", "grey"],
)
def test_an_image_keeps_its_bytes_with_channels_last(shape, image):
    made = family(lambda: Lights(shape, mask=None))
    assert made.spec.images == {"image": image}
    assert made.spec.obs_dtype == "uint8"
    (flat,) = seen(made, 0)
    assert flat.dtype == torch.uint8

    env = Lights(shape, mask=None)
    lanes = made.make(1)._lanes  # the seed of the episode is a hash of its own
    lanes.reset(np.zeros((1, 1)), np.array([7]))
    from metarl.adapters.from_gymnasium.lanes import seed_of

    expected, _ = env.reset(seed=seed_of(7, 0))
    last = np.asarray(expected["image"])
    if len(shape) == 3 and shape[0] == 3:
        last = last.transpose(1, 2, 0)
    given = made.env_layout.flat(expected, 1)[0]
    np.testing.assert_array_equal(given[: last.size].reshape(image), last.reshape(image))
    assert given[last.size :].tolist() == [1, 0, 0]


def test_real_numbers_beside_an_image_make_all_of_it_float():
    """The image still is one."""
    speed = spaces.Box(-1, 1.5, (2,), np.float32)
    made = family(lambda: Lights(beside=speed, mask=None))
    assert made.spec.obs_dtype == "float32"
    assert made.spec.images == {"image": (HEIGHT, WIDTH, 3)}
    (flat,) = seen(made, 0)
    assert flat[made.spec.part("beside")].tolist() == [1.5, 1.5]
    assert flat.max() > 200


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 200, (HEIGHT, WIDTH, 3), np.uint8),
        spaces.Box(0, 255, (4,), np.uint8),
        spaces.Box(0, 255, (2, 3, 4, 5), np.uint8),
        spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.float32),
    ],
    ids=["bounds", "one axis", "four axes", "floats"],
)
def test_what_is_no_image_is_numbers(space):
    from metarl.adapters.from_gymnasium.spaces import parts

    (part,) = parts(space)
    assert part.image is None


def test_a_byte_outside_its_space_is_told():
    made = family(lambda: Lights(mask=None))
    layout = made.env_layout
    wrong = {"image": np.full((HEIGHT, WIDTH, 3), 256), "phase": 0}
    with pytest.raises(FamilyError, match="observation image: 256 is outside its space"):
        layout.flat(wrong, 1)


@pytest.mark.parametrize(
    ("space", "nvec"),
    [
        (spaces.MultiDiscrete([3, 2], start=[5, -1]), (3, 2)),
        (spaces.MultiDiscrete([[3, 2], [4, 2]]), (3, 2, 4, 2)),
        (spaces.MultiBinary(3), (2, 2, 2)),
        (spaces.MultiBinary((2, 2)), (2, 2, 2, 2)),
    ],
)
def test_several_choices_reach_the_environment_as_its_space_has_them(space, nvec):
    actions = Actions(space)
    assert actions.nvec == nvec
    assert actions.width == sum(nvec)
    every = np.stack(np.unravel_index(np.arange(np.prod(nvec)), nvec), -1)
    given = actions.per_lane(every)
    assert all(action in space for action in given)
    assert len({action.tobytes() for action in given}) == len(every)
    assert actions.neutral(4).shape == (4, len(nvec))


@pytest.mark.parametrize("kind", [Masked, MaskedSeen])
def test_a_mask_is_a_part_of_the_observation(kind):
    """From info or the observation, after resets and steps."""
    made = kind()
    assert made.spec.action_mask == "action_mask"
    for obs in seen(made, 2 * HORIZON):
        assert obs[made.spec.part("action_mask")].tolist() == [*MASK[0], *MASK[1]]


def test_a_mask_that_is_nowhere_is_told():
    made = family(lambda: Lights(mask=None), action_mask="legal")
    with pytest.raises(FamilyError, match="info legal: there is no 'legal'"):
        made.spec  # noqa: B018


def test_a_mask_of_another_width_is_told():
    made = family(lambda: Lights(mask=None), action_mask="phase")
    with pytest.raises(FamilyError, match="action_mask 'phase' must be a part"):
        made.spec  # noqa: B018


def test_images_come_from_workers_as_they_are():
    made = Steered()
    expected = seen(made, 3)
    shared = Steered()
    shared.workers = 1
    assert torch.equal(seen(shared, 3), expected)


@pytest.mark.parametrize(
    ("made", "task_input", "space"),
    [
        (Framed(), "none", spaces.Box(0, 255, (40, 36, 3), np.uint8)),
        (
            Framed(),
            "row",
            spaces.Dict(image=spaces.Box(0, 255, (40, 36, 3), np.uint8), task=unbounded(2)),
        ),
        (
            Steered(),
            "none",
            spaces.Dict(image=spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8), phase=unbounded(3)),
        ),
    ],
    ids=["alone", "with the task", "with others"],
)
@pytest.mark.filterwarnings("ignore:.*Box observation space")
def test_gymnasium_sees_images_in_their_shape(made, task_input, space):
    tasks = made.tasks("train", 2, Rng(0))
    env = FamilyEnv(made, tasks, task_input=task_input)
    assert env.observation_space == space
    check_env(env, skip_render_check=True)
    envs = FamilyVectorEnv(made, tasks, lanes=2, task_input=task_input)
    obs, _ = envs.reset(seed=0)
    assert obs in envs.observation_space
    for _ in range(HORIZON + 1):
        obs, *_ = envs.step(envs.action_space.sample())
        assert obs in envs.observation_space


def test_several_choices_outside_their_space_are_refused():
    env = FamilyEnv(Framed(), Framed().tasks("train", 2, Rng(0)))
    assert env.action_space == spaces.MultiDiscrete([3, 2])
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"action \[0, 2\] is not in MultiDiscrete"):
        env.step(np.array([0, 2]))
