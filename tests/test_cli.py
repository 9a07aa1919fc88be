"""What a person types and sees."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from statistics import fmean

import pytest
from helpers import FILES
from ruamel.yaml import YAML

from metarl import cli
from metarl.config.files import SHIPPED, load_config, shipped
from metarl.config.schema import to_dict
from metarl.core.protocol import EvalProtocol
from metarl.evaluation.meta_test import evaluate
from metarl.experiments.building import load

QUICK = [
    "episodes=4",
    "iterations=2",
    "env_steps=null",
    "agent.trials=8",
    "agent.memory_width=4",
    "agent.minibatches=2",
    "validation_tasks=10",
    "test_tasks=10",
]


NEEDLE = (FILES / "needle.py").read_text()


def metarl(*arguments, cwd="."):
    """Run the command → exit code, output, errors."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["metarl", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    return stop.value.code or 0, out.getvalue(), err.getvalue()


def mistake(*arguments, cwd="."):
    """The lines that a mistake printed."""
    code, _, err = metarl(*arguments, cwd=cwd)
    assert code == 2
    lines = err.splitlines()
    assert all(line.startswith("metarl: ") for line in lines)
    return [line.removeprefix("metarl: ") for line in lines]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    code, out, err = metarl("train", "rl2/bernoulli-bandit", *QUICK, "--out", folder)
    assert code == 0, err
    assert f"run: {folder}" in out
    return folder


def test_progress_says_all_that_one_wants_to_know(tmp_path):
    _, _, err = metarl("train", "rl2/bernoulli-bandit", *QUICK, "--out", tmp_path / "run")
    for word in ("iteration 1", "env steps", "steps/s", "return", "left"):
        assert word in err


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "--tasks", 20, "--json"),
        ("render", "--out", "film.gif"),
        ("infer", "--times", 2, "--tasks", 4),
        ("options", "--json", "--tasks", 4),
    ],
    ids=lambda command: command[0],
)
def test_long_commands_show_their_progress_beside_the_result(command, run, tmp_path, monkeypatch):
    """On stderr; the result is what it is without."""
    name, *others = command
    chosen = {"infer": ["varibad/bernoulli-bandit"], "options": ["rl2/four-rooms-options"]}
    if name in chosen:
        run = tmp_path / "other"
        code, _, err = metarl("train", *chosen[name], *QUICK, "iterations=1", "--out", run)
        assert code == 0, err
    if name == "render":
        run, others = "point", [*others, "family.horizon=2"]
    monkeypatch.setattr("metarl.experiments.logs._EVERY", 0.0)
    monkeypatch.setattr("metarl.experiments.logs._REFRESH", 0.0)
    code, out, err = metarl(name, run, *others, cwd=tmp_path)
    assert code == 0, err
    assert ": 1 of " not in out
    lines = err.splitlines()
    assert len(lines) > 3
    assert all(re.match(r" *\d+ ?%  \S", line) for line in lines)
    if name == "evaluate":
        whose = [line.split(maxsplit=1)[1] for line in lines]
        assert list(dict.fromkeys(whose)) == [
            "rl2",
            "rl2, no adaptation",
            "random",
            "rl2, train tasks",
            "rl2, ood tasks",
        ]
        shares = [int(line.partition("%")[0]) for line in lines]
        assert shares == sorted(shares)
        assert shares[-1] == 100
        monkeypatch.setattr("metarl.experiments.logs._EVERY", math.inf)
        quick = metarl(name, run, *others, cwd=tmp_path)
        assert quick == (0, out, ""), "no line where all is done before the first is due"


def test_rivals_are_looked_up_before_anything_is_computed(run, monkeypatch):
    def evaluated(*_, **__):
        raise AssertionError("something was opened or evaluated")

    for function in ("evaluate", "open_run"):
        monkeypatch.setattr(f"metarl.experiments.comparison.{function}", evaluated)
    (line,) = mistake("evaluate", run, "--against", "thompson,ucb2")
    assert line.startswith("agent 'ucb2' is unknown: did you mean 'ucb1'?")
    (line,) = mistake("evaluate", run, "--against", f"thompson,{run.parent / 'no'}/x.py:Mine")
    assert "there is no file" in line


def test_evaluate_prints_a_table_with_intervals(run):
    code, out, err = metarl("evaluate", run, "--tasks", 20, "--beside", "random,thompson")
    assert code == 0, err
    for word in (
        "rl2",
        "random",
        "thompson",
        "return of the trial",
        "regret",
        "20 test tasks, 4 episodes",
    ):
        assert word in out
    assert out.count("[") >= 12
    kept = json.loads((run / "evaluation.json").read_text())
    assert kept["scores"].keys() == {"rl2", "rl2, no adaptation", "random", "thompson"}
    assert kept["differences"].keys() == {
        "rl2 − rl2, no adaptation",
        "rl2 − random",
        "rl2 − thompson",
    }
    assert kept["gaps"].keys() == {"train − test", "test − ood"}
    for word in ("rl2 − thompson", "tasks won", "gap test − ood", "optimum (shown the task)"):
        assert word in out


def test_runs_are_evaluated_beside_runs_on_the_same_tasks(run, tmp_path):
    shutil.copytree(run, other := tmp_path / "other")
    shutil.copytree(run, again := tmp_path / "rl2")
    code, out, err = metarl(
        "evaluate",
        run,
        "--tasks",
        20,
        "--json",
        "--no-baselines",
        "--beside",
        f"{other},{again},random",
    )
    assert code == 0, err
    scores = json.loads(out)["scores"]
    assert list(scores) == ["rl2", "other", str(again), "random"]
    assert scores["rl2"]["returns"] == scores["other"]["returns"] == scores[str(again)]["returns"]
    assert scores["rl2"]["returns"] != scores["random"]["returns"]
    code, out, err = metarl("evaluate", run, "--tasks", 20, "--json", "--against", "rl2")
    assert code == 0, err
    assert list(json.loads(out)["scores"]) == [
        "rl2",
        "rl2, no adaptation",
        "rl2 (untrained)",
        "random",
    ]
    shutil.copytree(run, tmp_path / "random")
    code, out, err = metarl(
        "evaluate", run, "--tasks", 20, "--json", "--beside", "random,./random", cwd=tmp_path
    )
    assert code == 0, err
    named = json.loads(out)["scores"]
    assert named["random"]["returns"] == scores["random"]["returns"]
    assert named["./random"]["returns"] == scores["rl2"]["returns"]
    metarl(
        "train",
        "rl2/bernoulli-bandit",
        *QUICK,
        "family.arms=3",
        "--out",
        three := tmp_path / "three",
    )
    (line,) = mistake("evaluate", run, "--beside", three)
    assert line == f"{three} was trained on bernoulli-bandit of another shape than {run}"


def test_tasks_of_ones_own_are_met_and_tested_greedily(run, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("0.9,0.1,0.1,0.1,0.1\n0.1,0.1,0.1,0.1,0.9\n")
    command = ("evaluate", run, "--tasks", rows, "--test-mode", "greedy", "--json")
    code, out, err = metarl(*command)
    assert code == 0, err
    score = json.loads(out)["scores"]["rl2"]
    assert score["optimum"] == [0.9, 0.9]
    assert (score["mode"], score["test_mode"]) == ("sample", "greedy")
    code, out, err = metarl(*command[:-1])
    assert "actions: sample, greedy in the last round" in " ".join(out.split())
    (line,) = mistake("evaluate", run, "--tasks", tmp_path / "none.csv")
    assert line.startswith("tasks: ")


def test_further_episodes_test_what_was_adapted(run):
    """The trial is the same; the score of the last episode is the mean of those that test."""
    command = ("evaluate", run, "--test-mode", "greedy", "--no-baselines", "--json")
    code, out, err = metarl(*command, "--test-episodes", 2)
    assert code == 0, err
    score = json.loads(out)["scores"]["rl2"]
    assert score["test_rounds"] == 2
    (plain,) = json.loads(metarl("evaluate", run, "--no-baselines", "--json")[1])["scores"].values()
    (tested,), (trial,) = score["returns"], plain["returns"]
    assert tested[:4] == trial
    assert len(tested) == 6
    assert score["summary"]["last"]["mean"]["value"] == pytest.approx(fmean(map(fmean, tested[4:])))


def test_testing_greedily_is_the_same_by_key_by_option_and_in_python(run, tmp_path):
    """The last round is greedy, the others are those of sampled actions."""
    code, _, err = metarl(
        "train",
        "rl2/bernoulli-bandit",
        *QUICK,
        "test_mode=greedy",
        "--out",
        by_key := tmp_path / "run",
    )
    assert code == 0, err

    def returns(*command):
        code, out, err = metarl("evaluate", *command, "--no-baselines", "--json")
        assert code == 0, err
        return json.loads(out)["scores"]["rl2"]["returns"]

    greedy = returns(run, "--test-mode", "greedy")
    assert returns(by_key) == greedy
    result = json.loads((by_key / "result.json").read_text())
    assert result["scores"]["test"]["returns"] == greedy
    loaded = load(run)
    protocol = EvalProtocol(episodes=4, tasks=10, test_mode="greedy")
    in_python = evaluate(loaded.agent, loaded.family(), protocol)
    assert in_python.returns.round(6).tolist() == greedy

    (sampled,), (tested,) = returns(run), greedy
    assert sampled[:-1] == tested[:-1]
    assert sampled[-1] != tested[-1]


def test_evaluate_as_json_is_complete_and_repeatable(run):
    command = (
        "evaluate",
        run,
        "--split",
        "ood",
        "--tasks",
        6,
        "--episodes",
        3,
        "--seed",
        5,
        "--mode",
        "greedy",
        "--json",
    )
    (_, first, _), (_, second, _) = metarl(*command), metarl(*command)
    assert first == second
    score = json.loads(first)["scores"]["rl2"]
    assert (len(score["returns"][0]), len(score["returns"][0][0])) == (3, 6)
    assert (score["split"], score["mode"], score["seed"], score["episodes_consumed"]) == (
        "ood",
        "greedy",
        5,
        [1, 2, 3],
    )


def test_plot_writes_pictures(run, tmp_path):
    code, out, err = metarl("plot", run, "--out", tmp_path)
    assert code == 0, err
    for name in ("learning.png", "adaptation.png"):
        assert str(tmp_path / name) in out
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_agents_of_several_lanes_are_evaluated_drawn_and_plotted_beside_others(
    run, tmp_path, monkeypatch
):
    """All live through as many episodes; files of before there were lanes can still be plotted."""
    shutil.copytree(run, folder := tmp_path / "run")
    monkeypatch.setattr("metarl.agents.rl2.agent.RL2.lanes", 2)
    code, out, err = metarl("evaluate", folder, "--tasks", 20, "--beside", "random")
    assert code == 0, err
    for word in ("20 test tasks, 4 episodes", "rl2, 2 lanes", "random"):
        assert word in out
    scores = json.loads((folder / "evaluation.json").read_text())["scores"]
    assert {name: score["episodes_consumed"] for name, score in scores.items()} == {
        "rl2": [2, 4],
        "rl2, no adaptation": [2, 4],
        "random": [1, 2, 3, 4],
    }
    for name in ("rl2", "random"):
        pulls = (
            4 * scores[name]["summary"]["optimum"]
            - scores[name]["summary"]["regret"]["mean"]["value"]
        )
        assert 0 < pulls < 4
    assert metarl("plot", folder)[0] == 0
    for score in scores.values():
        del score["lanes"]
    (folder / "evaluation.json").write_text(json.dumps({"run": str(folder), "scores": scores}))
    assert metarl("plot", folder)[0] == 0
    (line,) = mistake("evaluate", folder, "--episodes", 3)
    assert line.startswith("episodes: 3 cannot be shared out among the 2 lanes of RL2")


def test_several_seeds_are_trained_and_evaluated_as_one(tmp_path):
    code, _, err = metarl(
        "train",
        "rl2/bernoulli-bandit",
        *QUICK,
        "--seeds",
        "3,4",
        "--jobs",
        2,
        "--quiet",
        "--out",
        tmp_path,
    )
    assert code == 0, err
    assert {path.name for path in tmp_path.iterdir()} == {"seed-3", "seed-4"}
    assert load_config(tmp_path / "seed-4" / "config.yaml").seed == 4
    code, out, err = metarl("evaluate", tmp_path)
    assert code == 0, err
    assert "runs: 2" in out
    assert metarl("plot", tmp_path)[0] == 0


@pytest.mark.parametrize("width", [80, 120])
def test_help_has_the_width_of_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = metarl("--help")
    assert code == 0
    assert "..." not in out.partition("Commands:")[2], "no sentence is cut"
    _, _, commands = out.partition("Commands:")
    names = re.findall(r"^  (\w+) ", commands, re.MULTILINE)
    assert {"train", "evaluate", "check"} <= set(names)
    longest = 0
    for name in names:
        code, told, _ = metarl(name, "--help")
        assert code == 0
        longest = max(longest, *map(len, [*out.splitlines(), *told.splitlines()]))
    assert width - 10 < longest <= width


def test_it_says_which_version_it_is():
    assert metarl("--version")[:2] == (0, f"metarl-torch {version('metarl-torch')}\n")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("metarl envs half", {"half-cheetah-dir", "half-cheetah-vel"}),
        ("metarl agents gr", {"greedy"}),
        ("metarl train varibad/g", {"varibad/gridnavi"}),
        ("metarl train min", {"mine.yaml"}),
        ("metarl check ucb", {"ucb1"}),
        ("metarl evaluate runs --against random,th", {"random,thompson"}),
        ("metarl evaluate ru", set()),
        ("metarl evalu", {"evaluate"}),
    ],
)
def test_the_shell_completes_names(words, offered, tmp_path):
    """Without torch, or it would take seconds."""
    (tmp_path / "mine.yaml").touch()
    code = """
import sys
from metarl import cli
sys.argv = ["metarl"]
try:
    cli.main()
finally:
    assert "torch" not in sys.modules
"""
    asked = {"_METARL_COMPLETE": "complete_bash", "COMP_WORDS": words}
    asked["COMP_CWORD"] = str(len(words.split()) - 1)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **asked},
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == offered


def test_lists_and_descriptions():
    for command, name, option in (
        ("envs", "bernoulli-bandit", "family.arms"),
        ("agents", "rl2", "agent.memory_width"),
    ):
        code, out, _ = metarl(command)
        assert code == 0
        assert name in out
        code, out, _ = metarl(command, name)
        assert code == 0
        assert option in out
        assert "default" in out


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_configuration_is_complete_and_reads_back(name, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(metarl("config", name)[1])
    assert to_dict(load_config(path)) == to_dict(load_config(name))
    assert set(YAML(typ="safe").load((SHIPPED / f"{name}.yaml").read_text())) >= {
        "agent",
        "family",
        "episodes",
    }


@pytest.mark.parametrize("command", [("rl2/gridnavi",), ("--suggest", "bernoulli-bandit")])
def test_comments_of_a_configuration_fit_the_terminal(command, tmp_path, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    _, whole, _ = metarl("config", *command)
    assert max(map(len, whole.splitlines())) > 80
    monkeypatch.setenv("COLUMNS", "80")
    code, folded, _ = metarl("config", *command)
    assert code == 0
    assert max(map(len, folded.splitlines())) <= 80
    (tmp_path / "whole.yaml").write_text(whole)
    (tmp_path / "folded.yaml").write_text(folded)
    assert load_config(tmp_path / "folded.yaml") == load_config(tmp_path / "whole.yaml")


def test_help_and_mistakes_answer_without_torch():
    code = """
import sys
from metarl import cli
mistaken = ["metarl", "train", "rl2/bernoulli-bandit", "agent.memory_widht=3"]
for argv in (["metarl", "--help"], mistaken):
    sys.argv = argv
    try:
        cli.main()
    except SystemExit:
        pass
assert "torch" not in sys.modules, "torch was imported"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "did you mean 'memory_width'?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "rl2/bernoulli-bandti"], "did you mean 'rl2/bernoulli-bandit'?"),
        (["train", "absent.yaml"], "absent.yaml: No such file or directory"),
        (["train", "rl2/bernoulli-bandit", "episodes"], "write key=value"),
        (["train", "rl2/bernoulli-bandit", "family=bandit"], "family 'bandit' is unknown"),
        (
            ["train", "rl2/bernoulli-bandit", "agent=rl3"],
            "agent 'rl3' is unknown: did you mean 'rl2'?",
        ),
        (["train", "rl2/bernoulli-bandit", "family=absent.py:Mine"], "there is no file"),
        (["train", "rl2/bernoulli-bandit", "--device", "tpu"], "device: "),
        (["train", "rl2/bernoulli-bandit", "--seeds", "1;2"], "write whole numbers"),
        (["evaluate", "nowhere"], "nowhere is no run folder"),
        (["envs", "bandit"], "family 'bandit' is unknown"),
        (["plot", "nowhere"], "nowhere is no run folder"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path, arguments, says):
    (line,) = mistake(*arguments, cwd=tmp_path)
    assert says in line
    assert not list(tmp_path.iterdir()), "a mistake left something behind"


def test_all_mistakes_of_a_configuration_at_once():
    lines = mistake(
        "train", "rl2/bernoulli-bandit", "agent.clip_range=-1", "family.arms=two", "sed=1"
    )
    assert len(lines) == 3


def test_a_family_of_ones_own_trains_from_its_file(tmp_path):
    (tmp_path / "mine.py").write_text(NEEDLE)
    code, _, err = metarl(
        "train", "rl2/point", "family=mine.py:Needle", *QUICK, "--out", "run", cwd=tmp_path
    )
    assert code == 0, err
    assert metarl("evaluate", "run", cwd=tmp_path)[0] == 0


def test_a_family_that_gives_nan_is_named(tmp_path):
    (tmp_path / "mine.py").write_text(NEEDLE.replace("reward = ", "reward = float('nan') * "))
    code, _, err = metarl(
        "train", "rl2/point", "family=mine.py:Needle", *QUICK, "--out", "run", cwd=tmp_path
    )
    assert code == 2
    assert "metarl: needle: reward of task 0 is not finite at step 0" in err
    assert "Traceback" not in err


def test_an_agent_is_handed_on_as_one_file(run, tmp_path):
    file = tmp_path / "agent.zip"
    code, out, err = metarl("export", run, file)
    assert (code, out.strip()) == (0, str(file)), err
    _, expected, _ = metarl("evaluate", run, "--tasks", 20, "--json")
    code, out, err = metarl("evaluate", file, "--tasks", 20, "--json", "--device", "cpu")
    assert code == 0, err
    assert json.loads(out)["scores"]["rl2"] == json.loads(expected)["scores"]["rl2"]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--device", "tpu"], "device: 'tpu' is unknown; use cpu or cuda"),
        (["episodes=3"], "'episodes=3': only the family of a run can be another one"),
        (["family=absent.py:Mine"], "there is no file"),
    ],
)
def test_a_run_is_opened_as_one_says(run, arguments, says):
    (line,) = mistake("evaluate", run, *arguments)
    assert says in line


def test_code_that_came_with_a_run_waits_for_trust(tmp_path):
    (tmp_path / "mine.py").write_text(NEEDLE, encoding="utf-8")
    made = metarl("train", "rl2/point", "family=mine.py:Needle", *QUICK, "--out", "r", cwd=tmp_path)
    assert made[0] == 0, made
    (tmp_path / "mine.py").rename(tmp_path / "other.py")
    (line,) = mistake("evaluate", "r", "--tasks", 20, cwd=tmp_path)
    assert "mine.py is gone" in line
    assert "--trust" in line
    for chosen in (["--trust"], ["family=other.py:Needle"]):
        assert metarl("evaluate", "r", *chosen, "--tasks", 20, cwd=tmp_path)[0] == 0
