"""Inputs that nobody thought of, many of them: every property of tests/fuzz, the long form.

python benchmarks/fuzz.py [--inputs 100000] [--seed 0] [--seconds 60] [--write] [names ...]

An input that takes longer than --seconds is a hang. Exit code 1 where a promise was broken;
--write keeps the counts in benchmarks/results/fuzz.md.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings

TESTS = Path(__file__).resolve().parents[1] / "tests"
RESULTS = Path(__file__).parent / "results" / "fuzz.md"
BATCH = 1000
"""Inputs of one search; each begins anew, so that one fault does not hide the others."""


class Hang(Exception):
    """An input took too long."""


def properties() -> dict[str, Any]:
    """Those of all modules of tests/fuzz, by name."""
    sys.path[0] = str(TESTS)  # in the place of this folder, where a module has the same name
    found: dict[str, Any] = {}
    for path in sorted((TESTS / "fuzz").glob("*.py")):
        if not path.stem.startswith("test_"):
            found |= importlib.import_module(f"fuzz.{path.stem}").PROPERTIES
    return found


def limited(check: Callable[..., None], seconds: float, counts: Counter[str]) -> Any:
    """`check`, counted, and stopped after so many seconds."""

    def stop(*_: object) -> None:
        raise Hang(f"an input took more than {seconds} s")

    def run(*given: Any, **named: Any) -> None:
        counts["inputs"] += 1
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            check(*given, **named)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    return run


def search(check: Any, inputs: int, first_seed: int, counts: Counter[str]) -> dict[str, str]:
    """What breaks the promise, by the place where it broke."""
    faults: dict[str, str] = {}
    check = settings(
        max_examples=min(BATCH, inputs),
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )(check)
    for batch in range(-(-inputs // BATCH)):
        try:
            seed(first_seed + batch)(check)()
        except Exception as error:  # whatever a broken promise raises
            counts["searches that found a fault"] += 1
            error = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(frame.filename).name}:{frame.lineno}"
            notes = "\n".join(getattr(error, "__notes__", []))
            faults.setdefault(place, f"{type(error).__name__}: {error}\n{notes}")
    return faults


def main() -> None:
    known = properties()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[], metavar="names", help=", ".join(known))
    parser.add_argument("--inputs", type=int, default=100_000, help="of each property")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60, help="that an input may take")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("error")
    lines = ["| property | inputs | seconds | searches that found a fault |", "|---|---|---|---|"]
    broken = False
    for name in args.names or known:
        counts: Counter[str] = Counter()
        check = known[name]
        check.hypothesis.inner_test = limited(check.hypothesis.inner_test, args.seconds, counts)
        began = time.perf_counter()
        faults = search(check, args.inputs, args.seed, counts)
        seconds = time.perf_counter() - began
        found = counts["searches that found a fault"]
        lines.append(f"| {name} | {counts['inputs']:,} | {seconds:.0f} | {found} |")
        print(lines[-1], flush=True)
        for place, text in faults.items():
            broken = True
            print(f"{place}\n{text[:2000]}\n", flush=True)
    if args.write:
        command = f"`python benchmarks/fuzz.py --inputs {args.inputs} --seed {args.seed}`"
        table = "\n".join(lines)
        RESULTS.write_text(f"# Inputs at random\n\n{command}\n\n{table}\n", encoding="utf-8")
    sys.exit(broken)


if __name__ == "__main__":
    main()
