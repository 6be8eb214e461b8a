"""TensorBoard's files are read by its own reader, and W&B's by the real package."""

import json
import struct
import zlib
from types import SimpleNamespace
from typing import Any

import pytest

from instructgpt.errors import UserError
from instructgpt.identity import Identity, write_finished
from instructgpt.metrics import MetricWriter, read_metrics
from instructgpt.stages.blocks import check_trackers
from instructgpt.stages.recipe import stage_config
from instructgpt.trackers import TRACKERS, RunInfo, check_login, find_trackers
from tests.configs.test_flags import REPO, parse

OFFLINE, ONLINE = SimpleNamespace(mode="offline"), SimpleNamespace(mode="online")

RUN = RunInfo(
    name="mini/sft",
    group="mini",
    identity="one",
    hyperparameters={"seed": 3, "sft.loss_on": "all", "mesh": [1, 2], "ema": False},
)
ROWS = [("Where does | Dela live?", "In <b>Ona</b>.\n# Really"), ("*Two*", "")]


def png() -> bytes:
    """A picture of 2 x 1 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + bytes(6))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


class Printer:
    """A tracker of a user's own, which notes what it is told."""

    told: list[Any] = []  # noqa: RUF012

    def __init__(self, workdir, run, *, start):
        self.told.append(("open", run.name, start))

    def scalars(self, step, values):
        self.told.append((step, values))

    def table(self, step, name, columns, rows):
        self.told.append((step, name, columns, rows))

    def figure(self, step, name, png):
        self.told.append((step, name, len(png)))

    def close(self, *, finished):
        self.told.append(("close", finished))


def board(folder, name: str = "event_accumulator"):
    """The folder as TensorBoard reads it."""
    module = pytest.importorskip(f"tensorboard.backend.event_processing.{name}")
    return module.EventAccumulator(str(folder)).Reload()


def texts(reader, tag: str) -> list[tuple[int, list[str]]]:
    """(step, cells) of each table."""
    return [
        (event.step, [cell.decode() for cell in event.tensor_proto.string_val])
        for event in reader.Tensors(f"{tag}/text_summary")
    ]


def test_tensorboard_reads_hyperparameters_texts_and_pictures(tmp_path):
    reader_of = pytest.importorskip("tensorboard.plugins.hparams.metadata")
    with MetricWriter(tmp_path, run=RUN) as writer:
        writer.resume(0)
        writer.write(2, {"loss": 0.5})
        writer.show_table(2, "samples", ("prompt", "response"), ROWS)
        writer.show_figure(2, "win_rates", png())
        writer.show_scalars(2, {"win_rate/ppo": 0.25})
    found = board(tmp_path)
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(2, 0.5)]
    assert found.Scalars("win_rate/ppo")[0].value == 0.25
    ((step, cells),) = texts(found, "samples")
    assert step == 2 and cells[:2] == ["**prompt**", "**response**"]
    # Indented by four, Markdown shows a text as it is.
    assert cells[2:] == [
        "    Where does | Dela live?",
        "    In <b>Ona</b>.\n    # Really",
        "    *Two*",
        "",
    ]
    (picture,) = found.Images("win_rates")
    assert (picture.width, picture.height) == (2, 1)
    assert picture.encoded_image_string == png()
    tag = "_hparams_/session_start_info"
    content = found.SummaryMetadata(tag).plugin_data.content
    start = reader_of.parse_session_start_info_plugin_data(content)
    assert start.group_name == "mini/sft"
    assert start.hparams["seed"].number_value == 3
    assert start.hparams["sft.loss_on"].string_value == "all"
    assert start.hparams["mesh"].string_value == "[1, 2]"
    assert start.hparams["ema"].bool_value is False
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["loss"] == 0.5
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1


def test_nothing_is_there_twice_after_a_kill(tmp_path):
    for begin in (0, 2):  # the second time from a checkpoint of step 2
        writer = MetricWriter(tmp_path, run=RUN)
        writer.resume(begin)
        for step in range(begin + 1, 4):
            writer.write(step, {"loss": step / 2})
            writer.show_table(step, "samples", ("prompt", "response"), ROWS)
            writer.show_figure(step, "figure", png())
        writer.close()
    assert len(list(tmp_path.glob("events.*"))) == 2  # within the same second
    # The reader of TensorBoard's pages, to which curves and pictures are tensors too.
    found = board(tmp_path, "plugin_event_accumulator")
    for tag in ("loss", "samples/text_summary", "figure"):
        assert [event.step for event in found.Tensors(tag)] == [1, 2, 3]


def test_a_tracker_of_ones_own_is_told_everything(tmp_path):
    Printer.told.clear()
    with MetricWriter(tmp_path, names=f"{__name__}:Printer", run=RUN) as writer:
        writer.resume(4)
        assert not Printer.told  # opened at the first write
        writer.write(5, {"loss": 1})
        writer.show_table(5, "samples", ("prompt",), [("Hi",)])
        writer.show_figure(5, "figure", png())
    assert Printer.told == [
        *(("open", "mini/sft", 5), (5, {"loss": 1.0})),
        (5, "samples", ("prompt",), [("Hi",)]),
        *((5, "figure", len(png())), ("close", True)),
    ]
    assert not list(tmp_path.glob("events.*"))


def test_a_tracker_is_told_that_a_run_failed(tmp_path):
    Printer.told.clear()
    with (
        pytest.raises(KeyError),
        MetricWriter(tmp_path, names=f"{__name__}:Printer") as writer,
    ):
        writer.write(1, {"loss": 1})
        raise KeyError
    assert Printer.told[-1] == ("close", False)


def test_unknown_and_missing_trackers_end_in_one_line(monkeypatch):
    with pytest.raises(UserError, match=r"no tracker 'tensorbord'; known: tensorboard"):
        find_trackers("tensorbord", where="config.trackers")
    with pytest.raises(UserError, match=r"config\.trackers='nowhere:Tracker'"):
        find_trackers("nowhere:Tracker", where="config.trackers")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        find_trackers("tensorboard, wandb", where="config.trackers")
    assert not find_trackers("", where="")
    assert find_trackers("tensorboard", where="") == {
        "tensorboard": TRACKERS["tensorboard"]
    }


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_recipe_gives_its_trackers_to_all_stages():
    names = f"tensorboard,{__name__}:Printer"
    flag = f"--config.trackers={names}"
    config = parse(f"{REPO}/configs/recipe.py:smoke", flag)
    for name in config.order:
        assert check_trackers(stage_config(config, name)) == names
    config.trackers = "tensorbord"
    with pytest.raises(UserError, match=r"config\.trackers: there is no tracker"):
        check_trackers(stage_config(config, "sft"))


@pytest.mark.filterwarnings("ignore")  # the package's own
def test_wandb_without_a_key_ends_in_one_line(monkeypatch):
    wandb = pytest.importorskip("wandb")

    def login():
        raise wandb.Error("No API key configured.\nMore of it.")

    monkeypatch.setattr("wandb.login", login)
    monkeypatch.setattr("wandb.setup", lambda: SimpleNamespace(settings=OFFLINE))
    check_login("wandb")
    monkeypatch.setattr("wandb.setup", lambda: SimpleNamespace(settings=ONLINE))
    with pytest.raises(UserError, match="No API key configured; or start"):
        check_login("tensorboard, wandb")
    check_login("tensorboard")


@pytest.mark.filterwarnings("ignore")  # the package's own
def test_wandb_keeps_an_offline_run_and_its_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    sent = []
    run_class = pytest.importorskip("wandb.sdk.wandb_run").Run
    log = run_class.log

    def noted(self, data, *args, **kwargs):
        sent.append((self.id, data["step"], sorted(data)[0]))
        return log(self, data, *args, **kwargs)

    monkeypatch.setattr(run_class, "log", noted)

    def go(begin: int, end: int, identity: str = "one") -> str:
        run = RunInfo("mini/sft", "mini", identity, {"seed": 3})
        writer = MetricWriter(tmp_path, names="wandb", run=run)
        writer.resume(begin)
        for step in range(begin + 1, end + 1):
            writer.write(step, {"loss": step / 2})
        writer.show_table(end, "samples", ("prompt", "response"), ROWS)
        writer.show_figure(end, "figure", png())
        writer.close()
        return json.loads((tmp_path / "wandb.json").read_text())["id"]

    first = go(0, 3)
    assert go(1, 4) == first
    names = [(step, name) for run, step, name in sent if run == first]
    assert names[:3] == [(1, "loss"), (2, "loss"), (3, "loss")]
    assert names[3:5] == [(3, "samples"), (3, "figure")]
    # Steps 1 and 2 are not sent again; 3 may be, as the kill was within it.
    assert [step for step, _ in names[5:]] == [3, 4, 4, 4]
    assert go(1, 2, identity="another") != first  # such as with a lower rate
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 3


def test_what_wandb_keeps_is_no_part_of_a_finished_stage(tmp_path):
    for name in ("wandb/offline-run-1/run.wandb", "wandb.json", "metrics.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    write_finished(tmp_path, Identity({}, {}, "", {}))
    finished = json.loads((tmp_path / "finished.json").read_text())
    assert list(finished["files"]) == ["metrics.jsonl"]
