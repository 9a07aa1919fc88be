"""What the README and the guides show runs as it stands there."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
import textwrap
from configparser import ConfigParser
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest.mock import MagicMock

import pytest
import typer
from ruamel.yaml import YAML

import metarl
from metarl import cli
from metarl.config.aliases import RENAMED
from metarl.config.files import load_config, shipped
from metarl.config.measurements import read_measured
from metarl.config.registry import find
from metarl.core.protocol import EvalProtocol
from metarl.evaluation.option_usage import measure_option_usage
from metarl.experiments.building import load
from metarl.experiments.space import read_space

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs" / "plugging-in.md").read_text()
AGENTS = (ROOT / "docs" / "your-own-agent.md").read_text()
MIGRATION = (ROOT / "docs" / "from-0.5.md").read_text()
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(path for path in (ROOT / "docs").rglob("*.md") if path.name != "from-0.5.md"),
]
"""Those that speak of the code as it is now."""
NAME = re.compile(r"`(metarl(?:_envs)?\.\w[\w.]*)")
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
EXAMPLES = {
    "my_pendulum.py:Gravity": 20,
    "my_thermostat.py:Thermostat": 40,
    "my_arm.py:Arm": 40,
    "my_cheetah.py:Slope": 20,
    "my_corridor.py:Memory": 40,
}
"""Name → lines that its file may have."""


def run(monkeypatch: pytest.MonkeyPatch, words: str) -> int:
    """The exit code of `metarl` with these words."""
    monkeypatch.setattr(sys, "argv", ["metarl", *words.split()])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    blocks = PYTHON.findall(README)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, namespace)
    assert "'value'" in capsys.readouterr().out


def test_the_guide_to_maml_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = PYTHON.findall((ROOT / "docs" / "maml.md").read_text())
    namespace: dict[str, object] = {}
    exec(block, namespace)
    assert namespace["action"].shape == (2,)
    assert namespace["session"].belief.row.steps.item() == 1


def test_the_guide_to_pearl_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = PYTHON.findall((ROOT / "docs" / "pearl.md").read_text())
    namespace: dict[str, object] = {}
    exec(block, namespace)
    assert namespace["action"].shape == (2,)


def test_the_guide_to_stable_baselines_runs():
    (block,) = PYTHON.findall((ROOT / "docs" / "sb3.md").read_text())
    namespace: dict[str, object] = {}
    exec(block, namespace)
    assert namespace["model"].observation_space.shape == (4,)


LOGGED = {
    "wandb": {"rollout/return", "env_steps", "validation/score", "test/return", "agent.name"},
    "mlflow": {"rollout/return", "validation/score", "test/return", "agent.name"},
}


@pytest.mark.parametrize("library", LOGGED)
def test_the_guides_loggers_log_configuration_metrics_and_scores(library, tmp_path, monkeypatch):
    """The libraries are not installed: a double stands for each."""
    guide = (ROOT / "docs" / "runs.md").read_text()
    (block,) = [block for block in PYTHON.findall(guide) if f"import {library}\n" in block]
    assert len([line for line in block.splitlines()[2:] if line.strip()]) <= 10
    double = MagicMock()
    monkeypatch.setitem(sys.modules, library, double)
    namespace: dict[str, Any] = {}
    exec(block, namespace)
    (logger,) = [value for value in namespace.values() if isinstance(value, type)]
    small = ["iterations=2", "validate_every=1", "agent.trials=4", "episodes=2"]
    config = load_config("rl2/bernoulli-bandit", [*small, "validation_tasks=2", "test_tasks=2"])
    result = metarl.train(config, tmp_path / "run", callbacks=[logger()], quiet=True)
    logged, steps, finished = (wandb_saw if library == "wandb" else mlflow_saw)(double)
    assert set(logged) >= LOGGED[library]
    assert logged["agent.name"] == "rl2"
    assert logged["test/return"] == result["scores"]["test"]["summary"]["total"]["mean"]["value"]
    assert steps[-1] == result["last"]["env_steps"]
    assert len(set(steps)) == 2
    assert finished


def wandb_saw(double: MagicMock) -> tuple[dict[str, Any], list[int], bool]:
    """What was logged, at which steps, and whether the run was finished."""
    run = double.init.return_value
    rows = [call.args[0] for call in run.log.call_args_list]
    (summary,) = run.summary.update.call_args.args
    logged = double.init.call_args.kwargs["config"] | rows[-1] | summary
    run.define_metric.assert_called_once_with("*", step_metric="env_steps")
    return logged, [row["env_steps"] for row in rows], run.finish.called


def mlflow_saw(double: MagicMock) -> tuple[dict[str, Any], list[int], bool]:
    """The same of the other library."""
    calls = double.log_metrics.call_args_list
    (logged,) = double.log_params.call_args.args
    for call in calls:
        logged = logged | call.args[0]
    return logged, [call.kwargs["step"] for call in calls], double.end_run.called


def test_the_guides_own_options_are_chosen_among(tmp_path, monkeypatch):
    (block,) = PYTHON.findall((ROOT / "docs" / "options.md").read_text())
    (tmp_path / "my_options.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    options = "agent.pretrained_options=[my_options.py:ToTheEast,my_options.py:ToTheWest]"
    words = f"train rl2/four-rooms {options} iterations=1 agent.trials=4 --out run --quiet"
    assert run(monkeypatch, words + " validation_tasks=2 test_tasks=2") == 0
    loaded = load("run")
    moves = measure_option_usage(
        loaded.agent, loaded.family(), EvalProtocol(episodes=4, tasks=50)
    ).moves
    to_the_right = (moves.after - moves.before)[:, 0]
    assert to_the_right[moves.option == 0].mean() > 0.2
    assert to_the_right[moves.option == 1].mean() < -0.2


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_guides_families_keep_the_contract_and_train(name: str, tmp_path, monkeypatch, capsys):
    file, _, _ = name.partition(":")
    source = next(block for block in PYTHON.findall(GUIDE) if block.startswith(f"# {file}\n"))
    assert len(source.splitlines()) <= EXAMPLES[name]
    (tmp_path / file).write_text(source)
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, f"check {name}") == 0, capsys.readouterr().out
    words = (
        f"train rl2/point family={name} episodes=1 iterations=1 agent.trials=4 --out run --quiet"
    )
    assert run(monkeypatch, words + " validation_tasks=2 test_tasks=2") == 0
    assert (tmp_path / "run" / "result.json").is_file()


def test_the_guide_to_agents_trains_resumes_evaluates_and_deploys(tmp_path, monkeypatch, capsys):
    blocks = PYTHON.findall(AGENTS)
    files = {}
    for block in blocks:
        if block.startswith("# my_"):
            name = block.partition("\n")[0].removeprefix("# ")
            files[name] = block
            (tmp_path / name).write_text(block)
    assert len(files["my_agent.py"].splitlines()) <= 80
    monkeypatch.chdir(tmp_path)
    small = "agent.trials=20 validate_every=2 validation_tasks=20 test_tasks=20"
    words = f"train rl2/bernoulli-bandit-k5-n10 agent=my_agent.py:Tallies {small} --quiet"
    assert run(monkeypatch, f"{words} env_steps=1000 --out runs/tallies") == 0
    assert run(monkeypatch, f"{words} env_steps=2000 --out runs/tallies --resume") == 0
    assert len((tmp_path / "runs/tallies/metrics.jsonl").read_text().splitlines()) == 10
    assert run(monkeypatch, "evaluate runs/tallies --tasks 50 --against random,thompson") == 0
    assert "Tallies" in capsys.readouterr().out
    assert run(monkeypatch, "agents my_agent.py:Tallies") == 0
    assert "trials of an iteration" in capsys.readouterr().out

    deployed = next(block for block in blocks if "Session" in block)
    namespace: dict[str, object] = {}
    exec(deployed, namespace)
    assert float(namespace["session"].belief.lane.sum()) > 0

    assert (
        run(monkeypatch, f"{words} world=my_world.py:Curriculum env_steps=1000 --out runs/easy")
        == 0
    )


PARTS = """
import metarl
import torch
from metarl.algorithms.sac import Batch
from metarl.core.types import first_cue, replace
from metarl.data.transitions import transition_columns


class Recurrent(metarl.LearningAgent):
    class Settings(metarl.PPOConfig):
        trials: int = 4

    def __init__(self, config, spec, rng, device):
        self.config, self.spec = config, spec
        width = metarl.Policy.width(spec, cue=True)
        self.policy = metarl.Policy(width, spec.action_width, spec.discrete, memory="gru")
        self.learner = metarl.PPO(self.policy, config, spec, rng, device)

    def iterate(self, world, rng):
        tasks = world.tasks(self.config.trials, rng)
        belief = self.begin(world.task_info(self, tasks), lanes=1)
        trials, _ = world.collect(self, belief, tasks, world.episodes, rng)
        generator = rng.child("minibatches").generator()
        return {{"return": 0.0, **self.learner.update(trials, world.progress, generator)}}

{recurrent}

class OffPolicy(metarl.LearningAgent):
    class Settings(metarl.SACConfig):
        needs_train_tasks = True
        hidden_sizes: tuple[int, ...] = (8,)

    def __init__(self, config, spec, rng, device):
        self.config, self.spec, self.device = config, spec, device
        self.learner = metarl.SAC(config, spec, 2 * spec.obs_width, rng, device)
        columns = transition_columns(spec) | {{"memory": metarl.Column(spec.obs_width)}}
        self.buffer = metarl.Replay(columns, 1000, device)

    def begin(self, info, lanes):
        cue = first_cue(self.spec, info.rows, lanes, info.device)
        return metarl.Belief(cue, lane=torch.zeros(info.rows, lanes, self.spec.obs_width))

    def remember(self, memory, step):
        return 0.9 * memory + step["obs"]

    def act(self, belief, obs, noise, counter, mode):
        begins = belief.cue[..., -1] == 1
        inputs = metarl.Inputs(obs, latent=belief.lane)
        acted = self.learner.act(inputs, begins, noise, counter, mode)
        acted = replace(acted, extras={{"memory": belief.lane}})
        return acted, replace(belief, lane=self.remember(belief.lane, {{"obs": obs}}))

{off_policy}
{state}
"""


@pytest.mark.parametrize("name", ["Recurrent", "OffPolicy"])
def test_the_methods_of_the_guide_to_agents_keep_the_contract(name, tmp_path, monkeypatch, capsys):
    blocks = [block for block in PYTHON.findall(AGENTS) if block.startswith("# within the class")]
    recurrent, off_policy, state = blocks
    off_policy = off_policy.replace("range(300)", "range(3)")
    source = PARTS.format(recurrent=recurrent, off_policy=off_policy, state=state)
    (tmp_path / "my_parts.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, f"check my_parts.py:{name}") == 0, capsys.readouterr().out


def test_the_guides_last_examples_run(tmp_path, monkeypatch):
    for block in PYTHON.findall(GUIDE):
        if not block.startswith("# my_"):
            namespace: dict[str, object] = {"__name__": "guide"}
            exec(block, namespace)
            for env in ("env", "envs", "vec_env"):
                if env in namespace:
                    namespace[env].reset()
                    namespace[env].close()


def commands() -> list[str]:
    """The lines of README and guides that call metarl, without comments."""
    lines = [line for path in DOCUMENTS for line in path.read_text().splitlines()]
    found = [re.match(r" *(metarl [a-z]+( .*)?)$", line.partition(" #")[0]) for line in lines]
    return sorted({match[1].strip() for match in found if match})


@pytest.mark.parametrize("line", commands())
def test_every_command_is_understood(line: str):
    _, name, *words = shlex.split(line)
    command = typer.main.get_command(cli.app.app).commands[name]
    parsed = command.make_context(name, words).params
    if name == "train" and "my_" not in line:
        load_config(parsed["config"], parsed["overrides"] or [])


def test_the_guides_space_is_one_of_its_command(tmp_path):
    guide = (ROOT / "docs" / "tuning.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "space.yaml").write_text(block)
    command = next(line for line in commands() if line.startswith("metarl tune"))
    _, _, name, *overrides = (word for word in shlex.split(command.partition(" --")[0]))
    space = read_space(tmp_path / "space.yaml", name, overrides)
    assert len(space.distributions) == 6


def table(heading: str) -> list[list[str]]:
    """The cells of the table below `heading` in docs/from-0.5.md, row by row."""
    section = MIGRATION.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [line.strip("| ").split(" | ") for line in lines]


def test_the_table_of_keys_is_that_of_the_loader():
    listed = {old.strip("`"): new.strip("`") for old, new, _ in table("Configuration keys")}
    assert listed == RENAMED


NEWER = {("rl2", "preset")}
"""Keys of today that the agent of 0.5 had under no name."""


@pytest.mark.parametrize("agent", ["rl2", "maml", "pearl"])
def test_the_table_of_keys_says_which_agents_have_them(agent: str):
    fields = find("agent", agent).settings.model_fields
    for _, new, agents in table("Configuration keys"):
        listed = agents.partition(";")[0].split(", ")
        key = new.strip("`")
        assert (agent in listed) == (key in fields and (agent, key) not in NEWER), new


@pytest.mark.parametrize("heading", ["Modules", "Names"])
def test_the_new_names_of_the_tables_exist(heading: str):
    rows = table(heading)
    assert len(rows) > 20
    for _, new in rows:
        for name in NAME.findall(new):
            resolve_name(name)


def test_every_name_that_is_mentioned_exists():
    for document in DOCUMENTS:
        for name in NAME.findall(document.read_text()):
            resolve_name(name)


@pytest.mark.parametrize(
    "guide",
    [
        *("maml", "pearl", "options", "plugging-in", "extras", "your-own-agent"),
        *("tuning", "sb3", "benchmarks"),
    ],
)
def test_every_guide_begins_with_a_link_to_the_glossary(guide: str):
    beginning = (ROOT / "docs" / f"{guide}.md").read_text().splitlines()[:8]
    assert "](glossary.md)" in " ".join(beginning)


PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "docs").glob("*.ipynb"),
    *(ROOT / "benchmarks" / "results").rglob("*.md"),
]
"""All that the site has."""
FENCED = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its blocks of code, or the texts of a notebook."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
    return FENCED.sub("", text)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    names: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        title = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()
        name = "".join(c for c in title if c.isalpha() or c.isdecimal() or c in "_- ")
        name = name.replace(" ", "-")
        names.add(next(n for i in range(99) if (n := f"{name}-{i}" if i else name) not in names))
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_page_and_a_heading_of_it(page: Path):
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page))
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link  # the site has no page of a folder
        assert not anchor or anchor in anchors(target), link


def test_the_sidebar_of_the_site_shows_every_guide():
    source = (ROOT / "docs" / "conf.py").read_text()
    (node,) = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SIDEBAR"
    ]
    listed = [page for pages in ast.literal_eval(node).values() for page in pages]
    guides = [page for page in PAGES if page.parent in (ROOT, ROOT / "docs")]
    names = {str(page.relative_to(ROOT).with_suffix("")) for page in guides} - {"README"}
    assert {page for page in listed if not page.endswith("/README")} == names
    assert len(set(listed)) == len(listed)


def test_the_api_page_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text()
    listed = re.findall(r"^\.\. auto(?:class|function|exception):: (\w+)", page, re.MULTILINE)
    assert sorted(listed) == sorted(set(metarl.__all__) - {"Mistake"})


BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{i}")
    for page in PAGES
    if page.suffix == ".md"
    for i, block in enumerate(PYTHON.findall(page.read_text()))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_of_python_is_python(block: str):
    if block.startswith("# within the class"):
        block = textwrap.dedent(block.partition("\n")[2])
    compile(block, "block", "exec")


def test_the_citation_is_of_this_version():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == config["metadata"]["version"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"].startswith("metarl")
    assert citation["authors"] == [{"name": config["metadata"]["author"]}]
    assert citation["license"] == config["metadata"]["license"]
    assert citation["message"]


def test_every_path_that_is_mentioned_exists():
    for document in [*DOCUMENTS, *(ROOT / "benchmarks" / "results").glob("*.md")]:
        for path in re.findall(r"`((?:metarl|envs|tests)/[\w/.]+)`", document.read_text()):
            assert (ROOT / path).exists(), path


def test_the_configurations_that_are_recommended_are_shipped():
    page = (ROOT / "docs" / "which-agent.md").read_text()
    names = re.findall(r"`((?:rl2|maml|pearl)/[\w-]+)`", page)
    assert len(names) > 10
    assert set(names) <= set(shipped())


def test_the_table_of_what_was_reached_is_that_of_the_configurations():
    page = (ROOT / "docs" / "which-agent.md").read_text()
    rows = []
    for row in read_measured().values():
        cost = "; ".join(filter(None, (row.env_steps, row.minutes)))
        label = Path(row.source.partition("#")[0]).stem
        cells = (row.problem, f"`{row.configuration}`", row.seeds, cost, row.reached, row.beside)
        rows.append(f"| {' | '.join(cells)} | [{label}](../{row.source}) |")
    table = "\n".join(rows)
    assert f"| source |\n|---|---|---|---|---|---|---|\n{table}\n\n" in page


def test_every_package_is_installed():
    """The list in setup.cfg is by hand, because folders are mapped."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    folders = {"metarl": "metarl", "metarl_envs": "envs", "metarl_configs": "configs"}
    found = {
        ".".join((package, *init.parent.relative_to(ROOT / folder).parts))
        for package, folder in folders.items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert listed == found
