"""The site: `make docs`. Its pages are those of the repository, and README.md is its home page."""

import shutil
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring

SIDEBAR = {
    "First steps": ["docs/tutorial", "docs/which-agent", "docs/glossary"],
    "Agents": ["docs/memories", "docs/maml", "docs/pearl", "docs/beliefs", "docs/options"],
    "Your own": [
        "docs/plugging-in",
        "docs/environments-of-others",
        "docs/your-own-agent",
        "docs/sb3",
        "docs/extras",
    ],
    "Experiments": ["docs/runs", "docs/tuning", "docs/benchmarks", "docs/scaling"],
    "Reference": ["docs/api", "docs/decisions/README", "benchmarks/results/README", "CHANGELOG"],
    "Project": ["CONTRIBUTING", "docs/from-0.5"],
}
BELOW = {
    "docs/decisions/README": "docs/decisions/0*",
    "benchmarks/results/README": "benchmarks/results/**",
}
"""Pages that list others."""

project = "metarl"
release = metadata.version("metarl-torch")
copyright = "The metarl authors"
root_doc = "README"
include_patterns = ["*.md", "docs/**", "benchmarks/results/**"]
exclude_patterns = ["build", ".*", "runs"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
highlight_language = "text"

myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # tables that are made to be pasted begin at level 3
nb_execution_mode = "off"  # its outputs are stored; tests/test_tutorial.py executes it
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "model_config"}
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"metarl {release}"
html_show_sphinx = False


def read_google_style(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Args and Raises of docstrings; napoleon takes what is before a field's colon for its type."""
    if what not in ("attribute", "property"):
        lines[:] = GoogleDocstring(list(lines), what=what).lines()


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Tell Sphinx which pages follow, where GitHub shows the folders."""
    for heading, pages in SIDEBAR.items() if name == root_doc else ():
        source[0] += _contents([f"/{page}" for page in pages], f":hidden:\n:caption: {heading}")
    if name in BELOW:
        source[0] += _contents([f"/{BELOW[name]}"], ":glob:\n:maxdepth: 1")


def _contents(pages: list[str], options: str) -> str:
    lines = "\n".join(pages)
    return f"\n\n```{{toctree}}\n{options}\n\n{lines}\n```\n"


def add_index(app: Sphinx, error: Exception | None) -> None:
    """Serve the home page under the name that servers look for."""
    if error is None:
        shutil.copy(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", read_google_style)
    app.connect("source-read", add_contents)
    app.connect("build-finished", add_index)
