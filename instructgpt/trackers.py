"""Trackers, which show a run while it trains: TensorBoard, Weights & Biases.

`config.trackers` names them. A run's own record is `metrics.jsonl`, which is written
whatever the trackers are. A third tracker is a class with the methods of `Tracker` and
an entry in `TRACKERS`, or a class of one's own that the config names as module:Class.
"""

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.proto.plugin_text_pb2 import TextPluginData
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.proto.tensor_pb2 import TensorProto
from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto

from instructgpt.errors import UserError
from instructgpt.named import find_named
from instructgpt.outputs import new_file

DEFAULT = "tensorboard"
WANDB_FOLDER, WANDB_FILE = "wandb", "wandb.json"  # in a workdir
_FLUSH_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What a tracker is told of a run before the first metric."""

    name: str = ""  # name of the run, such as "mini/sft"
    group: str = ""  # name of the recipe that the run is part of; "" if there is none
    # A digest of everything that determines the run's results.
    identity: str = ""
    # Values of the config by flat key, such as "train.batch_size".
    hyperparameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Tracker(Protocol):
    """Shows a run's metrics, texts and figures elsewhere than in `metrics.jsonl`.

    It is built as `Tracker(workdir, run, start=STEP)` right before the first thing that
    it shows. `start` is the first step of this process: whatever the tracker has of
    that step and later ones is of a run that was killed, and is shown anew.

    Raises:
      UserError: from the methods, if the tracker cannot be reached or used.
      OSError: from the methods, if a file cannot be written.
    """

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the metrics of a step; values may be NaN or infinite."""

    def table(
        self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence]
    ) -> None:
        """Shows a table of texts; each row has a cell per column."""

    def figure(self, step: int, name: str, png: bytes) -> None:
        """Shows a picture, the content of a PNG file."""

    def close(self, *, finished: bool) -> None:
        """Ends the showing; `finished` says whether the run came to its end."""


class TensorBoard:
    """Writes an event file into the workdir, synchronously.

    tensorboardX's own writer has a thread, which fails with a traceback on a full disk,
    and a multiprocessing queue, which some machines do not support.
    """

    def __init__(self, workdir: Path, run: RunInfo, *, start: int | None):
        # The names of a workdir's event files sort by time. The number keeps those
        # apart that are begun in the same second, which would share one name.
        number = len(list(workdir.glob("events.out.tfevents.*")))
        self._events = EventsWriter(str(workdir / "events"), f".{number}")
        self._flushed = 0.0
        if start is not None:  # TensorBoard forgets that step and all later ones
            log = SessionLog(status=SessionLog.START)
            for value in (dict(file_version="brain.Event:2"), dict(session_log=log)):
                self._events.write_event(Event(step=start, **value))
        if run.hyperparameters:
            self._add(_hyperparameters(run), 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds points to the curves of the tab SCALARS."""
        for name, value in values.items():
            self._add(summary.scalar(name, value), step)

    def table(
        self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence]
    ) -> None:
        """Adds a table to the tab TEXT."""
        cells = [[f"**{column}**" for column in columns]]
        cells += [[_verbatim(str(cell)) for cell in row] for row in rows]
        self._add(_text_table(name, cells), step)

    def figure(self, step: int, name: str, png: bytes) -> None:
        """Adds a picture to the tab IMAGES."""
        width, height = struct.unpack(">II", png[16:24])  # of the file's header
        image = Summary.Image(
            encoded_image_string=png, width=width, height=height, colorspace=4
        )
        self._add(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def close(self, *, finished: bool) -> None:
        """Flushes and closes the file."""
        del finished
        self._events.close()

    def _add(self, value: Summary, step: int) -> None:
        now = time.time()
        self._events.write_event(Event(summary=value, step=step, wall_time=now))
        if now - self._flushed > _FLUSH_SECONDS:  # lets users follow a run
            self._events.flush()
            self._flushed = now


def _hyperparameters(run: RunInfo) -> Summary:
    """The start of a session for the tab HPARAMS.

    The tab takes the metrics from the scalars of the same folder. It would show those
    keys alone that an experiment's summary lists, so there is none: runs of different
    stages have different keys.
    """
    data = HParamsPluginData(version=0)
    data.session_start_info.group_name = run.name
    data.session_start_info.start_time_secs = time.time()
    for key, value in run.hyperparameters.items():
        entry = data.session_start_info.hparams[key]
        if isinstance(value, bool):
            entry.bool_value = value
        elif isinstance(value, int | float):
            entry.number_value = value
        else:
            entry.string_value = value if isinstance(value, str) else json.dumps(value)
    plugin = SummaryMetadata.PluginData(
        plugin_name="hparams", content=data.SerializeToString()
    )
    tag, metadata = "_hparams_/session_start_info", SummaryMetadata(plugin_data=plugin)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata)])


def _verbatim(text: str) -> str:
    """Markdown that shows a text as it is, with its line breaks and signs."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _text_table(name: str, cells: Sequence[Sequence[str]]) -> Summary:
    """A two-dimensional array of texts, which TensorBoard shows as a table."""
    plugin = SummaryMetadata.PluginData(
        plugin_name="text", content=TextPluginData(version=0).SerializeToString()
    )
    shape = [TensorShapeProto.Dim(size=n) for n in (len(cells), len(cells[0]))]
    tensor = TensorProto(
        dtype="DT_STRING",
        string_val=[cell.encode() for row in cells for cell in row],
        tensor_shape=TensorShapeProto(dim=shape),
    )
    tag, metadata = f"{name}/text_summary", SummaryMetadata(plugin_data=plugin)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])


class WandB:
    """Logs to a run of Weights & Biases; its `WANDB_…` variables all count.

    `wandb.json` in the workdir keeps the run's id, so that a resumed run goes on there.
    What was sent cannot be taken back, but a resumed run repeats the same numbers, so
    steps that were sent are left out; only the last one may be sent twice. A run that
    goes on with another identity, such as a lower rate, is another run there.
    """

    def __init__(self, workdir: Path, run: RunInfo, *, start: int | None):
        import wandb

        del start
        self._file = workdir / WANDB_FILE
        self._state = _read_state(self._file)
        if self._state.get("identity") != run.identity:
            fresh = uuid.uuid4().hex[:12]
            self._state = {"id": fresh, "identity": run.identity, "sent": -1}
        self._sent = int(self._state["sent"])
        with _one_line():
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or "instructgpt",
                id=self._state["id"],
                name=os.environ.get("WANDB_NAME") or run.name or workdir.name,
                group=os.environ.get("WANDB_RUN_GROUP") or run.group or None,
                config=dict(run.hyperparameters),
                dir=str(workdir),
                resume="allow",
                reinit="create_new",
                # Another process's curves have other steps, so `step` is a metric.
                settings=wandb.Settings(console="off", silent=True),
            )
            self._run.config.update(dict(run.hyperparameters), allow_val_change=True)
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")
        self._keep()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs metrics."""
        self._log(step, values)

    def table(
        self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence]
    ) -> None:
        """Logs a table."""
        import wandb

        data = [list(row) for row in rows]
        self._log(step, {name: wandb.Table(columns=list(columns), data=data)})

    def figure(self, step: int, name: str, png: bytes) -> None:
        """Logs a picture."""
        import wandb
        from PIL import Image

        self._log(step, {name: wandb.Image(Image.open(io.BytesIO(png)))})

    def close(self, *, finished: bool) -> None:
        """Waits until all is sent, or kept in the workdir in offline mode."""
        with _one_line():
            self._run.finish(exit_code=0 if finished else 1)
        if finished:
            self._state["sent"] = self._state.get("at", self._state["sent"])
            self._keep()

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        if step <= self._sent:
            return
        if step > self._state.get("at", step):  # all of the step before is sent
            self._state["sent"] = self._state["at"]
            self._keep()
        self._state["at"] = step
        with _one_line():
            self._run.log({"step": step, **values})

    def _keep(self) -> None:
        state = {name: self._state[name] for name in ("id", "identity", "sent")}
        with new_file(self._file) as partial:
            partial.write_text(json.dumps(state) + "\n")


def _read_state(path: Path) -> dict[str, Any]:
    """The content of `wandb.json`; empty if it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        state = json.loads(path.read_bytes())
        return {name: state[name] for name in ("id", "identity", "sent")}
    return {}


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Turns the errors of wandb into one line with what to do."""
    import wandb

    try:
        yield
    except wandb.Error as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"config.trackers: wandb: {first.rstrip('.')}; or start the same line with "
            "WANDB_MODE=offline, which keeps all in the workdir for `wandb sync`"
        ) from error


Maker = Callable[..., Tracker]
TRACKERS: dict[str, Maker] = {"tensorboard": TensorBoard, "wandb": WandB}


def find_trackers(names: str, *, where: str) -> dict[str, Maker]:
    """The classes of trackers by their names in a config.

    Args:
      names: Keys of `TRACKERS` and names as module:Class, separated by commas; "" for
        no tracker.
      where: The config key that holds them, for errors.

    Raises:
      UserError: a tracker is not known, or its package is not installed.
    """
    found: dict[str, Maker] = {}
    for name in map(str.strip, names.split(",")):
        if ":" in name:
            found[name] = find_named(name, where=where, example="my_tracker:Printer")
        elif name in TRACKERS:
            found[name] = TRACKERS[name]
        elif name:
            raise UserError(
                f"{where}: there is no tracker {name!r}; known: {', '.join(TRACKERS)}; "
                "or name a class of yours as module:Class"
            )
    if "wandb" in found:
        _check_wandb(where)
    return found


def check_login(names: str) -> None:
    """Sees to it, before long work, that what is to be sent can be sent.

    On a terminal wandb asks for its key if it has none.

    Raises:
      UserError: wandb is among the names, is not in offline mode, and has no key.
    """
    if "wandb" not in map(str.strip, names.split(",")):
        return
    import wandb

    with _one_line():
        if wandb.setup().settings.mode in ("online", "shared"):
            wandb.login()


def _check_wandb(where: str) -> None:
    if importlib.util.find_spec("wandb") is None:
        raise UserError(
            f"{where}: the tracker wandb needs its package; run `pip install wandb`"
        )
