"""What holds for every test: one torch thread and reproducible examples."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("metarl", derandomize=True, deadline=None)
settings.load_profile("metarl")
