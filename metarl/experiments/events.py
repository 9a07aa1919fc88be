"""TensorBoard's files of a run, over environment steps::

events.out.tfevents.….config      the configuration: as text, and for the HPARAMS tab
events.out.tfevents.….metrics     the numbers of every iteration
events.out.tfevents.….pictures    what was drawn at the end
events.out.tfevents.….result      the scores of the best checkpoint

Every process that trains writes its own. Metrics stay when a run is resumed, the others are
replaced. Torch's writer is not used: it fails in a thread, where nobody hears it.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.config.files import to_yaml
from metarl.config.schema import Config, to_dict
from metarl.core.disk import write_atomically, writing
from metarl.experiments.tags import flat

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary


class MetricEvents:
    """The file that grows with every iteration."""

    def __init__(self, run: Path, env_steps: int):
        """Of a run that goes on after `env_steps`: what was told of later ones is not shown.

        Raises:
            OSError: the disk refuses.
        """
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self.file = _path(run, "metrics").open("ab")
        self.file.write(_event(file_version="brain.Event:2"))
        if env_steps:
            begins = SessionLog(status=SessionLog.START)
            self.file.write(_event(step=env_steps + 1, session_log=begins))
        self.file.flush()

    def write(self, numbers: Mapping[str, float], env_steps: int) -> None:
        """Append numbers by tag.

        Raises:
            OSError: the disk refuses.
        """
        from torch.utils.tensorboard.summary import scalar

        for tag, value in numbers.items():
            self.file.write(_event(step=env_steps, summary=scalar(tag, value)))
        self.file.flush()


def begin_events(run: Path, config: Config) -> None:
    """Write the configuration; pictures and scores of fewer steps are no longer shown.

    No experiment is declared: TensorBoard would compare runs by the keys of the first one alone.

    Raises:
        CheckpointError: the disk refuses.
    """
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import SessionStartInfo
    from torch.utils.tensorboard.summary import text

    with writing(run):
        for file in _files(run, "pictures") + _files(run, "result"):
            file.unlink()
    code = "".join(f"    {line}\n" for line in to_yaml(config).splitlines())
    start = SessionStartInfo(start_time_secs=time.time())
    for key, value in flat(to_dict(config)).items():
        match value:
            case None:
                pass
            case bool():
                start.hparams[key].bool_value = value
            case int() | float():
                start.hparams[key].number_value = value
            case _:
                start.hparams[key].string_value = (
                    value if isinstance(value, str) else json.dumps(value)
                )
    session = _hparams(SESSION_START_INFO_TAG, session_start_info=start)
    _replace(run, "config", [text("config", code), session], env_steps=0)


def end_events(run: Path, scores: Mapping[str, float], env_steps: int) -> None:
    """Write the scores of a finished run.

    Raises:
        CheckpointError: the disk refuses.
    """
    from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
    from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import SessionEndInfo
    from torch.utils.tensorboard.summary import scalar

    end = SessionEndInfo(status=STATUS_SUCCESS, end_time_secs=time.time())
    session = _hparams(SESSION_END_INFO_TAG, session_end_info=end)
    _replace(run, "result", [*(scalar(*score) for score in scores.items()), session], env_steps)


def picture_events(run: Path, pictures: Mapping[str, bytes], env_steps: int) -> None:
    """Write pictures, .png, by tag.

    Raises:
        CheckpointError: the disk refuses.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary

    summaries = []
    for tag, png in pictures.items():
        width, height = (int.from_bytes(png[place : place + 4]) for place in (16, 20))
        image = Summary.Image(
            height=height, width=width, colorspace=4, encoded_image_string=png
        )  # 4: with transparency
        summaries.append(Summary(value=[Summary.Value(tag=tag, image=image)]))
    _replace(run, "pictures", summaries, env_steps)


def _hparams(tag: str, **content: Any) -> Summary:
    """What the HPARAMS tab reads: a value without data, with `content` as its metadata."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.metadata import NULL_TENSOR, create_summary_metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    metadata = create_summary_metadata(HParamsPluginData(**content))
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=NULL_TENSOR)])


def _replace(run: Path, kind: str, summaries: Iterable[Summary], env_steps: int) -> None:
    """Write all of a file in one step."""
    events = [_event(step=env_steps, summary=summary) for summary in summaries]
    with writing(run):
        old = _files(run, kind)
        path = _path(run, kind)
        write_atomically(path, b"".join([_event(file_version="brain.Event:2"), *events]))
        for file in old:
            file.unlink()


def _files(run: Path, kind: str) -> list[Path]:
    return sorted((run / "tensorboard").glob(f"events.out.tfevents.*.{kind}"))


def _path(run: Path, kind: str) -> Path:
    """A new file: TensorBoard reads those of a folder in the order of their names.

    It is behind the others even where the clock was put back.
    """
    folder = run / "tensorboard"
    folder.mkdir(exist_ok=True)
    begun = [int(file.name.split(".")[3]) for file in _files(run, kind)]
    seconds = max([int(time.time()), *(second + 1 for second in begun)])
    return folder / f"events.out.tfevents.{seconds}.{os.getpid()}.{kind}"


def _event(**content: Any) -> bytes:
    """An event as a file has it, with its length and checksums."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    record = io.BytesIO()
    RecordWriter(record).write(Event(wall_time=time.time(), **content).SerializeToString())
    return record.getvalue()
