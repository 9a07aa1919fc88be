"""Every algorithm by its own name, and as a preset of its class."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helpers import same
from test_cli import metarl

from metarl.config.catalogue import description, listing
from metarl.config.registry import find, names
from metarl.config.schema import parse
from metarl.core.errors import MetaRLError
from metarl.experiments.building import build, load, make_agent, make_family
from metarl.experiments.loading import read_run
from metarl.experiments.runs import train

BASES = {
    "rl2": ("ppo", "dac"),
    "maml": ("fomaml", "e-maml", "promp", "meta-sgd", "reptile", "mlsh", "famp"),
    "pearl": ("sac", "mtsac"),
}
PRESETS = [(base, name) for base, presets in BASES.items() for name in presets]
EVERY = pytest.mark.parametrize(("base", "name"), PRESETS)

POINT = {"family": {"name": "point", "horizon": 4}, "episodes": 4, "iterations": 1}
SHORT = POINT | {"validation_tasks": 2, "test_tasks": 2}
SMALL: dict[str, dict[str, Any]] = {
    "rl2": {"trials": 2},
    "maml": {"tasks": 2, "episodes_per_task": 2, "hidden_sizes": [4]},
    "pearl": {
        "hidden_sizes": [4],
        "tasks": 1,
        "updates": 1,
        "batch_size": 4,
        "initial_episodes": 1,
    },
}


def test_all_presets_are_registered() -> None:
    assert {name for base in BASES for name in find("agent", base).settings.choices()} == {
        *BASES,
        *(name for _, name in PRESETS),
    }
    assert {*BASES, *(name for _, name in PRESETS)} <= set(names("agent"))


@EVERY
def test_a_name_is_its_preset(base: str, name: str) -> None:
    """The same class with the same options, and the same first weights."""
    found, parent = find("agent", name), find("agent", base)
    assert found.load() is parent.load()
    own = found.configure({}).model_dump()
    assert own == parent.configure({"preset": name}).model_dump()
    assert own["preset"] == name
    variant = parent.settings.variants[name]
    assert variant
    assert {key: own[key] for key in variant} == variant
    assert own != parent.configure({}).model_dump() | {"preset": name}
    spec = make_family("point").spec
    by_name, by_preset = make_agent(name, spec), make_agent(base, spec, preset=name)
    assert type(by_name) is type(by_preset)
    assert same(by_name.state_dict(), by_preset.state_dict())
    assert found.configure({"preset": name}).model_dump() == own


@EVERY
def test_options_may_be_set_by_its_name(base: str, name: str) -> None:
    """Even one that makes it what it is; one with options gets three."""
    key = next(iter(find("agent", base).settings.variants[name]))
    usual = find("agent", base).configure({}).model_dump()
    given = {key: 3 if key == "options" else usual[key]}
    assert find("agent", name).configure(given).model_dump() == {
        **find("agent", name).configure({}).model_dump(),
        **given,
    }


@EVERY
@pytest.mark.parametrize("key", ["preset", "variant"])
def test_a_name_with_another_preset_is_refused(base: str, name: str, key: str) -> None:
    """In one line that says what is allowed."""
    for other in (base, next(x for _, x in PRESETS if x != name)):
        with pytest.raises(MetaRLError) as caught:
            parse(POINT | {"agent": {"name": name, key: other}, "train_tasks": 3})
        message = str(caught.value)
        assert "\n" not in message
        assert f"agent.{key}: " in message
        assert name in message


@EVERY
def test_it_is_listed_and_described(base: str, name: str) -> None:
    lines = {line.split()[0]: line for line in listing("agent").splitlines()}
    assert list(lines) == names("agent")
    assert find("agent", name).summary in lines[name]
    assert find("agent", name).summary != find("agent", base).summary
    told = description("agent", name)
    variant = find("agent", base).settings.variants[name]
    assert f"  preset {name}: " + ", ".join(f"{k}={v}" for k, v in variant.items()) in told
    for _, other in PRESETS:
        assert (f"  preset {other}: " in told) == (other == name)
        mine = other in BASES[base]
        assert (f"  preset {other}: " in description("agent", base)) == mine


def test_metarl_agents_lists_them() -> None:
    code, out, err = metarl("agents")
    assert code == 0, err
    first = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert {name for _, name in PRESETS} <= set(first)
    code, out, err = metarl("agents", "promp")
    assert code == 0, err
    assert "preset promp: inner_loss=likelihood_ratio, outer=ppo" in out


@pytest.mark.parametrize(("base", "name"), [("maml", "promp"), ("rl2", "dac"), ("pearl", "sac")])
def test_runs_by_name_and_by_preset_are_the_same_and_both_load(
    base: str, name: str, tmp_path: Any
) -> None:
    tasks = {"train_tasks": 2} if base == "pearl" else {}
    found = []
    for k, words in enumerate(({"name": name}, {"name": base, "preset": name})):
        config = parse(SHORT | tasks | {"agent": words | SMALL[base]})
        train(config, tmp_path / str(k), quiet=True)
        loaded = load(tmp_path / str(k))
        assert loaded.config == config
        assert loaded.config.agent.name == words["name"]
        assert loaded.config.agent.settings.preset == name  # type: ignore[attr-defined]
        _, fresh = build(config)
        fresh.load_state_dict(read_run(tmp_path / str(k))[0].agent)
        assert same(fresh.acting_state(), loaded.agent.acting_state())
        found.append((loaded.agent.acting_state(), scores(tmp_path / str(k))))
    assert same(found[0], found[1])


def scores(run: Any) -> Any:
    return json.loads((run / "result.json").read_text())["scores"]
