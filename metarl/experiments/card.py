"""Exported agents, and the card that says what such a one was trained for and how well it did."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from metarl.config.schema import to_dict
from metarl.core.disk import write_atomically
from metarl.core.errors import ConfigError
from metarl.experiments.archive import archive_bytes
from metarl.experiments.building import Loaded, open_run
from metarl.experiments.folder import read_if_whole
from metarl.experiments.loading import OPENING, Opening, checkpoint_folder
from metarl.experiments.user_code import OPTIONS, code_names

_FROM_RESULT = ("validation", "best_iteration", "best_env_steps", "training_seconds")


def export(run: str | Path, file: str | Path, opening: Opening = OPENING) -> Path:
    """Write the best agent of a run to one `file`, which `load` opens anywhere.

    Its family's code is not in it: an agent acts without it.

    Raises:
        MetaRLError: no run, or an agent that is or acts through code of a user's own.
    """
    file = Path(file)
    if file.suffix != ".zip":
        raise ConfigError(f"export: {file} must end in .zip")
    write_atomically(file, _exported(Path(run), opening))
    return file


def _exported(run: Path, opening: Opening) -> bytes:
    loaded = open_run(run, opening)
    config = to_dict(loaded.config)
    for place, name in code_names(config):
        if place not in ("family", "world"):
            raise ConfigError(
                f"export: {place} {name} is code, and an exported agent is opened without any; "
                "hand on the run folder, which has a copy of it"
            )
    content = {
        "config": config | {"world": {"name": "local"}, "warm_start": None},
        "spec": asdict(loaded.spec),
        "counters": asdict(loaded.counters),
    }
    options = [_exported(Path(name), opening) for name in config["agent"].get(OPTIONS) or ()]
    return archive_bytes(content, loaded.agent.acting_state(), _card(run, loaded), options)


def _card(run: Path, loaded: Loaded) -> dict[str, Any]:
    """In the words of the configuration and of result.json."""
    config, spec = loaded.config, loaded.spec
    result = read_if_whole(checkpoint_folder(run) / "result.json", "the card has no scores") or {}
    scores = result.get("scores", {})
    return {
        "agent": _described(config.agent.name, config.agent.found.summary),
        "family": _described(config.family.name, config.family.found.summary),
        "observation": spec.observation,
        "action": spec.action_words,
        "horizon": spec.horizon,
        "episodes": config.episodes,
        "trained": asdict(loaded.counters),
        "seed": config.seed,
        "score": config.score,
        **{key: result[key] for key in _FROM_RESULT if key in result},
        "scores": {split: score["summary"] for split, score in scores.items()},
        "gaps": result.get("gaps", {}),
        "versions": result.get("versions", {}),
        "git_commit": result.get("git_commit", {}),
        "use": "import metarl; loaded = metarl.load(FILE); "
        "session = metarl.Session(loaded.agent, loaded.spec)",
    }


def _described(name: str, summary: str) -> dict[str, str]:
    return {"name": name, "summary": summary}
