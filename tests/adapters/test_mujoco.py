"""MuJoCo families: the simulator, rewards recomputed from recorded states, what tasks change."""

from __future__ import annotations

import itertools
import math
import pickle
import warnings
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from helpers import same
from scipy import stats
from torch import Tensor

from metarl import MetaRLError, Rng, make_family
from metarl.adapters.mujoco import MujocoEnv, Physics, load_model

ROBOTS = (
    "half-cheetah-vel",
    "half-cheetah-dir",
    "ant-dir",
    "ant-goal",
    "ant-vel",
    "humanoid-dir",
    "walker-params",
    "hopper-params",
)
FULL = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)


def play(name: str, steps: int, rows: int = 3, lanes: int = 2, seed: int = 0, **options: object):
    """What a family was asked for in `steps` random steps.

    Of each: before, after, control, params, reward, Step, action.
    """
    family = make_family(name, **options)
    tasks, seen = family.tasks("train", rows, Rng(seed)), []
    pay = family.reward

    def spy(before: Physics, after: Physics, control: np.ndarray, params: np.ndarray) -> np.ndarray:
        reward = pay(before, after, control, params)
        seen.append(
            [tensors(before), tensors(after), *(torch.tensor(x) for x in (control, params, reward))]
        )
        return reward

    family.reward = spy
    env, generator = family.make(lanes), torch.Generator().manual_seed(seed)
    first = env.reset(tasks, Rng(seed))
    for record in range(steps):
        action = 2.4 * torch.rand(rows, lanes, family.spec.action_width, generator=generator) - 1.2
        step = env.step(action)
        seen[record] += [step, action]
    return family, tasks, first, seen


def tensors(physics: Physics) -> Physics:
    """A copy in tensors, for theory to be written in."""
    sensors = {name: torch.tensor(value) for name, value in physics.sensors.items()}
    return Physics(torch.tensor(physics.qpos), torch.tensor(physics.qvel), sensors)


def arrays(physics: Physics) -> Physics:
    sensors = {name: value.numpy() for name, value in physics.sensors.items()}
    return Physics(physics.qpos.numpy(), physics.qvel.numpy(), sensors)


def simulator(name: str, **options: object) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = make_family(name, **options).model()
    return model, mujoco.MjData(model)


def put(
    model: mujoco.MjModel, data: mujoco.MjData, qpos: Tensor, qvel: Tensor, control: Tensor
) -> None:
    mujoco.mj_resetData(model, data)
    data.qpos[:], data.qvel[:], data.ctrl[:] = qpos.numpy(), qvel.numpy(), control.numpy()


# -------------------------------------------------------------------------------------------------
# The simulator


@pytest.mark.parametrize("name", ROBOTS)
def test_a_control_step_is_so_many_physics_steps(name: str):
    """Plain mj_step on the same model from the same state; and there were contacts."""
    family, tasks, _, seen = play(name, 25)
    contacts = 0
    for before, after, control, *_ in seen[::3]:
        for row, lane in ((0, 0), (2, 1)):
            model = family.model()
            if hasattr(family, "task_model"):
                model = family.task_model(model, tasks.params[row].numpy())
            data = mujoco.MjData(model)
            put(model, data, before.qpos[row, lane], before.qvel[row, lane], control[row, lane])
            for _ in range(family.frame_skip):
                mujoco.mj_step(model, data)
                contacts += data.ncon
            torch.testing.assert_close(
                after.qpos[row, lane], torch.from_numpy(data.qpos), rtol=0, atol=1e-10
            )
            torch.testing.assert_close(
                after.qvel[row, lane], torch.from_numpy(data.qvel), rtol=0, atol=1e-10
            )
    assert contacts > 0


@pytest.mark.parametrize("name", ["half-cheetah-vel", "ant-goal", "walker-params"])
def test_trajectories_do_not_depend_on_the_number_of_threads(name: str):
    one, two, three = (
        [step for *_, step, _ in play(name, 30, rows=5, threads=n)[3]] for n in (1, 2, 3)
    )
    assert same(one, two)
    assert same(one, three)


@pytest.mark.parametrize(
    ("name", "theirs"), [("half-cheetah-dir", "HalfCheetah-v5"), ("ant-dir", "Ant-v5")]
)
def test_one_step_is_gymnasiums(name: str, theirs: str):
    """Their environment, put into the same state.

    Their warm start differs, so the solver agrees to its tolerance.
    """
    family, _, _, seen = play(name, 20)
    env = gymnasium.make(theirs).unwrapped
    env.reset(seed=0)
    for before, after, control, *_ in seen:
        env.set_state(before.qpos[1, 0].numpy(), before.qvel[1, 0].numpy())
        env.step(control[1, 0].numpy())
        torch.testing.assert_close(
            after.qpos[1, 0], torch.from_numpy(env.data.qpos), rtol=1e-5, atol=1e-6
        )
        torch.testing.assert_close(
            after.qvel[1, 0], torch.from_numpy(env.data.qvel), rtol=1e-4, atol=1e-4
        )
    assert family.frame_skip == env.frame_skip
    env.close()


def test_contact_forces_are_mujocos():
    """cfrc_ext of the same state, from mj_rnePostConstraint.

    Sensors speak of the start of the last physics step.
    """
    family, _, _, seen = play("ant-goal", 30)
    model, data = simulator("ant-goal")
    largest = 0.0
    for before, after, control, *_ in seen:
        put(model, data, before.qpos[0, 1], before.qvel[0, 1], control[0, 1])
        for _ in range(family.frame_skip - 1):
            mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        expected = np.clip(data.cfrc_ext[1:], -1, 1)
        observed = torch.tensor(family.observe(arrays(after)))[0, 1, 29:].view(13, 6)
        torch.testing.assert_close(observed, torch.from_numpy(expected), rtol=0, atol=1e-8)
        largest = max(largest, float(np.abs(data.cfrc_ext).max()))
    assert largest > 10


def test_divergence_ends_the_episode_and_says_so():
    family = make_family("half-cheetah-vel")
    env = family.make(2)
    obs = env.reset(family.tasks("train", 2, Rng(0)), Rng(0)).clone()
    env._now.qvel[1, 0] = 1e12
    with pytest.warns(UserWarning, match=r"half-cheetah-vel: physics diverged in tasks \[1\]"):
        step = env.step(torch.zeros(2, 2, 6))
    assert step.terminated.tolist() == [[False, False], [True, False]]
    assert step.obs.isfinite().all()
    assert step.reward.isfinite().all()
    assert float(step.obs[1, 0, 8:17].abs().max()) < 1
    assert torch.equal(step.next_obs[1, 0, :8], obs[1, 0, :8])  # it stays where it was,
    torch.testing.assert_close(
        step.reward[1, 0], -family.tasks("train", 2, Rng(0)).params[1, 0]
    )  # at speed 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not env.step(torch.zeros(2, 2, 6)).terminated.any()


def test_a_copy_in_mid_episode_goes_on_like_the_original():
    family = make_family("ant-vel")
    env, action = family.make(2), torch.full((3, 2, 8), 0.3)
    env.reset(family.tasks("train", 3, Rng(0)), Rng(0))
    for _ in range(5):
        env.step(action)
    twin: MujocoEnv = pickle.loads(pickle.dumps(env))
    assert all(same(env.step(action), twin.step(action)) for _ in range(60))


def test_sensors_at_the_start_of_an_episode_are_those_of_its_first_state():
    """Or the first step's way of the centre of mass would begin in the episode before."""
    _, _, _, seen = play("humanoid-dir", 40)
    model, data = simulator("humanoid-dir")
    restarted = 0
    for (*_, step, _), (before, *_) in itertools.pairwise(seen):
        for row, lane in step.done.nonzero().tolist():
            put(model, data, before.qpos[row, lane], before.qvel[row, lane], torch.zeros(17))
            mujoco.mj_forward(model, data)
            torch.testing.assert_close(
                before.sensors["com"][row, lane], torch.from_numpy(data.sensor("com").data.copy())
            )
            restarted += 1
    assert restarted > 0


def test_models_that_cannot_be_had_are_mistakes(tmp_path: Path):
    with pytest.raises(MetaRLError, match="there is no MuJoCo model"):
        load_model(tmp_path / "none.xml")
    (tmp_path / "bad.xml").write_text(
        "<mujoco><worldbody><body><geom type='sfere'/></body></worldbody></mujoco>"
    )
    with pytest.raises(MetaRLError, match=r"MuJoCo refuses .*sfere"):
        load_model(tmp_path / "bad.xml")


def test_a_frame_shows_the_lane():
    family = make_family("walker-params")
    env = family.make(2)
    env.reset(family.tasks("train", 2, Rng(0)), Rng(0))
    for _ in range(10):
        env.step(torch.tensor([1.0, -1.0]).view(1, 2, 1).expand(2, 2, 6))
    try:
        one, other = env.frame(0, 0), env.frame(0, 1)
    except MetaRLError as mistake:
        pytest.skip(f"nothing to draw with: {mistake}")
    assert one.shape == (480, 480, 3)
    assert one.dtype == np.uint8
    assert one.std() > 10
    assert (one != other).any()


def test_nothing_to_draw_with_is_a_mistake(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    family = make_family("hopper-params")
    env = family.make(1)
    env.reset(family.tasks("train", 1, Rng(0)), Rng(0))
    with pytest.raises(MetaRLError, match=r"MUJOCO_GL=nonsense .*libegl1"):
        env.frame(0, 0)


# -------------------------------------------------------------------------------------------------
# Rewards and ends, from recorded states


def speed(before: Physics, after: Physics, seconds: float, axis: int = 0) -> Tensor:
    return (after.qpos[..., axis] - before.qpos[..., axis]) / seconds


def squared(control: Tensor) -> Tensor:
    return (control**2).sum(-1)


def forces(family: object, after: Physics) -> Tensor:
    """Clipped, squared and summed; where they come from is tested above."""
    from metarl.adapters.mujoco import contact_forces

    return torch.tensor((contact_forces(arrays(after)).clip(-1, 1) ** 2).sum((-1, -2)))


def check(name: str, formula, steps: int = 30, **options: object) -> None:
    family, _, _, seen = play(name, steps, **options)
    for before, after, control, params, reward, step, action in seen:
        torch.testing.assert_close(
            reward, formula(family, before, after, control, params[..., 0, :].unsqueeze(1))
        )
        torch.testing.assert_close(step.reward, reward.float())
        low, high = family.model().actuator_ctrlrange.T
        ours = torch.as_tensor(low + (action.double().clip(-1, 1).numpy() + 1) / 2 * (high - low))
        torch.testing.assert_close(control, ours)


def test_half_cheetah_vel_pays_for_its_speed():
    check(
        "half-cheetah-vel",
        lambda f, b, a, u, p: -(speed(b, a, 0.05) - p[..., 0]).abs() - 0.05 * squared(u),
    )


def test_half_cheetah_dir_pays_for_its_direction():
    check(
        "half-cheetah-dir", lambda f, b, a, u, p: p[..., 0] * speed(b, a, 0.05) - 0.05 * squared(u)
    )


@pytest.mark.parametrize("name", ["half-cheetah-vel", "half-cheetah-dir"])
def test_half_cheetahs_report_their_velocity(name: str):
    family, _, _, seen = play(name, 10)
    assert family.spec.metrics == ("velocity",)
    for before, after, *_, step, _ in seen:
        torch.testing.assert_close(
            step.metrics, {"velocity": speed(before, after, 0.05).float()}, rtol=0, atol=0
        )


@pytest.mark.parametrize(
    ("variant", "cost", "alive"),
    [("forward-backward", 0.5, 1), ("plane", 0.5, 1), ("maml", 0.005, 0.05)],
)
def test_ant_dir_pays_along_its_direction(variant: str, cost: float, alive: float):
    def formula(f, b, a, u, p):
        along = p[..., 0] * speed(b, a, 0.05) + p[..., 1] * speed(b, a, 0.05, axis=1)
        return along - cost * squared(u) - 5e-4 * forces(f, a) + alive

    check("ant-dir", formula, variant=variant)


def test_ant_goal_pays_by_the_distance():
    def formula(f, b, a, u, p):
        return -(a.qpos[..., :2] - p).abs().sum(-1) - 0.1 * squared(u) - 5e-4 * forces(f, a)

    check("ant-goal", formula)


def test_ant_vel_pays_for_its_speed():
    def formula(f, b, a, u, p):
        return (
            -(speed(b, a, 0.05) - p[..., 0]).abs()
            + 1
            + 0.05
            - 0.005 * squared(u)
            - 5e-4 * forces(f, a)
        )

    check("ant-vel", formula)


def test_humanoid_dir_pays_along_its_direction():
    from metarl.adapters.mujoco import contact_forces

    def formula(f, b, a, u, p):
        way = a.sensors["com"][..., :2] - b.sensors["com"][..., :2]
        contact = torch.tensor((5e-7 * (contact_forces(arrays(a)) ** 2).sum((-1, -2))).clip(max=10))
        return 0.25 * (way * p).sum(-1) / 0.003 - 0.1 * squared(u) - contact + 5

    check("humanoid-dir", formula)


@pytest.mark.parametrize("name", ["walker-params", "hopper-params"])
def test_walker_and_hopper_pay_for_speed(name: str):
    check(name, lambda f, b, a, u, p: speed(b, a, 0.008) + 1 - 1e-3 * squared(u))


HEALTHY = {
    "ant-dir": lambda q, v: (q[..., 2] >= 0.2) & (q[..., 2] <= 1),
    "ant-vel": lambda q, v: (q[..., 2] >= 0.2) & (q[..., 2] <= 1),
    "humanoid-dir": lambda q, v: (q[..., 2] >= 1) & (q[..., 2] <= 2),
    "walker-params": lambda q, v: (q[..., 1] > 0.8) & (q[..., 1] < 2) & (q[..., 2].abs() < 1),
    "hopper-params": lambda q, v: (
        (q[..., 1] > 0.7)
        & (q[..., 2].abs() < 0.2)
        & (q[..., 2:].abs() < 100).all(-1)
        & (v.abs() < 100).all(-1)
    ),
}


@pytest.mark.parametrize("name", ROBOTS)
def test_episodes_end_where_the_originals_end(name: str):
    _, _, _, seen = play(name, 120)
    ended = torch.stack([step.terminated for *_, step, _ in seen])
    healthy = HEALTHY.get(name, lambda q, v: torch.ones(q.shape[:2], dtype=torch.bool))
    expected = torch.stack([~healthy(after.qpos, after.qvel) for _, after, *_ in seen])
    assert torch.equal(ended, expected)
    assert bool(ended.any()) == (name in HEALTHY)


# -------------------------------------------------------------------------------------------------
# Observations, starts and tasks


def test_what_is_observed():
    model, data = simulator("half-cheetah-vel")
    _, _, _, seen = play("half-cheetah-vel", 5)
    for _, after, *_, step, _ in seen:
        put(model, data, after.qpos[0, 0], after.qvel[0, 0], torch.zeros(6))
        mujoco.mj_forward(model, data)
        expected = np.concatenate([data.qpos[1:], data.qvel, data.body("torso").xpos])
        torch.testing.assert_close(step.next_obs[0, 0], torch.from_numpy(expected).float())


@pytest.mark.parametrize(
    ("name", "width", "options"),
    [
        ("half-cheetah-vel", 20, {}),
        ("half-cheetah-vel", 17, {"variant": "promp"}),
        ("ant-dir", 27, {}),
        ("ant-goal", 107, {}),
        ("humanoid-dir", 45, {}),
        ("walker-params", 17, {}),
        ("hopper-params", 11, {}),
    ],
)
def test_how_much_is_observed(name: str, width: int, options: dict[str, str]):
    assert make_family(name, **options).spec.obs_width == width


def test_starts_are_gymnasiums():
    family = make_family("ant-dir")
    env = family.make(400)
    env.reset(family.tasks("train", 2, Rng(0)), Rng(0))
    qpos, qvel = torch.tensor(env._now.qpos), torch.tensor(env._now.qvel)
    assert (
        stats.kstest(((qpos[..., 2] - 0.75) / 0.1).flatten().numpy(), "uniform", (-1, 2)).pvalue
        > 1e-3
    )
    assert stats.kstest((qvel[..., 5] / 0.1).flatten().numpy(), "norm").pvalue > 1e-3
    assert env._now.qpos[..., 3].mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("name", "options", "low", "high"),
    [
        ("half-cheetah-vel", {}, 0, 3),
        ("half-cheetah-vel", {"variant": "maml"}, 0, 2),
        ("ant-vel", {}, 0, 3),
        ("walker-params", {}, -3, 3),
    ],
)
def test_tasks_are_uniform(name: str, options: dict[str, str], low: float, high: float):
    family = make_family(name, **options)
    rows = family.tasks("test", 2000, Rng(0)).params
    assert stats.kstest(rows[:, 0].numpy(), "uniform", (low, high - low)).pvalue > 1e-3
    ood = family.tasks("ood", 2000, Rng(0)).params.abs()
    assert float(ood.min()) >= high
    assert not family.spec.closed


def test_goals_are_uniform_on_the_disc():
    radius = make_family("ant-goal").tasks("test", 2000, Rng(0)).params.norm(dim=1)
    assert stats.kstest((radius / 3).square().numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("name", "options"), [("ant-dir", {"variant": "plane"}), ("humanoid-dir", {})]
)
def test_directions_are_uniform_on_the_circle(name: str, options: dict[str, str]):
    rows = make_family(name, **options).tasks("test", 2000, Rng(0)).params
    angle = torch.atan2(rows[:, 1], rows[:, 0])
    assert stats.kstest((angle / (2 * math.pi) + 0.5).numpy(), "uniform").pvalue > 1e-3
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2000))


@pytest.mark.parametrize("name", ["half-cheetah-dir", "ant-dir"])
def test_forward_and_backward_are_all_there_is(name: str):
    family = make_family(name)
    rows = family.tasks("test", 10, Rng(0))
    assert sorted(rows.params[:, 0].tolist()) == [-1.0] * 5 + [1.0] * 5
    assert family.spec.closed


def test_a_task_changes_mass_inertia_friction_and_damping():
    family = make_family("walker-params")
    shared = family.model()
    masses, weights = shared.body_mass.copy(), shared.dof_invweight0.copy()
    row = torch.zeros(family.spec.task_width)
    assert len(row) == 7 + 7 * 3 + 8 * 3 + 9
    row[0], row[7], row[28], row[-1] = 2.0, -1.0, 3.0, 1.0
    own = family.task_model(shared, row.numpy())
    assert own.body_mass[1] == pytest.approx(1.5**2 * masses[1])
    assert own.body_inertia[1, 0] == pytest.approx(shared.body_inertia[1, 0] / 1.5)
    assert own.geom_friction[0, 0] == pytest.approx(1.5**3 * shared.geom_friction[0, 0])
    assert own.dof_damping[-1] == pytest.approx(1.3 * shared.dof_damping[-1])
    assert own.body_mass[2:].tolist() == masses[2:].tolist()
    assert shared.body_mass.tolist() == masses.tolist()
    assert (own.dof_invweight0 != weights).any()  # what MuJoCo derives from the masses


def test_the_body_that_a_row_describes_is_the_one_that_moves():
    """Two lanes of a row agree where they start alike; two rows do not."""
    family = make_family("hopper-params")
    family.start = lambda noise, counter: (
        np.tile([0.0, 1.25, 0, 0, 0, 0], (*noise.keys.shape, 1)),
        np.zeros((*noise.keys.shape, 6)),
    )
    env = family.make(2)
    env.reset(family.tasks("train", 2, Rng(0)), Rng(0))
    for _ in range(5):
        step = env.step(torch.full((2, 2, 3), 0.5))
    assert torch.equal(step.next_obs[:, 0], step.next_obs[:, 1])
    assert not torch.equal(step.next_obs[0], step.next_obs[1])


def test_goals_can_be_shown():
    assert make_family("ant-goal").spec.shown_width("goal") == 2
    with pytest.raises(MetaRLError, match="tasks of walker-params have no goal"):
        make_family("walker-params").spec.shown_width("goal")
