"""The rooms of the package: imports point one way, and what needs no torch imports none."""

import ast
import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT, composed
from omegaconf import MISSING
from setuptools import find_packages

from vae.config.errors import InputError, RunFailed
from vae.config.load import GROUPS
from vae.config.schema import (
    Anneal,
    AutoencoderModel,
    Cure,
    Dataset,
    Model,
    NoCure,
    Objective,
    Part,
    ScheduleCure,
    SpectralStart,
    Tracking,
)
from vae.runtime import files
from vae.runtime.signals import Interrupted
from vae.training.recent import not_finite

PACKAGE = ROOT / "vae"

# Each room may import from itself and from those after it. The first two are called by their own name, in Python and as
# python -m: they stand above what run.py calls since they use its datasets, and the page of the report.
ROOMS = ["diagnose", "scale", "cli", "report", "training", "output", "measure", "models", "data", "runtime", "config"]
# What the report reads files with, and what --help and --cfg need.
WITHOUT_TORCH = [
    "vae",
    *(f"vae.config.{name}" for name in ("errors", "schema", "load", "legacy")),
    *(
        f"vae.runtime.{name}"
        for name in (
            "directory",
            "files",
            "terminal",
            "torchrun",
            "signals",
            "custom",
            "commands",
            "doors",
            "naming",
            "cores",
            "composing",
        )
    ),
    *(f"vae.measure.{name}" for name in ("catalogue", "verdict", "watch", "story", "advice", "setting")),
    *(f"vae.scale{name}" for name in ("", ".loss", ".audit")),
    "vae.output.record",
    *(
        f"vae.report.{name}"
        for name in ("runs", "page", "points", "over_time", "gallery", "films", "measures", "words")
    ),
    *(
        f"vae.cli.{name}"
        for name in (
            "launch",
            "failures",
            "callbacks",
            "summary",
            "grid",
            "session",
            "shell",
            "reporting",
            "arguments",
            "left_out",
        )
    ),
    "run",
]
# Rooms that report/ may import: it reads files that any version may have left.
REPORT_NEEDS = {"report", "measure", "runtime", "config"}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE]


def rooms_imported(path: Path) -> set[str]:
    """The rooms that a file imports from, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names |= {module.split(".")[1] for module in modules if module.startswith("vae.")}
    return names


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def test_the_house_has_these_rooms() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ROOMS)
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    allowed = ROOMS[ROOMS.index(room(path)) :]
    assert rooms_imported(path) <= set(allowed)
    if room(path) == "report":
        assert rooms_imported(path) <= REPORT_NEEDS


@pytest.mark.parametrize("name", ROOMS)
def test_each_room_opens_with_its_sentence(name: str) -> None:
    said = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text()))
    assert said is not None
    assert said.endswith(".")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_what_needs_no_torch_imports_none() -> None:
    script = f"import sys, {', '.join(WITHOUT_TORCH)}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_private_names_of_torch_or_hydra_but_one() -> None:
    """`_get_file_writer` says in its docstring why."""
    found = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        for name in private_names(node)
    }
    assert found == {"output/tensorboard.py: _get_file_writer"}


def private_names(node: ast.AST) -> set[str]:
    """The names with an underscore before them that a node takes from torch, hydra or omegaconf."""
    if isinstance(node, ast.ImportFrom | ast.Import):
        module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
        chains = [f"{module}{alias.name}".split(".") for alias in node.names]
        return {part for chain in chains if chain[0] in FOREIGN for part in chain if is_private(part)}
    if isinstance(node, ast.Attribute) and is_private(node.attr):
        inner = node.value
        while isinstance(inner, ast.Attribute):
            inner = inner.value
        return {node.attr} if isinstance(inner, ast.Name) and inner.id in FOREIGN else set()
    if isinstance(node, ast.FunctionDef) and node.name == "_get_file_writer":
        return {node.name}
    return set()


FOREIGN = {"torch", "hydra", "omegaconf", "dist", "F", "nn"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import hydra._internal.x", {"_internal"}),
        ("from torch.optim.adam import _single_tensor_adam", {"_single_tensor_adam"}),
        ("torch.optim.adam._single_tensor_adam", {"_single_tensor_adam"}),
        ("F._x", {"_x"}),
        ("torch.optim.Adam", set()),
    ],
)
def test_private_names_are_found(code: str, found: set[str]) -> None:
    assert {name for node in ast.walk(ast.parse(code)) for name in private_names(node)} == found


def test_all_rooms_are_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert set(find_packages(str(ROOT), include=settings["include"])) == {"vae", *(f"vae.{name}" for name in ROOMS)}


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_every_kind_has_a_name_and_a_builder_of_its_own(group: type[Part]) -> None:
    from vae.data import readers
    from vae.models import decoders, heads, likelihood, networks
    from vae.output import tracking
    from vae.training import schedule, setup

    registries = {
        Model: [networks.build],
        Objective: [likelihood.build],
        Anneal: [schedule.build],
        Dataset: [readers.read],
        Tracking: [tracking.build],
        Cure: [setup.cures.build, heads.build, decoders.build],  # a term, weight or rule; a layer
    }[group]
    registered = {part for build in registries for part in build.registry}
    parts = [part for part in subclasses(group) if part.kind != MISSING]
    assert len({part.kind for part in parts}) == len(parts), "two parts of one kind"
    # The conv network's; a schedule, and a start, which are built with those.
    shared = {AutoencoderModel, NoCure, ScheduleCure, SpectralStart}
    assert {part for part in parts if part not in registered} == shared & set(parts)


def subclasses(part: type[Part]) -> list[type[Part]]:
    return [found for child in part.__subclasses__() for found in (child, *subclasses(child))]


def test_errors_can_be_sent_between_processes() -> None:
    """A launcher's worker sends what ended a job to the main process."""
    settings = composed().train
    for error in (not_finite(3, "KL", settings), InputError("a"), RunFailed("b"), files.DirectoryInUse("c")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))
    stop = pickle.loads(pickle.dumps(Interrupted("stopped", "python run.py resume=a", 15)))
    assert (str(stop), stop.status) == ("stopped; python run.py resume=a", 143)
