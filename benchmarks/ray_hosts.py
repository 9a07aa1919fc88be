"""Several hosts on one machine: network namespaces, a head and two nodes, one cut off in mid-run.

A run on workers of all three must equal the run without workers, byte for byte, also where a node
is cut off from the network while it works; a wrong token and a head that is cut off must end in one
line. It needs root and iproute2.

    sudo python benchmarks/ray_hosts.py [--iterations 12]
"""

# ruff: noqa: S603, S607  (the commands are ours)
from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils._pytree import tree_leaves

BRIDGE, PORT = "metarl-br", 6379
HOSTS = {"head": "10.77.0.1", "one": "10.77.0.2", "two": "10.77.0.3"}
CPUS = 2
FIRST: dict[str, int] = {}
"""The first process of each host."""
RAY_FOLDER = Path("/tmp/ray")  # noqa: S108  (Ray's own)
RUN = (
    "rl2/half-cheetah-vel",
    "agent.trials=16",
    "agent.memory_width=32",
    "agent.minibatches=2",
    "family.horizon=50",
    "env_steps=null",
    "episodes=1",
    "validate_every=4",
    "validation_tasks=16",
    "test_tasks=16",
    "shard_rows=4",
)
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
WORKERS = ("collector=ray", "workers=6")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def inside(host: str, *command: str) -> list[str]:
    """The command as it is run on a host."""
    return ["nsenter", "--target", str(FIRST[host]), "--net", "--mount", "--pid", *command]


def boot(host: str) -> None:
    """Start the first process of a host: it has processes and a folder of Ray of its own."""
    own = Path(tempfile.gettempdir(), f"metarl-ray-{host}")
    for folder in (own, RAY_FOLDER):
        folder.mkdir(exist_ok=True)
    alone = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    first = f"mount --bind {own} {RAY_FOLDER} && exec sleep infinity"
    holder = subprocess.Popen(["ip", "netns", "exec", f"metarl-{host}", *alone, "sh", "-c", first])
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
    while not (found := children.read_text(encoding="utf-8").split()):
        time.sleep(0.05)
    time.sleep(0.5)  # until it has mounted its folder
    FIRST[host] = int(found[0])


@contextlib.contextmanager
def network() -> Iterator[None]:
    """Three hosts on one switch."""
    remove()
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("link", "set", BRIDGE, "up")
    for host, address in HOSTS.items():
        ip("netns", "add", f"metarl-{host}")
        peer = ["peer", "name", "eth0", "netns", f"metarl-{host}"]
        ip("link", "add", f"m-{host}", "type", "veth", *peer)
        ip("link", "set", f"m-{host}", "master", BRIDGE, "up")
        boot(host)
        subprocess.run(inside(host, "ip", "link", "set", "lo", "up"), check=True)
        subprocess.run(
            inside(host, "ip", "addr", "add", f"{address}/24", "dev", "eth0"), check=True
        )
        subprocess.run(inside(host, "ip", "link", "set", "eth0", "up"), check=True)
        route = ["ip", "route", "add", "default", "dev", "eth0"]  # by which Ray finds its address
        subprocess.run(inside(host, *route), check=True)
    try:
        yield
    finally:
        remove()


def remove() -> None:
    for host in HOSTS:
        pids = subprocess.run(
            ["ip", "netns", "pids", f"metarl-{host}"],
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        for pid in pids.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        for command in (["netns", "del", f"metarl-{host}"], ["link", "del", f"m-{host}"]):
            subprocess.run(["ip", *command], stderr=subprocess.DEVNULL, check=False)
    subprocess.run(["ip", "link", "del", BRIDGE], stderr=subprocess.DEVNULL, check=False)


def start_ray(host: str) -> None:
    ray = str(Path(sys.executable).with_name("ray"))
    how = ["--head", f"--port={PORT}", "--include-dashboard=false"]
    if host != "head":
        how = [f"--address={HOSTS['head']}:{PORT}"]
    command = [ray, "start", *how, f"--node-ip-address={HOSTS[host]}", f"--num-cpus={CPUS}"]
    subprocess.run(
        inside(host, *command, "--disable-usage-stats"),
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | TOKEN | {"RAY_worker_niceness": "0"},
    )


def metarl(
    folder: Path, arguments: Sequence[str], host: str | None = None, **environment: str
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "metarl", *arguments]
    if host is not None:
        command = inside(host, "env", f"--chdir={folder}", *command)
        environment = TOKEN | {"RAY_ADDRESS": f"{HOSTS['head']}:{PORT}"} | environment
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def state(run: Path) -> list[object]:
    content = torch.load(run / "checkpoints" / "latest.pt", weights_only=True)
    return tree_leaves(content["agent"])


def equal(run: Path, other: Path) -> bool:
    pairs = zip(state(run), state(other), strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def wait_for_iterations(run: Path, count: int, program: subprocess.Popen[str]) -> None:
    log = run / "metrics.jsonl"
    while not log.is_file() or len(log.read_text(encoding="utf-8").splitlines()) < count:
        if program.poll() is not None:
            raise SystemExit(f"ended too early: {program.communicate()[0]}")
        time.sleep(0.1)


def ended(program: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and the lines that it told."""
    output, _ = program.communicate(timeout=900)
    told = [line for line in output.splitlines() if line.startswith("metarl: ")]
    if program.returncode not in (0, 2):
        print(output)
    return program.returncode, "\n    ".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=12)
    iterations = f"iterations={parser.parse_args().iterations}"
    folder = Path(tempfile.mkdtemp(prefix="metarl-hosts-"))
    train = ["train", *RUN, iterations, "--no-pictures", "--quiet", "--out"]
    code, _ = ended(metarl(folder, [*train, "alone"]))
    assert code == 0, "the run without workers failed"

    with network():
        for host in HOSTS:
            start_ray(host)
        print("three hosts, six workers:")
        code, told = ended(metarl(folder, [*train, "three", *WORKERS], "head"))
        print(f"  exit code {code} {told}")
        print(f"  equal by bytes: {equal(folder / 'three', folder / 'alone')}")

        print("two seeds as tasks of the cluster:")
        seeds = ["--seeds", "0,1", "--launcher", "ray"]
        code, told = ended(metarl(folder, [*train, "seeds", *seeds], "head"))
        same = equal(folder / "seeds" / "seed-0", folder / "alone")
        print(f"  exit code {code}; seed 0 equal: {same}")

        print("another token:")
        began = time.monotonic()
        command = [*train, "token", *WORKERS]
        code, told = ended(metarl(folder, command, "head", RAY_AUTH_TOKEN="0" * 64))
        print(f"  exit code {code} after {time.monotonic() - began:.0f} s: {told}")

        print("a node is cut off in mid-run:")
        program = metarl(folder, [*train, "cut", *WORKERS], "head")
        wait_for_iterations(folder / "cut", 2, program)
        ip("link", "set", "m-two", "down")
        began = time.monotonic()
        code, told = ended(program)
        print(f"  exit code {code} after {time.monotonic() - began:.0f} s {told}")
        print(f"  equal by bytes: {equal(folder / 'cut', folder / 'alone')}")

        print("the head's network is cut off from a driver on another node:")
        program = metarl(folder, [*train, "lost", *WORKERS[:1], "workers=2"], "one")
        wait_for_iterations(folder / "lost", 2, program)
        ip("link", "set", "m-head", "down")
        began = time.monotonic()
        code, told = ended(program)
        print(f"  exit code {code} after {time.monotonic() - began:.0f} s: {told}")
        code, _ = ended(metarl(folder, [*train, "lost", "--resume"]))
        print(f"  resumed without workers: equal: {equal(folder / 'lost', folder / 'alone')}")


if __name__ == "__main__":
    main()
