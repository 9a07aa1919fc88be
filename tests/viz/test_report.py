"""A page that stands alone, says what the tables say, and takes no text for markup."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from benchmark_folders import ODD, write_benchmark
from test_cli import metarl, mistake

from metarl.viz import report
from metarl.viz.report import write_report

AGENT = """<b>&$x_1$|"'*"""
TASKS = np.linspace(-1, 1, 12)
_VOID = {"meta", "br", "hr", "img", "input", "link"}


def runs(*means):
    """[R][2, 12]"""
    return [np.stack([mean - 1 + TASKS, mean + 1 + TASKS]) for mean in means]


def agents(shift=0.0):
    good, poor = (runs(*(np.array([0.0, 0.1, 0.3]) + mean + shift)) for mean in (7, 4))
    return {"random": runs(2.0), "good": good, "poor": poor}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With references and a run that failed; an agent and all texts are odd."""
    path = tmp_path_factory.mktemp("bench") / "known"
    suite = {"title": ODD, "description": ODD, "references": "references.csv"}
    problems = {"bandit": agents() | {AGENT: runs(6.0, 6.5, 7.0)}}
    write_benchmark(
        path, problems, suite=suite, failed=[("bandit", "good", ODD)], optimum=[10] * 12
    )
    with (path / "references.csv").open("w") as file:
        table = csv.writer(file)
        table.writerow(["problem", "agent", "quantity", "value", "source", "protocol"])
        table.writerow(["bandit", "good", "total", "15.5", ODD, "same"])
        table.writerow(["bandit", "someone", "success", "0.75", ODD, "similar"])
    return path


@pytest.fixture(scope="module")
def written(folder):
    out = folder.parent
    paths = {"latex": out / "t.tex", "csv": out / "t.csv", "markdown": out / "t.md"}
    write_report([folder], out / "page.html", **paths, figures=out / "figures")
    texts = {name: path.read_text() for name, path in paths.items()}
    return texts | {"html": (out / "page.html").read_text(), "figures": out / "figures"}


class Page(HTMLParser):
    """Its elements; fails where tags are not balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.cells, self.texts, self.words = [], [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data
        self.texts.append((data, self.open[-1] if self.open else ""))
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data


def test_the_page_is_whole_html_and_stands_alone(written):
    page = Page(written["html"])
    assert written["html"].startswith("<!DOCTYPE html>")
    identities = [given["id"] for _, given in page.elements if "id" in given]
    assert len(identities) == len(set(identities)) > 20
    for tag, given in page.elements:
        for name in ("src", "href", "xlink:href", "clip-path", "aria-labelledby"):
            place = given.get(name)
            if place is not None:
                local = re.fullmatch(r"(?:url\()?#?([^)]*)\)?", place)[1]
                assert local in identities, (tag, name, place)
    assert "@import" not in written["html"]
    assert len(written["html"]) < 5e6
    headings = [words for row in page.cells for words in row]
    assert {"no adaptation", "train − test", "interquartile mean", "core hours"} <= set(headings)


def test_no_text_of_a_user_is_markup(written):
    page = Page(written["html"])
    assert [tag for tag, _ in page.elements].count("script") == 1
    cells = {cell for row in page.cells for cell in row}
    assert AGENT in cells
    assert ["bandit", "good", "9", ODD] in page.cells
    assert f"15.5 ({ODD}; same protocol)" in cells
    assert f"success 0.75 ({ODD}; similar protocol)" in cells
    labels = [words for words, place in page.texts if place == "text"]
    assert labels.count(AGENT) > 3  # in pictures it is no formula
    assert "<script" not in written["markdown"]
    assert not re.search(r"(?<!\\)[$&#%_](?![- ])", re.sub(r"\$-\$|&(?= )", "", written["latex"]))
    rows = list(csv.DictReader(written["csv"].splitlines()))
    assert AGENT in {row["agent"] for row in rows}


def test_the_numbers_are_the_same_in_every_format(written):
    rows = list(csv.DictReader(written["csv"].splitlines()))
    page = {tuple(row[:2]): row for row in Page(written["html"]).cells[:6]}
    plain = written["latex"].replace("$-$", "-")
    for row in rows:
        number = row["value"] + (f" [{row['low']}, {row['high']}]" if row["low"] else "")
        assert number in written["html"]
        assert number in written["markdown"]
        assert number in plain
        if row["quantity"] == "score" and (row["problem"], row["agent"]) in page:
            assert page[row["problem"], row["agent"]][2] == number


def test_the_best_are_bold_and_references_are_marked(tmp_path):
    told = {"bandit": agents() | {"told": runs(9.0, 9.1)}}
    folder = write_benchmark(tmp_path, told, shown={"told": "goal"}, optimum=[10] * 12)
    write_report([folder], markdown=tmp_path / "t.md")
    lines = (tmp_path / "t.md").read_text().split("###")[1].splitlines()
    bold = [line.split(" | ")[1] for line in lines if "**" in line]
    assert bold == ["good"]
    assert any("told (shown the task, reference)" in line for line in lines)
    assert any("known optimum (reference)" in line for line in lines)


def test_single_runs_are_named(tmp_path):
    folder = write_benchmark(tmp_path, {"bandit": {"random": runs(2.0), "alone": runs(5.0)}})
    page, table = tmp_path / "report.html", tmp_path / "a.csv"
    assert metarl("report", folder, "--csv", table) == (0, f"{page}\n{table}\n", "")
    assert "A single run says nothing about other seeds: bandit / alone." in page.read_text()


def test_aggregates_are_over_problems_that_agents_share(tmp_path, monkeypatch):
    """Of the tables alone; what pictures look like is shown by other pages."""
    monkeypatch.setattr(report, "figure_bytes", lambda *_, **__: b"<svg></svg>")
    problems = {"bandit": agents(), "other": {"random": runs(2.0), "else": runs(5.0, 5.5)}}
    folder = write_benchmark(tmp_path, problems, optimum=[10] * 12)
    page = write_report([folder])[0].read_text()
    assert "No agent but random has scaled scores on two problems" in page
    assert "interquartile mean" not in page
    problems["other"]["good"] = runs(5.0, 5.6)
    write_benchmark(tmp_path, problems, optimum=[10] * 12)
    page = Page(write_report([folder])[0].read_text())
    start = page.cells.index(["agent", "interquartile mean", "optimality gap", "runs"])
    # Trials of 2 × 7, 7.1, 7.3, 5 and 5.6, scaled by 4 and 20; a quarter of 5 runs is 1.
    scaled = np.sort([(2 * mean - 4) / 16 for mean in (7, 7.1, 7.3, 5, 5.6)])
    means = (scaled[1:-1].mean(), 1 - scaled.mean())
    assert page.cells[start + 2] == ["good", *(f"{mean:.3f}" for mean in means), "5"]

    problems["third"] = {"random": runs(2.0), "good": runs(5.0)}
    problems["other"]["poor"] = runs(4.0, 4.1)
    write_benchmark(tmp_path, problems, optimum=[10] * 12)
    text = write_report([folder])[0].read_text()
    assert "Over bandit, other. " in text
    page = Page(text)
    start = page.cells.index(["agent", "interquartile mean", "optimality gap", "runs"])
    rows = page.cells[start + 1 : start + 4]
    assert [(row[0], row[-1]) for row in rows] == [("random", "2"), ("good", "5"), ("poor", "5")]


def test_long_labels_leave_room(tmp_path):
    long = "a-label-that-is-far-longer-than-a-panel-is-wide" * 2
    folder = write_benchmark(tmp_path, {"bandit": agents() | {long: runs(8.0, 8.1)}})
    page = Page(write_report([folder])[0].read_text())
    assert any(long in cell for row in page.cells for cell in row)


def test_the_same_results_give_the_same_bytes(folder, written, tmp_path):
    again = tmp_path / "page.html"
    write_report([folder], again, figures=tmp_path / "figures", csv=tmp_path / "t.csv")
    assert again.read_text() == written["html"]
    assert (tmp_path / "t.csv").read_text() == written["csv"]
    pictures = sorted(path.name for path in written["figures"].iterdir())
    assert {"adaptation-bandit.svg", "tasks-bandit.pdf", "aggregates-profiles.svg"} <= set(pictures)
    for name in pictures:
        one, other = (path / name for path in (written["figures"], tmp_path / "figures"))
        assert one.read_bytes() == other.read_bytes()


def test_the_worst_tasks_are_those_of_the_largest_loss(tmp_path):
    better, other = np.full((2, 12), 5.0), np.full((2, 12), 4.0)
    other[:, 7], other[:, 3] = 6.0, 5.5
    folder = write_benchmark(tmp_path, {"bandit": {"better": [better] * 2, "other": [other] * 2}})
    page = Page(write_report([folder])[0].read_text())
    start = page.cells.index(["task", "better", "other", "difference"])
    assert page.cells[start + 1] == ["7", "10.00", "12.00", "-2.00"]
    assert page.cells[start + 2][0] == "3"


def test_changes_since_an_older_folder(tmp_path):
    old = write_benchmark(tmp_path / "old", {"bandit": agents()})
    new = write_benchmark(tmp_path / "new", {"bandit": agents(-2.0) | {"fresh": runs(1.0)}})
    (path,) = write_report([new, old])
    assert f"Changes since {old}" in path.read_text()
    rows = {row[1]: row[-1] for row in Page(path.read_text()).cells if row[-1:] and len(row) == 7}
    assert rows.pop("agent") == "verdict"
    assert rows["good"] == rows["poor"] == "worse"
    assert rows["random"] == "same"
    assert rows["fresh"] == "not judged: only in the new version"

    code, out, _ = metarl("compare", old, new)
    assert code == 1
    assert "c0ffee+" in out
    code, out, _ = metarl("compare", old, new, "--json")
    verdicts = {cell["agent"]: cell["verdict"] for cell in json.loads(out)["changes"]}
    assert (code, verdicts) == (1, rows | {"fresh": "not judged"})
    code, out, _ = metarl("compare", old, old)
    assert code == 0
    assert metarl("compare", new, old)[0] == 0  # better is no failure


def test_what_shares_nothing_is_not_the_same(tmp_path):
    returns = np.random.default_rng(0).normal(1.0, 0.1, (3, 2, 50))
    old, new = tmp_path / "old", tmp_path / "new"
    write_benchmark(old, {"bandit": {"rl2": returns}})
    write_benchmark(new, {"point": {"rl2": returns}})
    code, out, err = metarl("compare", old, new)
    assert code == 2
    assert "only in the old version" in out
    assert err == f"metarl: {old} and {new} share no cell that can be compared\n"


@pytest.mark.parametrize("content", ["{}", '{"cells": 3}', '{"cells": [{"seed": 0}]}', '{"ce'])
def test_a_damaged_list_of_cells_is_one_line(tmp_path, content):
    write_benchmark(tmp_path, {"bandit": {"rl2": np.ones((1, 1, 5))}})
    (tmp_path / "matrix.json").write_text(content)
    code, _, err = metarl("report", tmp_path)
    assert code == 2
    assert err.startswith(f"metarl: {tmp_path / 'matrix.json'} is ")
    assert len(err.splitlines()) == 1


def test_a_folder_without_results_is_told(tmp_path):
    assert "matrix.json" in mistake("report", tmp_path)[0]
    folder = write_benchmark(tmp_path / "x", {"bandit": {}}, failed=[("bandit", "rl2", "broke")])
    assert "no results yet" in mistake("report", folder)[0]


CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SCRIPT = """
const frame = document.createElement("iframe");
frame.style.width = "390px";
frame.srcdoc = PAGE;
frame.onload = () => {
  const page = frame.contentDocument, found = {};
  found.wide = page.documentElement.scrollWidth;
  found.boxes = [...page.querySelectorAll(".box")].some(box => box.scrollWidth > box.clientWidth);
  const header = page.querySelectorAll("th")[2], button = header.firstChild;
  const column = () =>
    [...header.closest("table").tBodies[0].rows].map(row => row.cells[2].textContent);
  button.focus();
  found.focused = page.activeElement === button;
  button.click();
  found.up = column();
  button.click();
  found.down = column();
  found.sorted = header.getAttribute("aria-sort");
  document.body.textContent = JSON.stringify(found);
};
document.body.append(frame);
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (or name it in CHROMIUM)")
def test_in_a_browser_tables_sort_and_a_phone_scrolls_no_page(written, tmp_path):
    page = json.dumps(written["html"]).replace("</", "<\\/").replace("<!--", "<\\!--")
    harness = tmp_path / "harness.html"
    script = SCRIPT.replace("PAGE", page)
    harness.write_text(f"<!DOCTYPE html><meta charset=utf-8><body><script>{script}</script>")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/user"]
    command = [CHROMIUM, *flags, "--virtual-time-budget=5000", "--dump-dom", harness.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = json.loads(Page(shown.stdout).words.strip())
    assert found["wide"] <= 390
    assert found["boxes"]  # what is wider scrolls in its box
    assert found["focused"]
    assert found["sorted"] == "descending"
    numbers = [float(text.split()[0]) for text in found["up"] if text]
    assert numbers == sorted(numbers)
    assert [text for text in found["down"] if text] == [x for x in found["up"] if x][::-1]
    assert found["up"][-1] == found["down"][-1] == ""  # what has no number stays last
