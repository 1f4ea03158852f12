"""Files and settings that are made to do harm are refused in one line that names them."""

import dataclasses
import io
import itertools
import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, ROOT, composed
from PIL import Image
from torch import Tensor

import vae
from vae.config.errors import InputError
from vae.data import readers
from vae.measure.watch import Trajectory
from vae.output.recorder import Recorder
from vae.report import page, runs
from vae.runtime import directory as names
from vae.runtime import files
from vae.training import checkpoint
from vae.training.checkpoint import Parts
from vae.training.loop import train
from vae.training.setup import Setup, prepare

Program = Callable[..., tuple[int, str, str]]
MLP = ["model=mlp_vae", "model.encoder_widths=[8]", "model.decoder_widths=[8]", "evaluation.iw_samples=2"]
EVERY_PART = [  # has a state
    *("model=linear_vae", "objective=optimal_gaussian", "anneal=delayed", "anneal.threshold=10", "cure=aggressive"),
]


def saved_by(directory: Path) -> dict[str, Any]:
    """A checkpoint as it lies on the disk."""
    content: dict[str, Any] = torch.load(directory / names.CHECKPOINT, weights_only=True)
    return content


def restore(directory: Path, setup: Setup) -> None:
    """All that load_run and resume= do with a checkpoint, up to the first step."""
    saved = checkpoint.read(directory)
    saved.model()
    setup.parts.restore(saved)
    Recorder(setup.subject, directory / "resumed", setup.schedule.final, setup.clock, saved.recorder).close()


@pytest.fixture(scope="module")
def content(digits: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("trained")
    train(composed(*QUICK, *digits, *MLP), directory)
    return saved_by(directory)


def refused(content: Any, directory: Path) -> str:
    torch.save(content, directory / names.CHECKPOINT)
    with pytest.raises(InputError) as error:
        vae.load_run(directory)
    said = str(error.value)
    assert said.startswith(str(directory / names.CHECKPOINT))
    assert len(said.splitlines()) == 1
    return said


@pytest.fixture(scope="module")
def resumable(digits: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Setup, dict[str, Any]]:
    """A run in which every part has a state, and its checkpoint."""
    config = composed(*QUICK, *digits, *EVERY_PART)
    directory = tmp_path_factory.mktemp("resumable")
    train(config, directory)
    return prepare(config), saved_by(directory)


WRONG: dict[str, Any] = {
    "nothing": None,
    "a truth value": True,
    "a whole number": 3,
    "a fraction": 0.5,
    "no number": math.nan,
    "a huge number": 10**30,
    "a string": "x",
    "a list": [],
    "a list of tensors": [torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2, 2)],
    "a dict": {},
    "a dict of something else": {"x": torch.zeros(2, 2)},
    "a scalar tensor": torch.zeros(()),
    "a tensor": torch.zeros(4, 4),
    "a tensor of complex numbers": torch.zeros(2, dtype=torch.complex64),
    "a sparse tensor": torch.zeros(2, 2).to_sparse(),
    "a tensor that holds less than it says": torch.zeros(1).expand(10**9),
}
EVENTS = [field.name for field in dataclasses.fields(Trajectory) if field.default is None]
OPTIONAL = ("best", "smoothed", "lowest", "lowest_at", "latched_at", "weight", *EVENTS)  # a number or None


def places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """What stands at `path`, and what is inside it; of many alike the first three."""
    yield path, value
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in itertools.islice(inside, 3 if path in (("model",), ("optimizer",)) else None):
        yield from places(item, (*path, key))


def replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of nested dicts and lists with `value` at `path`."""
    if not path:
        return value
    copy = content.copy()
    copy[path[0]] = replaced(content[path[0]], path[1:], value)
    return copy


def may_stand(value: Any, before: Any, name: Any) -> bool:
    """Whether `value` is of the kind of `before`, so that it need not be refused."""
    if name in ("range", "classes"):
        return value is None
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53  # False for NaN
    if name in OPTIONAL:
        return value is None or number
    if value is True and isinstance(before, int):
        return before == 1 or isinstance(before, bool)
    if isinstance(before, Tensor):
        return isinstance(value, Tensor) and value.shape == before.shape and value.dtype == before.dtype
    if isinstance(before, dict | list) and not isinstance(value, Tensor):
        return value == type(before)() and name in ("written", "frames")
    if isinstance(before, float):
        return number
    return isinstance(before, int) and type(value) is int and number


LARGE = ("recorder", "data")
PARTS = [part for part in ("format", "shape", "step", "kl_weight", *Parts.__annotations__) if part not in LARGE]


@pytest.mark.parametrize(
    ("part", "stride"),
    [
        *((part, 1) for part in PARTS),
        *((part, 4) for part in LARGE),
        *(pytest.param(part, 1, marks=pytest.mark.slow) for part in LARGE),
    ],
)
def test_a_wrong_kind_of_value_anywhere_in_a_state(
    part: str, stride: int, resumable: tuple[Setup, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is refused in one line, without a warning (which the tests make an error), and restored is what is right.
    Of the kinds every `stride`th is tried at a place, others at the next."""
    setup, content = resumable
    # The configuration stays as it is, and reading it takes most of the time.
    monkeypatch.setattr("vae.training.checkpoint.load_saved", lambda *given: setup.subject.config)
    torch.save(content, tmp_path / names.CHECKPOINT)
    restore(tmp_path, setup)
    for number, (path, before) in enumerate(places(content[part], (part,))):
        wrong = {kind: value for kind, value in WRONG.items() if not may_stand(value, before, path[-1])}
        assert len(wrong) >= len(WRONG) - 3, path
        for kind, value in itertools.islice(wrong.items(), number % stride, None, stride):
            torch.save(replaced(content, path, value), tmp_path / names.CHECKPOINT)
            with pytest.raises(InputError) as error:
                restore(tmp_path, setup)
            assert len(str(error.value).splitlines()) == 1, (path, kind)


def picture(mode: str) -> Tensor:
    """A PNG of that mode, as a film saves its frames."""
    file = io.BytesIO()
    Image.new(mode, (8, 8)).save(file, "PNG")
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("recorder.film.frames", [picture("1")], "film: a frame of mode 1"),
        ("recorder.film.frames", [picture("LA")], "film: a frame of mode LA"),
        ("recorder.history.step", torch.tensor([2.0, 1e300], dtype=torch.float64), "history.step: 1e+300"),
        ("recorder.history.reconstruction", torch.tensor([2.0, 1e300], dtype=torch.float64), "reconstruction that is"),
        ("recorder.history.kl_weight", torch.tensor([0.0, 1e308], dtype=torch.float64), "history.kl_weight: 1e+308"),
        ("clock.training_seconds", -1e308, "clock.training_seconds: -1e+308"),
        ("clock.training_seconds", 2**52, "clock.training_seconds: 4503599627370496"),
        ("recent.count", -3, "recent.count: -3"),
        ("schedule.smoothed", [torch.zeros(2)], "schedule.smoothed.0: is a tensor"),
    ],
)
def test_values_of_the_right_kind_that_a_run_would_stumble_over(
    path: str, value: Any, says: str, resumable: tuple[Setup, dict[str, Any]], tmp_path: Path
) -> None:
    setup, content = resumable
    torch.save(replaced(content, tuple(path.split(".")), value), tmp_path / names.CHECKPOINT)
    with pytest.raises(InputError) as error:
        restore(tmp_path, setup)
    assert says in str(error.value)


def test_a_model_for_other_images_than_the_runs(resumable: tuple[Setup, dict[str, Any]], tmp_path: Path) -> None:
    """It agrees with the shape that the checkpoint names, and not with the data."""
    setup, content = resumable
    sizes = {name: [64 if size == 256 else size for size in value.shape] for name, value in content["model"].items()}
    other = {name: torch.zeros(size) for name, size in sizes.items()}
    torch.save(content | {"shape": [1, 8, 8], "model": other}, tmp_path / names.CHECKPOINT)
    assert checkpoint.read(tmp_path).shape == (1, 8, 8)
    with pytest.raises(InputError, match=r"model: encoder\S+ is \(4, 64\), this run has \(4, 256\)"):
        restore(tmp_path, setup)


def test_a_configuration_that_asks_for_an_enormous_model(content: dict[str, Any], tmp_path: Path) -> None:
    model = content["config"]["model"] | {"encoder_widths": [10**9], "latent_dim": 10**9}
    said = refused(content | {"config": content["config"] | {"model": model}}, tmp_path)
    assert "model: encoder.body.1.weight is (8, 256), this run has (1000000000, 256)" in said


def test_a_model_of_more_numbers_than_can_be_counted(content: dict[str, Any], tmp_path: Path) -> None:
    model = content["config"]["model"] | {"encoder_widths": [2**30]}
    config = content["config"] | {"model": model}
    assert "config: its model cannot be built" in refused(content | {"config": config, "shape": [2**16] * 3}, tmp_path)


def test_a_configuration_of_format_4_that_is_none(content: dict[str, Any], tmp_path: Path) -> None:
    """Then the name of an option said its kind; `torchvision` was no name."""
    config = content["config"] | {"dataset": {"name": "torchvision"}}
    assert "dataset" in refused(content | {"config": config}, tmp_path)


def test_a_model_of_very_many_layers(content: dict[str, Any], tmp_path: Path) -> None:
    model = content["config"]["model"] | {"encoder_widths": [8] * 2000}
    assert "encoder_widths" in refused(content | {"config": content["config"] | {"model": model}}, tmp_path)


def test_tensors_that_hold_less_than_they_declare(content: dict[str, Any], tmp_path: Path) -> None:
    weights = content["model"] | {"encoder.mu.weight": torch.zeros(1).expand(10**6, 10**6)}
    assert "has fewer numbers" in refused(content | {"model": weights}, tmp_path)


def test_values_nested_without_end(content: dict[str, Any], tmp_path: Path) -> None:
    nested: Any = "x"
    for _ in range(30):
        nested = [nested] * 10
    assert "more values" in refused(content | {"config": nested}, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("step", "4", "step: is str"),
        ("step", -1, "out of range"),
        ("kl_weight", float("nan"), "kl_weight: nan"),
        ("shape", [1, 16], "shape: is [1, 16]"),
        ("shape", "a\nb", "shape: is a\\nb"),
        ("shape", [1, 16, 2**40], "out of range"),
        ("model", None, "model: is NoneType"),
        ("model", {}, "is missing"),
        ("config", {"model": 3}, "model=3: must be a group of settings"),
        ("format", 3, "checkpoint format 3; this version reads formats 4 to 10"),
        ("format", torch.zeros(4, 4), "checkpoint format Tensor"),
        ("recorder", {"written": {"../../x": 1}}, "recorder"),
        ("extra", 1, "extra does not belong there"),
    ],
)
def test_parts_of_the_wrong_kind(key: str, value: Any, says: str, content: dict[str, Any], tmp_path: Path) -> None:
    assert says in refused(content | {key: value}, tmp_path)


def test_an_event_file_elsewhere(content: dict[str, Any], tmp_path: Path) -> None:
    past = content["recorder"] | {"written": {"../../events.out.tfevents.1": 0}}
    assert "is no event file" in refused(content | {"recorder": past}, tmp_path)


def test_a_checkpoint_that_unpacks_to_more_than_it_is(content: dict[str, Any], tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.pt", tmp_path / names.CHECKPOINT
    torch.save(content, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(InputError, match="is compressed"):
        checkpoint.read(tmp_path)


def test_states_of_other_parts(digits: list[str], program: Program, tmp_path: Path) -> None:
    assert program(*QUICK, *digits, *MLP, "anneal=delayed", "hydra.run.dir=mine")[0] == 0
    directory = tmp_path / "mine"
    saved = saved_by(directory)
    for part, state, says in (
        (
            "schedule",
            {"smoothed": "x", "lowest": None, "lowest_at": None, "latched_at": None},
            "schedule.smoothed: is str",
        ),
        ("optimizer", {"step.0": torch.zeros(())}, "optimizer: mean.0 is missing"),
        ("recent", {"rows": torch.zeros(1, 1), "count": 1}, "rows is (1, 1)"),
        (
            "data",
            {"train": {}, "test": {}, "validation": None, "range": None, "classes": None, "type": "torch.uint8"},
            "data: train.images is missing",
        ),
    ):
        torch.save(saved | {part: state}, directory / names.CHECKPOINT)
        status, _, err = program("resume=mine", "train.steps=9")
        assert status == 1
        assert says in err.splitlines()[-1]
        assert "Traceback" not in err


def test_the_checkpoint_of_another_run(digits: list[str], program: Program, tmp_path: Path) -> None:
    for name, widths in (("mine", "[8]"), ("other", "[9]")):
        assert program(*QUICK, *digits, *MLP, f"model.encoder_widths={widths}", f"hydra.run.dir={name}")[0] == 0
    (tmp_path / "mine" / names.CHECKPOINT).write_bytes((tmp_path / "other" / names.CHECKPOINT).read_bytes())
    status, _, err = program("resume=mine", "train.steps=9")
    assert status == 1
    assert err.count("\n") == 1
    assert "model.encoder_widths is [9] in checkpoint.pt and [8] in config.yaml" in err


def test_a_damaged_configuration_beside_a_checkpoint(digits: list[str], program: Program, tmp_path: Path) -> None:
    assert program(*QUICK, *digits, *MLP, "hydra.run.dir=mine")[0] == 0
    (tmp_path / "mine" / ".hydra" / "config.yaml").write_text("model: [")
    status, _, err = program("resume=mine", "train.steps=6")
    assert status == 0, err
    assert "continuing with the configuration in the checkpoint" in err
    assert "latent_dim: 4" in (tmp_path / "mine" / ".hydra" / "config.yaml").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "a: &a [x,x]\nb: [*a,*a]",
        "a: !!python/object/apply:os.system [true]",
        "\0",
        "x" * 5_000_000,
        "a: [",
    ],
)
def test_yaml_that_is_a_bomb(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"^(no YAML|more than)"):
        files.read_yaml(tmp_path / "a.yaml")


def png(width: int, height: int) -> bytes:
    """A PNG that says it is of this size, and holds next to nothing."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (12_000, 12_000), (8, 9)])
def test_images_that_lie_about_their_size(size: tuple[int, int], tmp_path: Path) -> None:
    for i in range(4):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    (tmp_path / "x.png").write_bytes(png(*size))
    with pytest.raises(InputError, match=r"x\.png \("):
        readers.load(composed("dataset=folder", f"dataset.root={tmp_path}", f"dataset.cache={tmp_path}-cache").dataset)


def test_links_out_of_an_image_folder(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    for i in range(4):
        Image.new("L", (8, 8), i).save(root / f"{i}.png")
    os.symlink("0.png", root / "inside.png")
    config = composed(
        "dataset=folder", f"dataset.root={root}", f"dataset.cache={root}-cache", "dataset.test_fraction=0.4"
    ).dataset
    data = readers.load(config)
    assert len(data.train) + len(data.test) == 5
    Image.new("L", (8, 8), 9).save(tmp_path / "secret.png")
    os.symlink(tmp_path / "secret.png", root / "outside.png")
    with pytest.raises(InputError, match=r"outside\.png: a link that leads out"):
        readers.load(config)


@pytest.mark.parametrize("name", ["../up", "a/b", "a\x1b[2J", "<b>", "a\nb", "..", "x" * 200])
def test_names_that_are_paths_or_worse(name: str, program: Program, tmp_path: Path) -> None:
    quoted = name.replace("'", "\\'")
    status, _, err = program(f"run_name='{quoted}'")
    assert status == 1
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert not list(tmp_path.iterdir())


def test_a_path_that_would_drive_the_terminal(program: Program) -> None:
    status, _, err = program("resume='x\x1b[2J'")
    assert status == 1
    assert "\x1b" not in err
    assert "\\x1b[2J: no such directory" in err


def test_a_record_that_is_hostile_is_reported(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(
        '{"run_name": "</script><script>\\ud800\\u001b", "mse": 1e300, "kld": -1, "steps": '
        + "9" * 400
        + ', "verdict": ["x"]}'
    )
    np.savez(tmp_path / "history.npz", step=[2, 1], kl_weight=[0, 0], kl=np.zeros((2, 3)))
    text = page.write(runs.find([tmp_path]), tmp_path, "<i>").read_text()
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "result.json").write_text('{"run_name": "mine", "verdict": "alive"}')
    ours = page.write(runs.find([plain]), plain, "mine").read_text()
    assert text.count("<script") == ours.count("<script")  # those that the page brings along
    assert text.count("</script") == ours.count("</script")
    assert "<i>" not in text
    assert "history unreadable" in text


def test_damaged_files_in_conf(tmp_path: Path) -> None:
    import shutil
    import subprocess
    import sys

    for name in ("conf", "vae"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "run.py", tmp_path)
    for text in ("steps: [", "a: &a [x]\nb: *a", "- 1", "\tx", "steps: {a: 1}"):
        (tmp_path / "conf" / "train" / "default.yaml").write_text(text)
        done = subprocess.run([sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1, text
        assert done.stderr.count("\n") == 1, done.stderr
        assert not (tmp_path / "outputs").exists()


def test_the_board_is_for_this_machine_alone() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    boards = [line for line in lines if "tensorboard" in line and "--logdir" in line]
    assert boards
    assert all("--host 127.0.0.1" in line for line in boards)
