"""Files are written whole or not at all, and what the disk refuses is one clear line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from metarl.core.disk import (
    link_atomically,
    make_folder,
    remove_partials,
    write_atomically,
    writing,
)
from metarl.core.errors import DiskError

REFUSALS = {
    errno.ENOSPC: "the disk is full: .*free some space",
    errno.EDQUOT: "the disk is full: .*free some space",
    errno.EROFS: "could not be written: Read-only file system; mount it",
    errno.EACCES: "could not be written: Permission denied; make it writable",
    errno.EFBIG: "could not be written: File too large; the limit of ulimit -f",
    errno.EIO: "could not be written: Input/output error; see what is wrong with the disk",
}


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("call", ["pathlib.Path.open", "os.fsync"])
def test_what_the_disk_refuses_is_one_line_and_the_old_file_stays(
    call, number, tmp_path, monkeypatch
):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(call, refuse)
    with pytest.raises(DiskError, match=REFUSALS[number]) as error:
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("file", b"old")]


def test_what_stands_in_the_way_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DiskError, match="a file is where its folder should be"):
        write_atomically(tmp_path / "file" / "a", b"")
    with pytest.raises(DiskError, match="a folder is where the file should be"):
        write_atomically(tmp_path / "folder", b"")
    with pytest.raises(DiskError, match="its folder is not there"):
        write_atomically(tmp_path / "gone" / "a", b"")
    with pytest.raises(DiskError, match="a file is where a folder should be"):
        make_folder(tmp_path / "file")
    with pytest.raises(DiskError, match="a file is where its folder should be"):
        make_folder(tmp_path / "file" / "deeper")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", tmp_path / "folder"]


def test_a_limit_of_file_sizes_is_told(tmp_path):
    """What `ulimit -f` does, to a process of its own."""
    path = tmp_path / "file"
    write_atomically(path, b"old")
    program = f"""
import resource, signal
from pathlib import Path
from metarl.core.disk import write_atomically
from metarl.core.errors import DiskError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(Path({str(path)!r}), bytes(2000))
except DiskError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert b"File too large; the limit of ulimit -f" in said.stdout
    assert path.read_bytes() == b"old"


def test_two_that_write_a_file_at_once_do_not_mix(tmp_path, monkeypatch):
    """Another process begins while this one is between its bytes and its name."""
    path = tmp_path / "file"
    fsync, mine, others = os.fsync, os.getpid(), []

    def another(number):
        fsync(number)
        if not others:
            others.append(True)
            monkeypatch.setattr(os, "getpid", lambda: mine + 1)
            write_atomically(path, b"of the other one, which is longer")
            monkeypatch.setattr(os, "getpid", lambda: mine)

    monkeypatch.setattr(os, "fsync", another)
    write_atomically(path, b"mine")
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_is_removed(tmp_path):
    write_atomically(tmp_path / "file", b"good")
    program = f"""
import os, signal
from pathlib import Path
from metarl.core import disk
disk.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
disk.write_atomically(Path({str(tmp_path)!r}, "file"), b"half")
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    remove_partials(tmp_path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"good"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_stays_while_it_gets_another_name(links, tmp_path, monkeypatch):
    """Also on a file system without links, and when a process was killed half-way."""
    latest, previous = tmp_path / "latest", tmp_path / "previous"
    for data in (b"1", b"2", b"3"):
        write_atomically(latest, data)

    def refuse(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr("pathlib.Path.rename", refuse)
    for _ in range(2):
        link_atomically(latest, previous)
        assert (latest.read_bytes(), previous.read_bytes()) == (b"3", b"3")
    write_atomically(latest, b"4")
    assert (latest.read_bytes(), previous.read_bytes()) == (b"4", b"3")
    assert sorted(tmp_path.iterdir()) == [latest, previous]


def test_only_what_the_disk_refuses_is_turned_into_its_error(tmp_path):
    with pytest.raises(ZeroDivisionError), writing(tmp_path):
        1 / 0  # noqa: B018
