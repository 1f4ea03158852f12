"""The package's imports point one way, and what needs no torch imports none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vae"

# Each module may import those above it.
ORDER = [
    "schema",
    "config",
    "files",
    "terminal",
    "signals",
    "result",
    "machine",
    "streams",
    "parallel",
    "data",
    "folders",
    "datasets",
    "fingerprint",
    "architectures",
    "model",
    "objective",
    "anneal",
    "optimizers",
    "spectrum",
    "prediction",
    "diagnostics",
    "evaluation",
    "linear",
    "verdict",
    "pictures",
    "figures",
    "history",
    "events",
    "tracking",
    "record",
    "untrusted",
    "checkpoint",
    "recorder",
    "follower",
    "train",
    "remeasure",
    "report",
    "resume",
    "callbacks",
]
LIGHT = (
    "schema config anneal result files folders verdict callbacks terminal "
    "report report.page report.points report.over_time"
)
WITHOUT_TORCH = ["vae", *(f"vae.{name}" for name in LIGHT.split())]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "vae":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vae."):
            names.add(node.module.split(".")[1])
    return names


def files(module: str) -> list[Path]:
    """A module's file, or those of the package."""
    return [PACKAGE / f"{module}.py"] if (PACKAGE / f"{module}.py").exists() else list((PACKAGE / module).glob("*.py"))


def test_every_module_has_its_place() -> None:
    assert {path.stem for path in PACKAGE.iterdir()} - {"__init__", "__pycache__"} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module: str) -> None:
    for path in files(module):
        assert imported(path) - {module} <= set(ORDER[: ORDER.index(module)]), path


def test_light_modules_import_no_torch() -> None:
    script = f"import sys, {', '.join(WITHOUT_TORCH)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_modules_fit_one_reading() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: count for name, count in lines.items() if count > 250} == {}
