"""MuJoCo models as families: N task rows × M lanes stepped by one native call on a persistent thread pool.

A family of its own says what the model is, what is observed and what is paid; `MujocoEnv` does the rest::

    def make(self, lanes):
        return MujocoEnv(self, lanes)

Physics, and what is said of it, are NumPy arrays of float64, the same bit for bit whatever the number of threads. One control
step equals `frame_skip` calls of ``mj_step`` from the same state with a cold warm start; the warm start is no part of
MuJoCo's state.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mujoco
import mujoco.rollout
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.core.errors import FamilyError
from metarl.core.rng import Rng
from metarl.core.types import Spec, Step, Tasks

_FULL = mujoco.mjtState.mjSTATE_FULLPHYSICS
_CONTROL = int(mujoco.mjtState.mjSTATE_CTRL)
_PICTURE = (480, 480)  # height and width of a frame

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Physics:
    """What the simulator knows of every lane, as views that the next step overwrites."""

    qpos: Array  # [N, M, nq] generalised positions
    qvel: Array  # [N, M, nv] generalised velocities
    sensors: Mapping[
        str, Array
    ]  # [N, M, width] at the start of the last physics step, as after ``mj_step``


class Simulated(Protocol):
    """What `MujocoEnv` asks of a family.

    A family may also offer, each found by name:

    * ``start(noise, counter) -> (qpos [N, M, nq], qvel [N, M, nv])``: where episodes start, all chance from `noise` at
      place `counter`; without it, the model's own initial position at rest;
    * ``terminated(after) -> array [N, M] bool``: which episodes are over;
    * ``task_model(model, row [P]) -> MjModel``: the model of one task, a changed copy of the shared one;
    * ``threads: int``: how many threads step the lanes; without it, one for every core that is there.
    """

    spec: Spec
    frame_skip: int
    """Physics steps of one control step."""

    def model(self) -> mujoco.MjModel:
        """The model; its sensors, if it has any, come back by name in `Physics`."""

    def observe(self, now: Physics) -> Array:
        """[N, M, O], a new array."""

    def reward(self, before: Physics, after: Physics, control: Array, params: Array) -> Array:
        """[N, M] for `control` [N, M, nu], in the actuators' own units, and task rows `params` [N, 1, P]."""


def load_model(path: str | Path, change: Callable[[Any], None] | None = None) -> mujoco.MjModel:
    """The compiled model of an XML file, after `change` has edited its ``mujoco.MjSpec``.

    Raises:
        FamilyError: no such file, or MuJoCo refuses it.
    """
    if not Path(path).is_file():
        raise FamilyError(f"there is no MuJoCo model {path}")
    mujoco.set_mju_user_warning(
        lambda message: None
    )  # or they are printed, and written to a log in the working folder
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        if change is not None:
            change(spec)
        with (
            warnings.catch_warnings()
        ):  # Gymnasium's models are older than the words that MuJoCo would like there
            warnings.filterwarnings("ignore", message=".*deprecated")
            return spec.compile()
    except ValueError as error:
        raise FamilyError(f"MuJoCo refuses {path}: {' '.join(str(error).split())}") from error


def add_contact_forces(spec: Any) -> None:
    """Give every body two sensors, from which `contact_forces` finds what acts on it from outside.

    Raises:
        FamilyError: a MuJoCo without contact sensors.
    """
    kind = getattr(mujoco.mjtSensor, "mjSENS_CONTACT", None)
    if kind is None:
        raise FamilyError(
            f"contact forces need contact sensors, which MuJoCo {mujoco.__version__} lacks: upgrade to 3.3.5, or do without"
        )
    force_torque_position, net_force = 2 + 4 + 16, 3
    for i, body in enumerate(_bodies(spec)):
        body.name = body.name or f"body-{i + 1}"
        spec.add_sensor(
            name=f"contact:{body.name}",
            type=kind,
            objtype=mujoco.mjtObj.mjOBJ_BODY,
            objname=body.name,
            intprm=[force_torque_position, net_force, 1],
        )
    add_com(spec)


def add_com(spec: Any) -> None:
    """Give the model's first body the sensor `com`: the centre of mass of all that hangs on it."""
    kind, body = mujoco.mjtSensor.mjSENS_SUBTREECOM, mujoco.mjtObj.mjOBJ_BODY
    spec.add_sensor(name="com", type=kind, objtype=body, objname=_bodies(spec)[0].name)


def _bodies(spec: Any) -> list[Any]:
    """All but the world."""
    return [body for body in spec.bodies if body.name != "world"]


def contact_forces(now: Physics) -> Array:
    """[N, M, bodies, 6]: MuJoCo's ``cfrc_ext`` of every body but the world: torque about the centre of mass, force."""
    net = np.stack(
        [value for name, value in now.sensors.items() if name.startswith("contact:")], axis=-2
    )
    force, torque, position = net[..., :3], net[..., 3:6], net[..., 6:]
    arm = position - now.sensors["com"][..., None, :]
    return -np.concatenate([torque + np.cross(arm, force), force], axis=-1)


class MujocoEnv:
    """N task rows × M lanes of a simulated family."""

    def __init__(self, family: Simulated, lanes: int) -> None:
        self._family = family
        self._lanes = lanes
        self._start()

    def _start(self) -> None:
        """What is not part of the state: the model, the pool, and what the family offers."""
        self._shared = self._family.model()
        self._threads = getattr(self._family, "threads", 0) or len(os.sched_getaffinity(0))
        self._pool = mujoco.rollout.Rollout(nthread=self._threads if self._threads > 1 else 0)
        self._data = [mujoco.MjData(self._shared) for _ in range(self._threads)]
        self._painter: _Painter | None = None
        low, high = self._shared.actuator_ctrlrange.T
        self._middle, self._reach = (low + high) / 2, (high - low) / 2

    # -- BatchEnv

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        """Put every lane at the start of an episode."""
        self._tasks = tasks
        self._params = tasks.params.double().cpu().numpy()[:, None]  # [N, 1, P]
        self._noise = tasks.to(torch.device("cpu")).streams(rng, self._lanes)
        self._time = 0
        self._age = np.zeros((len(tasks), self._lanes), np.int64)
        self._allocate()
        self._restart(np.ones_like(self._age, bool))
        return self._out(self._family.observe(self._now))

    def step(self, action: Tensor) -> Step:
        """Control every lane with `action` [N, M, A] in [−1, 1], scaled to the range of the actuators, for one step."""
        family = self._family
        control = np.clip(action.cpu().numpy(), -1, 1) * self._reach + self._middle
        self._control[:] = control.reshape(-1, 1, control.shape[-1])
        self._simulate()
        self._time += 1

        diverged = self._diverged()
        seen = family.observe(self._after)
        reward = self._out(family.reward(self._now, self._after, control, self._params))
        self._age += 1
        offered = getattr(family, "terminated", None)
        terminated = diverged if offered is None else diverged | offered(self._after)
        truncated = (self._age >= family.spec.horizon) & ~terminated
        self._state[:], self._sensed[:] = self._states[:, -1], self._sensors[:, -1]

        obs = next_obs = self._out(seen)
        if (done := terminated | truncated).any():
            self._restart(done)
            obs = self._out(np.where(done[..., None], family.observe(self._now), seen))
        ended, over = (torch.from_numpy(flag).to(obs.device) for flag in (terminated, truncated))
        return Step(obs, next_obs, reward, terminated=ended, truncated=over)

    def frame(self, row: int, lane: int) -> NDArray[np.uint8]:
        """[height, width, 3]: one lane as its camera sees it.

        Raises:
            FamilyError: there is nothing to draw with.
        """
        place = row * self._lanes + lane
        model, data = self._models[place], mujoco.MjData(self._models[place])
        mujoco.mj_setState(model, data, self._state[place], int(_FULL))
        mujoco.mj_forward(model, data)
        if self._painter is None:
            self._painter = _Painter(self._shared)
        return self._painter.paint(model, data)

    # -- the simulator

    def _allocate(self) -> None:
        """Buffers for the native call, made once for as many rows as there are, and views of them by name."""
        model, rows = self._shared, len(self._tasks) * self._lanes
        width, skip = mujoco.mj_stateSize(model, int(_FULL)), self._family.frame_skip
        change = getattr(self._family, "task_model", None)
        rows_params = self._tasks.params.cpu().numpy()
        own = [model if change is None else change(model, row) for row in rows_params]
        self._models = [each for each in own for _ in range(self._lanes)]
        self._state, self._states = np.zeros((rows, width)), np.zeros((rows, skip, width))
        self._sensed, self._sensors = (
            np.zeros((rows, model.nsensordata)),
            np.zeros((rows, skip, model.nsensordata)),
        )
        self._control = np.zeros((rows, skip, model.nu))
        self._now = self._view(self._state, self._sensed)
        self._after = self._view(self._states[:, -1], self._sensors[:, -1])

    def _view(self, state: Array, sensed: Array) -> Physics:
        """state [N·M, 1 + nq + nv + …] begins with the time, then positions, then velocities."""
        model, shape = self._shared, (len(self._tasks), self._lanes)
        state, sensed = _unflatten(state, shape), _unflatten(sensed, shape)
        sensors = {
            model.sensor(i).name: sensed[
                ..., (first := int(model.sensor_adr[i])) : first + int(model.sensor_dim[i])
            ]
            for i in range(model.nsensor)
        }
        return Physics(
            state[..., 1 : 1 + model.nq],
            state[..., 1 + model.nq : 1 + model.nq + model.nv],
            sensors,
        )

    def _simulate(self) -> None:
        """Fill `_states` and `_sensors` [N·M, frame_skip, …] from `_state` and `_control`."""
        self._pool.rollout(
            self._models,
            self._data,
            self._state,
            self._control,
            control_spec=_CONTROL,
            skip_checks=True,
            nstep=self._family.frame_skip,
            state=self._states,
            sensordata=self._sensors,
            chunk_size=-(-len(self._state) // self._threads),
        )

    def _diverged(self) -> NDArray[np.bool_]:
        """[N, M]: where MuJoCo gave up, which sets its clock back; these lanes stay where they were."""
        elapsed = self._states[:, -1, 0] - self._state[:, 0]
        failed: NDArray[np.bool_] = (
            elapsed < (self._family.frame_skip - 0.5) * self._shared.opt.timestep
        )
        if failed.any():
            self._states[failed, -1] = self._state[failed]
            tasks = sorted(
                {int(self._tasks.index[place // self._lanes]) for place in np.flatnonzero(failed)}
            )
            warnings.warn(
                f"{self._family.spec.name}: physics diverged in tasks {tasks}; episodes ended",
                stacklevel=3,
            )
        return failed.reshape(self._age.shape)

    def _restart(self, done: NDArray[np.bool_]) -> None:
        """Begin an episode where `done` [N, M]."""
        chosen, start = done.ravel(), getattr(self._family, "start", None)
        fresh = np.zeros((int(done.sum()), self._state.shape[1]))
        if start is None:
            fresh[:, 1 : 1 + self._shared.nq] = self._shared.qpos0
        else:
            position = np.concatenate(
                [np.asarray(part) for part in start(self._noise, self._time)], axis=-1
            )
            fresh[:, 1 : 1 + position.shape[-1]] = position[done]
        self._state[chosen] = fresh
        self._age[done] = 0
        if self._shared.nsensor:
            models = [self._models[place] for place in np.flatnonzero(chosen)]
            _, sensed = self._pool.rollout(models, self._data, fresh, nstep=1)
            self._sensed[chosen] = sensed[:, 0]

    def _out(self, array: Array) -> Tensor:
        """To float32, on the device of the tasks."""
        return torch.from_numpy(array.astype(np.float32)).to(self._tasks.params.device)

    # -- keeping

    def __getstate__(self) -> dict[str, Any]:
        """All but the simulator's own objects, which are made anew."""
        kept = (
            "_family",
            "_lanes",
            "_tasks",
            "_params",
            "_noise",
            "_time",
            "_age",
            "_state",
            "_sensed",
        )
        return {name: value for name, value in vars(self).items() if name in kept}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self._family, self._lanes = kept["_family"], kept["_lanes"]
        self._start()
        vars(self).update(kept)
        if "_tasks" in kept:
            self._allocate()
            self._state[:], self._sensed[:] = kept["_state"], kept["_sensed"]


def _unflatten(array: Array, shape: tuple[int, int]) -> Array:
    """A view [N, M, …] of `array` [N·M, …], whose rows need not lie side by side."""
    rows, lanes = shape
    view: Array = np.lib.stride_tricks.as_strided(
        array, (rows, lanes, array.shape[1]), (lanes * array.strides[0], *array.strides)
    )
    return view


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


class _Painter:
    """Draws models of one size, off the screen."""

    def __init__(self, model: mujoco.MjModel) -> None:
        """Raises a FamilyError where no OpenGL library is found."""
        chosen = os.environ.get("MUJOCO_GL") or ("glfw" if os.environ.get("DISPLAY") else "egl")
        height, width = _PICTURE
        try:
            self._gl = importlib.import_module(f"mujoco.{chosen}").GLContext(width, height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except Exception as error:  # missing libraries show as errors of many kinds, by back end
            raise FamilyError(
                f"MuJoCo cannot draw with MUJOCO_GL={chosen} ({' '.join(str(error).split())}): install an OpenGL "
                "library (on Debian: apt install --no-install-recommends libegl1 libgl1), or choose another MUJOCO_GL"
            ) from error
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)

    def paint(self, model: mujoco.MjModel, data: mujoco.MjData) -> NDArray[np.uint8]:
        """[height, width, 3]."""
        height, width = _PICTURE
        self._gl.make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        every = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            model, data, mujoco.MjvOption(), None, _camera(model), every, self._scene
        )
        picture, frame = np.empty((height, width, 3), np.uint8), mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(frame, self._scene, self._context)
        mujoco.mjr_readPixels(picture, None, frame, self._context)
        return picture[::-1].copy()  # OpenGL's first row is at the bottom


def _camera(model: mujoco.MjModel) -> mujoco.MjvCamera:
    """The model's first camera, or one that follows its first body."""
    camera = mujoco.MjvCamera()
    if model.ncam:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
    else:
        camera.type, camera.trackbodyid = (
            mujoco.mjtCamera.mjCAMERA_TRACKING,
            min(1, model.nbody - 1),
        )
        camera.distance, camera.elevation = 2.0 * model.stat.extent, -20.0
    return camera
