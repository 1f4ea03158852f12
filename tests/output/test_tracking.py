"""What tracking= leaves behind, read with each library's own reader and held against the run's TensorBoard file."""

import json
import shutil
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import QUICK, composed, trained
from PIL import Image
from twins import SETTINGS, PowerCut, interrupted, resumed, scalars

from vae.config.schema import Tracking
from vae.output import tracking
from vae.runtime import directory as names
from vae.training.checkpoint import Checkpoint, Saving
from vae.training.loop import train

Program = Callable[..., tuple[int, str, str]]
Points = dict[str, list[tuple[int, float]]]

# What the libraries warn of among themselves.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take it seconds to make."""
    mlflow = pytest.importorskip("mlflow")
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to call the program from, with MLflow's empty tables where the test is about MLflow."""
    monkeypatch.chdir(tmp_path)
    if request.node.callspec.params["tool"] == "mlflow":
        (tmp_path / "mlruns").mkdir()
        shutil.copy(request.getfixturevalue("database"), tmp_path / "mlruns" / "mlflow.db")
    return tmp_path


def in_tensorboard(directory: Path) -> Points:
    """All points of all scalars."""
    return {
        tag: [(step, value) for step, value in rows]
        for tag, rows in scalars(directory).items()
        if all(isinstance(value, float) for _, value in rows)
    }


def assert_same_points(found: Points, directory: Path) -> None:
    """TensorBoard's file holds numbers of 32 bits."""
    expected = in_tensorboard(directory)
    assert set(found) - {"train/images_per_second"} == set(expected)
    assert len(expected) > 20
    for tag, points in expected.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in points], tag
        assert np.allclose([value for _, value in found[tag]], [value for _, value in points], rtol=1e-6), tag


class InMLflow:
    """The runs of a store, through mlflow's client."""

    def __init__(self, place: Path) -> None:
        mlflow = pytest.importorskip("mlflow")
        self.client = mlflow.MlflowClient(f"sqlite:///{place / 'mlruns' / 'mlflow.db'}")
        experiment = self.client.get_experiment_by_name("collapse-lab")
        self.runs = self.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])

    def points(self, run: Any) -> Points:
        tags = [tag for tag in run.data.metrics if "/" in tag]
        rows = {tag: self.client.get_metric_history(run.info.run_id, tag) for tag in tags}
        return {
            tag: [(point.step, point.value) for point in sorted(of, key=lambda p: p.step)] for tag, of in rows.items()
        }

    def pictures(self, run: Any) -> list[Path]:
        place = self.client.download_artifacts(run.info.run_id, "images")
        return sorted(Path(place).glob("*.png"))


def records_of(path: Path) -> Iterator[bytes]:
    """The records of an offline file of wandb, which is a log as LevelDB has it: blocks of 32 KiB, of chunks with a
    checksum (4 bytes), a length (2) and a kind (1): the whole of a record, its first, a middle or its last part."""
    content, at, record = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while at + 7 <= len(content):
        if at % 32768 > 32768 - 7:
            at += -at % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


class InWandB:
    """The rows of a run's offline files, as wandb's own messages."""

    def __init__(self, directory: Path) -> None:
        pytest.importorskip("wandb")
        from wandb.proto.wandb_internal_pb2 import Record

        self.files = sorted(directory.glob("wandb/offline-run-*/run-*.wandb"))
        for _ in range(100):  # its own process writes the end of a file, in its own time
            if all(Record.FromString(list(records_of(path))[-1]).HasField("exit") for path in self.files):
                break
            time.sleep(0.1)
        self.history: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.exits: list[int] = []
        self.ids = set()
        for path in self.files:
            for content in records_of(path):
                record = Record.FromString(content)
                if record.HasField("history"):
                    self.history.append(self._items(record.history.item) | {"_row": record.history.step.num})
                if record.HasField("run"):
                    self.ids.add(record.run.run_id)
                    self.config |= self._items(record.run.config.update)
                if record.HasField("summary"):
                    self.summary |= self._items(record.summary.update)
                if record.HasField("exit"):
                    self.exits.append(record.exit.exit_code)

    @staticmethod
    def _items(items: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for item in items:
            *outer, name = item.nested_key or [item.key]
            place = found
            for key in outer:
                place = place.setdefault(key, {})
            place[name] = json.loads(item.value_json)
        return found

    def points(self) -> Points:
        found: Points = {}
        for row in self.history:
            for tag, value in row.items():
                if "/" in tag and isinstance(value, int | float):
                    found.setdefault(tag, []).append((row["step"], value))
        return found


def test_mlflow_has_what_tensorboard_has(digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    record = trained(run, *QUICK, *digits, "model=mlp_vae", "tracking=mlflow", "train.lr=2e-3")
    store = InMLflow(tmp_path)
    (found,) = store.runs
    assert_same_points(store.points(found), run)
    assert found.info.status == "FINISHED"
    assert found.data.params["train.lr"] == "0.002"
    assert found.data.params["model.name"] == "mlp_vae"
    assert found.data.tags["verdict"] == record["verdict"]
    assert found.data.metrics["kld"] == record["kld"]
    pictures = store.pictures(found)
    assert {path.name.split("+")[0] for path in pictures} >= {"reconstructions", "prior_samples", "traversal"}
    last = [path for path in pictures if path.name.startswith("reconstructions+step+4+")]
    assert np.array_equal(_pixels(last[0]), _pixels(run / "reconstructions.png"))


def test_wandb_has_what_tensorboard_has(digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "online")  # which it is not, whatever the environment says
    run = tmp_path / "run"
    record = trained(run, *QUICK, *digits, "model=mlp_vae", "tracking=wandb", "train.lr=2e-3")
    found = InWandB(run)
    assert_same_points(found.points(), run)
    assert found.exits == [0]
    assert found.config["train"]["lr"] == 0.002
    assert found.config["model"]["name"] == "mlp_vae"
    assert found.summary["verdict"] == record["verdict"]
    assert found.summary["kld"] == record["kld"]
    rows = [row for row in found.history if "reconstructions" in row]
    assert [row["step"] for row in rows] == [2, 4]
    stored = found.files[0].parent / "files" / rows[-1]["reconstructions"]["path"]
    assert np.array_equal(_pixels(stored), _pixels(run / "reconstructions.png"))


def _pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("tool", ["mlflow", "wandb"])
def test_a_resumed_run_is_the_same_run(
    tool: str, digits: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut after step 9, resumed from the checkpoint of step 8, and with more steps than it was meant to have."""
    pytest.importorskip(tool)
    settings = [*SETTINGS, *digits, "model=mlp_vae", f"tracking={tool}"]
    interrupted(place / "run", 9, monkeypatch, *settings)
    resumed(place / "run", *settings, "train.steps=13")
    if tool == "mlflow":
        store = InMLflow(place)
        (found,) = store.runs
        assert_same_points(store.points(found), place / "run")
        assert found.info.status == "FINISHED"
        assert (found.data.params["train.steps"], found.data.tags["train.steps"]) == ("11", "13")
        return
    offline = InWandB(place / "run")
    assert len(offline.files) == 2
    assert len(offline.ids) == 1
    assert_same_points(offline.points(), place / "run")
    rows = [row["_row"] for row in offline.history]
    assert rows == list(range(len(rows))), "the second file counts on from the first"
    assert offline.config["train"]["steps"] == 13
    assert offline.exits == [1, 0]


@pytest.mark.parametrize("tool", ["mlflow", "wandb"])
def test_a_run_that_is_resumed_from_before_what_was_sent(
    tool: str, digits: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a loss that is no number: what step 8 measured has been sent, the checkpoint is that of step 4."""
    pytest.importorskip(tool)
    settings = [*SETTINGS, *digits, "model=mlp_vae", f"tracking={tool}"]
    save = Saving.save

    def cut(self: Saving, checkpoint: Checkpoint, *how: Any) -> None:
        if checkpoint.step == 8:
            raise PowerCut
        save(self, checkpoint, *how)

    (place / "run").mkdir()
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(Saving, "save", cut)
        train(composed(*settings), place / "run")
    resumed(place / "run", *settings)
    if tool == "mlflow":
        store = InMLflow(place)
        (found,) = store.runs
        assert_same_points(store.points(found), place / "run")
        pictures = [path.name for path in store.pictures(found) if path.name.startswith("reconstructions+")]
        assert [name.split("+")[2] for name in pictures] == ["11", "4", "8"]
    else:
        offline = InWandB(place / "run")
        assert_same_points(offline.points(), place / "run")
        assert [row["step"] for row in offline.history if "reconstructions" in row] == [4, 8, 11]


@pytest.mark.parametrize("tool", ["mlflow", "wandb"])
def test_nothing_leaves_the_machine(tool: str, digits: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(tool)
    asked: list[Any] = []
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def connected(self: socket.socket, address: Any) -> Any:
        asked.append(address if isinstance(address, str) else address[0])
        return connect(self, address)

    def resolved(host: Any, *more: Any, **options: Any) -> Any:
        asked.append(host)
        return resolve(host, *more, **options)

    monkeypatch.setattr(socket.socket, "connect", connected)
    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    trained(place / "run", *QUICK, *digits, "model=mlp_vae", f"tracking={tool}")
    assert {str(place) for place in asked if not str(place).startswith("/")} <= {"127.0.0.1", "localhost", "::1"}


@pytest.mark.parametrize("tool", ["mlflow", "wandb"])
def test_a_package_that_is_missing(
    tool: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, tool, None)
    status, out, err = program(f"tracking={tool}")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert f"tracking={tool}: " in err
    assert f"pip install '.[{tool}]'" in err
    assert not (tmp_path / "outputs").exists()


class Held(tracking._Waiting):
    """A library that is busy, until it is not."""

    errors = (RuntimeError,)

    def __init__(self, config: Tracking, directory: Path) -> None:
        super().__init__(config, directory)
        self.id = "a1"
        self.received: list[int] = []
        self.is_busy = True

    def _send_rows(self) -> None:
        if self.is_busy:
            raise RuntimeError("database is locked")
        self.received += [step for step, _ in self.rows]
        self.take(len(self.rows))


def test_what_the_note_says_is_checked(tmp_path: Path) -> None:
    """A run's directory may come from anywhere."""
    held = Held(composed("tracking=mlflow").tracking, tmp_path)
    for note in ('{"tracking=mlflow": {"id": "../x", "rows": 0}}', '{"tracking=mlflow": 3}', "[]", "{", "[" * 10_000):
        (tmp_path / names.TRACKING).write_text(note)
        assert held.noted() == {}, note
    for sent in ("3", '{"train/loss": -1}', '{"train/loss": "x"}'):
        (tmp_path / names.TRACKING).write_text(f'{{"tracking=mlflow": {{"id": "a1", "rows": 4, "sent": {sent}}}}}')
        assert held.noted() == {}, sent
    (tmp_path / names.TRACKING).write_text('{"tracking=mlflow": {"id": "a1", "rows": 4}}')
    assert held.noted() == {"id": "a1", "rows": 4, "sent": {}}
    (tmp_path / names.TRACKING).write_text('{"tracking=wandb": {"id": "a1", "rows": 4}}')
    assert held.noted() == {}


def test_what_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    """No training ends because a database is busy."""
    tracker = Held(composed("tracking=wandb").tracking, tmp_path)
    tracker.scalars({"train/loss": 1.0, "train/mse": float("nan")}, 1)
    tracker.send()
    assert tracker.received == []
    tracker.is_busy = False
    tracker.scalars({"train/loss": 2.0}, 2)
    tracker.send()
    assert tracker.received == [1, 2]


def test_neither_is_imported_where_it_is_not_asked_for(
    digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, tool, None)  # an import of it fails
    trained(tmp_path / "run", *QUICK, *digits, "model=mlp_vae")
    assert not (tmp_path / "run" / names.TRACKING).exists()


@pytest.mark.parametrize("tool", ["mlflow"])
def test_a_run_can_be_tracked_from_its_resumption_on(
    tool: str, digits: list[str], program: Program, place: Path
) -> None:
    assert program(*QUICK, *digits, "model=mlp_vae", "hydra.run.dir=run")[0] == 0
    for steps in (6, 8):
        status, _, err = program("resume=run", f"train.steps={steps}", f"tracking={tool}")
        assert status == 0, err
    store = InMLflow(place)
    (found,) = store.runs
    assert [step for step, _ in store.points(found)["test/mse"]] == [6, 8]
    assert not (place / "run" / names.CHANGES).exists(), "nothing of the run itself has changed"
