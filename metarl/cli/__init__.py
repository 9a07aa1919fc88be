"""The command line: parse, call one function, print. Heavy imports wait until they are needed."""

from metarl.cli import training as training  # isort: split

from metarl.cli import benchmarks as benchmarks
from metarl.cli import catalogue as catalogue
from metarl.cli import evaluation as evaluation
from metarl.cli import pictures as pictures
from metarl.cli.app import main as main
