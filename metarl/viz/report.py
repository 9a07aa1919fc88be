"""A report on a benchmark: one HTML file that needs nothing else, and its tables and figures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib import rc_context

from metarl.benchmark.change_table import change_table, changes_between
from metarl.benchmark.report_appendix import appendix
from metarl.benchmark.report_tables import (
    aggregate_tables,
    failure_table,
    problem_table,
    score_tables,
    speed_table,
    worst_tasks,
)
from metarl.benchmark.results import BenchmarkResults, Entry, read_benchmark
from metarl.benchmark.score_table import measure
from metarl.benchmark.table_texts import Table, to_csv, to_latex, to_markdown
from metarl.core.disk import make_folder, write_atomically
from metarl.core.errors import CheckpointError, MetaRLError
from metarl.core.family import Drawable, HasFrames
from metarl.experiments.building import make_family
from metarl.viz.report_figures import COLORS, FAINT, GRAY, INK, LOOK, Picture, draw_figures, rivals
from metarl.viz.style import figure_bytes, save

_PAGE_COLORS = {INK: "currentColor", FAINT: "var(--faint)", GRAY: "var(--gray)"} | {
    color: f"var(--c{i})" for i, color in enumerate(COLORS)
}
_HEAD = re.compile(r"^.*?(?=<svg )", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_SIZE = re.compile(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>')
_ID = re.compile(r'(\bid="|href="#|url\(#)')
_COLOR = re.compile("|".join(_PAGE_COLORS))


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    key: str
    title: str
    words: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    always: bool = False
    """Also where there are neither tables nor pictures."""


def write_report(
    folders: Sequence[Path],
    out: Path | None = None,
    *,
    latex: Path | None = None,
    csv: Path | None = None,
    markdown: Path | None = None,
    figures: Path | None = None,
) -> list[Path]:
    """Write the report on the benchmark in the first of `folders` → the files written.

    What has changed since those in the others is a section each. The same folders give the same
    bytes.

    Args:
        out: the page (default: report.html in the folder).
        latex: a file for the tables of scores, for the package booktabs; `markdown`: likewise.
        csv: a file for all scores, a row a quantity.
        figures: a folder for the figures, .svg and .pdf.

    Raises:
        MetaRLError: no benchmark there, none of its runs has a result, or a file cannot be written.
    """
    results, *older = [_read(folder) for folder in folders]
    measured = measure(results)
    tables = score_tables(results, measured)
    changes = _changes(results, older)
    out = out or results.folder / "report.html"
    with rc_context(LOOK):
        pictures = draw_figures(results)
        page = _page(results, _sections(results, tables, pictures, changes))
        written = [] if figures is None else _save_figures(pictures, figures)
    texts = {
        out: page,
        latex: to_latex([*tables, *changes]),
        markdown: to_markdown([*tables, *changes]),
        csv: to_csv(measured),
    }
    for path, text in texts.items():
        if path is not None:
            write_atomically(path, text.encode())
            written.append(path)
    return written


def _read(folder: Path) -> BenchmarkResults:
    results = read_benchmark(folder)
    if not results.entries:
        raise CheckpointError(f"{folder} has no results yet: go on with metarl benchmark --resume")
    return results


def _changes(results: BenchmarkResults, older: Sequence[BenchmarkResults]) -> list[Table]:
    return [
        change_table(old, results, changes_between(old, results), f"changes-{i}")
        for i, old in enumerate(older)
    ]


def _save_figures(pictures: Mapping[str, Sequence[Picture]], folder: Path) -> list[Path]:
    make_folder(folder)
    return [
        save(picture.figure, folder / f"{picture.key}.{suffix}")
        for section in pictures.values()
        for picture in section
        for suffix in ("svg", "pdf")
    ]


def _page(results: BenchmarkResults, sections: Sequence[Section]) -> str:
    environment = Environment(
        loader=PackageLoader("metarl.viz", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["inline"] = inline
    template = environment.get_template("report.html")
    return template.render(
        suite=results.suite.suite,
        problems=len(results.problems),
        agents=len(results.agents),
        runs=sum(len(entry.cells) for entry in results.entries.values()),
        failures=len(results.failures),
        sections=sections,
    )


def _sections(
    results: BenchmarkResults,
    tables: Sequence[Table],
    pictures: Mapping[str, Sequence[Picture]],
    changes: Sequence[Table],
) -> list[Section]:
    """In the order of the page; without what is empty."""
    headline, differences, adaptation, gaps = tables
    sections = [
        Section("scores", "Scores on test tasks", tables=[headline, differences]),
        Section("problems", "Problems", tables=[problem_table(results)]),
        Section("failures", "Failed and missing runs", tables=[failure_table(results)]),
        *(Section(table.key, table.title, tables=[table]) for table in changes),
        _aggregates(results, pictures["aggregates"]),
        Section(
            "adaptation",
            "Adaptation",
            "Bands are the 95 % intervals that the table of scores speaks of.",
            [adaptation],
            pictures["adaptation"],
        ),
        Section("gaps", "Generalization", tables=[gaps]),
        Section(
            "learning",
            "Learning",
            "Thin lines are runs; bands are 95 % Student t intervals of their mean.",
            pictures=pictures["learning"],
        ),
        _task_by_task(results, pictures["tasks"]),
        Section("speed", "Speed", tables=[speed_table(results)]),
        Section("appendix", "Appendix", tables=appendix(results)),
    ]
    filled = (
        replace(section, tables=[table for table in section.tables if table.rows])
        for section in sections
    )
    return [part for part in filled if part.tables or part.pictures or part.always]


def _aggregates(results: BenchmarkResults, pictures: Sequence[Picture]) -> Section:
    words = "Each run's mean score, scaled so that 0 and 1 are what the table of problems says."
    if not pictures:
        words = "No agent but random has scaled scores on two problems: there are no aggregates."
    tables = aggregate_tables(results)
    return Section("aggregates", "Over problems", words, tables, pictures, always=True)


def _task_by_task(results: BenchmarkResults, pictures: Sequence[Picture]) -> Section:
    pairs = [rivals(results, problem) for problem in results.problems]
    worst = [worst_tasks(*pair, _drawable(pair[0])) for pair in pairs if pair is not None]
    words = (
        "The two best agents of each problem that must find out the task: a dot a task, the mean "
        "of the runs; above the line the best one is ahead."
    )
    return Section("tasks", "Task by task", words, worst, pictures)


def _drawable(entry: Entry) -> bool:
    """Whether its family offers pictures; of one that cannot be made here, its command tells."""
    family = dict(entry.cells[0].result["config"]["family"])
    if ":" in family["name"]:  # code of a user's own is not executed to be read about
        return True
    try:
        made = make_family(family.pop("name"), **family)
        return isinstance(made, Drawable) or isinstance(made.make(1), HasFrames)
    except MetaRLError:
        return True


def inline(picture: Picture) -> Markup:
    """A picture as a part of the page: with ids of its own, and the colors of the page."""
    svg = figure_bytes(picture.figure, "svg", transparent=True).decode()
    svg = _METADATA.sub("", _HEAD.sub("", svg))
    svg = _ID.sub(rf"\g<1>{picture.key}-", svg)
    svg = _COLOR.sub(lambda found: _PAGE_COLORS[found[0]], svg)
    words = f'role="img" aria-label="{escape(picture.words)}"'
    svg = _SIZE.sub(lambda found: f"<svg {found[1]} {words}>", svg, count=1)
    return Markup(svg)  # noqa: S704  matplotlib escapes all texts
