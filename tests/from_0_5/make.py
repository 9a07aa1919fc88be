"""What version 0.5 leaves behind, for tests of later versions; run by that version itself::

    git worktree add ../v0.5 c026012 && make -C ../v0.5 install
    ../v0.5/.venv/bin/python tests/from_0_5/make.py

Writes configurations.json, every shipped configuration with its keys of then, and for each agent a
run folder of two iterations, the actions of a deployed agent on fixed observations, and the log of
a third iteration, in expected.json.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

SMALL = {
    "iterations": 2,
    "validate_every": 1,
    "checkpoint_every": 1,
    "validation_tasks": 4,
    "test_tasks": 4,
}
RL2 = {"name": "rl2", "memory_width": 4, "trials": 4, "minibatches": 2, "normalise_reward": True}
PEARL = {
    "name": "pearl",
    "latent_width": 2,
    "encoder": [4],
    "body": [4],
    "tasks": 2,
    "updates": 2,
    "meta_batch": 2,
    "batch": 8,
    "context": 8,
    "initial_episodes": 2,
    "capacity": 50,
}
POINT = {"name": "point", "horizon": 8}
RUNS = {
    "rl2": {
        "agent": RL2 | {"trace": 0.9, "clip": 0.1, "body": [4]},
        "family": POINT,
        "episodes": 2,
    },
    "rl2-options": {"agent": RL2 | {"options": 2, "sub_body": [4]}, "family": POINT, "episodes": 2},
    "maml": {
        "agent": {"name": "maml", "variant": "promp", "tasks": 2, "lanes": 3, "body": [4]},
        "family": POINT,
        "episodes": 6,
    },
    "famp": {
        "agent": {
            "name": "maml",
            "variant": "famp",
            "tasks": 2,
            "lanes": 2,
            "body": [4],
            "options": 2,
        },
        "family": {"name": "four-rooms", "horizon": 8},
        "episodes": 4,
    },
    "pearl": {"agent": PEARL, "family": POINT, "episodes": 3, "train_tasks": 3},
    "sac": {
        "agent": PEARL
        | {"variant": "sac", "task_input": "goal", "hindsight": 0.5, "latent_width": 0},
        "family": POINT,
        "episodes": 2,
        "train_tasks": 3,
    },
}


def actions(run, obs_width: int) -> list:
    """Of a session of two rounds of eight steps, on observations that are written down here."""
    import metarl

    task = (
        [0.3, -0.2] if run.config.agent.name == "pearl" and run.agent.task_input == "goal" else None
    )
    rounds = 2 * run.agent.lanes
    session = metarl.Session(run.agent, run.spec, episodes=rounds, task=task, seed=3)
    taken = []
    for episode in range(rounds):
        for step in range(8):
            obs = [((7 * step + 3 * entry + episode) % 5 - 2) / 4 for entry in range(obs_width)]
            action = session.act(obs)
            taken.append(action if isinstance(action, int) else action.tolist())
            session.observe(0.1 * step - 0.3, obs, False, step == 7)
    return taken


def main() -> None:
    import metarl
    from metarl.config import load_config, shipped, to_dict

    known = {name: to_dict(load_config(name)) for name in shipped()}
    (HERE / "configurations.json").write_text(json.dumps(known, indent=0) + "\n")
    expected = {}
    for name, tree in RUNS.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        metarl.train(metarl.parse(tree | SMALL), folder, quiet=True)
        run = metarl.load(folder)
        with tempfile.TemporaryDirectory() as scratch:
            longer = Path(scratch) / name
            shutil.copytree(folder, longer)
            metarl.train(
                metarl.parse(tree | SMALL | {"iterations": 3}), longer, resume=True, quiet=True
            )
            records = (longer / "metrics.jsonl").read_text().splitlines()
        shutil.rmtree(folder / "tensorboard")
        (folder / "checkpoints" / "previous.pt").unlink()
        (folder / ".lock").unlink()
        result = json.loads((folder / "result.json").read_text()) | {"command": "metarl train"}
        (folder / "result.json").write_text(json.dumps(result))
        expected[name] = {
            "actions": actions(run, run.spec.obs_width),
            "third": json.loads(records[2]),
        }
    (HERE / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    sys.exit(main())
