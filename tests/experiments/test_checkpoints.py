"""Checkpoints are whole or absent, and never executed."""

from __future__ import annotations

import errno
import os
import pickle

import pytest
import torch

from metarl.core.errors import MetaRLError
from metarl.experiments import checkpoints


def test_what_is_saved_is_loaded(tmp_path):
    content = {
        "weights": {"a": torch.arange(3.0)},
        "count": 3,
        "best": None,
        "name": "x",
        "list": [1, 2.5],
    }
    checkpoints.save(tmp_path / "c.pt", content)
    loaded = checkpoints.load(tmp_path / "c.pt")
    assert torch.equal(loaded["weights"]["a"], torch.arange(3.0))
    assert {key: loaded[key] for key in ("count", "best", "name", "list")} == {
        key: content[key] for key in ("count", "best", "name", "list")
    }


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_checkpoint_is_one_clear_line(tmp_path, share):
    path = tmp_path / "c.pt"
    checkpoints.save(path, {"weights": torch.zeros(1000)})
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(MetaRLError, match=r"c\.pt is truncated, damaged or no checkpoint") as error:
        checkpoints.load(path)
    assert "\n" not in str(error.value)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_code_in_a_checkpoint_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": checkpoints.FORMAT, "bomb": Bomb()}, tmp_path / "c.pt")
    (tmp_path / "d.pt").write_bytes(pickle.dumps(Bomb(), protocol=2))
    for name in ("c.pt", "d.pt"):
        with pytest.raises(MetaRLError):
            checkpoints.load(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_other_formats_and_foreign_files_are_refused(tmp_path, monkeypatch):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "foreign.pt")
    with pytest.raises(MetaRLError, match="was not written by metarl"):
        checkpoints.load(tmp_path / "foreign.pt")
    monkeypatch.setattr(checkpoints, "FORMAT", checkpoints.FORMAT + 1)
    checkpoints.save(tmp_path / "newer.pt", {})
    monkeypatch.undo()
    with pytest.raises(MetaRLError, match="has format 2, written by metarl"):
        checkpoints.load(tmp_path / "newer.pt")
    with pytest.raises(MetaRLError, match="no such file"):
        checkpoints.load(tmp_path / "absent.pt")


def test_full_disk_leaves_the_old_file_and_no_scraps(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    checkpoints.save(path, {"count": 1})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MetaRLError, match=r"the disk is full.*--resume"):
        checkpoints.save(path, {"count": 2})
    monkeypatch.undo()
    assert checkpoints.load(path)["count"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_flipped_bit_is_told_wherever_it_is(tmp_path):
    """In every record of the file; what lies between them (padding, headers) is harmless or
    refused."""
    content = {"weights": torch.randn(300), "count": 3}
    path = tmp_path / "c.pt"
    checkpoints.save(path, content)
    data, refused = path.read_bytes(), 0
    for place in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            loaded = checkpoints.load(path)
        except MetaRLError:
            refused += 1
        else:
            assert torch.equal(loaded["weights"], content["weights"])
            assert loaded["count"] == 3
    assert refused > 1200 / 7
