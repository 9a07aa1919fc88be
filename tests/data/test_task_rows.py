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
        ("folder.npy", "folder", "cannot be read"),
        ("latin.csv", "größe\n".encode("latin-1"), "can't decode"),
        ("binary.csv", bytes(range(256)), "binary.csv"),
        ("binary.npy", bytes(range(256)), "binary.npy"),
        ("text.npy", b"1,2\n3,4\n", "text.npy"),
        ("zip.npy", b"PK\x03\x04" + bytes(30), "zip.npy"),
        ("short.npy", b"\x93NUMPY\x01\x00", "short.npy"),
        ("odd.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16, "odd.npy"),
        ("large.csv", b"1e300,1\n2,3\n", "give finite numbers"),
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
    assert "\n" not in str(error.value)


def test_more_rows_than_memory_are_told(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000, 2), }"
    size = len(header).to_bytes(2, "little")
    (tmp_path / "rows.npy").write_bytes(b"\x93NUMPY\x01\x00" + size + header)
    with pytest.raises(ConfigError, match=r"rows\.npy cannot be read"):
        read_tasks(tmp_path / "rows.npy")


def test_archives_and_texts_are_refused(tmp_path):
    np.savez(tmp_path / "rows.npz", np.ones((2, 2)))
    (tmp_path / "rows.npz").rename(tmp_path / "rows.npy")
    with pytest.raises(ConfigError, match=r"rows\.npy: it is NpzFile"):
        read_tasks(tmp_path / "rows.npy")
    np.save(tmp_path / "rows.npy", np.array([["1"], ["2"]]))
    with pytest.raises(ConfigError, match="not real numbers"):
        read_tasks(tmp_path / "rows.npy")


def test_many_columns_are_read(tmp_path):
    (tmp_path / "rows.csv").write_text("\n".join([",".join(["1"] * 20_000)] * 2))
    assert read_tasks(tmp_path / "rows.csv").params.shape == (2, 20_000)


@pytest.mark.parametrize("text", ["9" * 5000, "9" * 20, "²", "\0"])
def test_a_number_beyond_reason_is_told(text):
    with pytest.raises(ConfigError, match=r"^tasks: ") as error:
        which_tasks(text, "test")
    assert "\n" not in str(error.value)


def test_numbers_of_other_types_are_read_and_complex_ones_are_not(tmp_path):
    for kind in (">f8", "i8", "f4"):
        np.save(tmp_path / "rows.npy", np.array([[1, 2], [3, 4]], dtype=kind))
        assert read_tasks(tmp_path / "rows.npy").params.tolist() == [[1, 2], [3, 4]]
    np.save(tmp_path / "rows.npy", np.array([[1j]]))
    with pytest.raises(ConfigError, match="complex"):
        read_tasks(tmp_path / "rows.npy")
