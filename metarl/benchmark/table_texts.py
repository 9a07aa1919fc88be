"""Tables, and how they are printed and written as Markdown, LaTeX and CSV: the same numbers."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.markup import escape

from metarl.benchmark.score_table import Measurement
from metarl.experiments.tables import new_table, show

COLUMNS = (
    "problem",
    "agent",
    "quantity",
    "value",
    "low",
    "high",
    "interval",
    "runs",
    "tasks",
    "episodes",
    "env_steps",
)
"""Of the CSV file, a row a quantity."""

_NUMBERS = re.compile(r"(?:[-\d.,\[\] ]|nan|inf)*")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|$~!])")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": "$-$",
    "×": r"$\times$",
    "±": r"$\pm$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


@dataclass(frozen=True)
class Text:
    """What stands in a table."""

    text: str
    number: float | None = None
    """What it is sorted by, of a cell that holds a number."""
    bold: bool = False
    code: bool = False
    """A command to copy."""


@dataclass(frozen=True)
class Table:
    """Rows of cells below headings."""

    key: str
    """Of its own in a document: a-z and dashes."""
    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[Text, ...]]
    note: str = ""
    """What one must know to read it."""

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers and nothing else."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.headings)
        return [all(_NUMBERS.fullmatch(cell.text) for cell in column) for column in columns]


def print_table(table: Table) -> None:
    """On the terminal."""
    printed = new_table(escape(table.title))
    for heading, numeric in zip(table.headings, table.numeric, strict=True):
        printed.add_column(escape(heading), justify="right" if numeric else "left")
    for row in table.rows:
        printed.add_row(*(escape(cell.text) for cell in row))
    printed.caption = escape(table.note)
    show(printed)


def to_csv(measured: Iterable[Measurement]) -> str:
    """Long format: a row a quantity of an agent on a problem; what is unknown is empty."""
    content = io.StringIO()
    table = csv.writer(content, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in measured:
        table.writerow([vars(row)[column] for column in COLUMNS])
    return content.getvalue()


# -------------------------------------------------------------------------------------------------
# Markdown


def to_markdown(tables: Sequence[Table]) -> str:
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    """A heading, the table, its note."""
    lines = [f"### {markdown_text(table.title)}", ""]
    lines.append(_line(markdown_text(heading) for heading in table.headings))
    lines.append(_line("---:" if numeric else "---" for numeric in table.numeric))
    for row in table.rows:
        lines.append(_line(_markdown_cell(cell) for cell in row))
    if table.note:
        lines += ["", markdown_text(table.note)]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Text) -> str:
    text = cell.text if _NUMBERS.fullmatch(cell.text) else markdown_text(cell.text)
    return f"**{text}**" if cell.bold else text


def markdown_text(text: str) -> str:
    """A text of somebody else's: nothing in it is markup."""
    text = "".join(_HTML.get(letter, letter) for letter in text)
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


# -------------------------------------------------------------------------------------------------
# LaTeX


def to_latex(tables: Sequence[Table]) -> str:
    """Tables for ``\\usepackage{booktabs}``."""
    return "\n".join(_latex(table) for table in tables)


def _latex(table: Table) -> str:
    columns = "".join("r" if numeric else "l" for numeric in table.numeric)
    caption = f"{table.title}. {table.note}" if table.note else table.title
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(caption)}}}"]
    lines += [rf"\label{{tab:{table.key}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [_latex_line(map(latex_text, table.headings)), r"\midrule"]
    lines += [_latex_line(map(_latex_cell, row)) for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _latex_line(cells: Iterable[str]) -> str:
    """A row that begins with a bracket would be taken for an option of the one before."""
    return f"{{}}{' & '.join(cells)} \\\\"


def _latex_cell(cell: Text) -> str:
    text = latex_text(cell.text)
    if _NUMBERS.fullmatch(cell.text):
        text = text.replace("-", "$-$")
    return rf"\textbf{{{text}}}" if cell.bold else text


def latex_text(text: str) -> str:
    """A text of somebody else's: nothing in it is a command."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
