"""Gymnasium environments as families, beside the same environments stepped by hand.

In this process and in others.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from families.drift import HORIZON, Drift, limited
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import Autoreset, TimeLimit
from helpers import FILES, live, random_action, same
from torch import Tensor

from metarl.adapters.from_gymnasium.lanes import seed_of
from metarl.adapters.from_gymnasium.spaces import Actions, parts
from metarl.adapters.from_gymnasium.workers import Workers
from metarl.adapters.gymnasium import GymnasiumFamily, GymnasiumVectorFamily
from metarl.core.errors import MetaRLError
from metarl.core.family import Family
from metarl.core.rng import Rng
from metarl.core.types import Step, Tasks, tree_map
from metarl.experiments.building import make_family

FILE = str(FILES / "drift.py")
IN_THIS_PROCESS = ["Wind", "WindsReset", "WindsSameStep", "WindsNextStep"]


def drift(name: str, **options: float) -> Family:
    return make_family(f"{FILE}:{name}", **options)


def drive(
    family: Family, tasks: Tasks, steps: int, *, lanes: int = 2, seed: int = 0, env=None
) -> tuple[Tensor, Step]:
    """First obs [N, M, O] and steps [T, N, M, …] of actions that do not depend on the seed."""
    env = env or family.make(lanes)
    first = env.reset(tasks, Rng(seed))
    return first, go_on(env, family, tasks, range(steps), lanes)


def go_on(env, family: Family, tasks: Tasks, times: range, lanes: int = 2) -> Step:
    noise = tasks.streams(Rng(99), lanes)
    seen = [env.step(random_action(family.spec, noise, t)) for t in times]
    return tree_map(lambda *x: torch.stack(x), *seen)


# -------------------------------------------------------------------------------------------------
# Spaces


SPACES = [
    spaces.Box(-1, 1, (2, 3), np.float64),
    spaces.Box(0, 255, (2, 2, 3), np.uint8),
    spaces.Discrete(4, start=-2),
    spaces.MultiBinary([2, 2]),
    spaces.MultiDiscrete([2, 4, 3]),
    spaces.MultiDiscrete([[2], [3]], start=[[5], [-1]]),
    Drift.observation_space,
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_observations_are_flattened_as_gymnasium_does(space: spaces.Space):
    space.seed(0)
    found = parts(space)
    for _ in range(20):
        sample = space.sample()
        ours = np.concatenate([part.flat(sample, 1) for part in found], axis=1)
        np.testing.assert_array_equal(ours[0], spaces.flatten(space, sample).astype(np.float32))
    assert all(part.width == part.flat(sample, 1).shape[1] for part in found)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_batch_of_observations_is_the_rows_of_its_parts(space: spaces.Space):
    space.seed(0)
    samples = [space.sample() for _ in range(5)]
    batch = gymnasium.vector.utils.concatenate(
        space, samples, gymnasium.vector.utils.create_empty_array(space, 5)
    )
    for part in parts(space):
        np.testing.assert_array_equal(
            part.flat(batch, 5), np.concatenate([part.flat(one, 1) for one in samples])
        )


def test_parts_have_the_names_of_their_keys_and_can_be_hidden():
    widths = {part.name: part.width for part in parts(Drift.observation_space, ("wind", "inner.1"))}
    assert widths == {"gait": 3, "image": 6, "inner.0": 2, "position": 2}
    assert [part.name for part in parts(spaces.Discrete(2))] == ["observation"]


def test_actions_fill_the_bounds():
    form = Actions(Drift.action_space)
    given = form.to_env(np.array([[-1, -1], [1, 1], [0, 0], [-9, 9]], np.float32))
    np.testing.assert_array_equal(given[..., 0], [[-2, 0], [2, 1], [0, 0.5], [-2, 1]])
    assert all(Drift.action_space.contains(one) for one in given)
    discrete = Actions(spaces.Discrete(3, start=7))
    assert discrete.to_env(np.array([0, 2])).tolist() == [7, 9]


class Simple(gymnasium.Env):
    """Whatever spaces a test wants; every step tells `told`."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, observation=None, action=None, told=({},), limit=None):  # noqa: B006
        self.observation_space = observation or spaces.Box(-1, 1, (1,))
        self.action_space = action or spaces.Discrete(2)
        self.told, self.limit, self.level = told, limit, 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        info = self.told[min(self.steps, len(self.told)) - 1]
        return np.full(1, self.steps / 100, np.float32), 0.0, False, self.steps == self.limit, info


class Forgetful(Simple):
    """Sets its level back in every reset, and pays it."""

    def reset(self, *, seed=None, options=None):
        self.level = 0.0
        return super().reset(seed=seed)

    def step(self, action):
        seen, _, *rest = super().step(action)
        return seen, self.level, *rest


class Plain(GymnasiumFamily):
    """A family of whatever environment it is given."""

    horizon = 3

    def __init__(self, env=None, **attributes):
        self.given = env or Simple
        vars(self).update(attributes)

    def build(self):
        return self.given()

    def row(self, split, rng):
        return rng.normal()

    def apply(self, env, row):
        env.unwrapped.level = row[0]


class Vector(GymnasiumVectorFamily):
    """The same for vector environments."""

    def __init__(self, build):
        self.build = build

    build = row = Plain.row

    def apply(self, env, rows):
        pass


@pytest.mark.parametrize(
    ("family", "says"),
    [
        (Plain(lambda: Simple(spaces.Text(3))), "plain: observation space Text"),
        (
            Plain(lambda: Simple(action=spaces.Dict(turn=spaces.Discrete(2)))),
            "action space Dict.*ActionWrapper",
        ),
        (Plain(lambda: Simple(action=spaces.Box(0, 255, (1,), np.uint8))), "Box of floats"),
        (Plain(lambda: Simple(action=spaces.Box(-np.inf, np.inf, (1,)))), "no bounds"),
        (
            Plain(hidden=("position",)),
            "there is no observation 'position'; did you mean 'observation'",
        ),
        (Plain(hidden=("observation",)), "nothing is left"),
        (Plain(horizon=None), "set horizon"),
        (Plain(lambda: Autoreset(Simple())), "leave off the wrapper Autoreset"),
        (Plain(lambda: "env"), "build: it gives str"),
        (
            Vector(lambda n: SyncVectorEnv([lambda: Autoreset(limited())] * n)),
            "vector: leave off the wrapper Autoreset",
        ),
        (
            Vector(lambda n: limited()),
            "vector: build: it gives TimeLimit, not a gymnasium.vector.VectorEnv",
        ),
        (Vector(lambda n: AsyncVectorEnv([limited] * n, context="spawn")), "set horizon"),
        (Plain(goal_width=1, achieved_goal="goal"), "achieved_goal 'goal'"),
        (Plain(goal_width=2, achieved_goal="observation"), "as wide as goal_width, 2"),
        (Plain(row=lambda split, rng: [np.nan]), "not finite"),
        (Plain(Forgetful), "overwrites level, which apply had set"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(family: GymnasiumFamily, says: str):
    with pytest.raises(MetaRLError, match=says):
        _ = family.spec


def test_ragged_rows_are_refused():
    ragged = iter([[1.0], [1.0, 2.0], [1.0]])
    with pytest.raises(MetaRLError, match=r"table of task rows is .* not an array of numbers"):
        Plain(row=lambda split, rng: next(ragged)).tasks("train", 3, Rng(0))


def test_a_family_without_rows_is_told_to_have_them():
    class Rowless(GymnasiumFamily):
        build, apply = Plain.build, Plain.apply

    with pytest.raises(MetaRLError, match="rowless: give it a method row"):
        Rowless().tasks("train", 1, Rng(0))


# -------------------------------------------------------------------------------------------------
# Tasks


def test_the_spec_says_what_the_environment_says():
    spec = drift("Wind").spec
    assert (spec.name, spec.horizon, spec.action_width, spec.discrete, spec.task_width) == (
        "wind",
        HORIZON,
        2,
        False,
        2,
    )
    assert spec.observation == {
        "gait": 3,
        "image": 6,
        "inner.0": 2,
        "inner.1.dial": 5,
        "position": 2,
    }
    assert spec.splits == ("train", "validation", "test")
    assert drift("WindInWorkers").spec.name == "wind-in-workers"


def test_tasks_are_drawn_one_by_one_and_by_split():
    family = drift("Wind", strongest=2.0)
    assert same(family.tasks("test", 9, Rng(1))[:4], family.tasks("test", 4, Rng(1)))
    rows = torch.cat([family.tasks(split, 50, Rng(0)).params for split in family.spec.splits])
    assert len(rows.unique(dim=0)) == 150
    assert 1 < float(rows.abs().max()) <= 2


def test_a_split_of_few_tasks_is_walked_through():
    tasks = drift("Accident").tasks("train", 12, Rng(0))
    assert (
        sorted(tasks.params[:5].flatten().tolist())
        == sorted(tasks.params[5:10].flatten().tolist())
        == list(range(5))
    )
    assert tasks.copy.tolist() == [0] * 5 + [1] * 5 + [2] * 2
    assert torch.equal(tasks.index.float(), tasks.params.flatten())


# -------------------------------------------------------------------------------------------------
# Episodes


def by_hand(tasks: Tasks, steps: int, lanes: int = 2, seed: int = 0) -> tuple[Tensor, Step]:
    """What `drive` should see of `Drift`: every lane alone, in Gymnasium's own loop."""
    keys, noise = tasks.streams(Rng(seed), lanes).keys, tasks.streams(Rng(99), lanes)
    spec = drift("Wind").spec
    acted = torch.stack([random_action(spec, noise, t) for t in range(steps)]).numpy()
    space = spaces.Dict(
        {name: part for name, part in Drift.observation_space.items() if name != "wind"}
    )

    def see(observation):
        return spaces.flatten(space, {name: observation[name] for name in space}).astype(np.float32)

    env, first, lived = limited(), [], []
    for row, lane in np.ndindex(*keys.shape):
        env.unwrapped.wind = tasks.params[row].double().numpy()
        episode, lane_steps = 0, []
        obs, _ = env.reset(seed=seed_of(int(keys[row, lane]), episode))
        first.append(see(obs))
        for t in range(steps):
            share = (acted[t, row, lane].astype(np.float64) + 1) / 2
            low, high = Drift.action_space.low, Drift.action_space.high
            given = (low.ravel() + share * (high - low).ravel()).astype(np.float32).reshape(2, 1)
            next_obs, reward, terminated, truncated, info = env.step(given)
            successor = obs = see(next_obs)
            if terminated or truncated:
                episode += 1
                obs = see(env.reset(seed=seed_of(int(keys[row, lane]), episode))[0])
            lane_steps.append(
                (
                    obs,
                    successor,
                    reward,
                    terminated,
                    truncated and not terminated,
                    info["is_success"],
                    np.float32(info["gait"]),
                    np.float32(info["height"]),
                )
            )
        lived.append(lane_steps)
    columns = [np.array([[one[t][i] for one in lived] for t in range(steps)]) for i in range(8)]
    obs, next_obs, reward, terminated, truncated, success, gait, height = (
        torch.from_numpy(x).view(steps, *keys.shape, *x.shape[2:]) for x in columns
    )
    return torch.from_numpy(np.array(first)).view(*keys.shape, -1), Step(
        obs,
        next_obs,
        reward.float(),
        terminated,
        truncated,
        success,
        metrics={"gait": gait, "height": height},
    )


@pytest.mark.parametrize("name", [*IN_THIS_PROCESS, "WindInWorkers"])
def test_every_way_of_stepping_is_stepping_by_hand(name: str):
    """True successors, rewards and endings, and no fake step, whatever the autoreset mode."""
    family = drift(name)
    tasks = family.tasks("train", 3, Rng(0))
    first, step = drive(family, tasks, 25)
    assert same((first, step), by_hand(tasks, 25))
    assert step.truncated.any()
    assert step.terminated.any()
    ends = step.done.flatten(1)
    assert (ends.any(1) & ~ends.all(1)).any(), "the lanes do not end together"


@pytest.mark.parametrize("name", IN_THIS_PROCESS[1:])
def test_a_shorter_horizon_ends_episodes_that_the_environments_would_go_on_with(name: str):
    plain, many = drift("Wind"), drift(name)
    plain.horizon = many.horizon = 3
    tasks = plain.tasks("train", 3, Rng(0))
    lived = drive(many, tasks, 25)
    assert same(lived, drive(plain, tasks, 25))
    assert lived[1].truncated[:4].any()


def test_every_episode_has_a_seed_of_its_own():
    """Small enough for every generator."""
    seeds = [seed_of(key, episode) for key in (-(2**63), 0, 1, 2**63 - 1) for episode in range(50)]
    assert len(set(seeds)) == 200
    assert 0 <= min(seeds) <= max(seeds) < 2**31
    assert max(seeds) > 2**30


def test_processes_of_gymnasium_do_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(FILE).parent))  # where they find the module
    family = make_family("drift:WindsAsync")
    tasks = family.tasks("train", 2, Rng(0))
    assert same(drive(family, tasks, 15, lanes=1), by_hand(tasks, 15, lanes=1))


@pytest.mark.parametrize("name", IN_THIS_PROCESS)
def test_rows_and_lanes_are_independent_of_their_company(name: str):
    family = drift(name)
    tasks = family.tasks("train", 4, Rng(0))
    rows = torch.tensor([2, 1])
    together, apart, wide = (
        drive(family, tasks, 9),
        drive(family, tasks[rows], 9),
        drive(family, tasks, 9, lanes=3),
    )
    assert torch.equal(together[1].next_obs[:, rows], apart[1].next_obs)
    assert torch.equal(together[1].reward, wide[1].reward[:, :, :2])
    assert not torch.equal(wide[1].reward[:, :, 0], wide[1].reward[:, :, 2])


@pytest.mark.parametrize("name", IN_THIS_PROCESS)
def test_a_reset_forgets_the_past_and_takes_other_rows(name: str):
    family = drift(name)
    tasks = family.tasks("train", 4, Rng(0))
    env = family.make(2)
    fresh = drive(family, tasks, 9, env=env)
    drive(family, tasks[:2], 3, env=env, seed=5)
    assert same(drive(family, tasks, 9, env=env), fresh)
    assert not same(drive(family, tasks, 9, env=env, seed=1), fresh)


def test_environments_are_kept_for_the_next_who_needs_some():
    built = []
    family = Plain(lambda: built.append(1) or Simple())
    tasks = family.tasks("train", 4, Rng(0))
    for _ in range(3):
        live(family, tasks, 1)
    assert len(built) == 1 + 4  # one to look at


def test_what_was_handed_out_does_not_change():
    family = drift("Wind")
    tasks = family.tasks("train", 3, Rng(0))
    env = family.make(2)
    obs = env.reset(tasks, Rng(0))
    step = env.step(torch.zeros(3, 2, 2))
    kept = tree_map(torch.clone, (obs, step))
    go_on(env, family, tasks, range(10))
    assert same((obs, step), kept)


def timed() -> gymnasium.Env:
    return TimeLimit(Simple(), 5)


@pytest.mark.parametrize(
    ("family", "horizon", "length"),
    [
        (Plain(), 3, 3),
        (Plain(lambda: Simple(limit=2)), 3, 2),
        (Plain(timed, horizon=None), 5, 5),
        (Plain(timed), 3, 3),
        (Plain(timed, horizon=9), 5, 5),
    ],
)
def test_the_least_horizon_is_kept(family: GymnasiumFamily, horizon: int, length: int):
    rollout, _ = live(family, family.tasks("train", 2, Rng(0)), 2)
    assert family.spec.horizon == horizon
    assert rollout.truncated[:, 0, 0].nonzero().flatten().tolist() == [length - 1, 2 * length - 1]


def test_an_environment_serves_one_lane():
    one = Simple()
    family = Plain(lambda: one)
    with pytest.raises(MetaRLError, match="the same environment twice"):
        live(family, family.tasks("train", 2, Rng(0)), 1)


def test_a_task_that_reset_would_overwrite_is_applied_again():
    family = Plain(Forgetful, apply_after_reset=True)
    tasks = family.tasks("train", 3, Rng(0))
    rollout, _ = live(family, tasks, 2)
    torch.testing.assert_close(rollout.reward, tasks.params.unsqueeze(0).expand(6, -1, -1))


class Aim(Simple):
    """As Gymnasium-Robotics has it: a Dict with goals, of which every reset draws another."""

    def __init__(self):
        one = spaces.Box(-9, 9, (1,), np.float64)
        super().__init__(spaces.Dict(observation=one, achieved_goal=one, desired_goal=one))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.level = float(self.np_random.normal())
        return self.see(0.0), {}

    def step(self, action):
        place = float(action)
        return (
            self.see(place),
            -abs(place - self.level),
            False,
            False,
            {"is_success": place == self.level},
        )

    def see(self, place):
        return {
            "observation": np.ones(1),
            "achieved_goal": np.array([place]),
            "desired_goal": np.array([self.level]),
        }


def test_environments_with_goals_become_families_with_goals():
    family = Plain(
        Aim,
        apply_after_reset=True,
        hidden=("desired_goal",),
        goal_width=1,
        achieved_goal="achieved_goal",
    )
    spec = family.spec
    assert (spec.observation, spec.goal_width) == ({"achieved_goal": 1, "observation": 1}, 1)
    tasks = family.tasks("train", 3, Rng(0))
    rollout, _ = live(family, tasks, 2)
    achieved = rollout.next_obs[..., spec.part(spec.achieved_goal)].squeeze(-1)
    torch.testing.assert_close(achieved, rollout.action.float())
    torch.testing.assert_close(rollout.reward, -(achieved - tasks.params).abs())


def test_apply_may_spoil_its_row():
    """Tasks are shared by all who hold them."""

    def spoil(env, row):
        env.unwrapped.level = row[0]
        row[:] = 0

    family = Plain(apply=spoil)
    tasks = family.tasks("train", 2, Rng(0))
    before = tasks.params.clone()
    env = family.make(1)
    drive(family, tasks, 7, lanes=1, env=env)
    assert torch.equal(tasks.params, before)
    assert [one.level for one in env._lanes._envs] == before.flatten().double().tolist()


def test_success_is_told_by_info_or_by_the_family():
    always = Plain(lambda: Simple(told=({"success": 0.0}, {}, {"success": 1.0})))
    rollout, _ = live(always, always.tasks("train", 1, Rng(0)), 1)
    assert rollout.success.flatten().tolist() == [False, False, True]
    custom = Plain(lambda: Simple(told=({}, {"yes": 1})), success=lambda info: "yes" in info)
    rollout, _ = live(custom, custom.tasks("train", 1, Rng(0)), 1)
    assert rollout.success.flatten().tolist() == [False, True, True]
    never = Plain()
    assert live(never, never.tasks("train", 1, Rng(0)), 1)[0].success is None


def test_success_that_is_told_late_is_no_surprise():
    late = Plain(lambda: Simple(told=({}, {"is_success": True})))
    with pytest.raises(
        MetaRLError, match=r"info\['is_success'\] is reported in some steps.*success\(info\)"
    ):
        live(late, late.tasks("train", 1, Rng(0)), 1)


def telling(*values: object, limit: int | None = None) -> Simple:
    """Steps report these distances, one after another; Ellipsis: none."""
    told = [{} if value is ... else {"distance": value} for value in values]
    return Simple(told=told, limit=limit)


def test_metrics_are_numbers_of_any_kind():
    family = Plain(lambda: telling(1, np.float64(0.5), np.True_), metrics=("distance",))
    assert family.spec.metrics == ("distance",)
    rollout, _ = live(family, family.tasks("train", 2, Rng(0)), 2, lanes=3)
    assert rollout.metrics["distance"][:, 1, 2].tolist() == [1, 0.5, 1] * 2
    assert torch.equal(rollout.episode_metrics()["distance"], torch.ones(2, 2, 3))


BAD_METRICS = [
    (..., "missing"),
    (None, "None"),
    ("0.5", "'0.5'"),
    (np.nan, "nan"),
    (np.inf, "inf"),
    (1e39, "1e+39"),
    (1j, "1j"),
    (np.zeros((2, 2)), "array([[0., 0.], [0., 0.]])"),
]


@pytest.mark.parametrize(("value", "found"), BAD_METRICS)
def test_a_metric_that_is_no_number_is_told_with_its_task_and_step(value: object, found: str):
    family = Plain(
        lambda: telling(0.0, value), metrics=("distance",), row=lambda split, rng: [0.25, 3]
    )
    with pytest.raises(MetaRLError) as caught:
        live(family, family.tasks("train", 2, Rng(0)), 1)
    assert str(caught.value) == (
        "plain: step 1 of episode 0 of the task [0.25, 3.0], lane 0: "
        f"info['distance'] is {found}; it must be a finite number in every step"
    )


def test_a_metric_that_is_missing_in_a_worker_is_told():
    family = drift("Accident")
    family.metrics = ("distance",)
    with pytest.raises(
        MetaRLError, match=r"step 0 .*\[4.0\], lane 0: info\['distance'\] is missing"
    ):
        live(family, Tasks(torch.tensor([[4.0], [0.0]]), torch.arange(2), "train"), 1)


class Telling(Vector):
    """The same in a vector environment, whose first lane reports other distances."""

    horizon = 4
    metrics = ("distance",)

    def __init__(self, mode: AutoresetMode, *values: object):
        def first() -> Simple:
            return telling(*values, limit=3)

        def other() -> Simple:
            return telling(0.0, 1.0, 2.0, limit=3)

        super().__init__(lambda n: SyncVectorEnv([first, *[other] * (n - 1)], autoreset_mode=mode))


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_environment_reports_metrics_of_every_lane(mode: AutoresetMode):
    family = Telling(mode, 3.0, 4.0, 5.0)
    rollout, _ = live(family, family.tasks("train", 2, Rng(0)), 2)
    assert rollout.metrics["distance"][..., 0].T.tolist() == [[3, 4, 5] * 2, [0, 1, 2] * 2]
    assert rollout.episode_metrics()["distance"][..., 0].tolist() == [[5, 2], [5, 2]]


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(
    ("values", "step", "found"),
    [
        (("far", 1.0, 2.0), 0, "'far'"),
        ((0.0, ..., 2.0), 1, "missing"),
        ((0.0, 1.0, np.nan), 2, "nan"),
    ],
)
def test_a_vector_environments_bad_metric_is_told(
    mode: AutoresetMode, values: tuple, step: int, found: str
):
    """Also in the last step of an episode, whose info is elsewhere."""
    family = Telling(mode, *values)
    with pytest.raises(
        MetaRLError, match=rf"step {step} .*, lane 0: info\['distance'\] is {found};"
    ):
        live(family, family.tasks("train", 2, Rng(0)), 2)


def test_pictures_are_taken_of_the_right_lane():
    for name in ("Wind", "WindsReset", "WindInWorkers"):
        family = drift(name)
        tasks = family.tasks("train", 3, Rng(0))
        env = family.make(2)
        env.reset(tasks, Rng(0))
        for row, lane in np.ndindex(3, 2):
            frame = env.frame(row, lane)
            assert (frame.shape, frame.dtype) == ((4, 5, 3), np.uint8)
            assert (frame == int(abs(float(tasks.params[row, 0])) * 100)).all()
    blind = Plain()
    env = blind.make(1)
    env.reset(blind.tasks("train", 1, Rng(0)), Rng(0))
    with pytest.raises(MetaRLError, match="render_mode='rgb_array'"):
        env.frame(0, 0)


class Unpainted(Simple):
    """Asks for a library that is not there."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"

    def render(self):
        raise gymnasium.error.DependencyNotInstalled("brushes are not installed")


def test_nothing_to_draw_with_is_one_line():
    family = Plain(Unpainted)
    env = family.make(1)
    env.reset(family.tasks("train", 1, Rng(0)), Rng(0))
    with pytest.raises(
        MetaRLError,
        match=r"no picture can be drawn: DependencyNotInstalled: brushes are not installed",
    ):
        env.frame(0, 0)


# -------------------------------------------------------------------------------------------------
# Copies


@pytest.mark.parametrize("name", [*IN_THIS_PROCESS, "WindInWorkers"])
def test_a_copy_in_mid_episode_goes_on_exactly(name: str):
    """Though the environments themselves cannot be pickled."""
    family = drift(name)
    tasks = family.tasks("train", 3, Rng(0))
    env = family.make(2)
    drive(family, tasks, 8, env=env)
    copy = pickle.loads(pickle.dumps(env))
    onward = go_on(env, family, tasks, range(8, 30))
    assert onward.done.any()
    assert same(go_on(copy, family, tasks, range(8, 30)), onward)


def test_copies_can_be_copied_and_reset():
    family = drift("Wind")
    tasks = family.tasks("train", 3, Rng(0))
    env = pickle.loads(pickle.dumps(family.make(2)))
    whole = drive(family, tasks, 9, env=env)
    assert same(whole, drive(family, tasks, 9))
    _, first = drive(family, tasks, 2, env=pickle.loads(pickle.dumps(env)))
    env = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(env))))
    onward = go_on(env, family, tasks, range(9, 20))
    assert same(tree_map(lambda *x: torch.cat(x), whole[1], onward), drive(family, tasks, 20)[1])
    assert same(first, tree_map(lambda x: x[:2], whole[1]))


# -------------------------------------------------------------------------------------------------
# Vector environments of other kinds


class Clockwork(VectorEnv):
    """Lane l ends after 2 + l · ragged steps, counts them, and resets itself as `mode` says."""

    def __init__(self, num_envs, mode, ragged, batched_final=False):
        self.num_envs, self.mode, self.batched_final = num_envs, mode, batched_final
        self.metadata = {"autoreset_mode": mode}
        self.length = 2 + ragged * np.arange(num_envs)
        self.single_observation_space, self.single_action_space = (
            spaces.Box(0, 9, (1,)),
            spaces.Discrete(2),
        )
        self.observation_space = spaces.Box(0, 9, (num_envs, 1))
        self.action_space = spaces.MultiDiscrete([2] * num_envs)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        self.age = np.where(mask, 0, self.age) if options else np.zeros(self.num_envs, int)
        self.over = np.zeros(self.num_envs, bool)
        return self.age[:, None].astype(np.float32), {}

    def step(self, actions):
        late = self.over & (self.mode == AutoresetMode.NEXT_STEP)
        self.age = np.where(late, 0, self.age + 1)
        ends = (self.age == self.length) & ~late
        seen, infos = (
            self.age[:, None].astype(np.float32),
            {"success": self.age == 2, "_success": ~late},
        )
        if self.mode == AutoresetMode.SAME_STEP and ends.any():
            final = np.full(self.num_envs, None, object)
            for lane in np.flatnonzero(ends):
                final[lane] = seen[lane]
            infos = {
                "final_obs": seen.copy() if self.batched_final else final,
                "final_info": {"success": infos["success"]},
                "success": infos["success"] & ~ends,
            }
            self.age = np.where(ends, 0, self.age)
            seen = self.age[:, None].astype(np.float32)
        self.over = ends
        return seen, np.where(late, 0.0, 1.0 + self.age), np.zeros(self.num_envs, bool), ends, infos


class Clocks(GymnasiumVectorFamily):
    """A family of `Clockwork`."""

    horizon = 9

    def __init__(self, *arguments, **options):
        self.arguments, self.given = arguments, options

    def build(self, num_envs):
        return Clockwork(num_envs, *self.arguments, **self.given)

    def row(self, split, rng):
        return rng.normal()

    def apply(self, env, rows):
        pass


@pytest.mark.parametrize(
    ("mode", "ragged", "options"),
    [
        (AutoresetMode.DISABLED, 1, {}),
        (AutoresetMode.SAME_STEP, 1, {}),
        (AutoresetMode.SAME_STEP, 1, {"batched_final": True}),
        (AutoresetMode.NEXT_STEP, 0, {}),
    ],
)
def test_a_strangers_vector_environment_is_understood_in_its_own_mode(
    mode: AutoresetMode, ragged: int, options: dict
):
    family = Clocks(mode, ragged, **options)
    tasks = family.tasks("train", 3, Rng(0))
    env = family.make(1)
    assert env.reset(tasks, Rng(0)).eq(0).all()
    steps = [env.step(torch.zeros(3, 1, dtype=torch.long)) for _ in range(12)]
    for lane in range(3):
        length = 2 + ragged * lane
        ages = [1 + t % length for t in range(12)]
        assert [int(step.next_obs[lane, 0, 0]) for step in steps] == ages
        assert [int(step.obs[lane, 0, 0]) for step in steps] == [age % length for age in ages]
        assert [bool(step.truncated[lane, 0]) for step in steps] == [age == length for age in ages]
        assert [bool(step.success[lane, 0]) for step in steps] == [age == 2 for age in ages]
        assert all(float(step.reward[lane, 0]) > 0 for step in steps), "no fake step"
    with pytest.raises(MetaRLError, match="cannot be copied in mid-episode"):
        pickle.loads(pickle.dumps(env))


def test_late_resets_among_lanes_that_go_on_are_refused():
    family = Clocks(AutoresetMode.NEXT_STEP, 1)
    with pytest.raises(MetaRLError, match=r"NEXT_STEP.*'autoreset_mode': 'Disabled'"):
        live(family, family.tasks("train", 3, Rng(0)), 1)


def test_gymnasiums_own_late_vector_environment_is_refused_where_it_must_be():
    class Poles(Clocks):
        horizon = 500

        def build(self, num_envs):
            return gymnasium.make_vec(
                "CartPole-v1", num_envs=num_envs, vectorization_mode="vector_entry_point"
            )

    with pytest.raises(MetaRLError, match="NEXT_STEP"):
        live(Poles(), Poles().tasks("train", 8, Rng(0)), 1)


def test_modes_that_are_not_told_or_not_sound_are_refused():
    with pytest.raises(MetaRLError, match=r"metadata\['autoreset_mode'\] is None"):
        _ = Clocks(None, 0).spec

    class Leaky(Clocks):
        def build(self, num_envs):
            return AsyncVectorEnv([limited] * num_envs, shared_memory=False, context="spawn")

    with pytest.raises(MetaRLError, match="without shared memory"):
        _ = Leaky().spec


# -------------------------------------------------------------------------------------------------
# Worker processes


def accidents(*what: int) -> tuple[Family, Tasks]:
    family = drift("Accident")
    return family, Tasks(torch.tensor(what).float().unsqueeze(1), torch.arange(len(what)), "train")


def test_what_breaks_in_a_worker_is_told_with_its_line_and_mends_with_the_next_reset():
    family, tasks = accidents(0, 1, 0)
    env = family.make(1)
    line = next(
        n
        for n, text in enumerate(Path(FILE).read_text(encoding="utf-8").splitlines(), 1)
        if "it broke" in text
    )
    with pytest.raises(
        MetaRLError,
        match=r"^accident: step 2 of episode 0 of the task \[1.0\], lane 0: ValueError: it broke "
        rf"\(drift.py, line {line}\)$",
    ) as caught:
        live(family, tasks, 1, env=env)
    assert "Traceback" in str(caught.value.__cause__)

    _, sound = accidents(0, 0, 0, 0)
    rollout, _ = live(family, sound, 2, env=env)
    assert torch.equal(rollout.reward[..., 0], 5.0 + rollout.action[..., 0])
    torch.testing.assert_close(rollout.next_obs[..., 0, 1], rollout.action[..., 0].float())


def test_a_worker_that_dies_is_told_and_replaced():
    family, tasks = accidents(0, 2)
    env = family.make(1)
    with pytest.raises(
        MetaRLError, match=r"step 2 .*\[2.0\], lane 0: its worker process died \(exit code -6"
    ):
        live(family, tasks, 1, env=env)
    live(family, accidents(0, 0)[1], 1, env=env)


def test_an_interrupted_step_leaves_no_answer_behind(monkeypatch: pytest.MonkeyPatch):
    family = drift("WindInWorkers")
    tasks = family.tasks("train", 2, Rng(0))
    env = family.make(2)
    drive(family, tasks, 2, env=env)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Workers, "_answer", interrupt)
        with pytest.raises(KeyboardInterrupt):
            env.step(torch.zeros(2, 2, 2))
    assert same(drive(family, tasks, 9, env=env), by_hand(tasks, 9))


def test_workers_import_no_torch_and_have_one_thread():
    with pytest.raises(MetaRLError, match="RuntimeError: torch False, threads 1"):
        live(*accidents(4), 1)


def test_a_family_that_cannot_be_sent_is_told():
    family = drift("Accident")
    family.lock = threading.Lock()
    with pytest.raises(
        MetaRLError, match=r"Accident cannot be sent to another process: TypeError: .*lock"
    ):
        family.make(1)


def test_workers_end_with_whoever_needs_them():
    family = drift("WindInWorkers")
    live(family, family.tasks("train", 2, Rng(0)), 1)
    processes = [worker.process for worker in family.idle_lanes[0]._workers]
    assert all(process.poll() is None for process in processes)
    del family
    assert [process.poll() for process in processes] == [0, 0]


def test_workers_end_with_a_parent_that_is_killed_though_one_hangs():
    """The family stands in the main script itself, which is never run again."""
    script = f"""
import sys
sys.path.insert(0, {str(FILES.parent)!r})
import numpy as np
from families.drift import Accident
from metarl.adapters.from_gymnasium.workers import Workers

class Stuck(Accident):
    pass

lanes = Workers(Stuck(), 2)
lanes.reset(np.array([[0.0], [3.0]]), np.arange(2))
print(*[worker.process.pid for worker in lanes._workers], flush=True)
while True:
    lanes.step(np.zeros(2, np.int64))
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        time.sleep(0.3)  # until it hangs
        assert parent.poll() is None
        parent.kill()
    deadline = time.monotonic() + 20
    while any(is_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text(encoding="utf-8")


# -------------------------------------------------------------------------------------------------
# A family of ten lines


class Gravity(GymnasiumFamily):
    """Pendulums of unknown gravity."""

    def build(self):
        return gymnasium.make("Pendulum-v1")

    def row(self, split, rng):
        return [rng.uniform(5, 15)]

    def apply(self, env, row):
        env.unwrapped.g = row[0]


def test_the_example_of_the_documentation_is_a_family():
    """A pendulum without torque: θ̈ = 3 g / 2 l · sin θ, in Gymnasium's own steps."""
    family = Gravity()
    tasks = family.tasks("train", 4, Rng(0))
    env = family.make(2)
    obs = env.reset(tasks, Rng(0))
    step = env.step(torch.zeros(4, 2, 1))
    theta = torch.atan2(obs[..., 1], obs[..., 0])
    velocity = (obs[..., 2] + 1.5 * tasks.params * theta.sin() * 0.05).clamp(-8, 8)
    torch.testing.assert_close(step.next_obs[..., 2], velocity)
    assert family.spec.horizon == 200


def test_a_family_of_0_5_may_set_its_options():
    class Own(GymnasiumFamily):
        def __init__(self):
            self.options = "mine"

        def build(self):
            raise NotImplementedError

        def apply(self, env, row):
            raise NotImplementedError

    assert (Own().options, Own().config) == ("mine", "mine")
