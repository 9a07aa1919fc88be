"""MuJoCo models as families: N task rows × M lanes, stepped by one native call on a thread pool.

A family of its own gives the model, the observation and the reward; `MujocoEnv` does the rest::

    def make(self, lanes):
        return MujocoEnv(self, lanes)

States, observations and rewards are NumPy arrays of float64, the same bit for bit whatever the
number of threads. One control step equals `frame_skip` calls of ``mj_step`` from the same state
with a cold warm start; the warm start is no part of MuJoCo's state.
"""

import importlib
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import mujoco
import mujoco.rollout
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.adapters.offscreen import offscreen
from metarl.core.errors import FamilyError
from metarl.core.rng import Rng, Streams, send
from metarl.core.types import Spec, Step, Tasks

_FULL = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)
_CONTROL = int(mujoco.mjtState.mjSTATE_CTRL)
_PICKLED = {
    "_family",
    "_lanes",
    "_device",
    "_tasks",
    "_noise",
    "_time",
    "_age",
    "_state",
    "_sensed",
}
_SIZE = 480  # pixels: height and width of a frame

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


# -------------------------------------------------------------------------------------------------
# Families


@dataclass(frozen=True)
class Physics:
    """What the simulator knows of every lane, as views that the next step overwrites."""

    qpos: Array  # [N, M, nq] generalized positions
    qvel: Array  # [N, M, nv] generalized velocities
    sensors: Mapping[str, Array]
    """[N, M, width] at the start of the last physics step, as after ``mj_step``."""


@runtime_checkable
class Simulated(Protocol):
    """What `MujocoEnv` asks of a family.

    A family may also be one of those below, and have ``threads: int``: how many threads step the
    lanes; without it, one for every core that this process may use.
    """

    spec: Spec
    frame_skip: int
    """Physics steps of one control step."""

    def model(self) -> mujoco.MjModel:
        """The model; its sensors, if it has any, come back by name in `Physics`."""

    def observe(self, now: Physics) -> Array:
        """[N, M, O], a new array."""

    def reward(
        self,
        before: Physics,
        after: Physics,
        control: Array,
        params: Array,
    ) -> Array:
        """[N, M] for `control` [N, M, nu], in the actuators' units, and rows `params` [N, 1, P]."""


@runtime_checkable
class HasStart(Protocol):
    """A family that draws where episodes start; others start at the model's position, at rest."""

    def start(self, noise: Streams, counter: int) -> tuple[Array, Array]:
        """qpos [N, M, nq] and qvel [N, M, nv], all randomness from `noise` at place `counter`."""


@runtime_checkable
class Terminates(Protocol):
    """A family whose episodes may end before the horizon."""

    def terminated(self, after: Physics) -> Flags:
        """[N, M]: which episodes are over."""


@runtime_checkable
class Measures(Protocol):
    """A family with metrics, those that its spec names."""

    def measure(
        self,
        before: Physics,
        after: Physics,
        control: Array,
        params: Array,
    ) -> dict[str, Array]:
        """[N, M] each, of what `reward` is given."""


@runtime_checkable
class HasTaskModels(Protocol):
    """A family whose tasks differ in their dynamics."""

    def task_model(self, model: mujoco.MjModel, row: NDArray[np.float32]) -> mujoco.MjModel:
        """The model of the task `row` [P]: a changed copy of the shared `model`."""


# -------------------------------------------------------------------------------------------------
# Models


def load_model(
    path: str | Path, change: Callable[[mujoco.MjSpec], None] | None = None
) -> mujoco.MjModel:
    """The compiled model of an XML file, after `change` has edited its ``mujoco.MjSpec``.

    Raises:
        FamilyError: no such file, or MuJoCo refuses it.
    """
    if not Path(path).is_file():
        raise FamilyError(f"there is no MuJoCo model {path}")
    # Or MuJoCo's warnings are printed, and written to a log in the working folder.
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        if change is not None:
            change(spec)
        # Gymnasium's models are older than the words that MuJoCo would like there.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deprecated")
            return spec.compile()
    except ValueError as error:
        raise FamilyError(f"MuJoCo refuses {path}: {' '.join(str(error).split())}") from error


def add_contact_forces(spec: mujoco.MjSpec) -> None:
    """Give every body the sensor from which `contact_forces` finds what acts on it from outside.

    Raises:
        FamilyError: a MuJoCo without contact sensors.
    """
    try:
        kind = mujoco.mjtSensor.mjSENS_CONTACT
    except AttributeError:
        raise FamilyError(
            f"contact forces need contact sensors, which MuJoCo {mujoco.__version__} lacks: "
            "upgrade to 3.3.5, or do without"
        ) from None
    force_torque_position = 2 + 4 + 16
    net_force = 3
    for i, body in enumerate(spec.bodies[1:], start=1):
        body.name = body.name or f"body-{i}"
        spec.add_sensor(
            name=f"contact:{body.name}",
            type=kind,
            objtype=mujoco.mjtObj.mjOBJ_BODY,
            objname=body.name,
            intprm=[force_torque_position, net_force, 1],
        )
    add_com(spec)


def add_com(spec: mujoco.MjSpec) -> None:
    """Give the model's first body the sensor `com`: center of mass of all that hangs on it."""
    spec.add_sensor(
        name="com",
        type=mujoco.mjtSensor.mjSENS_SUBTREECOM,
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        objname=spec.bodies[1].name,
    )


def contact_forces(now: Physics) -> Array:
    """[N, M, bodies, 6]: MuJoCo's ``cfrc_ext`` of every body but the world.

    These are the torque about the center of mass, then the force.
    """
    contacts = [value for name, value in now.sensors.items() if name.startswith("contact:")]
    force, torque, position = np.split(np.stack(contacts, axis=-2), (3, 6), axis=-1)
    arm = position - now.sensors["com"][..., None, :]
    return -np.concatenate([torque + np.cross(arm, force), force], axis=-1)


# -------------------------------------------------------------------------------------------------
# Environments


class MujocoEnv:
    """N task rows × M lanes of a simulated family."""

    steps_on_cpu: Literal[True] = True

    def __init__(self, family: Simulated, lanes: int):
        self._family = family
        self._lanes = lanes
        self._shared = family.model()
        self._threads: int = getattr(family, "threads", 0) or _available_cores()
        self._data: list[mujoco.MjData] = []  # one for every thread of the pool
        low, high = self._shared.actuator_ctrlrange.T
        self._middle = (low + high) / 2
        self._reach = (high - low) / 2

    # -- BatchEnv

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        """Put every lane at the start of an episode."""
        self._device = tasks.params.device
        self._tasks = tasks.to(torch.device("cpu"))
        self._noise = self._tasks.streams(rng, self._lanes)
        self._time = 0
        self._age = np.zeros((len(tasks), self._lanes), np.int64)
        self._state = np.zeros((self._age.size, mujoco.mj_stateSize(self._shared, _FULL)))
        self._sensed = np.zeros((self._age.size, self._shared.nsensordata))
        self._allocate()
        self._restart(np.ones_like(self._age, bool))
        return self._out(self._family.observe(self._now))

    def step(self, action: Tensor) -> Step:
        """Control every lane for one step: `action` [N, M, A] in [−1, 1], scaled to its range."""
        family = self._family
        control = np.clip(action.cpu().numpy(), -1, 1) * self._reach + self._middle
        self._control[:] = control.reshape(-1, 1, control.shape[-1])
        self._simulate()
        self._time += 1
        self._age += 1

        terminated = self._diverged()
        observed = family.observe(self._after)
        reward = family.reward(self._now, self._after, control, self._params)
        if isinstance(family, Terminates):
            terminated = terminated | family.terminated(self._after)
        measured: dict[str, Array] = {}
        if isinstance(family, Measures):
            measured = family.measure(self._now, self._after, control, self._params)
        metrics = {name: self._out(values) for name, values in measured.items()}
        truncated = (self._age >= family.spec.horizon) & ~terminated
        self._state[:] = self._states[:, -1]
        self._sensed[:] = self._sensors[:, -1]

        obs = next_obs = self._out(observed)
        done = terminated | truncated
        if done.any():
            self._restart(done)
            obs = self._out(np.where(done[..., None], family.observe(self._now), observed))
        return Step(
            obs,
            next_obs,
            self._out(reward),
            terminated=self._out(terminated, bool),
            truncated=self._out(truncated, bool),
            metrics=metrics,
        )

    def frame(self, row: int, lane: int) -> NDArray[np.uint8]:
        """[height, width, 3]: one lane as its camera sees it.

        Raises:
            FamilyError: there is nothing to draw with.
        """
        place = row * self._lanes + lane
        model = self._models[place]
        data = mujoco.MjData(model)
        mujoco.mj_setState(model, data, self._state[place], _FULL)
        mujoco.mj_forward(model, data)
        return self._painter.paint(model, data)

    @cached_property
    def _painter(self) -> "_Painter":
        return _Painter(self._shared)

    # -- the simulator

    def _allocate(self) -> None:
        """Models and buffers for the native call, and views of them by name."""
        family, model = self._family, self._shared
        params = self._tasks.params
        self._params = params.double().numpy()[:, None]  # [N, 1, P]
        self._models: list[mujoco.MjModel] = []
        for row in params.numpy():
            own = family.task_model(model, row) if isinstance(family, HasTaskModels) else model
            self._models += [own] * self._lanes

        rows, width = self._state.shape
        threads = min(self._threads, rows)
        if threads != len(self._data):
            self._pool = mujoco.rollout.Rollout(nthread=threads if threads > 1 else 0)
            self._data = [mujoco.MjData(model) for _ in range(threads)]
        steps = family.frame_skip
        self._states = np.zeros((rows, steps, width))
        self._sensors = np.zeros((rows, steps, model.nsensordata))
        self._control = np.zeros((rows, steps, model.nu))
        self._now = self._view(self._state, self._sensed)
        self._after = self._view(self._states[:, -1], self._sensors[:, -1])

    def _view(self, state: Array, sensed: Array) -> Physics:
        """state [N·M, 1 + nq + nv + …]: the time, then positions, then velocities."""
        model = self._shared
        velocity = 1 + model.nq
        state = state.reshape(*self._age.shape, -1)
        sensed = sensed.reshape(*self._age.shape, -1)
        sensors = {}
        for i in range(model.nsensor):
            sensor = model.sensor(i)
            first = sensor.adr[0]
            sensors[sensor.name] = sensed[..., first : first + sensor.dim[0]]
        return Physics(state[..., 1:velocity], state[..., velocity : velocity + model.nv], sensors)

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
            chunk_size=-(-len(self._state) // len(self._data)),
        )

    def _diverged(self) -> Flags:
        """[N, M]: where MuJoCo gave up and set its clock back; these lanes stay where they were."""
        elapsed = self._states[:, -1, 0] - self._state[:, 0]
        failed = elapsed < (self._family.frame_skip - 0.5) * self._shared.opt.timestep
        if failed.any():
            self._states[failed, -1] = self._state[failed]
            index = self._tasks.index.numpy().repeat(self._lanes)
            tasks = np.unique(index[failed]).tolist()
            warnings.warn(
                f"{self._family.spec.name}: physics diverged in tasks {tasks}; episodes ended",
                stacklevel=3,
            )
        return failed.reshape(self._age.shape)

    def _restart(self, done: Flags) -> None:
        """Begin an episode where `done` [N, M]."""
        chosen = done.ravel()
        fresh = np.zeros((int(done.sum()), self._state.shape[1]))
        if isinstance(self._family, HasStart):
            start = np.concatenate(self._family.start(self._noise, self._time), axis=-1)
            fresh[:, 1 : 1 + start.shape[-1]] = start[done]
        else:
            fresh[:, 1 : 1 + self._shared.nq] = self._shared.qpos0
        self._state[chosen] = fresh
        self._age[done] = 0
        if self._shared.nsensor:
            models = list(compress(self._models, chosen))
            _, sensed = self._pool.rollout(models, self._data, fresh, nstep=1)
            self._sensed[chosen] = sensed[:, 0]

    def _out(self, array: NDArray[Any], dtype: type = np.float32) -> Tensor:
        """A new tensor of `dtype`, on the device of the tasks."""
        return send(torch.from_numpy(array.astype(dtype)), self._device)

    # -- keeping

    def __getstate__(self) -> dict[str, Any]:
        """All but the simulator's own objects, which are made anew."""
        return {name: value for name, value in vars(self).items() if name in _PICKLED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        MujocoEnv.__init__(self, state["_family"], state["_lanes"])
        vars(self).update(state)
        if "_tasks" in state:
            self._allocate()


def _available_cores() -> int:
    """How many CPU cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        return os.cpu_count() or 1


# -------------------------------------------------------------------------------------------------
# Pictures


class _Painter:
    """Draws models of one size, off the screen.

    Raises:
        FamilyError: there is no OpenGL library to draw with.
    """

    def __init__(self, model: mujoco.MjModel):
        with offscreen() as back_end:
            self._gl = importlib.import_module(f"mujoco.{back_end}").GLContext(_SIZE, _SIZE)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)

    def paint(self, model: mujoco.MjModel, data: mujoco.MjData) -> NDArray[np.uint8]:
        """[height, width, 3]."""
        self._gl.make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        every = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            model,
            data,
            mujoco.MjvOption(),
            None,
            _camera(model),
            every,
            self._scene,
        )
        picture = np.empty((_SIZE, _SIZE, 3), np.uint8)
        frame = mujoco.MjrRect(0, 0, _SIZE, _SIZE)
        mujoco.mjr_render(frame, self._scene, self._context)
        mujoco.mjr_readPixels(picture, None, frame, self._context)
        return picture[::-1].copy()  # OpenGL's first row is at the bottom


def _camera(model: mujoco.MjModel) -> mujoco.MjvCamera:
    """The model's first camera, or one that follows its first body."""
    camera = mujoco.MjvCamera()
    if model.ncam:
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        camera.fixedcamid = 0
    else:
        camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        camera.trackbodyid = min(1, model.nbody - 1)
        camera.distance = 2.0 * model.stat.extent
        camera.elevation = -20.0
    return camera
