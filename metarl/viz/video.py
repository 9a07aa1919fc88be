"""Videos: a stream of pictures of one size as a file, .gif or .mp4."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metarl.core.errors import MetaRLError, install_command
from metarl.experiments.checkpoints import write_atomically

Frames = Iterator[NDArray[np.uint8]]  # [height, width, 3] each
Encoder = Callable[[Path, Frames, int], None]


def encoder(path: Path) -> Encoder:
    """What writes a file of this name.

    Raises:
        MetaRLError: a suffix that is not known, or its library is not installed.
    """
    if path.suffix == ".gif":
        return _gif
    if path.suffix != ".mp4":
        raise MetaRLError(f"{path}: the name of a picture ends in .png, of a video in .gif or .mp4")
    if find_spec("imageio_ffmpeg") is None:
        raise MetaRLError(
            f"{path} needs imageio-ffmpeg: {install_command('video')}, or write a .gif"
        )
    return _mp4


def write(path: Path, frames: Frames, fps: int) -> Path:
    """All `frames`, `fps` a second, at least one → a file at `path`, which is whole or not there.

    Raises:
        MetaRLError: as `encoder`, or the disk refuses.
    """
    encode = encoder(path)
    with TemporaryDirectory() as folder:
        encode(whole := Path(folder) / path.name, frames, fps)
        write_atomically(path, whole.read_bytes())
    return path


def _gif(path: Path, frames: Frames, fps: int) -> None:
    """Its unit of time is 10 ms, and viewers slow down what is faster than 20 ms."""
    images = (Image.fromarray(frame).quantize(method=Image.Quantize.FASTOCTREE) for frame in frames)
    duration = 10 * max(2, round(100 / fps))
    next(images).save(path, save_all=True, append_images=images, duration=duration, loop=0)


def _mp4(path: Path, frames: Frames, fps: int) -> None:
    """H.264 in yuv420p, which every player shows; it halves the colours' resolution, so sizes are even."""
    import imageio_ffmpeg

    even = (frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames)
    first = next(even)
    size = (first.shape[1], first.shape[0])
    sink = imageio_ffmpeg.write_frames(str(path), size, fps=fps, quality=8, macro_block_size=2)
    with closing(sink):
        sink.send(None)
        for frame in chain([first], even):
            try:
                sink.send(np.ascontiguousarray(frame))
            except OSError as error:
                raise MetaRLError(
                    f"{path.name}: ffmpeg stopped, and says why above; write a .gif instead"
                ) from error
