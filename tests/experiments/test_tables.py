"""Tables on narrow terminals."""

from __future__ import annotations

import re

import pytest

from metarl.experiments.tables import new_table, show

COLUMNS = ("return of the trial", "first episode", "last episode", "regret", "velocity")


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    table = new_table("the title")
    table.add_column("agent")
    for heading in COLUMNS:
        table.add_column(heading, justify="right")
    for row, name in enumerate(("rl2", "rl2, no adaptation", "optimum (shown the task)")):
        table.add_row(name, *(f"{row}.{column} [{row}.00, {row}.99]" for column in range(5)))
    table.caption = "the caption"
    show(table)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_a_table_fits_and_nothing_is_cut(width: int, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = printed(capsys)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    words = " ".join(text.split())
    for row in range(3):
        for column in range(5):
            assert len(re.findall(rf"\b{row}\.{column}\b", words)) == 1
        assert words.count(f"[{row}.00, {row}.99]") == 5, "intervals are not broken"
    for heading in COLUMNS:
        assert all(word in words for word in heading.split())
    assert words.startswith("the title")
    assert words.endswith("the caption")


def test_columns_without_a_place_follow_beside_the_first_one_again(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    narrow = printed(capsys)
    monkeypatch.setenv("COLUMNS", "200")
    wide = printed(capsys)
    assert sum(line.split()[:1] == ["agent"] for line in wide) == 1
    tables = sum("agent" in line for line in narrow)
    assert tables > 1
    assert sum(line.split()[:1] == ["rl2"] for line in narrow) == tables


def test_what_is_no_terminal_has_its_width(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert 120 < max(map(len, printed(capsys))) <= 160
