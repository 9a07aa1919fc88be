"""`metarl check` on agents: every promise can be broken, and the one that is broken is named."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers import CPU
from tiny_agent import Tiny

from metarl import cli
from metarl.checker.agent_check import AGENT_RULES, check_agent, check_found_agent
from metarl.checker.report import Report
from metarl.checker.values import difference
from metarl.config.registry import find, names
from metarl.core.rng import Rng
from metarl.core.types import Belief, Inputs, replace
from metarl.experiments.building import make_family

# -------------------------------------------------------------------------------------------------
# Faults

FAULTS: dict[str, tuple[type[Tiny], str, str]] = {}
"""Name → the broken agent, the rules that must fail, words that must be said."""


def planted(rules: str, words: str) -> Callable[[type[Tiny]], type[Tiny]]:
    def add(cls: type[Tiny]) -> type[Tiny]:
        FAULTS[cls.__name__] = (cls, rules, words)
        return cls

    return add


@planted("attributes", "these methods are missing: replay")
class NoReplay(Tiny):
    replay = None


@planted("attributes", "task_input is 'nothing'")
class WrongTaskInput(Tiny):
    task_input = "nothing"


@planted("attributes", "lanes is 0")
class NoLanes(Tiny):
    lanes = 0


@planted("attributes", "AttributeError")
class NoTaskInput(Tiny):
    @property
    def task_input(self):
        return self.nowhere


@planted("attributes", "ZeroDivisionError: division by zero (test_check_agents.py, line ")
class NotBuilt(Tiny):
    def __init__(self, *given):
        super().__init__(*given)
        self.rate = 1 / 0


@planted("begin", "the cue is not first_cue(…); it differs")
class ZeroCue(Tiny):
    def begin(self, info, lanes):
        belief = super().begin(info, lanes)
        return replace(belief, cue=0 * belief.cue)


@planted("begin", "begin: lane holds Tensor, no tensor with the leading axes [4, 2]")
class OneLaneForAll(Tiny):
    def begin(self, info, lanes):
        return replace(super().begin(info, lanes), lane=torch.zeros(5))


@planted("begin", "row holds int, no tensor with the leading axes [4]")
class NumberInRow(Tiny):
    def begin(self, info, lanes):
        return replace(super().begin(info, lanes), row=[1])


@planted("begin", "begin changes the agent's state_dict; count differs")
class BeginWrites(Tiny):
    def begin(self, info, lanes):
        self.count += 1
        return super().begin(info, lanes)


@planted("begin", "another belief when called again")
class BeginCounts(Tiny):
    begun = 0

    def begin(self, info, lanes):
        self.begun += 1
        belief = super().begin(info, lanes)
        return replace(belief, row=belief.row + self.begun // 3)


class Changed(Tiny):
    """What act returns is changed."""

    def act(self, *given):
        acted, belief = super().act(*given)
        return self.change(acted, belief, given)


@planted("act", "act changes more of the belief than its lane; row differs")
class ActChangesRow(Changed):
    def change(self, acted, belief, given):
        return acted, replace(belief, row=belief.row + 1)


@planted("act", "act changes what it is given, in place")
class ActInPlace(Changed):
    def change(self, acted, belief, given):
        given[0].lane.add_(1)
        return acted, belief


@planted("act", "actions from ")
class OutOfRange(Changed):
    def change(self, acted, belief, given):
        return replace(acted, action=acted.action + 5), belief


@planted("act", "action is torch.int32 of shape [4, 2], not torch.int64 of shape [4, 2]")
class WrongType(Changed):
    def change(self, acted, belief, given):
        return replace(acted, action=acted.action.int()), belief


@planted("act", "log_prob is torch.float32 of shape [4, 2, 1], not real numbers of shape [4, 2]")
class WideLogProb(Changed):
    def change(self, acted, belief, given):
        return replace(acted, log_prob=acted.log_prob.unsqueeze(-1)), belief


@planted("act", "log_prob is not finite")
class InfiniteLogProb(Changed):
    def change(self, acted, belief, given):
        return replace(acted, log_prob=acted.log_prob / 0), belief


@planted("act", "act changes the agent's state_dict; mean differs")
class ActLearns(Changed):
    def change(self, acted, belief, given):
        self.mean = self.mean + 1
        return acted, belief


@planted("act", "inputs.obs is not the observation")
class OtherObs(Changed):
    def change(self, acted, belief, given):
        return replace(acted, inputs=Inputs(given[1] - self.mean + 1)), belief


@planted("randomness", "two trials with the same noise are not the same; round 1 acting")
class GlobalRandomness(Changed):
    def change(self, acted, belief, given):
        return replace(acted, log_prob=torch.rand(acted.log_prob.shape)), belief


@planted("randomness", "begin, act or adapt draw from a global random generator")
class Numpy(Changed):
    def change(self, acted, belief, given):
        np.random.rand()
        return acted, belief


@planted("randomness", "begin, act or adapt draw from a global random generator")
class AdaptDraws(Tiny):
    def adapt(self, belief, rollout):
        random.random()
        return super().adapt(belief, rollout)


@planted("adapt", "adapt changes more of the belief than its row; lane differs")
class AdaptChangesLane(Tiny):
    def adapt(self, belief, rollout):
        belief = super().adapt(belief, rollout)
        return replace(belief, lane=belief.lane + 1)


@planted("adapt", "adapt changes more of the belief than its row; cue differs")
class AdaptChangesCue(Tiny):
    def adapt(self, belief, rollout):
        belief = super().adapt(belief, rollout)
        return replace(belief, cue=0 * belief.cue)

    def replay(self, belief, rollout):
        return replace(super().replay(belief, rollout), cue=rollout.last_cue(self.spec))


@planted("adapt", "adapt changes what it is given, in place; 0 row differs")
class AdaptInPlace(Tiny):
    def adapt(self, belief, rollout):
        learned = super().adapt(belief, rollout)
        belief.row.add_(1)
        return learned


@planted("adapt", "adapt changes what it is given, in place; 1 reward differs")
class RewardsInPlace(Tiny):
    def adapt(self, belief, rollout):
        rollout.reward.sub_(0.5)
        return super().adapt(belief, rollout)


@planted("adapt", "RuntimeError")
class AsManyLanes(Tiny):
    def adapt(self, belief, rollout):
        lanes = belief.cue.shape[1]
        rollout.reward.view(-1, belief.cue.shape[0], lanes)[:, :, :lanes].add(rollout.reward)
        return super().adapt(belief, rollout)


@planted("rows", "rows 2 and 0, among all and alone: not the same; round 1 acting log_prob")
class CoupledRows(Tiny):
    def logits(self, obs, bonus, tired):
        return super().logits(obs, bonus, tired) - obs.mean(-3, keepdim=True) @ self.weights


@planted("rows", "rows 2 and 0, among all and alone: not the same; round 1 belief row differs")
class CoupledRowsInAdapt(Tiny):
    def adapt(self, belief, rollout):
        reward = rollout.reward * rollout.action.float().mean()
        return super().adapt(belief, replace(rollout, reward=reward))


@planted("lanes", "lane 0 among 2 and alone: not the same; log_prob differs at [0, 0]: ")
class CoupledLanes(Tiny):
    def logits(self, obs, bonus, tired):
        return super().logits(obs, bonus, tired) - obs.mean(-2, keepdim=True) @ self.weights


@planted(
    "trials",
    "without and with another in its middle: not the same; round 1 belief row",
)
class MemoryOfItsOwn(Tiny):
    """Keeps on itself what the belief should hold: the number of steps since `begin`."""

    def begin(self, info, lanes):
        self.steps = 0
        return super().begin(info, lanes)

    def act(self, *given):
        self.steps = given[3]
        self.rows = len(given[0].cue)
        self.first = float(given[1].sum())
        return super().act(*given)

    def adapt(self, belief, rollout):
        if self.first == float(rollout.inputs.obs[-1].sum()):
            return super().adapt(belief, rollout)
        return replace(belief, row=belief.row + 1)


@planted("replay", "the cue after replay is not how the last step ended")
class ForgetsTheCue(Tiny):
    def replay(self, belief, rollout):
        return self.adapt(belief, rollout)


@planted("replay", "replay changes nothing in the next episode; acting and adapting do")
class ReplayLearnsNothing(Tiny):
    def replay(self, belief, rollout):
        return replace(super().replay(belief, rollout), row=belief.row)


@planted("replay", "KeyError: 'tired' (test_check_agents.py, line ")
class ReplayNeedsExtras(Tiny):
    def replay(self, belief, rollout):
        return replace(super().replay(belief, rollout), row=rollout.extras["tired"].sum((0, 2)))


@planted("iterate", "no metric 'return' among ['loss']; logs show it")
class NoReturn(Tiny):
    def iterate(self, world, rng):
        metrics = super().iterate(world, rng)
        del metrics["return"]
        return metrics


@planted("iterate", "metric 'loss' is nan")
class NotFinite(Tiny):
    def iterate(self, world, rng):
        return super().iterate(world, rng) | {"loss": float("nan")}


@planted("iterate", "metric 'loss' is tensor(0.), no finite number")
class TensorMetric(Tiny):
    def iterate(self, world, rng):
        return super().iterate(world, rng) | {"loss": torch.zeros(())}


@planted("iterate", "no step was collected by world.collect")
class CollectsNothing(Tiny):
    def iterate(self, world, rng):
        self.weights = self.weights + 1
        return {"return": 0.0}


@planted("iterate", "after three iterations, acting_state() is as before")
class LearnsNothing(Tiny):
    def iterate(self, world, rng):
        kept = self.state_dict()
        metrics = super().iterate(world, rng)
        self.load_state_dict(kept)
        return metrics


@planted("iterate", "AttributeError: 'SmallWorld' object has no attribute 'family'")
class KnowsItsFamily(Tiny):
    def iterate(self, world, rng):
        self.family = world.family
        return super().iterate(world, rng)


@planted("repeat", "two agents built and trained alike: not the same; ")
class GlobalWeights(Tiny):
    def __init__(self, *given):
        super().__init__(*given)
        self.weights = torch.randn(self.weights.shape)


@planted("repeat", "two agents built and trained alike: not the same; ")
class GlobalMinibatches(Tiny):
    def descend(self, rollout, bonus, rng):
        loss = super().descend(rollout, bonus, rng)
        self.weights = self.weights + torch.rand(())
        return loss


@planted("hidden", "IndexError")
class LooksItUp(Tiny):
    def adapt(self, belief, rollout):
        table = torch.arange(8.0)
        return replace(belief, row=belief.row + table[rollout.index].unsqueeze(1))


@planted("hidden", "adapt depends on rollout.index")
class Recognizes(Tiny):
    def adapt(self, belief, rollout):
        return replace(belief, row=belief.row + rollout.index.unsqueeze(1))


@planted("hidden", "iterate depends on tasks.params")
class ReadsTheGoal(Tiny):
    def iterate(self, world, rng):
        metrics = super().iterate(world, rng)
        self.weights = self.weights + world.tasks(4, rng).params[0, 0]
        return metrics


@planted("resume", "another with its state_dict() learn next: not the same; ")
class OptimizerIsNotSaved(Tiny):
    def state_dict(self):
        state = super().state_dict()
        del state["momentum"]
        return state

    def load_state_dict(self, state):
        super().load_state_dict(state | {"momentum": torch.zeros_like(state["weights"])})


@planted("resume", "another with its state_dict() learn next: not the same; metrics loss differs")
class CountsOutside(Tiny):
    def __init__(self, *given):
        super().__init__(*given)
        self.iterations = 0

    def iterate(self, world, rng):
        self.iterations += 1
        return super().iterate(world, rng) | {"loss": float(self.iterations)}


@planted("resume", "state_dict() after load_state_dict() is another; count differs")
class ForgetsTheCount(Tiny):
    def load_state_dict(self, state):
        super().load_state_dict(state | {"count": 0})


@planted(
    "resume",
    "state_dict() holds more than tensors, numbers, strings, lists and dicts: metarl.core.rng.Rng",
)
class SavesAnObject(Tiny):
    def state_dict(self):
        return super().state_dict() | {"rng": Rng(0)}


@planted("resume", "KeyError: 'replay'")
class NeedsItsReplay(Tiny):
    def state_dict(self):
        return super().state_dict() | {"replay": torch.zeros(3)}

    def load_state_dict(self, state):
        assert len(state["replay"]) == 3
        super().load_state_dict(state)


@planted(
    "acting",
    "another after warm_start(acting_state()): not the same; round 1 acting",
)
class ActsWithoutItsMean(Tiny):
    def acting_state(self):
        return super().acting_state() | {"mean": 0 * self.mean}

    def state_dict(self):
        return super().state_dict() | {"mean": self.mean, "other": 0 * self.mean}


@planted("acting", "acting_state() holds ['optimizer'], which only training needs")
class SendsItsOptimizer(Tiny):
    def acting_state(self):
        return super().acting_state() | {"optimizer": self.momentum}


@planted("acting", "acting_state() holds what state_dict() does not: {'more'}")
class SendsMore(Tiny):
    def acting_state(self):
        return super().acting_state() | {"more": self.weights + 1}

    def state_dict(self):
        state = super().state_dict()
        del state["more"]
        return state


@planted(
    "acting",
    "another after warm_start(acting_state()): not the same; round 1 acting",
)
class StartsCold(Tiny):
    def warm_start(self, state):
        pass

    def load_state_dict(self, state):
        Tiny.warm_start(self, state)
        self.momentum, self.count = state["momentum"].clone(), state["count"]


class Aliased(Tiny):
    """Acts with weights that share the memory of those that learn."""

    def __init__(self, *given):
        super().__init__(*given)
        self.frozen = self.weights.detach()

    def logits(self, obs, bonus, tired):
        weights = self.weights if self.weights.requires_grad else self.frozen
        return (obs - self.mean) @ weights + bonus - tired

    def descend(self, rollout, bonus, rng):
        kept = self.weights
        loss = super().descend(rollout, bonus, rng)
        learned = self.weights
        self.weights = kept.detach()
        self.weights.copy_(learned)
        return loss

    def warm_start(self, state):
        super().warm_start(state)
        self.frozen = self.weights.detach()


@planted("pickle", "its copy by pickle learn: not the same; trial round 1 acting log_prob differs")
class AliasIsLost(Aliased):
    pass


class AliasIsRebuilt(Aliased):
    def __setstate__(self, state):
        self.__dict__.update(state)
        self.frozen = self.weights.detach()


@planted("pickle", "ickle")
class HoldsALambda(Tiny):
    def __init__(self, *given):
        super().__init__(*given)
        self.schedule = lambda progress: 1 - progress


@planted("pickle", "a copy by pickle acts otherwise")
class LosesItsMean(Tiny):
    def __getstate__(self):
        return vars(self) | {"mean": 0 * self.mean}


@planted("pickle", "training a copy by pickle changes the original; count differs")
class SharesWithItsCopy(Tiny):
    originals: ClassVar[list[Tiny]] = []

    def __reduce__(self):
        self.originals.append(self)
        return _copy_of, (len(self.originals) - 1,)


def _copy_of(number: int) -> Tiny:
    original = SharesWithItsCopy.originals[number]
    copy = SharesWithItsCopy(None, original.spec, Rng(0), CPU)
    copy.load_state_dict(original.state_dict())
    copy.__dict__["original"] = original
    copy.iterate = lambda world, rng: _both(copy, original, world, rng)
    return copy


def _both(copy: Tiny, original: Tiny, world: Any, rng: Rng) -> dict[str, float]:
    original.count += 1
    return Tiny.iterate(copy, world, rng)


# -------------------------------------------------------------------------------------------------
# The report


def check(cls: type[Tiny], **given: bool) -> Report:
    def build(spec: Any, seed: int) -> Tiny:
        return cls(None, spec, Rng(seed), CPU)

    return check_agent(build, make_family("gridnavi", horizon=5), "tiny", **given)


def broken(report: Report) -> list[str]:
    return [finding.rule for finding in report.findings if not finding.passed]


def test_an_agent_that_keeps_every_promise_passes_every_rule():
    report = check(Tiny)
    assert report.ok, str(report)
    assert [finding.rule for finding in report.findings] == [rule.name for rule in AGENT_RULES]
    assert str(report).startswith(f"tiny on gridnavi: keeps all {len(AGENT_RULES)} promises\nok ")
    assert check(AliasIsRebuilt).ok


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_broken_is_found_and_nothing_else(name: str):
    cls, rules, words = FAULTS[name]
    report = check(cls)
    assert broken(report) == rules.split(), str(report)
    (finding,) = (finding for finding in report.findings if not finding.passed)
    assert words in finding.observed, str(report)
    assert "Traceback" not in str(report)


def test_every_rule_can_be_broken():
    named = {rule for _, rules, _ in FAULTS.values() for rule in rules.split()}
    assert named == {rule.name for rule in AGENT_RULES}


def test_global_generators_are_left_as_they_were():
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), np.random.rand(), random.random()

    results = []
    for checked in (False, True):
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)
        if checked:
            check(Tiny)
        results.append(draw())
    assert results[0] == results[1]


class OfFixedTasks(Tiny):
    """Uses the training set, which only an agent that needs one is told."""

    def iterate(self, world, rng):
        assert len(world.train_set) > 0
        return super().iterate(world, rng)


def test_an_agent_that_does_not_say_that_it_needs_training_tasks_has_none():
    assert check(OfFixedTasks).ok
    assert broken(check(OfFixedTasks, needs_train_tasks=False)) == ["iterate"]


class NeverGreedy(Tiny):
    def act(self, belief, obs, noise, counter, mode):
        return super().act(belief, obs, noise, counter, "sample")


def test_an_action_that_depends_on_chance_in_mode_greedy_is_only_reported():
    for cls, words in ((NeverGreedy, "they depend on"), (Tiny, "they do not depend on")):
        report = check(cls)
        assert report.ok
        assert words in str(report)


# -------------------------------------------------------------------------------------------------
# The agents of this package

STRATEGIES = [
    name
    for name in names("agent")
    if find("agent", name).settings.__module__ == "metarl.agents.strategies.config"
]
LITTLE_LSTM = {
    **find("agent", "sb3").settings.small["arguments"],
    "policy_kwargs": {"lstm_hidden_size": 8, "net_arch": [8]},
}
"""By default it has 256 units, whose bytes are compared before and after every step."""
LEARNERS: list[Any] = [
    ("rl2", {}),
    ("rl2", {"memory": "none", "normalize_obs": True}),
    ("rl2", {"memory": "lstm", "normalize_reward": True, "pair_input": True}),
    ("rl2", {"memory": "gru+keyed", "memory_keys": 3, "critic": "privileged"}),
    ("rl2", {"memory": "slots", "memory_width": 8}),
    ("rl2", {"memory": "transformer", "memory_width": 16}),
    ("rl2", {"options": 2, "task_input": "goal", "memory": "keyed", "memory_keys": 3}),
    ("rl2", {"task_input": "onehot"}),
    ("rl2", {"preset": "dac"}),
    *(("maml", {"preset": preset}) for preset in find("agent", "maml").settings.variants),
    ("maml", {"memory": "gru"}),
    ("maml", {"episodes_per_task": 20}),
    ("distill", {"student_share": 0.5}),
    ("varibad", {"memory": "set", "targets": "replayed", "novelty_coef": 0.1}),
    ("pearl", {}),
    (
        "pearl",
        {
            "teacher": "task",
            "factors": "natural",
            "context_sampling": "prefixes",
            "context_visits": 2,
            "exploration_mode": "sample",
            "mean_below": 0.5,
        },
    ),
    ("pearl", {"teacher": "outcomes", "factors": "natural"}),
    ("pearl", {"preset": "mtsac"}),
    ("pearl", {"preset": "sac", "task_input": "goal", "hindsight": 0.5}),
    ("pearl", {"preset": "sac", "task_input": "onehot", "learn_temperature": True}),
    ("sb3", {}),
    ("sb3", {"algorithm": "recurrent-ppo", "lanes": 4, "arguments": LITTLE_LSTM}),
]


SMALLER: dict[str, dict[str, Any]] = {"maml": {"cg_iterations": 3}}
"""How well a trust region is solved for is no promise."""


def check_shipped(name: str, family: str | None = None, **options: Any) -> Report:
    found = find("agent", name)
    small = found.settings.small | SMALLER.get(name, {})
    return check_found_agent(found, found.configure({**small, **options}), family)


@pytest.mark.parametrize(("name", "options"), LEARNERS)
def test_an_agent_that_learns_keeps_its_promises(name: str, options: dict[str, Any]):
    report = check_shipped(name, **options)
    assert report.ok, str(report)
    skipped = [finding.rule for finding in report.findings if finding.verdict == "skip"]
    needs_options = options.get("preset") in ("famp", "mlsh")
    assert skipped == ["replay"] * needs_options


@pytest.mark.parametrize("name", ["rl2", "maml", "pearl"])
def test_so_it_does_with_discrete_actions(name: str):
    report = check_shipped(name, "gridnavi")
    assert report.ok, str(report)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_keeps_its_promises_and_learns_nothing(name: str):
    report = check_shipped(name)
    assert report.ok, str(report)
    skipped = [finding.rule for finding in report.findings if finding.verdict == "skip"]
    assert skipped == ["iterate", "resume"]
    kept = len(AGENT_RULES) - len(skipped)
    summary = f"keeps {kept} promises; {len(skipped)} could not be tested"
    assert str(report).splitlines()[0].endswith(summary)


# -------------------------------------------------------------------------------------------------
# The command

MINE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import metarl
from tiny_agent import Tiny

class Mine(Tiny):
    "Prefers what paid."

    class Settings(metarl.Settings):
        lanes: int = 2

    def __init__(self, config, spec, rng, device):
        super().__init__(config, spec, rng, device)
        if not spec.discrete:
            raise metarl.ConfigError("Mine needs discrete actions")
        self.lanes = config.lanes

class Neither:
    def act(self):
        pass
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """`metarl check …` beside this source in mine.py → exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, source: str = MINE) -> tuple[int, str, str]:
        (tmp_path / "mine.py").write_text(source)
        monkeypatch.setattr(sys, "argv", ["metarl", "check", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (int(stop.value.code or 0), *capsys.readouterr())

    return run


def test_the_command_checks_an_agent_of_a_file_on_a_family_that_it_accepts(command):
    code, out, err = command("mine.py:Mine", "lanes=3")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"mine.py:Mine on gridnavi: keeps all {len(AGENT_RULES)} promises"
    assert "lanes 3" in lines[1]
    assert [line.split()[1] for line in lines[1:] if line[0] != " "] == [
        rule.name for rule in AGENT_RULES
    ]


def test_the_command_takes_a_family(command):
    code, out, _ = command("mine.py:Mine", "--family", "bernoulli-bandit")
    assert code == 0
    assert out.startswith("mine.py:Mine on bernoulli-bandit: keeps all")


def test_the_command_says_why_and_how_and_fails(command):
    source = MINE.replace("self.lanes = ", "self.lanes = 0 * ")
    code, out, _ = command("mine.py:Mine", source=source)
    assert code == 1
    lines = out.splitlines()
    assert lines[1:3] == ["FAIL  attributes", "        observed: lanes is 0, no number from 1 on"]
    assert lines[-1] == "not looked at before this is fixed: all further promises"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mine.py:Mine", "lane=3"], "agent.lane: unknown key; did you mean 'lanes'?"),
        (["mine.py:Mine", "--family", "point"], "Mine needs discrete actions"),
        (["mine.py:Mine", "--family", "pont"], "did you mean 'point'?"),
        (["mine.py:Neither"], "is neither a family, which has tasks and make, nor an agent"),
        (["nowhere.py:Mine"], "there is no file"),
        (["perl"], "did you mean pearl"),
        (["gridnavy"], "did you mean gridnavi?"),
        (["xyzzy"], "called 'xyzzy': `metarl envs` and `metarl agents` list them"),
        (["gridnavi", "--family", "point"], "gridnavi is a family itself"),
    ],
)
def test_a_mistake_is_one_clear_line(command, words: list[str], said: str):
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_an_agent_that_accepts_no_family_says_why(command):
    code, out, err = command("mine.py:Mine", source=MINE.replace("if not spec.discrete", "if True"))
    assert (code, out) == (2, "")
    assert "mine.py:Mine: Mine needs discrete actions (tried: point, gridnavi, " in err


def test_the_options_given_win_over_the_small_ones(command):
    code, out, _ = command("maml", "episodes_per_task=6", "tasks=2")
    assert code == 0
    assert "lanes 6" in out


def test_belief_differences_name_the_place():
    one = Belief(torch.zeros(1, 1, 3), row={"a": [torch.zeros(1, 2)]})
    other = replace(one, row={"a": [torch.tensor([[0.0, 1e-7]])]})
    assert difference(one, other) == "row a 0 differs at [0, 1]: 0 and 1e-07"
    assert difference(one, other, rounding=True) is None
    assert difference(one, replace(one, row=None)) == "row a 0 differs"
    assert difference(one, replace(one, row={"a": [torch.zeros(1)]})) == (
        "row a 0 differs in shape or type"
    )
