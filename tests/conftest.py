"""Shared by all tests: composing a configuration, calling the program, a small dataset on disk."""

import copy
import dataclasses
import functools
import gc
import importlib
import logging
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra._internal.hydra import Hydra
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig
from PIL import Image

from vae.cli.launch import register_resolvers
from vae.config import schema
from vae.config.load import load
from vae.config.load import options_of as options
from vae.output import plots
from vae.report import drawing, gallery

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun by a script, in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A few steps of a small network on small images: what most tests train.
QUICK = [
    "train.steps=4",
    "train.batch_size=8",
    "train.log_every=2",
    "train.eval_every=2",
    f"train.device={os.environ.get('TEST_DEVICE', 'cpu')}",  # cuda: the same tests on a GPU
    "train.threads=1",
    "pictures.gif_every=2",
    "pictures.columns=4",
    "pictures.report=false",
    "evaluation.iw_samples=2",
    "evaluation.probe_images=16",
    "evaluation.quality_images=0",
]

register_resolvers()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A call of the program shows its log lines itself, on a terminal that is gone when the test is over: each test
    begins as if there had been none."""
    root, logger = logging.getLogger(), logging.getLogger("vae")
    others = list(root.handlers)
    _as_at_first(logger)
    yield
    _as_at_first(logger)
    for handler in [*root.handlers]:
        if handler not in others and type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


def _as_at_first(logger: logging.Logger) -> None:
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _blank_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib takes a third of a small run's time: it draws where a test is about plots, and in every process that a
    test starts."""
    if "plots" not in request.node.nodeid:
        for name in ("spectrum_plot", "kl_heatmap", "aggregate_plot"):
            monkeypatch.setattr(plots, name, lambda *given: np.full((8, 8, 3), 255, np.uint8))
        blank = Image.new("RGBA", (8, 8))
        monkeypatch.setattr(drawing, "fit", lambda figure: None)
        monkeypatch.setattr(drawing, "rendered", lambda figure: drawing.Drawing((1, 1), "<g></g>", blank))
        monkeypatch.setattr(gallery, "pixels", lambda figure: blank)


@pytest.fixture(autouse=True, scope="session")
def _no_waiting() -> Iterator[None]:
    """What a test writes need not outlast the machine, Hydra need not parse conf/ for each of a thousand calls, or
    compose one twice to learn that it is no sweep (which no public name of Hydra's can be told), and garbage may
    wait."""
    gc.set_threshold(20_000, 20, 20)
    Plugins.instance()  # makes the modules of all plugins, and so has to come before a test takes a class from one
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(config_loader_impl, "create_defaults_list", _listed_once(config_loader_impl.create_defaults_list))
        files = importlib.import_module("hydra._internal.core_plugins.file_config_source").FileConfigSource
        patch.setattr(files, "load_config", _read_once(files.load_config))
        loader = config_loader_impl.ConfigLoaderImpl
        merged = _merged_once(loader._compose_config_from_defaults_list)
        patch.setattr(loader, "_compose_config_from_defaults_list", merged)
        patch.setattr(Hydra, "get_mode", _mode(Hydra.get_mode))
        yield


def _of_the_program(repo: Any) -> bool:
    """Whether options are looked for in conf/ alone, which no test changes, and in what installed plugins bring."""
    return all(source.scheme() != "file" or Path(source.path) == ROOT / "conf" for source in repo.get_sources())


def _read_once(read: Callable[..., ConfigResult]) -> Callable[..., ConfigResult]:
    """A file of conf/."""
    known: dict[str, bytes] = {}

    def load_config(source: Any, config_path: str) -> ConfigResult:
        if Path(source.path) != ROOT / "conf":
            return read(source, config_path)
        if config_path not in known:
            known[config_path] = pickle.dumps(read(source, config_path))
        found: ConfigResult = pickle.loads(known[config_path])
        return found

    return load_config


def _listed_once(listed: Callable[..., DefaultsList]) -> Callable[..., DefaultsList]:
    """Which files of conf/ a call is composed of depends on the options that it chooses, not on its values."""
    known: dict[tuple[object, ...], DefaultsList] = {}

    def create_defaults_list(repo: Any, config_name: str, overrides_list: list[Override], **how: bool) -> DefaultsList:
        if not _of_the_program(repo):
            return listed(repo, config_name, overrides_list, **how)
        chosen = [item.input_line for item in overrides_list if repo.group_exists(item.key_or_group)]
        key = (config_name, *chosen, *how.items())
        if key not in known:
            known[key] = listed(repo, config_name, overrides_list, **how)
        overrides = Overrides(repo, overrides_list)
        overrides.known_choices = known[key].overrides.known_choices
        return dataclasses.replace(known[key], overrides=overrides, config_overrides=overrides.config_overrides)

    return create_defaults_list


def _merged_once(merge: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """The files of such a list, merged."""
    known: dict[tuple[object, ...], bytes] = {}

    def _compose_config_from_defaults_list(loader: Any, defaults: list[ResultDefault], repo: Any) -> DictConfig:
        if not _of_the_program(repo):
            return merge(loader, defaults, repo)
        key = tuple((item.config_path, item.package) for item in defaults)
        if key not in known:
            known[key] = pickle.dumps(merge(loader, defaults, repo))
        config: DictConfig = pickle.loads(known[key])
        return config

    return _compose_config_from_defaults_list


def _mode(composed: Callable[..., Any]) -> Callable[..., Any]:
    def get_mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        """In conf/ it is only the options of sweep= that set a mode."""
        given = any("sweep" in item or "hydra.mode" in item for item in overrides)
        return composed(hydra, config_name, overrides) if given else None

    return get_mode


def until(condition: Callable[[], bool]) -> None:
    """Waits for another process, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def composed(*overrides: str) -> schema.RunConfig:
    """The checked configuration that these overrides give; the caller's own, composed once for all who ask for it."""
    return copy.deepcopy(_composed(*overrides))


@functools.cache
def _composed(*overrides: str) -> schema.RunConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return load(compose("config", list(overrides)))


PUBLISHED_CURES = [name for name in options("cure") if name != "custom"]  # those that come with the program


def trained(directory: Path, *overrides: str) -> dict[str, Any]:
    """Train what these overrides give: the keys of result.json."""
    from vae.training.loop import train

    record = train(composed(*overrides), directory)
    assert record is not None
    return record.to_dict()


def save_digits(path: Path) -> list[str]:
    """Save 96 images of 16x16 with labels, blobs whose place depends on the label: the overrides to train on them."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 4
    images = rng.integers(0, 40, (96, 16, 16), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 8 * (label // 2), 8 * (label % 2)
        image[row : row + 8, column : column + 8] += 200
    np.savez(path, images=images, labels=labels)
    return ["dataset=arrays", f"dataset.train={path}", "dataset.test_fraction=0.25", "model.latent_dim=4"]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return save_digits(tmp_path_factory.mktemp("digits") / "digits.npz")


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Call run.py in this process, from an empty directory: (exit status, stdout, stderr)."""
    import run
    from vae.cli import launch

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(ROOT / "run.py"), *arguments])
        capsys.readouterr()
        try:
            launch.run(run.main)
            status: object = 0
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        if isinstance(status, str):  # python prints it and exits with 1
            return 1, captured.out, captured.err + status + "\n"
        return int(status or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def _runs() -> dict[tuple[str, ...], Path]:
    return {}


@pytest.fixture
def finished(
    program: Callable[..., tuple[int, str, str]],
    digits: list[str],
    _runs: dict[tuple[str, ...], Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """A directory of this name with a finished run, on the digits where no settings are given: a test's own copy of the
    run that all tests with these settings share."""

    def make(name: str, *settings: str) -> Path:
        if settings not in _runs:
            directory = tmp_path_factory.mktemp("finished") / "run"
            status, _, err = program(*QUICK, *(settings or (*digits, "model=mlp_vae")), f"hydra.run.dir={directory}")
            assert status == 0, err
            _runs[settings] = directory
        return Path(shutil.copytree(_runs[settings], tmp_path / name))

    return make


@pytest.fixture
def weights() -> Callable[[Path], dict[str, torch.Tensor]]:
    def read(directory: Path) -> dict[str, torch.Tensor]:
        content: dict[str, torch.Tensor] = torch.load(directory / "checkpoint.pt", weights_only=True)["model"]
        return content

    return read
