"""Files and settings that are made to do harm are refused in one line that names them."""

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, ROOT, composed
from PIL import Image

import vae
from vae import checkpoint, datasets, files
from vae.config import InputError
from vae.report import page, runs
from vae.train import train

Program = Callable[..., tuple[int, str, str]]
MLP = ["model=mlp_vae", "model.encoder_widths=[8]", "model.decoder_widths=[8]", "evaluation.iw_samples=2"]


@pytest.fixture(scope="module")
def content(digits: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("trained")
    train(composed(*QUICK, *digits, *MLP), directory)
    return checkpoint.read(directory)


def refused(content: Any, directory: Path) -> str:
    torch.save(content, directory / checkpoint.FILE)
    with pytest.raises(InputError) as error:
        vae.load_run(directory)
    said = str(error.value)
    assert said.startswith(str(directory / checkpoint.FILE))
    assert len(said.splitlines()) == 1
    return said


def test_a_configuration_that_asks_for_an_enormous_model(content: dict[str, Any], tmp_path: Path) -> None:
    model = content["config"]["model"] | {"encoder_widths": [10**9], "latent_dim": 10**9}
    said = refused(content | {"config": content["config"] | {"model": model}}, tmp_path)
    assert "model: encoder.body.1.weight is (8, 256), this run has (1000000000, 256)" in said


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
        ("shape", [1, 16, 2**40], "out of range"),
        ("model", None, "model: is NoneType"),
        ("model", {}, "is missing"),
        ("config", {"model": 3}, "model.name"),
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
    plain, packed = tmp_path / "plain.pt", tmp_path / checkpoint.FILE
    torch.save(content, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(InputError, match="is compressed"):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize(
    ("part", "state", "says"),
    [
        ("schedule", {"smoothed": "x", "latched_at": None}, "schedule"),
        ("optimizer", {"count": torch.zeros(())}, "optimizer: mean.0 is missing"),
        ("recent", {"rows": torch.zeros(1, 1), "count": 1}, "rows is (1, 1)"),
        ("data", {"train": {}, "test": {}}, "data"),
    ],
)
def test_states_of_other_parts(
    part: str, state: Any, says: str, digits: list[str], program: Program, tmp_path: Path
) -> None:
    assert program(*QUICK, *digits, *MLP, "anneal=delayed", "hydra.run.dir=mine")[0] == 0
    directory = tmp_path / "mine"
    saved = checkpoint.read(directory)
    torch.save(saved | {part: state}, directory / checkpoint.FILE)
    status, _, err = program("resume=mine", "train.steps=9")
    assert status == 1
    assert says in err.splitlines()[-1]
    assert "Traceback" not in err


def test_the_checkpoint_of_another_run(digits: list[str], program: Program, tmp_path: Path) -> None:
    for name, widths in (("mine", "[8]"), ("other", "[9]")):
        assert program(*QUICK, *digits, *MLP, f"model.encoder_widths={widths}", f"hydra.run.dir={name}")[0] == 0
    (tmp_path / "mine" / checkpoint.FILE).write_bytes((tmp_path / "other" / checkpoint.FILE).read_bytes())
    status, _, err = program("resume=mine", "train.steps=9")
    assert status == 1
    assert err.count("\n") == 1
    assert "model.encoder_widths is [9] in checkpoint.pt and [8] in config.yaml" in err


def test_a_damaged_configuration_beside_a_checkpoint(digits: list[str], program: Program, tmp_path: Path) -> None:
    assert program(*QUICK, *digits, *MLP, "hydra.run.dir=mine")[0] == 0
    (tmp_path / "mine" / ".hydra" / "config.yaml").write_text("model: [")
    status, _, err = program("resume=mine", "train.steps=6")
    assert status == 0, err
    assert "going on with the configuration in the checkpoint" in err
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
    with pytest.raises(InputError, match=r"x\.png: not a readable image"):
        datasets.load(composed("dataset=folder", f"dataset.root={tmp_path}", f"dataset.cache={tmp_path}-cache").dataset)


def test_links_out_of_an_image_folder(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    for i in range(4):
        Image.new("L", (8, 8), i).save(root / f"{i}.png")
    os.symlink("0.png", root / "inside.png")
    config = composed(
        "dataset=folder", f"dataset.root={root}", f"dataset.cache={root}-cache", "dataset.test_fraction=0.4"
    ).dataset
    data = datasets.load(config)
    assert len(data.train) + len(data.test) == 5
    Image.new("L", (8, 8), 9).save(tmp_path / "secret.png")
    os.symlink(tmp_path / "secret.png", root / "outside.png")
    with pytest.raises(InputError, match=r"outside\.png: a link that leads out"):
        datasets.load(config)


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
        '{"run_name": "<script>\\ud800\\u001b", "mse": 1e300, "kld": -1, "steps": ' + "9" * 400 + ', "verdict": ["x"]}'
    )
    np.savez(tmp_path / "history.npz", step=[2, 1], kl_weight=[0, 0], kl=np.zeros((2, 3)))
    text = page.write(runs.find([tmp_path]), tmp_path, "<i>").read_text()
    assert "<script>" not in text
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
