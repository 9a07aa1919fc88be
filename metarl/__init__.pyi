"""What ``metarl.NAME`` offers."""

from .checker.check import check_family as check_family
from .config.registry import Settings as Settings
from .config.schema import Config as Config
from .config.schema import load_config as load_config
from .config.schema import parse as parse
from .core.agent import Agent as Agent
from .core.errors import Mistake as Mistake
from .core.family import BatchEnv as BatchEnv
from .core.family import Family as Family
from .core.rng import Rng as Rng
from .core.types import Spec as Spec
from .core.types import Step as Step
from .core.types import Tasks as Tasks
from .data.recording import Recording as Recording
from .data.recording import recorded as recorded
from .evaluation.meta_test import Scores as Scores
from .evaluation.meta_test import combine as combine
from .evaluation.meta_test import evaluate as evaluate
from .evaluation.session import Session as Session
from .experiments.building import build as build
from .experiments.building import load as load
from .experiments.building import make_agent as make_agent
from .experiments.building import make_family as make_family
from .experiments.loop import Update as Update
from .experiments.loop import learn as learn
from .experiments.runs import train as train
