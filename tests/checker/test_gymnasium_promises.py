"""`metarl check` of Gymnasium environments: one finding a fault, in the words of the adapter."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from metarl.adapters.gymnasium import GymnasiumFamily, GymnasiumVectorFamily
from metarl.checker import fixes
from metarl.checker.check import check_family
from metarl.checker.probe import Probe
from metarl.checker.report import Finding
from metarl.core.rng import seeding_globals
from metarl.experiments.building import make_family


class Slope(gymnasium.Env):
    """A position that slides down a slope of unknown steepness."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Discrete(3)
    steepness = 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time, self.place = 0, self.np_random.uniform()
        return self.look(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        self.place += 0.1 * (action - 1) - 0.02 * self.steepness + 0.01 * self.draw()
        return self.look(), -abs(self.place), False, self.time >= 10, {}

    def look(self) -> Any:
        return np.array([self.place, self.time / 10], np.float32)

    def draw(self) -> float:
        return float(self.np_random.normal())


class Slopes(GymnasiumFamily):
    """Slopes of unknown steepness."""

    horizon: int | None = 10
    env: ClassVar[type[Slope]] = Slope

    def build(self) -> Any:
        return self.env()

    def row(self, split: str, rng: np.random.Generator) -> Any:
        return [rng.uniform(1, 2)]

    def apply(self, env: Any, row: Any) -> None:
        env.steepness = row[0]


class ForgottenHorizon(Slopes):
    horizon = None


class MissingPackage(Slopes):
    def build(self) -> Any:
        import package_that_is_not_there.envs  # noqa: F401


class OverwrittenByReset(Slopes):
    class env(Slope):
        def reset(self, **given: Any) -> Any:
            self.steepness = 1.5
            return super().reset(**given)


class Global(Slopes):
    class env(Slope):
        def draw(self) -> float:
            return float(np.random.normal())


class Unseeded(Slopes):
    class env(Slope):
        def draw(self) -> float:
            return float(np.random.default_rng().normal())


class Shared(Slopes):
    class env(Slope):
        count = 0

        def draw(self) -> float:
            type(self).count += 1
            return float(self.count)


class LeftOver(Slopes):
    class env(Slope):
        walked = 0

        def draw(self) -> float:
            self.walked += 1
            return float(self.walked % 50)


class ShownLater(Slopes):
    class env(Slope):
        def look(self) -> Any:
            return np.array([self.place, self.steepness * (self.time > 0)], np.float32)


WRONG: dict[type[Slopes], tuple[str, str, str]] = {
    ForgottenHorizon: ("builds", "set horizon, the longest episode in steps", ""),
    MissingPackage: ("builds", "no module 'package_that_is_not_there'", "install the package"),
    OverwrittenByReset: ("builds", "it overwrites steepness, which apply had set; set apply_", ""),
    Global: ("seed", "suspect: NumPy's global generator", "draw from env.np_random alone"),
    Unseeded: ("seed", "suspect: a generator that the seed does not reach", "env.np_random alone"),
    Shared: ("seed", "suspect: count, class attribute of env", "keep it on the environment"),
    LeftOver: (
        "reset",
        "suspect: env.walked: reset() leaves it as it was",
        "in the environment's reset",
    ),
    ShownLater: ("hidden", "observation from step 1 on tells entries [0]", "name the part of the"),
}
"""Family → the rule that is broken, words of what is found, words of the fix."""


@pytest.mark.parametrize("family", WRONG)
def test_a_fault_is_one_finding_that_names_it(family: type[Slopes]):
    rule, words, fix = WRONG[family]
    report = check_family(family())
    (found,) = (finding for finding in report.findings if finding.verdict in ("FAIL", "warn"))
    assert (found.rule, found.verdict) == (rule, "FAIL"), report
    assert words in f"{found.observed} suspect: {found.suspect}", report
    assert fix in found.fix
    assert bool(fix) == bool(found.fix)
    assert "tasks.streams" not in found.fix
    assert "Spec" not in found.fix


def test_causes_are_looked_for_in_this_process():
    """The generators of a worker are out of reach."""
    family = Global()
    vars(family)["env_layout"] = family.env_layout  # found without a worker
    family.workers = 1
    probe = Probe(family)
    action = torch.zeros(len(probe.tasks), probe.size[1], dtype=torch.long)
    seen = []
    for seed in (1, 1, 2):
        with seeding_globals(seed):
            env = probe.fresh_here()
            env.reset(probe.tasks, probe.rng)
            seen.append(env.step(action).obs)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_a_healthy_environment_keeps_every_promise_but_what_seeds_hide():
    report = check_family(Slopes())
    assert [finding.rule for finding in report.findings if finding.verdict != "ok"] == [
        *("offers", "frame")
    ], report


class OneGenerator(GymnasiumVectorFamily):
    """What is drawn in a lane depends on the lanes beside it."""

    horizon = 10

    def build(self, num_envs: int) -> Any:
        return gymnasium.vector.SyncVectorEnv(
            [Slope] * num_envs, autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED
        )

    def row(self, split: str, rng: np.random.Generator) -> Any:
        return [rng.uniform(1, 2)]

    def apply(self, env: Any, rows: Any) -> None:
        for one, row in zip(env.envs, rows, strict=True):
            one.steepness = row[0] + 0.1 * len(rows)


def test_a_vector_environment_has_a_fix_of_its_own():
    """Where rows depend on each other, lanes do, too; that is one finding."""
    report = check_family(OneGenerator())
    (found,) = (finding for finding in report.findings if not finding.passed)
    assert found.rule == "rows"
    assert found.fix == fixes.ROWS.vector
    assert {"lanes", "randomness", "persistence"} <= set(report.unseen)


def test_every_kind_of_family_has_words_of_its_own():
    kinds = {
        "tensors": make_family("point"),
        "gymnasium": Slopes(),
        "vector": OneGenerator(),
        "mujoco": make_family("half-cheetah-vel"),
    }
    for kind, family in kinds.items():
        assert fixes.RANDOMNESS(Probe(family)) == vars(fixes.RANDOMNESS)[kind]
    assert fixes.SEED(Probe(kinds["vector"])) == fixes.SEED.gymnasium
    assert fixes.OFFERS(Probe(kinds["gymnasium"])) == fixes.OFFERS.tensors


def test_a_line_without_cause_or_fix_is_left_out():
    lines = str(Finding("builds", "FAIL", "it is not there", why="", fix="")).splitlines()
    assert lines == ["FAIL  builds", "        observed: it is not there"]
