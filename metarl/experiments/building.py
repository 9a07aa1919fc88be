"""Families and agents from their names and configurations, and trained agents from their runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from metarl.collect.collector import adaptation_rounds
from metarl.collect.pool import Pool, UsesPool
from metarl.config.registry import Found, Settings, find
from metarl.config.schema import Choice, Config
from metarl.core.agent import Agent, World
from metarl.core.errors import (
    CheckpointError,
    ConfigError,
    MetaRLError,
    one_line,
)
from metarl.core.family import Family, draw_tasks
from metarl.core.protocol import EvalProtocol
from metarl.core.rng import Rng
from metarl.core.types import Spec, Tasks, replace
from metarl.experiments.archive import is_archive
from metarl.experiments.counters import Counters
from metarl.experiments.loading import Opening, SavedRun, read_configuration, read_run
from metarl.options.pretrained import (
    ActsAsOptions,
    ConcatenatedOptions,
    PretrainedOptions,
    custom_option,
)

# -------------------------------------------------------------------------------------------------
# By name


def make_family(name: str, **options: Any) -> Family:
    """The family called `name` with these options.

    Raises:
        MetaRLError: unknown family or options.
    """
    found = find("family", name)
    family: Family = found.build(found.configure(options))
    return family


def make_agent(
    name: str, spec: Spec, seed: int = 0, device: str | torch.device = "cpu", **options: Any
) -> Agent:
    """The agent called `name` for families of this `spec`, its weights drawn from `seed`.

    Raises:
        MetaRLError: unknown agent or options, or an agent that cannot act in such a family.
    """
    found = find("agent", name)
    return build_agent(found, found.configure(options), spec, seed, torch.device(device))


def build_agent(
    found: Found,
    chosen: Settings,
    spec: Spec,
    seed: int,
    device: torch.device,
    trust: bool = False,
) -> Agent:
    """The agent itself; pretrained options are loaded here and handed to it."""
    more: dict[str, Any] = {}
    names: Sequence[str] = getattr(chosen, "pretrained_options", ())
    if names:
        more["pretrained"] = load_pretrained_options(names, spec, device, trust)
    for role in chosen.other_agents:
        name = getattr(chosen, role)
        if name:
            more[role] = partial(_agent_called, role, name, spec, device, trust)
    agent: Agent = found.build(chosen, spec, Rng(seed).child("agent"), device, **more)
    return agent


def _agent_called(role: str, name: str, spec: Spec, device: torch.device, trust: bool) -> Agent:
    """An agent for another one to learn from: of a run, or with its default options.

    Raises:
        MetaRLError: nothing of that name, or nothing that can act in such a family.
    """
    if not (Path(name).exists() or is_archive(Path(name))):
        return make_agent(name, spec, device=device)
    loaded = load(name, device, trust=trust)
    _require_shape(f"agent.{role}", name, loaded.spec, spec)
    return loaded.agent


# -------------------------------------------------------------------------------------------------
# From a configuration


_NO_CUDA = "device: cuda is not available here; use cpu"


def build(config: Config) -> tuple[Family, Agent]:
    """The family and the untrained agent of a configuration.

    Raises:
        MetaRLError: an agent that cannot act in this family or share so many episodes among its
            lanes, a warm start that does not fit, a device that is not there.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(_NO_CUDA)
    if config.train_tasks is None and config.agent.settings.needs_train_tasks:
        raise ConfigError(
            f"{config.agent.name} keeps a replay buffer for each training task: "
            "set train_tasks, such as 100"
        )
    if config.gradient_shards > 1 and not config.agent.settings.shards_gradients:
        raise ConfigError(
            f"gradient_shards: {config.agent.name} computes its gradients at once; leave it at 1"
        )
    torch.set_num_threads(config.threads)
    family = family_of(config)
    agent = agent_of(config, spec_for_agent(config, family.spec))
    adaptation_rounds(agent, config.episodes)
    if config.warm_start is not None:
        saved, _ = read_run(config.warm_start)
        agent.warm_start(saved.agent)
    return family, agent


def family_of(config: Config) -> Family:
    """The family of a configuration."""
    family: Family = config.family.found.build(config.family.settings)
    return family


def agent_of(config: Config, spec: Spec, trust: bool = False) -> Agent:
    """The untrained agent of a configuration; see `load` for `trust`."""
    chosen, device = config.agent, torch.device(config.device)
    return build_agent(
        chosen.found,
        chosen.settings,
        spec,
        config.seed,
        device,
        trust,
    )


_WORLD = ("env_steps", "progress", "train_set", "episodes", "tasks", "task_info", "collect")
"""What every world has; `goal_reward` is asked of it only for hindsight."""


def world_of(config: Config, family: Family, pool: Pool | None = None) -> World:
    """What a configuration trains on: its world, made of a `family`; `pool` works for it.

    A world's constructor takes ``(family, episodes, train_set, device)``, after its settings if it
    has some.
    """
    found, settings = config.world.found, config.world.settings
    given: tuple[Any, ...] = (
        family,
        config.episodes,
        train_set(config, family),
        torch.device(config.device),
    )
    if found.settings.model_fields:
        given = (settings, *given)
    try:
        world: World = found.load()(*given)
    except MetaRLError:
        raise
    except Exception as error:  # a stranger's constructor may raise anything
        raise ConfigError(
            f"world: {found.name} cannot be made of (family, episodes, train_set, device): "
            f"{one_line(error)}"
        ) from error
    missing = {name for name in _WORLD if name not in dir(world)}
    if missing:
        raise ConfigError(f"world: {found.name} lacks {', '.join(sorted(missing))}")
    if isinstance(world, UsesPool):
        world.pool = pool or world.pool
        world.shard_rows = config.shard_rows
        world.gradient_shards = config.gradient_shards
    elif (config.collector, config.shard_rows, config.gradient_shards) != ("local", None, 1):
        raise ConfigError(
            f"world: {found.name} works alone, as it has no pool, shard_rows and gradient_shards; "
            "leave collector and these"
        )
    return world


def train_set(config: Config, family: Family) -> Tasks | None:
    """The fixed training tasks of a configuration, if any; a task's index is its place in them."""
    if config.train_tasks is None:
        return None
    tasks = draw_tasks(family, "train", config.train_tasks, Rng(config.seed).child("train_set"))
    return replace(tasks, index=torch.arange(len(tasks)), copy=None)


def eval_protocol(config: Config, family: Family, **given: Any) -> EvalProtocol:
    """The evaluation that a configuration asks for, with what is `given` and not None."""
    protocol = EvalProtocol(
        config.episodes,
        config.test_tasks,
        mode=config.mode,
        test_mode=config.test_mode,
        test_episodes=config.test_episodes,
        train_set=train_set(config, family),
        device=config.device,
        shard_rows=config.shard_rows,
    )
    return protocol.changed(**given)


def spec_for_agent(config: Config, spec: Spec) -> Spec:
    """The spec as the agent meets it: a one-hot of the task is as wide as the training set."""
    if _task_input(config.agent) != "onehot":
        return spec
    if config.train_tasks is None:
        raise ConfigError("agent.task_input: onehot needs a fixed training set; set train_tasks")
    return replace(spec, task_width=config.train_tasks)


def _task_input(choice: Choice) -> str:
    """What an agent is shown of the task: one of its options, or an attribute of its class."""
    is_option = "task_input" in choice.found.settings.model_fields
    owner = choice.settings if is_option else choice.found.load()
    shown: str = getattr(owner, "task_input", "none")
    return shown


# -------------------------------------------------------------------------------------------------
# From a run


@dataclass(frozen=True)
class Loaded:
    """A trained agent and all that belongs to it."""

    agent: Agent
    spec: Spec
    config: Config
    counters: Counters

    def family(self) -> Family:
        """The family that it was trained on."""
        return family_of(self.config)

    def protocol(self, **given: Any) -> EvalProtocol:
        """How to evaluate it: see `eval_protocol`."""
        return eval_protocol(self.config, self.family(), **given)


def load(
    path: str | Path,
    device: str | torch.device | None = None,
    *,
    trust: bool = False,
    family: str | None = None,
) -> Loaded:
    """The agent of a run folder (its best checkpoint), a checkpoint file, or an exported file.

    It is put on `device`, or where it was trained; on the CPU if there is no such device here. As
    in training, torch computes with `threads` threads from now on.

    Args:
        trust: whether code that came with the run may be executed. Without it a user's own code is
            imported from where this user trained with it, if it has not changed since.
        family: such as ``path/to/file.py:Class``: in place of the run's family, with its options.

    Raises:
        MetaRLError: nothing there that can be loaded.
    """
    return open_run(path, Opening(None if device is None else str(device), trust, family))


def open_run(path: str | Path, opening: Opening) -> Loaded:
    """`load`, as `opening` says."""
    saved, file = read_run(path)
    config = read_configuration(saved, file, opening)
    device = (opening.device or config.device).partition(":")[0]
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"device: {device!r} is unknown; use cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        if opening.device:
            raise ConfigError(_NO_CUDA)
        device = "cpu"
    config = config.model_copy(update={"device": device})
    torch.set_num_threads(config.threads)
    agent = restore(saved, config, file, opening.trust)
    return Loaded(agent, saved.spec, config, saved.counters)


def restore(saved: SavedRun, config: Config, file: Path, trust: bool = False) -> Agent:
    """The agent of a checkpoint `file`.

    Raises:
        MetaRLError: it cannot be built, or its state is not that of such an agent.
    """
    with fitting(file, config):
        agent = agent_of(config, saved.spec, trust)
        if saved.exported:
            agent.warm_start(saved.agent)
        else:
            agent.load_state_dict(saved.agent)
    return agent


@contextmanager
def fitting(file: Path, config: Config) -> Iterator[None]:
    """Raises a CheckpointError for whatever a state of another form leads to."""
    try:
        yield
    except MetaRLError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"checkpoint {file} does not fit {config.agent.name}: {one_line(error):.200}; "
            "use another, such as previous.pt"
        ) from error


def load_pretrained_options(
    names: Sequence[str],
    spec: Spec,
    device: torch.device,
    trust: bool = False,
) -> PretrainedOptions:
    """The options called `names`, one after another: of runs, and ``path/to/file.py:Class``.

    A run of an agent with options gives them all; a run of a flat one that sees the observation
    alone is one option.

    Raises:
        MetaRLError: nothing of that name, or nothing that can act in such a family as an option.
    """
    parts: list[PretrainedOptions] = []
    for name in names:
        if ":" in name:
            parts.append(custom_option(name, spec))
        else:
            parts.append(_options_of_run(name, spec, device, trust))
    return parts[0] if len(parts) == 1 else ConcatenatedOptions(parts)


def _options_of_run(
    path: str,
    spec: Spec,
    device: torch.device,
    trust: bool,
) -> PretrainedOptions:
    if not Path(path).exists() and not is_archive(Path(path)):
        raise ConfigError(
            f"pretrained_options: there is no run {path}; "
            "name a run folder, or path/to/file.py:Class of your own"
        )
    loaded = load(path, device, trust=trust)
    _require_shape("pretrained_options", path, loaded.spec, spec)
    options = None
    if isinstance(loaded.agent, ActsAsOptions):
        options = loaded.agent.as_options()
    if options is None:
        raise ConfigError(
            f"pretrained_options: what {path} does depends on more than the observation; name a "
            "run with options whose sub_hidden_sizes is given, or one of an agent without memory "
            "that is shown no task"
        )
    return options


def _require_shape(key: str, path: str, other: Spec, spec: Spec) -> None:
    if _shape(other) != _shape(spec):
        raise ConfigError(
            f"{key}: {path} was trained on {other.name}, whose observations or actions are others "
            f"than those of {spec.name}; name a run on a family of that shape"
        )


def _shape(spec: Spec) -> tuple[object, ...]:
    """What an option must share with the family that it acts in."""
    return spec.obs_width, spec.obs_dtype, spec.action_width, spec.discrete, spec.nvec
