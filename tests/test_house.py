"""The rooms of the package: imports point one way, and what needs no torch imports none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "vae"

# Each room may import from itself and from those after it.
ROOMS = ["cli", "report", "training", "output", "measure", "models", "data", "runtime", "config"]
# What the report reads files with, and what --help and --cfg need.
WITHOUT_TORCH = [
    "vae",
    *(f"vae.config.{name}" for name in ("errors", "schema", "load", "legacy")),
    *(f"vae.runtime.{name}" for name in ("directory", "files", "terminal", "torchrun", "signals", "custom")),
    *(f"vae.measure.{name}" for name in ("catalogue", "verdict")),
    "vae.output.record",
    *(f"vae.report.{name}" for name in ("runs", "page", "points", "over_time")),
    *(f"vae.cli.{name}" for name in ("launch", "failures", "callbacks", "summary", "grid", "session")),
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
    if isinstance(node, ast.ImportFrom):
        parts = f"{node.module}.{'.'.join(alias.name for alias in node.names)}".split(".")
        return {part for part in parts if parts[0] in ("torch", "hydra") and part.startswith("_")}
    if isinstance(node, ast.Attribute) and node.attr.startswith("_") and isinstance(node.value, ast.Name):
        return {node.attr} if node.value.id in ("torch", "hydra", "dist", "F", "nn") else set()
    if isinstance(node, ast.FunctionDef) and node.name == "_get_file_writer":
        return {node.name}
    return set()
