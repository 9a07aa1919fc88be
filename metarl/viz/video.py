"""Videos: a stream of pictures of one size as a file, .gif or .mp4."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from imageio.v2 import get_writer

from metarl.core.disk import write_atomically
from metarl.core.errors import ConfigError, MetaRLError, install_command
from metarl.evaluation.episodes import Picture


def check_ffmpeg() -> None:
    """Raises a ConfigError if the library that writes .mp4 is not installed."""
    if find_spec("imageio_ffmpeg") is None:
        raise ConfigError(
            f"an .mp4 needs imageio-ffmpeg: {install_command('video')}, or write a .gif"
        )


def write_video(out: Path, frames: Iterable[Picture], fps: int) -> Path:
    """One or more `frames`, `fps` a second → a file at `out`; until then an old one stays.

    Raises:
        MetaRLError: ffmpeg fails, or the disk refuses.
    """
    with TemporaryDirectory() as folder:
        whole = Path(folder) / out.name
        with _open(whole, fps) as writer:
            for frame in frames:
                try:
                    writer.append_data(frame)
                except OSError as error:
                    raise MetaRLError(
                        f"{out.name}: ffmpeg stopped, and says why above; write a .gif instead"
                    ) from error
        write_atomically(out, whole.read_bytes())
    return out


def speed(out: Path, fps: int) -> float:
    """The frames a second of a video at `out` for which `fps` are asked.

    A .gif counts in 10 ms, and viewers slow down what is faster than 20 ms.
    """
    return 100 / max(2, round(100 / fps)) if out.suffix == ".gif" else fps


def _open(path: Path, fps: int) -> Any:
    if path.suffix == ".gif":
        return get_writer(path, bits=8, loop=0, duration=round(1000 / speed(path, fps)))
    # H.264 in yuv420p, which every player shows, needs even sizes
    crop = ["-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2"]
    return get_writer(path, fps=fps, quality=8, macro_block_size=1, output_params=crop)
