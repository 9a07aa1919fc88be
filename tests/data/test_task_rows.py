"""Task rows of a user's own, from a file."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.core.errors import ConfigError
from metarl.data.task_rows import read_tasks, which_tasks

ROWS = [[0.5, -1.0], [2.0, 3.25], [0.0, 1.0]]


def test_tables_and_arrays_are_read(tmp_path):
    table, array = tmp_path / "rows.csv", tmp_path / "rows.npy"
    table.write_text("# goal x, goal y\n0.5,-1\n2, 3.25\n\n0,1\n")
    np.save(array, np.array(ROWS))
    for path in (table, array):
        tasks = read_tasks(path, "ood")
        assert tasks.params.tolist() == ROWS
        assert tasks.index.tolist() == [0, 1, 2]
        assert tasks.split == "ood"


def test_one_column_is_rows_of_one_number(tmp_path):
    (tmp_path / "rows.csv").write_text("1\n2\n")
    assert read_tasks(tmp_path / "rows.csv").params.tolist() == [[1.0], [2.0]]


def test_a_number_counts_tasks(tmp_path):
    assert which_tasks("200", "test") == 200
    (tmp_path / "rows.csv").write_text("1\n2\n")
    tasks = which_tasks(str(tmp_path / "rows.csv"), "test")
    assert len(tasks) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1,2\n3\n", "number of columns"),
        ("1,two\n", "could not convert"),
        ("1,nan\n", "finite"),
        ("1,2\n", "fewer than 2"),
    ],
)
def test_what_is_no_table_of_tasks_is_one_line(tmp_path, content, says):
    (tmp_path / "rows.csv").write_text(content)
    with pytest.raises(ConfigError, match=says) as error:
        which_tasks(str(tmp_path / "rows.csv"), "test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["1", "nowhere.csv", "some.txt", "-3"])
def test_no_file_and_no_number(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^tasks: "):
        which_tasks(text, "test")


def test_arrays_that_need_code_are_refused(tmp_path):
    np.save(tmp_path / "rows.npy", np.array([{"a": 1}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match=r"rows\.npy"):
        read_tasks(tmp_path / "rows.npy")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("nowhere.csv", None, "cannot be read"),
        ("empty.npy", b"", "cannot be read"),
        ("empty.csv", b"", "give finite numbers"),
        ("folder.csv", "folder", "cannot be read"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, name, content, says):
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=says) as error:
        read_tasks(tmp_path / name)
    assert "None" not in str(error.value)


def test_numbers_of_other_types_are_read_and_complex_ones_are_not(tmp_path):
    for kind in (">f8", "i8", "f4"):
        np.save(tmp_path / "rows.npy", np.array([[1, 2], [3, 4]], dtype=kind))
        assert read_tasks(tmp_path / "rows.npy").params.tolist() == [[1, 2], [3, 4]]
    np.save(tmp_path / "rows.npy", np.array([[1j]]))
    with pytest.raises(ConfigError, match="complex"):
        read_tasks(tmp_path / "rows.npy")
