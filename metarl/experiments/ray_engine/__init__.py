"""Ray: workers on this machine or many, and commands as its tasks. Nothing else imports it.

Ray's own messages are for those who know Ray; whatever goes wrong here is one line. Losing a worker
loses nothing: its job is done again by another one.
"""

import os

for _name in (
    "RAY_USAGE_STATS_ENABLED",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
    "RAY_worker_niceness",
):
    os.environ.setdefault(_name, "0")  # which Ray reads when it is imported

from metarl.experiments.ray_engine.cluster import cluster  # noqa: E402
from metarl.experiments.ray_engine.commands import run_jobs_on_ray  # noqa: E402
from metarl.experiments.ray_engine.workers import RayWorkers  # noqa: E402

__all__ = ["RayWorkers", "cluster", "run_jobs_on_ray"]
