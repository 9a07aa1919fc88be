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
from scipy.stats import chisquare
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metarl.core.errors import MetaRLError
from metarl.core.rng import Rng
from metarl.core.rollout import Rollout
from metarl.core.types import Inputs, Spec, replace, tree_map
from metarl.data.replay import Column, Replay, Transitions, hindsight, transition_columns
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

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.kept: dict[int, deque[int]] = {}
        self.count: Counter[int] = Counter()
        self.contexts: dict[int, list[int]] = {}
        self.closed: set[int] = (
            set()
        )  # tasks that were given something else since their context began
        self.later: dict[int, list[int]] = {}  # the step and those that follow in its episode
        self.rollouts: list[Rollout] = []

    def begin_context(self, tasks: list[int]) -> None:
        self.contexts.update({task: [] for task in tasks})
        self.closed -= set(tasks)

    def add(self, rollout: Rollout, *, context: bool = False) -> None:
        self.rollouts.append(rollout)
        length, rows, lanes = rollout.valid.shape
        for n, m in ((n, m) for n in range(rows) for m in range(lanes)):
            task, episode = int(rollout.index[n]), []
            for t in range(length):
                if rollout.valid[t, n, m]:
                    episode.append(int(rollout.inputs.obs[t, n, m, 0]))
                    self.kept.setdefault(task, deque(maxlen=self.capacity)).append(episode[-1])
                    self.count[task] += 1
                    if context:
                        self.contexts.setdefault(task, []).append(episode[-1])
                    else:
                        self.closed.add(task)
                    if rollout.terminated[t, n, m] or rollout.truncated[t, n, m]:
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
