"""Environments that break their promises: one line each, which says what, where and when."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers import FILES, live

from metarl.adapters.from_gymnasium.spaces import Actions, parts
from metarl.adapters.gymnasium import GymnasiumFamily, GymnasiumVectorFamily
from metarl.core.errors import FamilyError, MetaRLError
from metarl.core.rng import Rng
from metarl.experiments.building import make_family

FILE = FILES / "faulty.py"


def told(family: Any, lanes: int = 1) -> FamilyError:
    """What living through two episodes of a task ends with."""
    with pytest.raises(FamilyError) as caught:
        live(family, family.tasks("train", 1, Rng(0)), 2, lanes=lanes)
    assert "\n" not in str(caught.value)
    return caught.value


# -------------------------------------------------------------------------------------------------
# Observations


BOX = spaces.Box(-1, 1, (2, 3))
SHIFTED = spaces.Discrete(3, start=1)
MANY = spaces.MultiDiscrete([2, 3])


@pytest.mark.parametrize(
    ("space", "given", "says"),
    [
        (BOX, np.zeros((3, 2)), r"observation is of shape \[3, 2\]; its space says \[2, 3\]"),
        (BOX, np.zeros(6), r"observation is of shape \[6\]"),
        (BOX, [[0, 0, 0], [0, 0]], r"is \[\[0, 0, 0\], \[0, 0\]\], not an array of numbers"),
        (BOX, None, r"observation is None \(object\), not real numbers"),
        (BOX, np.full((2, 3), "0"), "not real numbers"),
        (BOX, np.zeros((2, 3), complex), r"\(complex128\), not real numbers"),
        (SHIFTED, 0, "observation: 0 is outside its space, the whole numbers from 1 to 3"),
        (SHIFTED, 4, "observation: 4 is outside"),
        (SHIFTED, -1, "observation: -1 is outside"),
        (SHIFTED, 1.5, "observation: 1.5 is outside"),
        (SHIFTED, np.nan, "observation: nan is outside"),
        (SHIFTED, np.uint64(2**64 - 1), "is outside"),
        (SHIFTED, np.int64(-(2**63)), "is outside"),
        (SHIFTED, 2**70, "not real numbers"),
        (MANY, [0, 3], "observation: 3 is outside its space, the whole numbers from 0 to 2"),
        (MANY, [2, 0], "observation: 2 is outside its space, the whole numbers from 0 to 1"),
        (MANY, [0], "shape"),
        (spaces.MultiBinary(2), [0, 2], "observation: 2 is outside"),
        (spaces.MultiBinary(2), [0.5, 0], "observation: 0.5 is outside"),
        (spaces.Dict(a=BOX, b=SHIFTED), {"a": np.zeros((2, 3))}, "observation b: there is no 'b'"),
        (spaces.Dict(a=BOX), np.zeros((2, 3)), "observation a: there is no 'a' in array"),
        (
            spaces.Dict(a=spaces.Tuple([BOX, BOX])),
            {"a": (BOX.low,)},
            "observation a.1: there is no",
        ),
    ],
)
def test_what_is_not_in_the_space_is_told(space: spaces.Space, given: Any, says: str):
    with pytest.raises(MetaRLError, match=says) as caught:
        [part.flat(given, 1) for part in parts(space)]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("space", "given", "flat"),
    [
        (SHIFTED, 3.0, [0, 0, 1]),
        (SHIFTED, np.array([[2]], np.uint8), [0, 1, 0]),
        (spaces.Discrete(2), True, [0, 1]),
        (spaces.Box(-1, 1, (1,)), 0.5, [0.5]),
        (spaces.Box(-1, 1, ()), [0.5], [0.5]),
        (spaces.Box(-1, 1, (2, 1)), [1, 0], [1, 0]),
        (MANY, (1.0, 2.0), [0, 1, 0, 0, 1]),
        (spaces.MultiBinary(2), [True, False], [1, 0]),
        (spaces.Box(-1, 1, (2,)), torch.ones(2), [1, 1]),
    ],
)
def test_what_can_be_meant_in_one_way_only_is_understood(
    space: spaces.Space, given: Any, flat: list[float]
):
    (part,) = parts(space)
    assert part.flat(given, 1).tolist() == [flat]


def test_the_lane_of_a_batch_is_found():
    (part,) = parts(SHIFTED)
    with pytest.raises(MetaRLError, match="7 is outside") as caught:
        part.flat(np.array([1, 2, 7, 9]), 4)
    assert caught.value.lane == 2


def test_a_hidden_part_needs_no_flat_form():
    space = spaces.Dict(mission=spaces.Text(3), view=BOX, inner=spaces.Dict(more=spaces.Text(2)))
    (view,) = parts(space, ("mission", "inner"))
    assert view.name == "view"
    with pytest.raises(MetaRLError, match=r"Text.* has no flat form; .* or hide it"):
        parts(space, ("mission",))


def test_two_parts_of_one_name_are_refused():
    """A dictionary of widths would lose one of them."""
    space = spaces.Dict({"a.b": BOX, "a": spaces.Dict(b=BOX)})
    with pytest.raises(MetaRLError, match=r"2 parts of the observation are called 'a\.b'"):
        parts(space)


def test_rescaled_actions_stay_in_their_space():
    """−3 + (−0.9 − −3) is more than −0.9 in floating point."""
    space = spaces.Box(-3.0, -0.9, (3,), np.float64)
    assert -3.0 + (-0.9 + 3.0) > -0.9
    (given,) = Actions(space).per_lane(np.ones((1, 3), np.float32))
    assert space.contains(given)


# -------------------------------------------------------------------------------------------------
# Steps


class Answers(gymnasium.Env):
    """Gives in the second step what a test wants."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, answer: Any):
        self.answer = answer

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        usual = (np.zeros(1, np.float32), 0.0, False, False, {})
        return self.answer(*usual) if self.steps == 2 else usual


class Answering(GymnasiumFamily):
    """A family of it."""

    horizon = 3

    def __init__(self, answer: Any = lambda *usual: usual, **attributes: Any):
        self.answer = answer
        vars(self).update(attributes)

    def build(self):
        return Answers(self.answer)

    def row(self, split, rng):
        return [0.25]

    def apply(self, env, row):
        pass


class AnsweringMany(GymnasiumVectorFamily):
    """The same side by side."""

    horizon = 3
    row, apply, __init__ = Answering.row, Answering.apply, Answering.__init__

    def build(self, num_envs):
        return SyncVectorEnv(
            [lambda: Answers(self.answer)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP
        )


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda o, r, a, b, i: (o, r, a, i), "it gives 4 values; Gymnasium's gives five"),
        (lambda o, r, a, b, i: None, "it gives None; Gymnasium's gives five"),
        (lambda o, r, a, b, i: (o, None, a, b, i), "the reward is None"),
        (lambda o, r, a, b, i: (o, "1", a, b, i), "the reward is '1'"),
        (lambda o, r, a, b, i: (o, 1j, a, b, i), "the reward is 1j"),
        (lambda o, r, a, b, i: (o, np.nan, a, b, i), "the reward is nan, not one finite number"),
        (lambda o, r, a, b, i: (o, 1e39, a, b, i), "the reward is 1e\\+39"),
        (lambda o, r, a, b, i: (o, [1.0, 2.0], a, b, i), r"the reward is \[1.0, 2.0\]"),
        (lambda o, r, a, b, i: (o, r, None, b, i), "terminated is None"),
        (lambda o, r, a, b, i: (o, r, "False", b, i), "terminated is 'False'"),
        (lambda o, r, a, b, i: (o, r, 2, b, i), "terminated is 2, neither True nor False"),
        (lambda o, r, a, b, i: (o, r, a, np.array([False, True]), i), "truncated is array"),
        (lambda o, r, a, b, i: (o, r, a, b, None), "info is None, not a dict"),
        (lambda o, r, a, b, i: (None, r, a, b, i), "observation is None"),
    ],
)
def test_an_answer_of_another_kind_is_told(answer: Any, says: str):
    place = r"^answering: step 1 of episode 0 of the task \[0.25\], lane 0: "
    assert re.search(place + says, str(told(Answering(answer))))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda o, r, a, b, i: (o, r, a, i), "ValueError: not enough values to unpack"),
        (lambda o, r, a, b, i: (o, None, a, b, i), "the reward is nan"),
        (lambda o, r, a, b, i: (o, np.nan, a, b, i), r"\[0.25\], lane 0: the reward is nan"),
        (lambda o, r, a, b, i: (o, r, a, b, None), "AttributeError: 'NoneType'"),
        (lambda o, r, a, b, i: (None, r, a, b, i), "ValueError: Output array"),
        (lambda o, r, a, b, i: (o, [0.0, 1.0], a, b, i), "ValueError: setting an array"),
    ],
)
def test_in_a_vector_environment_too(answer: Any, says: str):
    """Where Gymnasium's own loop stumbles first, its words are told."""
    assert re.search(f"^answering-many: step.*{says}", str(told(AnsweringMany(answer))))


@pytest.mark.parametrize(
    "answer",
    [
        lambda o, r, a, b, i: (o, np.array([2.0]), np.array([True]), np.array([[False]]), i),
        lambda o, r, a, b, i: (o, 2, 1, 0, i),
        lambda o, r, a, b, i: [o, torch.tensor(2.0), np.True_, torch.tensor(False), i],
        lambda o, r, a, b, i: (o, np.float32(2), 1.0, 0.0, i),
    ],
)
def test_arrays_of_one_entry_and_whole_numbers_are_understood(answer: Any):
    family = Answering(answer)
    rollout, _ = live(family, family.tasks("train", 1, Rng(0)), 2)
    assert rollout.reward.flatten().tolist() == [0, 2, 0, 2]
    assert rollout.terminated.flatten().tolist() == [False, True] * 2


class Choosing(Answers):
    """Observes `choice` in every step."""

    observation_space = spaces.Discrete(2)

    def __init__(self, choice: int):
        self.choice = choice

    def reset(self, *, seed=None, options=None):
        return 0, super().reset(seed=seed)[1]

    def step(self, action):
        return self.choice, 0.0, False, False, {}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_a_vector_environment_says_which_lane(mode: AutoresetMode):
    """Of three, the last one leaves its space."""

    class Choices(AnsweringMany):
        def build(self, num_envs):
            made = [lambda: Choosing(1)] * 2 + [lambda: Choosing(5)]
            return SyncVectorEnv(made[:num_envs], autoreset_mode=mode)

    assert re.search(
        r"^choices: step 0 of episode 0 of the task \[0.25\], lane 2: observation: 5 is outside",
        str(told(Choices(), lanes=3)),
    )


def test_resets_of_another_api_are_told():
    class Alone(Answers):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0]

    class Seedless(Answers):
        def reset(self):
            return super().reset()

    alone = Answering(build=lambda: Alone(None))
    says = "reset of the task [0.25]: it gives array([0.], dtype=float32); Gymnasium's gives (obs"
    assert says in str(told(alone))
    assert "unexpected keyword argument 'seed'" in str(
        told(Answering(build=lambda: Seedless(None)))
    )


# -------------------------------------------------------------------------------------------------
# Attributes


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("workers", -1, "workers is -1; set a whole number of at least 0"),
        ("workers", 1.5, "workers is 1.5; set a whole number"),
        ("workers", True, "workers is True"),
        ("workers", "2", "workers is '2'"),
        ("horizon", 0, "horizon is 0; set a whole number of at least 1"),
        ("horizon", -3, "horizon is -3"),
        ("horizon", 2.0, "horizon is 2.0"),
        ("horizon", "4", "horizon is '4'"),
        ("hidden", "goal", "hidden is 'goal'; set a tuple of texts"),
        ("hidden", (1,), r"hidden is \(1,\); set a tuple of texts"),
        ("goal_width", -1, "goal_width is -1"),
        ("goal_width", None, "goal_width is None"),
        ("achieved_goal", 3, "achieved_goal is 3"),
        ("splits", "train", "splits is 'train'; set a tuple of texts"),
        ("splits", (), r"splits is \(\); set at least one"),
        ("metrics", "distance", "metrics is 'distance'; set a tuple of texts"),
        ("metrics", None, "metrics is None"),
        ("closed", "yes", "closed is 'yes'; set True or False"),
        ("call_seconds", 0, "call_seconds is 0"),
        ("call_seconds", 10, "call_seconds is 10; set workers = 1 or more, too"),
        ("row", lambda *_: None, r"row\('train', rng\) is None"),
        ("row", lambda *_: ["1"], r"row\('train', rng\) is \['1'\]"),
        ("row", lambda *_: [], "there are no numbers in the task rows"),
        ("row", lambda *_: [1e300], "a task row is not finite"),
        ("rows", lambda *_: 3, "there are no numbers in the task rows 3"),
        ("rows", lambda *_: [], "there are no numbers in the task rows"),
        (
            "rows",
            lambda *_: [[1], [1, 2]],
            r"the table of task rows is \[\[1\], \[1, 2\]\], not an array of numbers",
        ),
        ("rows", lambda *_: [[1j]], "the table of task rows is .*complex"),
    ],
)
def test_attributes_of_a_wrong_type_are_told(name: str, value: Any, says: str):
    with pytest.raises(FamilyError, match=f"^answering: .*{says}"):
        _ = Answering(**{name: value}).spec


# -------------------------------------------------------------------------------------------------
# What the code of a family raises


CALLS = {
    "build": "build",
    "row": r"row\('train', rng\)",
    "rows": r"rows\('train'\)",
    "apply": r"apply of the task \[0.5\]",
    "reset": r"reset of the task \[0.5\]",
    "second reset": r"reset of episode 2 of the task \[0.5\], lane 0",
    "step": r"step 2 of episode 0 of the task \[0.5\], lane 0",
    "success": r"success 0 of episode 0 of the task \[0.5\], lane 0",
}


@pytest.mark.parametrize("fault", CALLS)
def test_what_a_family_raises_is_one_line_with_its_traceback(fault: str):
    family = make_family(f"{FILE}:Faulty", fault=fault)
    error = told(family)
    name = fault.split()[-1]
    line = line_of(f"{name} broke" if name != "step" else "step\\nbroke")
    says = rf"^faulty: {CALLS[fault]}: ValueError: {name} broke \(faulty.py, line {line}\)$"
    assert re.search(says, str(error))
    assert isinstance(error.__cause__, ValueError)
    assert f"line {line}, in " in "".join(traceback.format_exception(error))


def line_of(text: str) -> int:
    lines = Path(FILE).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_a_worker_says_the_same():
    own = told(make_family(f"{FILE}:Faulty", fault="step"))
    other = told(make_family(f"{FILE}:FaultyInWorkers", fault="step"))
    assert str(other) == str(own).replace("faulty:", "faulty-in-workers:")
    assert "ValueError: step" in str(other.__cause__)


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        ("step hangs", r"step 2 of episode 0 of the task \[0.5\], lane 0"),
        ("reset hangs", r"reset of the task \[0.5\]"),
    ],
)
def test_a_call_that_never_ends_is_ended(fault: str, place: str):
    """Also the first one of all, by which the shape of an environment is found."""
    family = make_family(f"{FILE}:FaultyInWorkers", fault=fault)
    says = rf"^faulty-in-workers: {place}: it takes longer than 1.5 s \(call_seconds\)$"
    assert re.search(says, str(told(family)))


@pytest.mark.parametrize("fault", ["render", "render floats"])
def test_a_picture_that_cannot_be_taken_is_told(fault: str):
    family = make_family(f"{FILE}:Faulty", fault=fault)
    env = family.make(1)
    env.reset(family.tasks("train", 1, Rng(0)), Rng(0))
    says = {"render": "ValueError: render broke", "render floats": "rgb_array means uint8"}[fault]
    with pytest.raises(FamilyError, match=f"^faulty: render 0 of episode 0 .*{says}"):
        env.frame(0, 0)


def test_an_interrupt_passes():
    family = make_family(f"{FILE}:Faulty", fault="interrupt")
    with pytest.raises(KeyboardInterrupt):
        live(family, family.tasks("train", 1, Rng(0)), 1)
