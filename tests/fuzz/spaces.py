"""Inputs that nobody thought of: Gymnasium's spaces, environments that misbehave, and what people
hand to a session or a recording.

`PROPERTIES` maps a name to a function without arguments that draws examples and raises for the
first one that breaks the promise: either everything works and equals an independent computation,
or there is a MetaRLError of one line. Neither a traceback nor a hang. How many examples a call
draws is up to the profile of hypothesis that is loaded when this module is imported.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers import Adapting, Ragged, live
from hypothesis import given
from hypothesis import strategies as st

from metarl.adapters.gymnasium import GymnasiumFamily, GymnasiumVectorFamily
from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.data.recording import Recording, recorded
from metarl.evaluation.session import Session

HORIZON = 3

# -------------------------------------------------------------------------------------------------
# Spaces


SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
FLOATS = st.sampled_from([np.float16, np.float32, np.float64])
NUMBERS = st.sampled_from(
    [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int32, np.int64, np.uint64, np.bool_]
)
KEYS = st.sampled_from(["a", "b", "a.b", "", "observation", "hidden"])


@st.composite
def boxes(draw: Any, dtypes: st.SearchStrategy[Any] = NUMBERS) -> spaces.Box:
    """Of every type and shape, bounded or not."""
    dtype = np.dtype(draw(dtypes))
    low, high = {"b": (0, 1), "u": (0, 200)}.get(dtype.kind, (-100, 100))
    if dtype.kind == "f":
        low, high = draw(st.sampled_from([(-1, 1), (-np.inf, np.inf), (0, np.inf), (0.1, 0.7)]))
        if dtype == np.float64 and draw(st.booleans()):
            low, high = draw(st.sampled_from([(-1e39, 1e39), (-1e308, 1e308)]))
    if dtype == np.int8:
        low, high = -128, 127
    return spaces.Box(low, high, draw(SHAPES), dtype)


def choices() -> st.SearchStrategy[spaces.Space]:
    counts = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(np.array)
    return st.one_of(
        st.builds(spaces.Discrete, st.integers(1, 9), start=st.integers(-(2**40), 2**40)),
        st.builds(spaces.Discrete, st.integers(1, 9), start=st.integers(-3, 3)),
        counts.map(spaces.MultiDiscrete),
        counts.map(lambda n: spaces.MultiDiscrete(np.stack([n, n]), start=np.stack([n, -n]))),
        st.integers(1, 4).map(spaces.MultiBinary),
        st.tuples(st.integers(1, 3), st.integers(1, 3)).map(spaces.MultiBinary),
    )


def formless() -> st.SearchStrategy[spaces.Space]:
    """Spaces without parts, or whose samples have no flat form, or none of a fixed length."""
    node = spaces.Box(-1, 1, (2,))
    return st.sampled_from(
        [
            spaces.Text(3),
            spaces.Graph(node_space=node, edge_space=None),
            spaces.Sequence(node),
            spaces.OneOf([node, spaces.Discrete(2)]),
            spaces.Dict(),
            spaces.Tuple([]),
        ]
    )


OBSERVATIONS: st.SearchStrategy[spaces.Space] = st.recursive(
    st.one_of(boxes(), boxes(), choices(), choices(), formless()),
    lambda inner: st.one_of(
        st.dictionaries(KEYS, inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=5,
)
DISCRETE = st.builds(spaces.Discrete, st.integers(1, 4), start=st.integers(-3, 3))
ACTIONS = st.one_of(
    DISCRETE,
    DISCRETE,
    st.builds(spaces.Box, st.just(-0.1), st.just(0.7), SHAPES, FLOATS),
    boxes(FLOATS),
    boxes(),
    choices(),
    formless(),
)

# -------------------------------------------------------------------------------------------------
# Rubbish


RUBBISH = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from([2**70, -(2**63), 2**64 - 1]),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.builds(object),
    st.lists(st.integers(-1, 1), max_size=3),
    st.just([[1, 2], [3]]),
    st.just({}),
    st.just(()),
    st.builds(np.full, SHAPES, st.sampled_from([0.0, 1.0, np.nan, 1e300])),
    st.builds(np.full, SHAPES, st.sampled_from([True, "x", None, 1j, 2**62, 0, -1])),
    st.sampled_from([np.float32(1), np.True_, np.int8(-1), np.datetime64("2000")]),
    st.just(torch.ones(1, requires_grad=True)),
    st.just(torch.ones(2)),
)
PLACES = (
    "obs",
    "leaf",
    "leaf",
    "reset",
    "reward",
    "terminated",
    "truncated",
    "info",
    "success",
    "metric",
    "step",
)


class Raises:
    """In place of a value: what raises where it is used."""

    def __array__(self, *_: object, **__: object) -> Any:
        raise ValueError("several\nlines")

    def __repr__(self) -> str:
        raise RuntimeError("no text")


@st.composite
def plans(draw: Any) -> tuple[spaces.Space, spaces.Space, str | None, Any, int]:
    """Spaces, and what is put in which place in which step."""
    place = draw(st.one_of(st.none(), st.sampled_from(PLACES)))
    rubbish = draw(st.one_of(RUBBISH, RUBBISH, st.builds(Raises)))
    return draw(OBSERVATIONS), draw(ACTIONS), place, rubbish, draw(st.integers(0, 4))


# -------------------------------------------------------------------------------------------------
# Environments


class Strange(gymnasium.Env):
    """Samples of its space, and in step number `when` something else in one `place`."""

    def __init__(self, plan: tuple[Any, ...], seen: list[Any]):
        self.observation_space, self.action_space, self.place, self.rubbish, self.when = plan
        self.observation_space = copy.deepcopy(self.observation_space)
        self.seen = seen  # the observations of resets and steps
        self.time = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self._instead("reset", (self._see(), {}))

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), "an action outside its space"
        self.time += 1
        info = self._instead(
            "info",
            {"success": self._instead("success", True), "metric": self._instead("metric", 0.5)},
        )
        flags = [self._instead(name, False) for name in ("terminated", "truncated")]
        return self._instead("step", (self._see(), self._instead("reward", 1.0), *flags, info))

    def _see(self) -> Any:
        sample = self.observation_space.sample()
        obs = self._instead("obs", sample)
        if self.place == "leaf" and self.time == self.when:
            obs = with_leaf(sample, self.rubbish)
        self.seen.append(obs)
        return obs

    def _instead(self, place: str, usual: Any) -> Any:
        return self.rubbish if place == self.place and self.time == self.when else usual


def with_leaf(sample: Any, leaf: Any) -> Any:
    """`sample` with something else in the place of its first leaf."""
    if isinstance(sample, dict) and sample:
        name = next(iter(sample))
        return {**sample, name: with_leaf(sample[name], leaf)}
    if isinstance(sample, tuple) and sample:
        return (with_leaf(sample[0], leaf), *sample[1:])
    return leaf


def flatten(space: spaces.Space, obs: Any) -> np.ndarray:
    """[O] float32, by Gymnasium; what is not in its space is an error."""
    match space:
        case spaces.Dict():
            parts = [flatten(child, obs[name]) for name, child in space.items()]
        case spaces.Tuple():
            parts = [flatten(child, obs[place]) for place, child in enumerate(space)]
        case spaces.Box():
            return np.asarray(obs).astype(np.float32).ravel()
        case _:
            values = np.asarray(obs).reshape(space.shape)
            whole = values.astype(np.int64)
            assert (whole == values).all(), f"{obs} is not whole"
            sample = whole.item() if isinstance(space, spaces.Discrete) else whole
            assert space.contains(np.asarray(sample, space.dtype)[()]), f"{obs} not in {space}"
            parts = [spaces.flatten(space, sample)]
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


class Strangers(GymnasiumFamily):
    """A family of such environments."""

    horizon = HORIZON
    metrics = ("metric",)

    def __init__(self, plan: tuple[Any, ...]):
        self.plan = plan
        self.seen: list[Any] = []

    def build(self) -> Any:
        return Strange(self.plan, self.seen)

    def row(self, split: str, rng: np.random.Generator) -> Any:
        return [rng.uniform()]

    def apply(self, env: Any, row: Any) -> None:
        pass


class ManyStrangers(GymnasiumVectorFamily):
    """The same in a vector environment."""

    horizon = HORIZON
    row, apply = Strangers.row, Strangers.apply
    __init__ = Strangers.__init__

    def build(self, num_envs: int) -> Any:
        first: list[Any] = self.seen
        build = [lambda: Strange(self.plan, first)]
        build += [lambda: Strange(self.plan, [])] * (num_envs - 1)
        return SyncVectorEnv(build, autoreset_mode=AutoresetMode.SAME_STEP)


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """A MetaRLError of one line is an answer; anything else that is raised is not."""
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        try:
            yield
        except MetaRLError as error:
            message = str(error)
        else:
            return
    assert message.strip(), "an error without words"
    assert "\n" not in message, f"several lines: {message!r}"


def one_input(plan: tuple[Any, ...], family: type[Any] = Strangers) -> None:
    """Two episodes of two tasks, or one line.

    The observations are those of `gymnasium.spaces.flatten`.
    """
    made = family(plan)
    space = plan[0]
    with one_line():
        spec = made.spec
        tasks = made.tasks("train", 1, Rng(0))
        made.seen.clear()
        rollout, _ = live(made, tasks, 2)
        assert plan[2] is None or rollout.reward.isfinite().all()
        if plan[2] in ("step", "reset") or family is not Strangers:
            return
        flat = [flatten(space, obs) for obs in made.seen]
        assert spec.obs_width == len(flat[0])
        place = 0
        for time, done in enumerate(rollout.done[:, 0, 0].tolist()):
            acted, successor = rollout.inputs.obs[time, 0, 0], rollout.next_obs[time, 0, 0]
            np.testing.assert_array_equal(acted.numpy(), flat[place])
            np.testing.assert_array_equal(successor.numpy(), flat[place + 1])
            place += 1 + done  # a reset's observation follows the last one of an episode


@given(plans())
def environments(plan: tuple[Any, ...]) -> None:
    """`one_input` of a plain environment."""
    one_input(plan)


@given(plans())
def vector_environments(plan: tuple[Any, ...]) -> None:
    """`one_input` of a vector environment.

    Where Gymnasium itself cannot put such values side by side, that is one line, too.
    """
    one_input(plan, ManyStrangers)


# -------------------------------------------------------------------------------------------------
# Attributes of a family


@given(
    st.sampled_from(
        ["horizon", "hidden", "goal_width", "achieved_goal", "splits", "closed", "metrics"]
        + ["workers", "call_seconds", "success", "row", "rows"]
    ),
    RUBBISH,
)
def attributes(name: str, value: Any) -> None:
    """A family with one attribute of a wrong type, or a method that gives a wrong value."""
    plan = (spaces.Box(-1, 1, (2,)), spaces.Discrete(2), None, None, 0)
    made = Strangers(plan)
    method = name in ("row", "rows", "success")
    vars(made)[name] = (lambda *_: value) if method else value
    if name == "workers" and isinstance(value, int) and value > 0:
        return  # it is right
    with one_line():
        live(made, made.tasks("train", 2, Rng(0)), 1)


# -------------------------------------------------------------------------------------------------
# Sessions and recordings


def session() -> Session:
    spec = Ragged().spec
    return Session(Adapting(spec), spec)


@given(st.lists(st.tuples(*[st.one_of(RUBBISH, st.just(np.zeros(4)))] * 2, *[RUBBISH] * 3)))
def sessions(steps: list[tuple[Any, ...]]) -> None:
    """Whatever is handed to `act` and `observe`: a session goes on after every mistake."""
    met = session()
    for obs, next_obs, reward, terminated, truncated in steps:
        with one_line():
            met.act(obs)
        with one_line():
            met.observe(reward, next_obs, terminated, truncated)
    if met._acted is None:
        with one_line():
            met.act(np.zeros(4))
    met.observe(1.0, np.zeros(4), True, False)


LIKELY = {
    "obs": np.zeros((3, 4)),
    "action": [0, 1],
    "reward": [1.0, 2.0],
    "terminated": True,
}


@given(
    st.fixed_dictionaries({name: st.one_of(st.just(x), RUBBISH) for name, x in LIKELY.items()}),
    RUBBISH,
)
def recordings(arrays: dict[str, Any], instead: Any) -> None:
    """Whatever stands in a recording, or in the place of one or of the list of them."""
    for episodes in ([Recording(**arrays)], [Recording(**LIKELY), instead], instead):
        with one_line():
            rollout = recorded(Ragged().spec, episodes)
            assert rollout.reward.isfinite().all()
        with one_line():
            session().replay(episodes)


PROPERTIES = {
    "environments": environments,
    "vector environments": vector_environments,
    "attributes": attributes,
    "sessions": sessions,
    "recordings": recordings,
}
