"""`collect` on a family with known episodes: waiting lanes, cues, independence of the batch."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import CPU, Counting, Ragged, live, same
from other_device import OTHER, OtherDevice
from torch import Tensor

from metarl.collect.collector import collect, task_info
from metarl.collect.world import LocalWorld
from metarl.core.errors import FamilyError, MetaRLError
from metarl.core.rng import Rng
from metarl.core.types import Step, TaskInfo, Tasks, first_cue, one_hot, replace, tree_map
from metarl.experiments.building import make_agent, make_family

ROWS, EPISODES, LANES = 7, 3, 2


@pytest.fixture(params=[True, False], ids=["discrete", "continuous"])
def family(request: pytest.FixtureRequest) -> Ragged:
    return Ragged(discrete=request.param)


@pytest.fixture
def tasks(family: Ragged) -> Tasks:
    return family.tasks("test", ROWS, Rng(0))


# -------------------------------------------------------------------------------------------------
# On another device


@pytest.mark.parametrize("episodes", [1, 2, 10])
def test_a_rollout_there_is_the_one_here(family: Ragged, tasks: Tasks, episodes: int):
    """Though it does not look after every step whether all lanes are done."""
    expected = live(family, tasks, episodes, lanes=LANES)
    with OtherDevice() as device:
        rollout, belief = live(family, tasks.to(OTHER), episodes, lanes=LANES)
        looks = device.waits.total()
        arrived = tree_map(Tensor.cpu, (rollout, belief))
    assert same(arrived, expected)
    assert looks <= 9 + 2 * -(-len(rollout.valid) // 16)  # of the whole rollout; every 16th step


def test_who_gives_no_number_is_blamed_there_as_here(tasks: Tasks):
    """Not the environment that cannot take it, between two looks at the actions."""

    class Silent(Counting):
        def act(self, *given: Any) -> Any:
            acted, belief = super().act(*given)
            broken = acted.action / 0 if given[3] == 2 else acted.action
            return replace(acted, action=broken), belief

    class Picky(Ragged):
        def make(self, lanes: int) -> Any:
            made = super().make(lanes)
            step = made.step

            def checked(action: Tensor) -> Step:
                assert action.isfinite().all()
                return step(action)

            made.step = checked
            return made

    family = Picky(discrete=False)
    for device in (CPU, OTHER):
        with OtherDevice(), pytest.raises(MetaRLError, match=r"Silent: action of task 0 .* step 2"):
            live(family, tasks.to(device), EPISODES, agent=Silent(family.spec))


# -------------------------------------------------------------------------------------------------
# The course of a rollout


def test_every_lane_lives_through_its_episodes_and_then_waits(family: Ragged, tasks: Tasks):
    rollout, _ = live(family, tasks, EPISODES, lanes=LANES)
    index, episode = torch.meshgrid(tasks.index, torch.arange(EPISODES), indexing="ij")
    length = family.length(index, episode)
    steps = length.clamp(max=4).sum(1)  # [N]
    expected = (
        (torch.arange(len(rollout.valid)).unsqueeze(1) < steps).unsqueeze(-1).expand(-1, -1, LANES)
    )
    assert len(rollout.valid) == steps.max()
    assert torch.equal(rollout.valid, expected)
    for name, how in (("terminated", length < 5), ("truncated", length == 5)):
        assert torch.equal((getattr(rollout, name) & rollout.valid).sum(0)[:, 0], how.sum(1))
    assert torch.equal(rollout.index, tasks.index)


def test_obs_is_after_the_reset_and_next_obs_is_the_true_successor(family: Ragged, tasks: Tasks):
    rollout, _ = live(family, tasks, EPISODES)
    obs, next_obs = rollout.inputs.obs[..., :3], rollout.next_obs[..., :3]  # task, episode, step
    assert torch.equal(next_obs[rollout.valid], (obs + torch.tensor([0, 0, 1]))[rollout.valid])
    ended, lived = (rollout.done & rollout.valid)[:-1], rollout.valid[1:]
    after_end, within = ended & lived, ~ended & lived
    assert after_end.any()
    assert torch.equal(obs[1:][within], next_obs[:-1][within])
    assert torch.equal(
        obs[1:][after_end],
        (obs[:-1] * torch.tensor([1, 1, 0]) + torch.tensor([0, 1, 0]))[after_end],
    )
    assert torch.equal(
        rollout.inputs.obs[..., 1].long()[rollout.valid], rollout.episode()[rollout.valid]
    )


def test_the_cue_tells_how_the_last_step_went(family: Ragged, tasks: Tasks):
    """Action and reward of the step before, also of another episode; done for both kinds of end."""
    rollout, _ = live(family, tasks, EPISODES, lanes=LANES)
    cue = rollout.inputs.cue
    assert torch.equal(cue[0], first_cue(family.spec, ROWS, LANES, CPU))
    taken = one_hot(rollout.action, 2) if family.spec.discrete else rollout.action
    expected = torch.cat(
        [taken, rollout.reward.unsqueeze(-1), rollout.done.unsqueeze(-1).float()], dim=-1
    )[:-1]
    lived = rollout.valid[1:]
    assert torch.equal(cue[1:][lived], expected[lived])
    assert (rollout.truncated & rollout.valid)[:-1][lived].any()


def test_who_has_finished_waits_with_frozen_belief_and_cue(family: Ragged, tasks: Tasks):
    """The belief counts the lane's own steps; its cue is that of the last one."""
    rollout, belief = live(family, tasks, EPISODES, lanes=LANES)
    steps = rollout.valid.sum(0)
    assert (steps[:, 0] < len(rollout.valid)).any()
    assert torch.equal(belief.lane[0], steps.float())
    last = tree_map(
        lambda x: x.gather(0, (steps - 1).unsqueeze(0)).squeeze(0), (rollout.reward, rollout.done)
    )
    assert torch.equal(belief.cue[..., -2], last[0])
    assert belief.cue[..., -1].eq(1).all()
    assert last[1].all()


def test_the_belief_and_the_cue_go_on_in_the_next_call(family: Ragged, tasks: Tasks):
    agent, env = Counting(family.spec), family.make(1)
    _, belief = live(family, tasks, 1)
    rollout, after = collect(agent, env, family.spec, belief, tasks, 2, Rng(1))
    assert torch.equal(rollout.inputs.cue[0], belief.cue)
    assert torch.equal(rollout.extras["count"][0], belief.lane[0])
    assert torch.equal(after.lane[0], belief.lane[0] + rollout.valid.sum(0))


# -------------------------------------------------------------------------------------------------
# Chance


def lives(family: Ragged, tasks: Tasks, **options: Any) -> dict[str, list[Tensor]]:
    """What each row lived through, by its index, without the waiting."""
    rollout, _ = live(family, tasks, EPISODES, lanes=LANES, **options)
    parts = (
        rollout.inputs.obs,
        rollout.inputs.cue,
        rollout.action,
        rollout.reward,
        rollout.next_obs,
    )
    steps = rollout.valid[:, :, 0].sum(0)
    return {int(i): [x[: steps[n], n] for x in parts] for n, i in enumerate(rollout.index)}


@pytest.mark.parametrize("order", [[6, 5, 4, 3, 2, 1, 0], [2, 5], [4]])
def test_rows_do_not_depend_on_their_company(family: Ragged, tasks: Tasks, order: list[int]):
    """The same task index meets the same chance, in one batch, in chunks or alone."""
    together, apart = lives(family, tasks), lives(family, tasks[torch.tensor(order)])
    for i in order:
        assert same(together[i], apart[i])
    assert sorted(apart) == sorted(order)


def test_lanes_do_not_depend_on_their_number(family: Ragged, tasks: Tasks):
    wide, narrow = (
        live(family, tasks, EPISODES, lanes=3)[0],
        live(family, tasks, EPISODES, lanes=2)[0],
    )
    assert torch.equal(wide.inputs.obs[:, :, :2], narrow.inputs.obs)
    assert torch.equal(wide.action[:, :, :2], narrow.action)
    assert not torch.equal(wide.action[:, :, 0], wide.action[:, :, 2])


def test_same_seed_same_rollout_and_another_seed_another(family: Ragged, tasks: Tasks):
    assert same(live(family, tasks, EPISODES), live(family, tasks, EPISODES))
    one, other = live(family, tasks, EPISODES)[0], live(family, tasks, EPISODES, seed=1)[0]
    assert not torch.equal(one.action, other.action)
    assert not torch.equal(one.inputs.obs[..., 3], other.inputs.obs[..., 3])


def test_an_environment_serves_any_number_of_rows(family: Ragged, tasks: Tasks):
    env = family.make(LANES)
    first = lives(family, tasks, env=env)
    live(family, tasks[:2], 1, lanes=LANES, env=env)
    assert same(lives(family, tasks, env=env), first)


def test_repeated_tasks_are_lived_differently(family: Ragged):
    """Batches of 9 from 3 fixed training tasks: copies of one trajectory would be no new data."""
    world = LocalWorld(family, EPISODES, family.tasks("train", 3, Rng(0)), CPU)
    tasks = world.tasks(9, Rng(1))
    assert tasks.index.bincount().tolist() == [3, 3, 3]
    agent = Counting(family.spec)
    rollout, _ = world.collect(
        agent, agent.begin(world.task_info(agent, tasks), 1), tasks, EPISODES, Rng(2)
    )
    noise = rollout.inputs.obs[0, :, 0, 3]
    assert len(noise.unique()) == 9
    assert world.env_steps == rollout.env_steps


# -------------------------------------------------------------------------------------------------
# Mistakes of a family, each named with field, task and step


class Broken(Ragged):
    """Changes the n-th step, or with n = −1 the reset."""

    def __init__(self, n: int, change: Callable[[Any], Any], discrete: bool = True) -> None:
        super().__init__(discrete)
        self.n, self.change = n, change

    def make(self, lanes: int) -> Broken:
        self.env = super().make(lanes)
        return self

    def reset(self, tasks: Tasks, rng: Rng) -> Tensor:
        obs = self.env.reset(tasks, rng)
        return self.change(obs) if self.n == -1 else obs

    def step(self, action: Tensor) -> Step:
        now = self.env.time == self.n
        step = self.env.step(action)
        return self.change(step) if now else step


def with_nan(x: Tensor, row: int) -> Tensor:
    return x.index_fill(0, torch.tensor([row]), float("nan"))


class Measured(Broken):
    """Reports how many steps the episode has, and in other steps than the n-th nothing else."""

    def __init__(self, n: int = 99, change: Callable[[Any], Any] = lambda step: step) -> None:
        super().__init__(n, change)
        self.spec = replace(self.spec, metrics=("steps",))

    def step(self, action: Tensor) -> Step:
        now, self.n, n = self.env.time == self.n, 99, self.n
        step = super().step(action)
        self.n = n
        step = replace(step, metrics={"steps": step.next_obs[..., 2].clone()})
        return self.change(step) if now else step


def mistake_of(family: Ragged, rows: int = ROWS) -> str:
    with pytest.raises(MetaRLError) as caught:
        live(family, family.tasks("test", rows, Rng(0))[torch.arange(rows).flip(0)], EPISODES)
    message = str(caught.value)
    assert message.startswith("ragged: ")
    return message


@pytest.mark.parametrize(
    ("field", "change", "words"),
    [
        ("reward", lambda x: x.unsqueeze(-1), "torch.float32 of shape [7, 1, 1]"),
        ("reward", lambda x: x.double(), "torch.float64 of shape [7, 1]"),
        ("obs", lambda x: x[..., :3], "torch.float32 of shape [7, 1, 3]"),
        ("obs", lambda x: x.long(), "torch.int64"),
        ("next_obs", lambda x: x[:3], "torch.float32 of shape [3, 1, 4]"),
        ("terminated", lambda x: x.float(), "torch.float32"),
        ("truncated", lambda x: x.squeeze(1), "torch.bool of shape [7]"),
    ],
)
def test_a_wrong_shape_or_type_is_told_at_once(
    field: str, change: Callable[[Tensor], Tensor], words: str
):
    message = mistake_of(
        Broken(1, lambda step: replace(step, **{field: change(getattr(step, field))}))
    )
    assert f"{field} at step 1 is " in message
    assert words in message


def test_metrics_are_those_of_the_last_steps():
    """At its last step, an episode has as many steps as it lasts."""
    family = Measured()
    tasks = family.tasks("test", ROWS, Rng(0))
    rollout, _ = live(family, tasks, EPISODES, lanes=LANES)
    index, episode = torch.meshgrid(tasks.index, torch.arange(EPISODES), indexing="ij")
    steps = family.length(index, episode).clamp(max=4).T.float()  # [K, N]
    expected = steps.unsqueeze(-1).expand(-1, -1, LANES)
    assert torch.equal(rollout.episode_metrics()["steps"], expected)
    plain, _ = live(Ragged(), tasks, EPISODES, lanes=LANES)
    assert plain.metrics == {}
    assert same(replace(rollout, metrics={}), plain)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: {}, "the metrics at step 1 are []; the family's spec names ['steps']"),
        (lambda x: None, "the metrics at step 1 are []; the family's spec names ['steps']"),
        (lambda x: x | {"more": x["steps"]}, "step 1 are ['steps', 'more']; the family's"),
        (lambda x: {"steps": 3.0}, "metric steps at step 1 is 3.0, not a tensor"),
        (lambda x: {"steps": x["steps"].double()}, "metric steps at step 1 is torch.float64"),
        (lambda x: {"steps": x["steps"][0]}, "metric steps at step 1 is torch.float32 of shape"),
        (lambda x: {"steps": with_nan(x["steps"], 5)}, "metric steps of task 1 is not finite at"),
    ],
)
def test_metrics_are_given_as_the_spec_names_them(change: Callable[[Any], Any], words: str):
    family = Measured(1, lambda step: replace(step, metrics=change(step.metrics)))
    assert words in mistake_of(family)


def test_a_metric_that_the_spec_does_not_name_is_refused():
    family = Broken(0, lambda step: replace(step, metrics={"distance": step.reward}))
    assert "the metrics at step 0 are ['distance']; the family's spec names []" in mistake_of(
        family
    )


@pytest.mark.parametrize("change", [lambda x: x[..., :2], lambda x: x.double(), lambda x: x[0]])
def test_a_reset_of_the_wrong_shape_or_type_is_told(change: Callable[[Tensor], Tensor]):
    assert "obs at step 0 is " in mistake_of(Broken(-1, change))


@pytest.mark.parametrize(("field", "step"), [("reward", 2), ("next_obs", 2), ("obs", 3)])
def test_what_is_not_finite_is_told_with_its_task_and_step(field: str, step: int):
    """An observation returned by step 2 is the input of step 3. Flipped row 5 is task 1."""
    family = Broken(2, lambda given: replace(given, **{field: with_nan(getattr(given, field), 5)}))
    assert f"{field} of task 1 is not finite at step {step}" in mistake_of(family)


def test_a_reset_that_is_not_finite_is_told():
    assert "obs of task 1 is not finite at step 0" in mistake_of(
        Broken(-1, lambda obs: with_nan(obs, 5))
    )


def test_the_first_of_several_is_told():
    """A NaN spreads: the reward of step 1 comes before the observations that it may corrupt."""
    family = Broken(
        1,
        lambda given: replace(given, reward=with_nan(given.reward, 5), obs=with_nan(given.obs, 5)),
    )
    assert "reward of task 1 is not finite at step 1" in mistake_of(family)


def test_an_environment_is_never_given_an_action_that_is_not_finite():
    family, given = make_family("point", horizon=5), []
    agent = make_agent("random", family.spec)
    real_act, env = agent.act, family.make(1)
    real_step = env.step

    def act(*arguments: Any) -> Any:
        acted, belief = real_act(*arguments)
        if len(given) == 2:
            acted = replace(acted, action=with_nan(acted.action, 1))
        return acted, belief

    def step(action: Tensor) -> Any:
        given.append(action)
        return real_step(action)

    agent.act, env.step = act, step  # type: ignore[method-assign]
    tasks = family.tasks("test", 2, Rng(0))
    belief = agent.begin(task_info(agent, family.spec, tasks, 1), lanes=1)
    words = "Random: action of task 1 is not finite at step 2"
    with pytest.raises(MetaRLError, match=words):
        collect(agent, env, family.spec, belief, tasks, 1, Rng(0))
    assert len(given) == 2


def test_a_waiting_lane_is_checked_too():
    """0 · NaN is NaN, so masking would not keep it from the agent."""
    family = Broken(8, lambda given: replace(given, reward=with_nan(given.reward, 1)))
    tasks = family.tasks("test", ROWS, Rng(0))
    assert not live(Ragged(), tasks, EPISODES)[0].valid[8, 1]
    with pytest.raises(MetaRLError, match="reward of task 1 is not finite at step 8"):
        live(family, tasks, EPISODES)


def test_large_numbers_are_finite():
    """Their sum overflows and still none of them is a mistake."""
    family = Ragged()
    broken = Broken(1, lambda given: replace(given, reward=torch.full_like(given.reward, 3e38)))
    rollout, _ = live(broken, family.tasks("test", ROWS, Rng(0)), EPISODES)
    assert rollout.reward[1].eq(3e38).all()


def breaks(given: Any) -> Any:
    raise ValueError("it\nbroke")


def test_what_an_environment_raises_is_one_line_with_its_cause():
    for n, place in ((-1, "reset"), (2, "step 2")):
        with pytest.raises(FamilyError) as caught:
            live(Broken(n, breaks), Ragged().tasks("test", 3, Rng(0)), EPISODES)
        says = rf"ragged: {place}: ValueError: it broke \(test_collector.py, line \d+\)"
        assert re.fullmatch(says, str(caught.value))
        assert isinstance(caught.value.__cause__, ValueError)


def interrupt(given: Any) -> Any:
    raise KeyboardInterrupt


def test_an_interrupt_is_no_fault_of_the_environment():
    with pytest.raises(KeyboardInterrupt):
        live(Broken(1, interrupt), Ragged().tasks("test", 3, Rng(0)), EPISODES)


def test_a_step_that_is_none_is_told():
    assert mistake_of(Broken(1, lambda step: (step, 1))).endswith("not a metarl.Step")


@pytest.mark.parametrize(
    ("tasks", "make", "says"),
    [
        (breaks, None, r"ragged: tasks\('train', 3, rng\): ValueError: it broke"),
        (lambda *_: [1, 2, 3], None, r"ragged: tasks gives \[1, 2, 3\], not metarl.Tasks"),
        (None, breaks, r"ragged: make\(1\): ValueError: it broke"),
        (None, lambda lanes: None, "ragged: make gives None, without reset and step"),
    ],
)
def test_families_that_cannot_give_tasks_or_environments_are_told(
    tasks: Callable[..., Any] | None, make: Callable[..., Any] | None, says: str
):
    family = Ragged()
    if tasks:
        family.tasks = lambda *given: tasks(given)
    if make:
        family.make = make
    agent = Counting(family.spec)
    world = LocalWorld(family, EPISODES, None, CPU)

    def train() -> None:
        drawn = world.tasks(3, Rng(0))
        belief = agent.begin(world.task_info(agent, drawn), lanes=1)
        world.collect(agent, belief, drawn, EPISODES, Rng(0))

    with pytest.raises(FamilyError, match=says) as caught:
        train()
    assert "\n" not in str(caught.value)


def test_an_episode_that_outlives_its_horizon_is_told():
    class Endless(Broken):
        def step(self, action: Tensor) -> Step:
            step = super().step(action)
            return replace(step, truncated=torch.zeros_like(step.truncated))

    assert "an episode is too long; truncate it at step 4" in mistake_of(
        Endless(99, lambda step: step)
    )


# -------------------------------------------------------------------------------------------------
# What an agent is shown


def agent_that_is_shown(what: str) -> Counting:
    agent = Counting(Ragged().spec)
    agent.task_input = what
    return agent


def test_an_agent_is_shown_what_it_asks_for_and_never_more():
    tasks = Ragged().tasks("train", 3, Rng(0))
    assert task_info(agent_that_is_shown("none"), Ragged().spec, tasks, 2, tasks).shown is None
    assert same(task_info(agent_that_is_shown("row"), Ragged().spec, tasks, 2).shown, tasks.params)
    assert torch.equal(
        task_info(agent_that_is_shown("onehot"), Ragged().spec, tasks[1:], 2, tasks).shown,
        torch.eye(3)[1:],
    )
    assert task_info(agent_that_is_shown("none"), Ragged().spec, tasks, 2) == TaskInfo(
        rows=3, episodes=2, device=CPU
    )


@pytest.mark.parametrize(("split", "train_tasks"), [("test", 5), ("train", None)])
def test_a_one_hot_of_an_unseen_task_is_a_mistake(split: str, train_tasks: int | None):
    train_set = Ragged().tasks("train", train_tasks, Rng(0)) if train_tasks else None
    with pytest.raises(MetaRLError, match=f"a {split} task has no place"):
        task_info(
            agent_that_is_shown("onehot"),
            Ragged().spec,
            Ragged().tasks(split, 3, Rng(0)),
            2,
            train_set,
        )


def test_a_fixed_training_set_is_walked_through_without_repetition():
    world = LocalWorld(Ragged(), 2, Ragged().tasks("train", 5, Rng(0)), CPU)
    batch = world.tasks(12, Rng(3))
    assert sorted(batch.index[:5].tolist()) == sorted(batch.index[5:10].tolist()) == list(range(5))
    assert len(set(batch.index[10:].tolist())) == 2
    assert not torch.equal(world.tasks(5, Rng(3)).index, world.tasks(5, Rng(4)).index)


def test_the_goal_stands_at_the_front_of_the_row():
    tasks = replace(Ragged().tasks("train", 3, Rng(0)), params=torch.arange(12.0).view(3, 4))
    spec = replace(Ragged().spec, task_width=4, goal_width=2)
    shown = task_info(agent_that_is_shown("goal"), spec, tasks, 2).shown
    assert torch.equal(shown, tasks.params[:, :2])
    assert spec.shown_width("goal") == 2
    with pytest.raises(MetaRLError, match="tasks of ragged have no goal"):
        Ragged().spec.shown_width("goal")
