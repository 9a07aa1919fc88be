"""The replay, against rings filled step by step in plain Python, and against probabilities."""

from __future__ import annotations

import io
import random
from collections import Counter, deque
from itertools import accumulate

import pytest
import torch
from helpers import CPU, Ragged, live, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, Spec, replace, tree_map
from metarl.data.replay import Column, Replay
from metarl.data.transitions import Transitions, hindsight, transition_columns
from metarl.experiments.building import make_family

LONGEST = 3  # steps of an episode
FIELDS = ("obs", "action", "reward", "training_reward", "next_obs", "terminated")
WIDTH = 2 * 3 + 2 + 4  # of a transition of SPEC
SPEC, DISCRETE = (
    Spec(
        "made",
        {"place": 1, "goal": 2},
        2,
        discrete,
        LONGEST,
        task_width=3,
        goal_width=2,
        achieved_goal="goal",
    )
    for discrete in (False, True)
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lived(
    index: list[int],
    lanes: int = 1,
    *,
    first: int = 0,
    seed: int = 0,
    steps: int = 0,
    spec: Spec = SPEC,
) -> Rollout:
    """Some ragged episodes of these tasks, or one of so many `steps`; what waits reports nonsense.

    Every step has a number, from `first` on: the first entry of its observation and of the goal
    that it achieves.
    """
    chance, generator, ends = random.Random(seed), seeded(seed), {}
    for lane in ((n, m) for n in range(len(index)) for m in range(lanes)):
        lengths = (
            [steps] if steps else chance.choices(range(1, LONGEST + 1), k=chance.randint(1, 2))
        )
        ends[lane] = torch.tensor(list(accumulate(lengths)))
    shape = (int(max(end[-1] for end in ends.values())), len(index), lanes)
    valid, done = torch.zeros(shape, dtype=torch.bool), torch.ones(shape, dtype=torch.bool)
    for (n, m), end in ends.items():
        valid[: end[-1], n, m] = True
        done[: end[-1], n, m] = False
        done[end - 1, n, m] = True

    def normal(*width: int) -> Tensor:
        numbers = torch.randn(*shape, *width, generator=generator)
        numbers[~valid] = torch.nan
        return numbers

    obs, next_obs = normal(3), normal(3)
    obs[..., 0] = next_obs[..., 1] = (first + torch.arange(valid.numel()).view(shape)).where(
        valid, torch.nan
    )
    terminated = done & (torch.rand(shape, generator=generator) < 0.5)
    return Rollout(
        inputs=Inputs(obs),
        action=torch.randint(2, shape, generator=generator) if spec.discrete else normal(2),
        log_prob=normal(),
        reward=normal(),
        next_obs=next_obs,
        terminated=terminated,
        truncated=done & ~terminated,
        valid=valid,
        index=torch.tensor(index),
        training_reward=normal() if seed % 2 else None,
    )


class Looped:
    """What a replay should hold: the numbers of every task's steps, by plain loops."""

    def __init__(self, capacity: int, sequence: str = "episode") -> None:
        self.capacity, self.sequence = capacity, sequence
        self.kept: dict[int, deque[int]] = {}
        self.count: Counter[int] = Counter()
        self.contexts: dict[int, list[int]] = {}
        self.closed: set[int] = (
            set()
        )  # tasks that were given something else since their context began
        self.later: dict[int, list[int]] = {}  # the step and those that follow in its sequence
        self.rollouts: list[Rollout] = []

    def begin_context(self, tasks: list[int]) -> None:
        self.contexts.update({task: [] for task in tasks})
        self.closed -= set(tasks)

    def add(self, rollout: Rollout, *, context: bool = False) -> None:
        self.rollouts.append(rollout)
        length, rows, lanes = rollout.valid.shape
        for n, m in ((n, m) for n in range(rows) for m in range(lanes)):
            task, episode = int(rollout.index[n]), []
            last = int(rollout.valid[:, n, m].sum()) - 1
            for t in range(length):
                if rollout.valid[t, n, m]:
                    episode.append(int(rollout.inputs.obs[t, n, m, 0]))
                    self.kept.setdefault(task, deque(maxlen=self.capacity)).append(episode[-1])
                    self.count[task] += 1
                    if context:
                        self.contexts.setdefault(task, []).append(episode[-1])
                    else:
                        self.closed.add(task)
                    over = rollout.terminated[t, n, m] or rollout.truncated[t, n, m]
                    if over if self.sequence == "episode" else t == last:
                        self.later |= {number: episode[i:] for i, number in enumerate(episode)}
                        episode = []

    def recent(self, task: int) -> set[int]:
        """What is left of a task's context."""
        return set(self.contexts.get(task, [])) & set(self.kept[task])

    def at(self, name: str, number: Tensor) -> Tensor:
        """A field of the steps of these numbers."""
        values = (x.inputs.obs if name == "obs" else getattr(x, name) for x in self.rollouts)
        parts = [
            x.reward if value is None else value
            for x, value in zip(self.rollouts, values, strict=True)
        ]
        return torch.cat([part.flatten(0, 2) for part in parts])[number]


def empty(capacity: int, spec: Spec = SPEC) -> Replay:
    """Of transitions."""
    return Replay(transition_columns(spec), capacity, CPU)


def draw(replay: Replay, tasks: Tensor, size: int, generator: torch.Generator) -> Transitions:
    """Of any age, each with a goal that its episode achieves then or later."""
    columns = replay.sample(tasks, size, generator, future="next_obs")
    return replace(Transitions(**columns), future=SPEC.achieved(columns["future"]))


def recall(replay: Replay, tasks: Tensor, size: int, generator: torch.Generator) -> Transitions:
    """Of the context."""
    return Transitions(**replay.context(tasks, size, generator))


def numbers(batch: Transitions) -> Tensor:
    """[N, B]: which steps were drawn."""
    return batch.obs[..., 0].long()


def goals(batch: Transitions) -> Tensor:
    """[N, B]: the steps at which their later goals were achieved."""
    return batch.future[..., 0].long()


def kept(replay: Replay, task: int = 0, draws: int = 500) -> list[int]:
    """All that can be drawn of a task."""
    return numbers(draw(replay, torch.tensor([task]), draws, seeded())).unique().tolist()


def recent(replay: Replay, task: int = 0, draws: int = 500) -> list[int]:
    """All that can be drawn of its context."""
    return numbers(recall(replay, torch.tensor([task]), draws, seeded())).unique().tolist()


# -------------------------------------------------------------------------------------------------
# What is kept


def compare(replay: Replay, looped: Looped) -> None:
    """Everything that can be drawn, of every task; so many draws miss one transition in e³⁰."""
    draws = 30 * replay.capacity * LONGEST
    assert replay.count.tolist() == [looped.count[task] for task in range(replay.tasks)]
    assert len(replay) == sum(map(len, looped.kept.values()))
    for task in looped.kept:
        batch = draw(replay, torch.tensor([task]), draws, seeded())
        for name in FIELDS:
            field, expected = getattr(batch, name), looped.at(name, numbers(batch))
            assert field.dtype == expected.dtype
            assert torch.equal(field, expected), name
        assert torch.equal(batch.future, looped.at("next_obs", goals(batch))[..., 1:])
        pairs = set(zip(numbers(batch)[0].tolist(), goals(batch)[0].tolist(), strict=True))
        assert pairs == {
            (number, then) for number in looped.kept[task] for then in looped.later[number]
        }
        if looped.recent(task):
            assert set(recent(replay, task, draws)) == looped.recent(task)
        else:
            with pytest.raises(MetaRLError, match=f"task {task} has nothing to draw from"):
                recent(replay, task)


INDEX = st.lists(st.integers(0, 4), min_size=1, max_size=3)
VISIT = st.tuples(
    st.sampled_from(["begin", "context", "context", "extra"]), INDEX, st.integers(1, 2)
)
VISITS = st.lists(VISIT, min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault
@given(
    st.integers(1, 12),
    st.integers(1, 3),
    st.sampled_from([SPEC, DISCRETE]),
    st.integers(0, 1000),
    VISITS,
)
def test_rings_are_those_of_a_loop(
    capacity: int, first_size: int, spec: Spec, seed: int, visits: list[tuple[str, list[int], int]]
):
    """After every visit: late and repeated tasks, rollouts longer than a ring, refused contexts."""
    replay, looped, met, number = empty(capacity, spec), Looped(capacity), 0, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metarl.data.replay._FIRST_SIZE", first_size)
        for k, (what, index, lanes) in enumerate(visits):
            rollout, context = (
                lived(index, lanes, first=number, seed=seed + k, spec=spec),
                what == "context",
            )
            if what == "begin":
                replay.begin_context(torch.tensor(index))
                looped.begin_context(index)
            elif context and looped.closed & set(index):
                with pytest.raises(
                    MetaRLError, match=r"^replay: context is one stretch; .*begin_context$"
                ):
                    replay.add(rollout, context=True)
            else:
                replay.add(rollout, context=context)
                looped.add(rollout, context=context)
                number += rollout.valid.numel()
            met = max(met, *(task + 1 for task in index))
            assert replay.tasks == met
            compare(replay, looped)


def test_the_ring_of_the_docstring():
    """Capacity 5, count 7, context from 3 to 5; what follows eats the context up."""
    replay = empty(5)
    replay.add(lived([0], steps=3))
    replay.begin_context(torch.tensor([0]))
    replay.add(lived([0], steps=2, first=3), context=True)
    replay.add(lived([0], steps=2, first=5))
    replay.add(lived([1], steps=2, first=100))
    assert replay.count.tolist() == [7, 2]
    assert (len(replay), replay.tasks) == (7, 2)
    assert (kept(replay), kept(replay, 1)) == ([2, 3, 4, 5, 6], [100, 101])
    assert recent(replay) == [3, 4]
    replay.add(lived([0], steps=2, first=7))
    assert (kept(replay), recent(replay)) == ([4, 5, 6, 7, 8], [4])
    replay.add(lived([0], steps=1, first=9))
    assert kept(replay) == [5, 6, 7, 8, 9]
    with pytest.raises(
        MetaRLError, match=r"^replay: task 0 has nothing to draw from; .*agent\.capacity$"
    ):
        recent(replay)


def test_a_task_without_transitions_is_named():
    """One that was only begun, and one that was passed over."""
    replay = empty(100)
    replay.add(lived([3], steps=2))
    replay.begin_context(torch.tensor([2, 5]))
    assert (replay.tasks, len(replay)) == (6, 2)
    for task in (0, 2, 5):
        with pytest.raises(MetaRLError, match=f"^replay: task {task} has nothing to draw from"):
            replay.sample(torch.tensor([3, task]), 1, seeded())


def test_transitions_are_those_of_the_environment():
    """Episodes of five steps are truncated at the horizon of four; a step s leads to s + 1."""
    family = Ragged(discrete=False)
    tasks = replace(
        family.tasks("train", 5, Rng(0))[torch.tensor([4, 0, 3, 0])],
        copy=torch.tensor([0, 0, 0, 1]),
    )
    replay = empty(30, family.spec)
    replay.add(live(family, tasks, 4, lanes=2)[0])
    tasks = torch.tensor([0, 3, 4])
    batch = Transitions(**replay.sample(tasks, 2000, seeded(), future="next_obs"))
    task, episode, step, _ = batch.obs.unbind(-1)
    length = family.length(task, episode)
    assert torch.equal(task, torch.tensor([0.0, 3, 4]).unsqueeze(1).expand(-1, 2000))
    assert torch.equal(batch.next_obs[..., :3], torch.stack([task, episode, step + 1], dim=-1))
    assert torch.equal(batch.reward, 10 * episode + step + 1)
    assert torch.equal(batch.training_reward, batch.reward)
    assert torch.equal(batch.terminated, (step + 1 == length) & (length <= 4))
    assert (step[length == 5] == 3).any()
    assert torch.equal(batch.future[..., :2], batch.obs[..., :2])
    assert (batch.future[..., 2] > step).all()
    assert (batch.future[..., 2] <= length.clamp(max=4)).all()


# -------------------------------------------------------------------------------------------------
# Columns of one's own


OWN = {
    "obs": Column(3),
    "action": Column(dtype=torch.long),
    "log_prob": Column(),
    "value": Column(),
    "hint": Column(3),
    "flag": Column(dtype=torch.bool),
    "reward": Column(),
    "counts": Column(2, torch.long),
}


def own(first: int, seed: int) -> tuple[Rollout, dict[str, Tensor]]:
    """A rollout with an extra, and what else is handed to `add`."""
    rollout = lived([0, 2, 0], lanes=2, first=first, seed=seed, spec=DISCRETE)
    shape, noise = rollout.valid.shape, seeded(seed + 100)
    more = {
        "hint": torch.randn(*shape, 3, generator=noise),
        "flag": torch.rand(shape, generator=noise) < 0.5,
        "reward": torch.randn(shape, generator=noise),
        "counts": torch.randint(2**24, (*shape, 2), generator=noise),
    }
    return replace(rollout, extras={"value": torch.randn(shape, generator=noise)}), more


def test_columns_of_ones_own_come_back_as_they_were():
    """From the inputs, the rollout, its extras, and what is given, which comes first; with their
    types; in every way of drawing.
    """
    replay, given, first = Replay(OWN, 50, CPU), [], 0
    for seed in range(4):
        rollout, more = own(first, seed)
        replay.add(rollout, context=True, **more)
        first += rollout.valid.numel()
        known = {
            "obs": rollout.inputs.obs,
            "action": rollout.action,
            "log_prob": rollout.log_prob,
            "value": rollout.extras["value"],
        }
        given.append(tree_map(lambda x: x.flatten(0, 2), known | more))
    expected = tree_map(lambda *parts: torch.cat(parts), *given)
    tasks = torch.tensor([2, 0])
    sequences = replay.sequences(tasks, 100, 4, seeded())
    assert sequences.pop("valid").dtype == torch.bool
    for columns in (
        replay.sample(tasks, 200, seeded()),
        replay.context(tasks, 200, seeded()),
        sequences,
    ):
        assert list(columns) == list(OWN)
        for name, value in columns.items():
            assert value.dtype == OWN[name].dtype
            assert torch.equal(value, expected[name][columns["obs"][..., 0].long()]), name
    later = replay.sample(tasks, 200, seeded(), future="counts")
    assert later["future"].dtype == torch.long
    assert later["future"].shape == later["counts"].shape


def test_what_is_missing_or_of_another_shape_is_told_in_one_line():
    """And nothing of it is kept."""
    replay = Replay(OWN, 50, CPU)
    rollout, more = own(0, 0)
    shape = tuple(rollout.valid.shape)
    for change, words in (
        ({"hint": None}, "the rollout has no 'hint'; give it to add"),
        ({"hint": more["hint"][..., :2]}, f"'hint' is {(*shape, 2)}, not {(*shape, 3)}"),
        ({"flag": more["flag"][:, :1]}, f"'flag' is {(shape[0], 1, 2)}, not {shape}"),
    ):
        with pytest.raises(MetaRLError) as caught:
            replay.add(rollout, **more | change)
        assert str(caught.value) == f"replay: {words}"
    with pytest.raises(
        MetaRLError, match=r"^replay: the rollout has no 'success'; give it to add$"
    ):
        Replay({"success": Column(dtype=torch.bool)}, 50, CPU).add(rollout)
    assert replay.tasks == len(replay) == 0
    replay.add(rollout, **more)
    assert len(replay) == rollout.env_steps


def test_rows_of_transitions_are_those_of_0_5():
    """Checkpoints depend on their order: the steps that are left of the episode stand last."""
    replay, rollout = empty(10), lived([0], steps=3, seed=1)
    replay.add(rollout)
    state = replay.state_dict()
    assert set(state) == {"capacity", "rows", "count", "context"}
    numbers = [
        rollout.inputs.obs,
        rollout.action,
        rollout.reward,
        rollout.training_reward,
        rollout.next_obs,
        rollout.terminated.float(),
        torch.tensor([2.0, 1.0, 0.0]),
    ]
    expected = torch.cat([x.reshape(3, -1) for x in numbers], dim=-1)
    assert torch.equal(state["rows"][0, :3], expected)


# -------------------------------------------------------------------------------------------------
# Sequences


SEQUENCES = st.sampled_from(["episode", "trial"])


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=30)
@given(st.integers(1, 14), st.integers(1, 7), SEQUENCES, st.integers(0, 1000))
def test_sequences_are_those_of_a_loop(capacity: int, length: int, sequence: str, seed: int):
    """Steps of one episode on end, or of a lane's whole trial, while the ring wraps around; then
    the last is repeated.
    """
    replay = Replay(transition_columns(SPEC), capacity, CPU, sequence)
    looped, first = Looped(capacity, sequence), 0
    for k in range(3):
        rollout = lived([1, 0, 1], lanes=2, first=first, seed=seed + k)
        replay.add(rollout)
        looped.add(rollout)
        first += rollout.valid.numel()
        drawn = replay.sequences(torch.tensor([1, 0, 1]), 30 * capacity, length, seeded(seed))
        number = drawn["obs"][..., 0].long()
        assert number.shape == drawn["valid"].shape == (length, 3, 30 * capacity)
        for name in FIELDS:
            assert torch.equal(drawn[name], looped.at(name, number)), name
        paths, valid = number.movedim(0, -1).tolist(), drawn["valid"].movedim(0, -1).tolist()
        for row, task in enumerate((1, 0, 1)):
            assert {path[0] for path in paths[row]} == set(looped.kept[task])
            for path, lived_through in zip(paths[row], valid[row], strict=True):
                follows = looped.later[path[0]][:length]
                rest = length - len(follows)
                assert path == follows + [follows[-1]] * rest
                assert lived_through == [True] * len(follows) + [False] * rest
        batch = draw(replay, torch.tensor([0]), 30 * capacity * LONGEST, seeded(seed))
        for number, goal in zip(numbers(batch)[0].tolist(), goals(batch)[0].tolist(), strict=True):
            assert goal in looped.later[number]


def test_a_trial_goes_on_where_an_episode_ends_and_ends_with_its_lane():
    """Two episodes of a lane, then two of the next lane of the same task."""
    terminated = torch.tensor([[0, 1], [1, 0], [0, 1], [1, 0]]).bool().unsqueeze(1)
    rollout = lived([0], lanes=2, steps=4)
    valid = torch.tensor([[1, 1], [1, 1], [1, 1], [1, 0]]).bool().unsqueeze(1)
    none = torch.zeros_like(terminated)
    rollout = replace(rollout, valid=valid, terminated=terminated, truncated=none)
    first, second = [0, 2, 4, 6], [1, 3, 5]  # the numbers of the steps of each lane
    for sequence, ways in (
        ("episode", [first[:2], first[2:], second[:1], second[1:]]),
        ("trial", [first, second]),
    ):
        replay = Replay(transition_columns(SPEC), 20, CPU, sequence)
        replay.add(rollout)
        drawn = replay.sequences(torch.tensor([0]), 300, 4, seeded())
        paths = set()
        for path, lived_through in zip(
            drawn["obs"][:, 0, :, 0].long().T.tolist(), drawn["valid"][:, 0].T.tolist(), strict=True
        ):
            paths.add(tuple(x for x, here in zip(path, lived_through, strict=True) if here))
        assert paths == {tuple(way[i:]) for way in ways for i in range(len(way))}


# -------------------------------------------------------------------------------------------------
# Chance


@pytest.fixture
def full() -> tuple[Replay, Looped]:
    """Two tasks whose rings of 10 have wrapped around; the contexts have lost their beginning."""
    replay, looped, first = empty(10), Looped(10), 0
    for k, context in enumerate((False, True, True, False)):
        rollout = lived([0, 1, 0, 1], first=first, seed=k)
        for one in (replay, looped):
            one.add(rollout, context=context)
        first += rollout.valid.numel()
        if not k:
            replay.begin_context(torch.tensor([0, 1]))
            looped.begin_context([0, 1])
    return replay, looped


def fair(outcomes: list[object], expected: dict[object, float]) -> bool:
    """Whether chance explains how often each of the expected outcomes came, and no other."""
    seen = Counter(outcomes)
    frequencies = [len(outcomes) * share for share in expected.values()]
    return (
        set(seen) == set(expected)
        and chisquare([seen[x] for x in expected], frequencies).pvalue > 1e-3
    )


def test_all_that_is_there_is_equally_likely(full: tuple[Replay, Looped]):
    """Of what is kept, of what is left of a context, and of the later goals of an episode."""
    replay, looped = full
    batch = draw(replay, torch.tensor([0, 1]), 50_000, seeded(1))
    context = recall(replay, torch.tensor([0, 1]), 50_000, seeded(2))
    for task in (0, 1):
        mine, left = looped.kept[task], looped.recent(task)
        assert 1 < len(left) < min(10, len(looped.contexts[task]))
        assert fair(numbers(batch)[task].tolist(), dict.fromkeys(mine, 1 / 10))
        assert fair(numbers(context)[task].tolist(), dict.fromkeys(left, 1 / len(left)))
        pairs = list(zip(numbers(batch)[task].tolist(), goals(batch)[task].tolist(), strict=True))
        assert fair(
            pairs, {(x, then): 0.1 / len(looped.later[x]) for x in mine for then in looped.later[x]}
        )


def test_draws_are_independent_and_put_back(full: tuple[Replay, Looped]):
    """All pairs of two draws are equally likely, of one row or of two rows of the same task."""
    replay, looped = full
    batch = numbers(draw(replay, torch.zeros(20_000, dtype=torch.long), 2, seeded(4)))
    pairs = {(a, b): 1 / 100 for a in looped.kept[0] for b in looped.kept[0]}
    assert fair(list(map(tuple, batch.tolist())), pairs)
    assert fair(list(zip(batch[::2, 0].tolist(), batch[1::2, 0].tolist(), strict=True)), pairs)


def test_sequences_begin_anywhere_with_equal_chance(full: tuple[Replay, Looped]):
    """Not only where episodes do."""
    replay, looped = full
    starts = replay.sequences(torch.tensor([0, 1]), 50_000, 3, seeded(3))["obs"][0, ..., 0].long()
    for task in (0, 1):
        assert fair(starts[task].tolist(), dict.fromkeys(looped.kept[task], 1 / 10))


def test_a_seed_says_what_is_drawn(full: tuple[Replay, Looped]):
    def draws(seed: int) -> list[Transitions]:
        tasks = torch.tensor([1, 0, 1])
        return [
            draw(full[0], tasks, 8, seeded(seed)),
            recall(full[0], tasks, 8, seeded(seed)),
        ]

    assert same(draws(0), draws(0))
    for one, other in zip(draws(0), draws(1), strict=True):
        assert not same(one, other)


# -------------------------------------------------------------------------------------------------
# Memory


def test_memory_grows_with_what_is_in_it():
    """By doubling, up to S × capacity × (2 O + A + 4) numbers."""
    replay, sizes = empty(10_000), set()
    for count in range(100, 12_100, 100):
        replay.add(lived([0], steps=100))
        size = replay.state_dict()["rows"].shape[1]
        assert min(count, 10_000) <= size <= min(max(2 * count, 1024), 10_000)
        sizes.add(size)
    assert len(sizes) == 5
    replay.begin_context(torch.tensor([2]))
    assert replay.state_dict()["rows"].numel() == 3 * 10_000 * WIDTH


class Operations(TorchDispatchMode):
    """What torch was asked to do: function, arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **kwargs or {})
        self.done.append((function, args, made))
        return made


def test_batches_are_copies_and_the_rings_are_not():
    """A batch may be changed. Drawing, or writing into full rings, allocates nothing as large."""
    replay, tasks, few = empty(300), torch.tensor([2, 0, 2]), lived([0, 1, 2], steps=2)
    replay.add(lived([0, 1, 2], steps=400), context=True)
    rows = replay.state_dict()["rows"]
    before = rows.clone()
    with Operations() as operations:
        batches = draw(replay, tasks, 8, seeded()), recall(replay, tasks, 8, seeded())
        tree_map(Tensor.zero_, batches)
        assert torch.equal(rows, before)
        replay.add(few)
    made = [
        x for x in tree_leaves([made for _, _, made in operations.done]) if isinstance(x, Tensor)
    ]
    sizes = [x.numel() for x in made if x.untyped_storage().data_ptr() != rows.data_ptr()]
    assert 3 * 8 * WIDTH <= max(sizes) < rows.numel() / 10
    assert replay.state_dict()["rows"].data_ptr() == rows.data_ptr()
    assert not torch.equal(rows, before)


def test_no_place_is_written_twice():
    """A GPU would let chance choose which write stays."""
    replay, rollout = empty(5), lived([0, 1, 0], lanes=2, steps=3)
    with Operations() as operations:
        replay.add(rollout)
    writes = [
        torch.stack(args[1])
        for function, args, _ in operations.done
        if function is torch.ops.aten.index_put_.default
    ]
    assert [places.shape[1] for places in writes] == [2 * 5]
    assert writes[0].unique(dim=1).shape == writes[0].shape


@pytest.mark.parametrize("file", [True, False])
def test_another_replay_goes_on_where_one_was_kept(full: tuple[Replay, Looped], file: bool):
    """Through a file or not; each then goes its own way."""
    replay, tasks, content = full[0], torch.tensor([0, 1]), full[0].state_dict()
    if file:
        torch.save(content, buffer := io.BytesIO())
        content = torch.load(io.BytesIO(buffer.getvalue()))
    other = empty(10)
    other.load_state_dict(content)

    def draws(one: Replay) -> list[Transitions]:
        return [draw(one, tasks, 50, seeded()), recall(one, tasks, 50, seeded())]

    before, rollout = draws(replay), lived([0, 1, 2], first=1000)
    assert same(draws(other), before)
    replay.begin_context(tasks)
    replay.add(rollout, context=True)
    assert same(draws(other), before)
    other.begin_context(tasks)
    other.add(rollout, context=True)
    assert same(draws(other), draws(replay))


# -------------------------------------------------------------------------------------------------
# Hindsight


def test_only_what_is_chosen_is_relabeled(full: tuple[Replay, Looped]):
    """The goal in front of the task row, and both rewards: of success if it was achieved then."""
    batch = draw(full[0], torch.tensor([0, 1]), 200, seeded())
    batch = replace(
        batch, task=torch.randn(2, 200, 3, generator=seeded(1)), training_reward=batch.reward - 5
    )
    chosen = torch.rand(2, 200, generator=seeded(2)) < 0.5
    relabeled = hindsight(
        batch, chosen, SPEC, lambda achieved, desired: (achieved == desired).all(-1).float() - 1
    )
    for name in ("obs", "action", "next_obs", "terminated", "future"):
        assert torch.equal(getattr(relabeled, name), getattr(batch, name)), name
    for n, b in torch.cartesian_prod(torch.arange(2), torch.arange(200)).tolist():
        task, reward, training_reward = (
            batch.task[n, b].tolist(),
            batch.reward[n, b],
            batch.training_reward[n, b],
        )
        if chosen[n, b]:
            task[:2] = batch.future[n, b].tolist()
            reward = training_reward = float(goals(batch)[n, b] == numbers(batch)[n, b]) - 1
        assert relabeled.task[n, b].tolist() == task
        assert (relabeled.reward[n, b], relabeled.training_reward[n, b]) == (
            reward,
            training_reward,
        )
    assert set(relabeled.reward[chosen].tolist()) == {-1.0, 0.0}
    assert relabeled.terminated[chosen].any()


@pytest.mark.parametrize(("name", "success"), [("sparse-point", 1.0), ("goal-maze", 0.0)])
def test_relabeled_rewards_are_those_for_that_goal(name: str, success: float):
    """The recorded actions, repeated for the goal achieved at time 10, give the same rewards."""
    family = make_family(name)
    tasks = family.tasks("train", 3, Rng(0))
    rollout = live(family, tasks, 1)[0]
    goal = rollout.next_obs[10, :, 0, family.spec.part(family.spec.achieved_goal)]
    relabeled_tasks = replace(
        tasks, params=torch.cat([goal, tasks.params[:, family.spec.goal_width :]], dim=-1)
    )
    env = family.make(lanes=1)
    env.reset(relabeled_tasks, Rng(0).child("env"))
    steps = [env.step(action) for action in rollout.action]

    replay, shape = empty(1000, family.spec), (3, 200, -1)
    replay.add(rollout)
    batch = Transitions(**replay.sample(tasks.index, 200, seeded()))
    batch = replace(
        batch, future=goal.unsqueeze(1).expand(shape), task=tasks.params.unsqueeze(1).expand(shape)
    )
    relabeled = hindsight(batch, torch.ones_like(batch.terminated), family.spec, family.goal_reward)
    assert torch.equal(relabeled.task, relabeled_tasks.params.unsqueeze(1).expand(shape))
    assert torch.equal(relabeled.training_reward, relabeled.reward)
    for n in range(3):
        paid = {tuple(step.next_obs[n, 0].tolist()): float(step.reward[n, 0]) for step in steps}
        assert relabeled.reward[n].tolist() == [
            paid[tuple(next_obs)] for next_obs in relabeled.next_obs[n].tolist()
        ]
        assert paid[tuple(rollout.next_obs[10, n, 0].tolist())] == success
    assert not torch.equal(relabeled.reward, batch.reward)


def test_another_capacity_is_refused():
    """Rings of another length would hold other transitions in the same places."""
    replay = empty(5)
    replay.add(lived([0, 1], steps=7))
    with pytest.raises(MetaRLError, match="of capacity 5, not 10"):
        empty(10).load_state_dict(replay.state_dict())


def test_other_columns_are_refused():
    """Or numbers would be read under other names."""
    replay = empty(5)
    replay.add(lived([0, 1], steps=7))
    other = Replay({"reward": Column()}, 5, CPU)
    with pytest.raises(MetaRLError, match="its columns are others"):
        other.load_state_dict(replay.state_dict())


def test_what_was_not_written_is_zero_and_so_is_saved():
    """Else two checkpoints of the same run would differ; uninitialized memory is NaN here."""
    torch.use_deterministic_algorithms(True)
    try:
        replay = empty(50)
        replay.add(lived([0, 2], steps=7))
    finally:
        torch.use_deterministic_algorithms(False)
    rows = replay.state_dict()["rows"]
    assert not rows[1].any()
    assert not rows[:, 7:].any()


# -------------------------------------------------------------------------------------------------
# Prefixes of contexts


class Visited:
    """A replay that some tasks were visited for, and the numbers of what each visit's context held:
    task → visit → episode → steps, by plain loops.
    """

    def __init__(self, capacity: int, visits: int) -> None:
        self.replay = Replay(transition_columns(SPEC), capacity, CPU, visits=visits)
        self.capacity, self.visits = capacity, visits
        self.episodes: dict[int, list[list[list[int]]]] = {}
        self.given: dict[int, list[int]] = {}
        self.rollouts: list[Rollout] = []
        self.seed = 0

    def visit(self, tasks: list[int], contexts: int = 2, extra: int = 1) -> None:
        """So many rollouts of ragged episodes as context, and `extra` ones for the critics."""
        self.replay.begin_context(torch.tensor(tasks))
        for task in tasks:
            self.episodes.setdefault(task, []).append([])
        for k in range(contexts + extra):
            self.seed += 1
            rollout = lived(tasks, first=1000 * self.seed, seed=self.seed)
            self.replay.add(rollout, context=k < contexts)
            self.rollouts.append(rollout)
            for row, task in enumerate(tasks):
                for episode in self.read(rollout, row):
                    self.given.setdefault(task, []).extend(episode)
                    if k < contexts:
                        self.episodes[task][-1].append(episode)

    def read(self, rollout: Rollout, row: int) -> list[list[int]]:
        found: list[list[int]] = [[]]
        for t in range(int(rollout.valid[:, row, 0].sum())):
            found[-1].append(int(rollout.inputs.obs[t, row, 0, 0]))
            if rollout.done[t, row, 0]:
                found.append([])
        assert not found[-1]
        return found[:-1]

    def whole(self, task: int) -> list[list[list[int]]]:
        """The newest visits' contexts of which nothing was overwritten."""
        kept = set(self.given[task][-self.capacity :])
        newest = self.episodes[task][-self.visits :]
        return [visit for visit in newest if visit and kept.issuperset(visit[0])]

    def expected(self, task: int, episodes: int) -> dict[tuple[int, ...], float]:
        """The chance of every prefix: of a visit, then of k."""
        chances: dict[tuple[int, ...], float] = {}
        visits = self.whole(task)
        for visit in visits:
            most = min(episodes, len(visit))
            for k in range(1, most + 1):
                steps = tuple(step for episode in visit[:k] for step in episode)
                chances[steps] = chances.get(steps, 0.0) + 1 / len(visits) / most
        return chances

    def drawn(self, tasks: Tensor, episodes: int, seed: int = 0, **more: float) -> list[tuple]:
        columns = self.replay.prefixes(tasks, episodes, seeded(seed), **more)
        found = []
        for number, valid in zip(columns["obs"][..., 0], columns["valid"], strict=True):
            found.append(tuple(number[valid].long().tolist()))
        return found


@pytest.mark.parametrize("visits", [1, 3])
@pytest.mark.parametrize("episodes", [1, 2, 100])
def test_a_prefix_is_the_first_episodes_of_a_visit(visits: int, episodes: int):
    """Each visit and each number of episodes equally likely, in their order, whole, and nothing
    that is no context; episodes have lengths of their own.
    """
    replay = Visited(1000, visits)
    for tasks in ([0, 1, 2], [1, 2], [2, 1], [1]):
        replay.visit(tasks)
    for task in range(3):
        drawn = replay.drawn(torch.full((6000,), task), episodes, seed=task)
        expected = replay.expected(task, episodes)
        assert fair(drawn, expected) if len(expected) > 1 else set(drawn) == set(expected)


def test_what_is_not_of_the_prefix_is_padding():
    """Columns are as long as the longest prefix; "valid" has no gaps; a row is of its task."""
    replay = Visited(1000, 2)
    replay.visit([0, 1])
    replay.visit([0, 1])
    tasks = torch.tensor([1, 0, 1, 1, 0, 0])
    columns = replay.replay.prefixes(tasks, 9, seeded())
    valid = columns.pop("valid")
    assert list(columns) == list(FIELDS)
    assert valid.any(0).all()
    assert (valid.long().diff(dim=1) <= 0).all()
    assert valid.sum(1).unique().numel() > 1
    every = {name: x for name, x in columns.items() if name != "obs"}
    for row, task in enumerate(tasks.tolist()):
        steps = tuple(columns["obs"][row, valid[row], 0].long().tolist())
        assert steps in replay.expected(task, 9)
        for name, values in every.items():
            there = torch.cat([value_of(x, name)[x.valid] for x in replay.rollouts])
            ids = torch.cat([x.inputs.obs[x.valid][:, 0] for x in replay.rollouts]).long()
            place = [int((ids == step).nonzero()) for step in steps]
            assert torch.equal(values[row, valid[row]], there[place]), name


def value_of(rollout: Rollout, name: str) -> Tensor:
    value = getattr(rollout, name)
    return rollout.reward if value is None else value


def test_what_was_overwritten_is_never_read():
    """Not even what is left of such a visit; where no visit is whole a line says so."""
    replay, met = Visited(10, 3), set()
    for k in range(40):
        replay.visit([0], contexts=1 + k % 2, extra=2 * (k % 3 == 0))
        met.add(len(replay.whole(0)))
        if not replay.whole(0):
            with pytest.raises(MetaRLError, match=r"task 0 has no context .* agent\.capacity$"):
                replay.drawn(torch.tensor([0]), 9)
            continue
        drawn = replay.drawn(torch.zeros(200, dtype=torch.long), 9)
        assert set(drawn) <= set(replay.expected(0, 9))
        starts = {steps[0] for steps in drawn}
        assert starts == {visit[0][0] for visit in replay.whole(0)}
    assert met >= {0, 1, 2}
    replay.replay.begin_context(torch.tensor([1]))
    with pytest.raises(MetaRLError, match=r"task [01] has no context"):
        replay.drawn(torch.tensor([0, 1]), 9)


def test_a_share_of_a_prefix_is_left_out():
    """The share is uniform from 0 to `dropout`, one for a whole prefix; without it all stays."""
    replay = Replay(transition_columns(SPEC), 5000, CPU)
    replay.begin_context(torch.tensor([0]))
    replay.add(lived([0], steps=1000), context=True)
    tasks = torch.zeros(2000, dtype=torch.long)
    assert replay.prefixes(tasks, 1, seeded())["valid"].all()
    for dropout in (0.3, 1.0):
        kept = replay.prefixes(tasks, 1, seeded(1), dropout)["valid"]
        assert kept.shape[1] == 1000
        left_out = 1 - kept.float().mean(1)
        assert kstest(left_out.numpy(), "uniform", (0, dropout)).pvalue > 1e-3
        anywhere = kept.float().mean(0) - (1 - dropout / 2)
        assert float(anywhere.abs().max()) < 0.06


def test_steps_are_of_the_newest_visit_however_many_are_known():
    replay, one = Visited(1000, 3), Visited(1000, 1)
    for each in (replay, one):
        each.visit([0, 1])
        each.visit([0, 0])
    tasks = torch.tensor([0, 1, 0])
    found = [recall(each.replay, tasks, 50, seeded()) for each in (replay, one)]
    assert same(*found)


def test_a_checkpoint_that_knows_one_visit_goes_on():
    """[S, 2] of version 0.11 and before; visits that come are known beside it, too."""
    one, several = Visited(1000, 1), Visited(1000, 3)
    for each in (one, several):
        each.visit([0, 1])
    old = one.replay.state_dict()
    assert old["context"].shape == (2, 1, 2)
    several.replay.load_state_dict(old | {"context": old["context"][:, 0]})
    one.replay.load_state_dict(old | {"context": old["context"][:, 0]})
    tasks = torch.tensor([0, 1] * 50)
    assert one.drawn(tasks, 9) == several.drawn(tasks, 9)
    for each in (one, several):
        each.visit([0, 1])
    assert set(several.drawn(tasks, 9)) > set(one.drawn(tasks, 9))
    again = Visited(1000, 3)
    again.replay.load_state_dict(several.replay.state_dict())
    assert again.drawn(tasks, 9) == several.drawn(tasks, 9)


@pytest.mark.parametrize("swap", [False, True])
def test_contexts_that_overlap_are_refused(swap: bool):
    """The newest one stands in front, and each ends before the next begins."""
    replay = Visited(1000, 2)
    replay.visit([0])
    replay.visit([0])
    state = replay.replay.state_dict()
    if swap:
        state["context"] = state["context"].flip(1)
        with pytest.raises(MetaRLError, match="do not belong together"):
            empty(1000).load_state_dict(state)
    else:
        empty(1000).load_state_dict(state)
