"""The Ray cluster that this process is part of."""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from metarl.core.errors import ConfigError, MetaRLError, one_line

ADDRESS = "RAY_ADDRESS"
_PROBE_SECONDS = 2.0  # for a port to answer
_JOIN_SECONDS = 10.0  # to join a cluster that answers; Ray itself may wait for minutes
_LOCAL_SECONDS = 120.0  # to start one on this machine


class ClusterLost(MetaRLError):
    """The cluster, or all workers, went away; the last checkpoint stays."""


@contextmanager
def cluster() -> Iterator[None]:
    """Within, this process is part of the cluster at $RAY_ADDRESS, or of one of its own.

    Raises:
        ConfigError: there is none, or it does not take this process.
    """
    if ray.is_initialized():  # somebody else's, who ends it
        yield
        return
    address = os.environ.get(ADDRESS) or "local"
    check_address(address)
    over = threading.Event()
    join(address, over)
    try:
        yield
    finally:
        ray.shutdown()
        over.set()


def check_address(address: str) -> None:
    """Raises a ConfigError unless something listens at `address`."""
    if address in ("local", "auto"):
        return
    if "://" in address:
        raise ConfigError(
            f"{ADDRESS}={address}: name a node as host:port, such as 10.0.0.1:6379; Ray's client "
            "cannot hold workers"
        )
    try:
        knock(address)
    except ValueError:
        raise ConfigError(f"{ADDRESS}={address} is no host:port, such as 10.0.0.1:6379") from None
    except OSError as error:
        why = "nothing answers" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise ConfigError(
            f"{ADDRESS}={address}: {why}; start Ray there (ray start --head), or unset {ADDRESS}"
        ) from None


def knock(address: str) -> None:
    """Raises an OSError unless something listens at `address`, and a ValueError if it is none."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _PROBE_SECONDS).close()


def join(address: str, over: threading.Event) -> None:
    """`ray.init`, which may wait for minutes, but for some seconds only.

    It is called in a thread, where it takes over no signals, and which lives until it is `over`:
    a local cluster ends with the thread that began it.
    """
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    answered = threading.Event()
    errors: list[BaseException] = []

    def stay() -> None:
        try:
            ray.init(
                address,
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                configure_logging=False,
            )
        except BaseException as error:  # whatever it is, the caller tells
            errors.append(error)
        answered.set()
        over.wait()

    seconds = _LOCAL_SECONDS if address == "local" else _JOIN_SECONDS
    threading.Thread(target=stay, daemon=True).start()
    if answered.wait(seconds) and not errors:
        return
    what = f"{ADDRESS}={address} does not take this process"
    hint = (
        "is this machine a node of the cluster (ray start --address=…), with the same Ray and "
        "Python, and its token (RAY_AUTH_MODE, RAY_AUTH_TOKEN)?"
    )
    if address == "local":
        what, hint = "Ray does not start on this machine", "try ray start --head"
    why = f" ({one_line(errors[0])})" if errors else f" within {seconds:g} s"
    raise ConfigError(f"{what}{why}: {hint}") from (errors[0] if errors else None)


def require_cpus(count: int, cpus: float) -> None:
    there = ray.cluster_resources().get("CPU", 0.0)  # type: ignore[no-untyped-call]
    if count * cpus > there:
        raise ConfigError(
            f"workers: {count} of {cpus:g} CPUs each are more than the {there:g} CPUs of the "
            f"cluster; set workers={max(1, int(there / cpus))}, or worker_cpus="
            f"{max(0.01, int(100 * there / count) / 100):g}"
        )
