"""Files that are written whole or not at all, on a disk that may refuse."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metarl.core.errors import DiskError

_PARTIAL = ".partial"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REMEDIES = {
    errno.EACCES: "make it writable, or write elsewhere",
    errno.EPERM: "make it writable, or write elsewhere",
    errno.EROFS: "mount it to be written, or write elsewhere",
    errno.ENOENT: "its folder is not there: see what removed it, or write elsewhere",
    errno.ENOTDIR: "a file is where its folder should be: move it, or write elsewhere",
    errno.EEXIST: "a file is where a folder should be: move it, or write elsewhere",
    errno.EISDIR: "a folder is where the file should be: move it, or write elsewhere",
    errno.EFBIG: "the limit of ulimit -f, or of the file system, is too low",
}


def disk_error(path: Path, error: OSError) -> DiskError:
    """What to tell a user whose disk refuses to write `path`."""
    if error.errno in _FULL:
        return DiskError(
            f"the disk is full: {path} could not be written; "
            "free some space and repeat the command (a training with --resume)"
        )
    remedy = _REMEDIES.get(error.errno or 0, "see what is wrong with the disk, or write elsewhere")
    return DiskError(f"{path} could not be written: {error.strerror}; {remedy}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the disk refuses meanwhile is told of `path`.

    Raises:
        DiskError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(path, error) from None


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        DiskError: the disk refuses, or a file is there.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Replace `path` by `data` in one step that survives a crash.

    Of several processes that write it at once, the last one's is there, whole.

    Raises:
        DiskError: the disk is full or the folder cannot be written.
    """
    partial = _partial(path)
    with writing(path):
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def link_atomically(path: Path, other: Path) -> None:
    """Let `other` be another name of the file that is at `path` now, which stays at any moment.

    Raises:
        DiskError: the disk refuses.
    """
    partial = _partial(other)
    with writing(other):
        partial.unlink(missing_ok=True)
        try:
            os.link(path, partial)
        except OSError:  # a file system without links
            write_atomically(other, path.read_bytes())
        else:
            partial.replace(other)
            partial.unlink(missing_ok=True)  # it stays where both were one file already


def _partial(path: Path) -> Path:
    """What `path` is called until it is whole; another one in every process."""
    return path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")


def remove_partials(folder: Path) -> None:
    """Remove what killed processes left of files; nobody may be writing there.

    Raises:
        DiskError: the disk refuses.
    """
    with writing(folder):
        for partial in folder.glob(f".*{_PARTIAL}"):
            partial.unlink()
