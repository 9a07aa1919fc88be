"""Trees of arrays, and the cue that tells a policy how its last step ended."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers import CPU, same

from metarl.core.errors import FamilyError
from metarl.core.rng import Rng
from metarl.core.types import (
    Acted,
    Belief,
    Inputs,
    Spec,
    Step,
    Tasks,
    first_cue,
    next_cue,
    one_hot,
    replace,
    tree_map,
    where,
)

DISCRETE = Spec("d", {"a": 2, "b": 3}, action_width=3, discrete=True, horizon=5, task_width=1)
CONTINUOUS = dataclasses.replace(DISCRETE, discrete=False)


def test_none_and_static_fields_are_structure():
    """A field that is None must not become a tensor, nor a split a child."""
    doubled = tree_map(lambda x: 2 * x, Inputs(torch.ones(2), latent=torch.ones(1)))
    assert doubled.cue is doubled.task is doubled.option is None
    assert same(doubled, Inputs(torch.full((2,), 2.0), latent=torch.full((1,), 2.0)))
    assert tree_map(lambda x: x + 1, Tasks(torch.zeros(1, 2), torch.zeros(1), "ood")).split == "ood"


def test_vmap_reaches_every_tensor_of_a_nested_tree():
    tasks = Tasks(torch.randn(4, 2), torch.arange(4), "test")
    acted = Acted(
        Inputs(torch.randn(4, 3), task=torch.randn(4, 2)),
        torch.randn(4),
        torch.randn(4),
        {"v": torch.ones(4)},
    )
    belief = Belief(torch.randn(4, 5), row=(torch.randn(4, 1),), lane={"h": torch.randn(4, 2)})
    through = torch.func.vmap(lambda *trees: tree_map(lambda x: 2 * x, trees))(tasks, acted, belief)
    assert same(through, tree_map(lambda x: 2 * x, (tasks, acted, belief)))
    assert through[0].split == "test"
    assert through[1].inputs.cue is None
    assert torch.equal(torch.func.vmap(Inputs.flat)(acted.inputs), acted.inputs.flat())


def test_trees_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Inputs(torch.ones(1)).obs = torch.zeros(1)


def test_flat_joins_the_present_parts_in_order():
    parts = {
        name: torch.full((2, 1), float(i))
        for i, name in enumerate(("obs", "cue", "latent", "task"))
    }
    assert Inputs(**parts).flat().tolist() == [[0, 1, 2, 3]] * 2
    assert Inputs(parts["obs"], task=parts["task"]).flat().tolist() == [[0, 3]] * 2


def test_where_chooses_by_lane_whatever_axes_follow():
    condition = torch.tensor([[True, False], [False, True]])
    new = {"scalar": torch.ones(2, 2), "matrix": torch.ones(2, 2, 3, 4)}
    chosen = where(condition, new, tree_map(torch.zeros_like, new))
    for part in chosen.values():
        assert torch.equal(part.flatten(2).mean(-1) if part.dim() > 2 else part, condition.float())


def test_tasks_are_chosen_by_rows():
    tasks = Tasks(torch.randn(5, 2), torch.arange(5), "train")
    rows = torch.tensor([3, 0])
    assert len(tasks) == 5
    assert same(tasks[rows], Tasks(tasks.params[rows], rows, "train"))
    assert same(tasks[1:3].index, torch.tensor([1, 2]))


def test_copies_of_a_row_have_streams_of_their_own():
    """Few fixed training tasks fill a batch by repetition; equal copies would teach nothing new."""
    once = Tasks(torch.zeros(4, 1), torch.tensor([1, 1, 2, 1]), "train")
    copies = dataclasses.replace(once, copy=torch.tensor([0, 1, 0, 2]))
    draws = copies.streams(Rng(0), 2).uniform(0, 1).flatten(1)
    assert len(draws.flatten().unique()) == 8
    rows = torch.tensor([3, 0])
    assert torch.equal(copies[rows].streams(Rng(0), 2).uniform(0, 1).flatten(1), draws[rows])
    assert torch.equal(once[rows].streams(Rng(0), 2).uniform(0, 1).flatten(1), draws[[0, 0]])


def test_widths_of_a_spec():
    assert (DISCRETE.obs_width, DISCRETE.cue_width) == (5, 3 + 2)


def test_one_hot_is_torchs():
    action = torch.tensor([[[0, 2], [1, 1]]])
    assert torch.equal(one_hot(action, 3), torch.nn.functional.one_hot(action, 3).float())


def test_first_cue_is_nothing_but_done():
    cue = first_cue(DISCRETE, rows=2, lanes=3, device=CPU)
    assert cue.shape == (2, 3, 5)
    assert cue[..., :-1].eq(0).all()
    assert cue[..., -1].eq(1).all()


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize(
    ("terminated", "truncated"), [(False, False), (True, False), (False, True)]
)
def test_next_cue_carries_action_reward_and_done(spec: Spec, terminated: bool, truncated: bool):
    """A time limit ends an episode for the policy as much as the task does (SPECS 1.4, item 5)."""
    obs, reward = torch.zeros(1, 1, 5), torch.tensor([[0.7]])
    step = Step(obs, obs, reward, torch.tensor([[terminated]]), torch.tensor([[truncated]]))
    action = torch.tensor([[2]]) if spec.discrete else torch.tensor([[[0.1, -0.2, 0.3]]])
    entries = [0.0, 0.0, 1.0] if spec.discrete else [0.1, -0.2, 0.3]
    expected = torch.tensor([[[*entries, 0.7, float(terminated or truncated)]]])
    assert torch.equal(next_cue(spec, action, step), expected)


def test_drawn_rows_come_all_before_any_returns():
    rows = Tasks(torch.arange(3.0).unsqueeze(1), torch.arange(3), "train")
    drawn = rows.draw(7, Rng(0))
    assert sorted(drawn.index[:3].tolist()) == sorted(drawn.index[3:6].tolist()) == [0, 1, 2]
    assert drawn.copy.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert torch.equal(drawn.params.squeeze(1).long(), drawn.index)
    assert torch.equal(rows.draw(4, Rng(0)).index, drawn.index[:4])


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        (("distance", "return"), "'return', which means something else in scores"),
        (("is_success",), "'is_success', which means something else in Gymnasium's infos"),
        ("distance", r"metrics is a text; write \('distance',\)"),
    ],
)
def test_names_that_mean_something_else_are_no_metrics(metrics: object, says: str):
    with pytest.raises(FamilyError, match=f"^d: .*{says}"):
        replace(DISCRETE, metrics=metrics)


def test_metrics_are_no_part_of_the_shape():
    """A run of a version without them can be compared with one of a version with them."""
    assert replace(DISCRETE, metrics=("distance",)) == DISCRETE


def test_a_part_of_the_observation_is_found_by_name():
    spec = Spec("s", {"a": 2, "b": 3}, action_width=1, discrete=False, horizon=1, task_width=1)
    assert (spec.part("a"), spec.part("b")) == (slice(0, 2), slice(2, 5))
    with pytest.raises(KeyError):
        spec.part("c")
