"""What holds for every test: one torch thread, reproducible examples, a user without a key, no
terminal.
"""

import os
import tempfile

import torch
from hypothesis import settings

_HOME = tempfile.TemporaryDirectory(prefix="metarl-state-")
os.environ["XDG_STATE_HOME"] = _HOME.name
os.environ.pop("COLUMNS", None)  # tables are as wide as they are in a pipe
torch.set_num_threads(1)
settings.register_profile("metarl", derandomize=True, deadline=None)
settings.load_profile("metarl")
