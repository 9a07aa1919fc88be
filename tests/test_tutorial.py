"""The tutorial's cells run from the first to the last, and its outputs are those of a real run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import matplotlib
import pytest

NOTEBOOK = Path(__file__).parent.parent / "docs" / "tutorial.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
SMALL = {"ITERATIONS": 2, "TASKS": 20}


@pytest.fixture
def namespace(tmp_path, monkeypatch):
    """What a notebook's cells share, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    with matplotlib.rc_context({"backend": "agg"}):
        yield {}
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / "treasure.py"):
            del sys.modules[name]


def execute(source, namespace):
    magic, _, rest = source.partition("\n")
    if magic.startswith("%%writefile "):
        Path(magic.split()[1]).write_text(rest, encoding="utf-8")
    else:
        exec(source, namespace)


def test_the_cells_run_in_their_order(namespace, capsys):
    parameters, *cells = CODE
    execute("".join(parameters["source"]), namespace)
    assert set(SMALL) <= set(namespace)
    namespace |= SMALL
    for cell in cells:
        execute("".join(cell["source"]), namespace)
    assert namespace["report"].ok
    assert len(namespace["axes"].lines) == 3
    assert set(namespace["scores"]) == {"RL²", "random"}
    assert namespace["result"]["last"]["iteration"] == 2
    said = capsys.readouterr().out
    assert len(re.findall(r"episode \d: 0 ", said)) == 6


def test_its_outputs_are_stored_and_show_an_agent_that_adapts():
    outputs = [output for cell in CODE for output in cell["outputs"]]
    said = "".join("".join(output.get("text", "")) for output in outputs)
    returns = re.search(r"RL².*first episode +(\S+), last episode +(\S+)", said)
    assert float(returns[1]) + 0.2 < float(returns[2])
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
