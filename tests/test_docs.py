"""What the documentation says is held against what it speaks of."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from conftest import PUBLISHED_CURES, ROOT, composed, options

from vae.measure import catalogue
from vae.measure.verdict import VERDICTS
from vae.output import record

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTS = {path.name: path.read_text() for path in (ROOT / "tests").rglob("*.py")}


@pytest.mark.parametrize("group", catalogue.GROUPS)
def test_the_tables_of_measures_are_the_catalogue_s(group: type) -> None:
    text = (ROOT / "docs" / "measures.md").read_text()
    assert f"<!-- {group.__name__} -->\n{catalogue.table(group)}<!-- end -->" in text, "python -m vae.output"


def test_every_key_of_the_record_is_documented() -> None:
    text = (ROOT / "docs" / "measures.md").read_text()
    assert f"<!-- RunRecord -->\n{record.table()}<!-- end -->" in text
    assert {key for key in record.known_keys() if f"| `{key}` |" not in text} == set()


def test_every_measure_has_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "measures.md").read_text().split("## The test of each")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    tested = {name for names, _ in rows for name in re.findall(r"`(\w+)`", names)}
    assert tested == set(catalogue.CATALOGUE)
    assert all(re.search(r"`test_\w+\.py::test_\w+`", tests) for _, tests in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    file = ""
    for name, test in re.findall(r"`(?:tests/)?(?:[\w/]*/)?((?:\w+\.py)?)(?:::(\w+))?`", page.read_text()):
        file = name or file
        if name.startswith("test_") or test:
            assert file in TESTS, f"{page.name}: {file}"
            assert not test or re.search(rf"def {test}\b", TESTS[file]), f"{page.name}: {file}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_links_to_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_modules_that_a_page_names_exist(page: Path) -> None:
    for path in re.findall(r"`((?:vae|conf|tests|examples|benchmarks)/[\w/]+\.(?:py|yaml))`", page.read_text()):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


@pytest.mark.parametrize("group", ["model", "objective", "anneal", "cure", "cause", "dataset", "train", "tracking"])
def test_the_readme_lists_the_options_of_each_group(group: str) -> None:
    row = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| `{group}` |"))
    assert sorted(re.findall(r"`(\w+)`", row)[1:]) == options(group)


def test_the_readme_maps_every_room() -> None:
    text = (ROOT / "README.md").read_text()
    rooms = {path.name for path in (ROOT / "vae").iterdir() if (path / "__init__.py").exists()}
    assert {room for room in rooms if f"  {room}/" not in text} == set()


def test_every_threshold_and_verdict_is_explained() -> None:
    text = (ROOT / "docs" / "verdicts.md").read_text()
    for name, value in dataclasses.asdict(composed().evaluation.thresholds).items():
        assert f"| `{name}` | {value} |" in text
    for verdict in VERDICTS:
        assert f"| `{verdict}` |" in text
        assert verdict in (ROOT / "docs" / "figures" / "verdicts.svg").read_text()


def test_every_cure_has_its_row_with_its_defaults() -> None:
    text = (ROOT / "docs" / "cures.md").read_text().split("## How a cure is judged")[0]
    rows = {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)` \|.*$", text, re.M)}
    assert sorted(rows) == options("cure")
    steps = composed().train.steps  # which a default may follow
    for name, row in rows.items():
        own = ["cure.rule._target_=my_parts.Allowance"] if name == "custom" else []
        for field, value in dataclasses.asdict(composed(f"cure={name}", *own).cure).items():
            if field not in ("kind", "name", "schedule", "rule") and value != steps:
                shown = f"{value:g}" if type(value) in (int, float) else str(value).lower()
                assert f"`{field}` {shown}" in row, (name, field)


def test_the_sweep_over_cures_has_them_all() -> None:
    params = yaml.safe_load((ROOT / "conf" / "sweep" / "cures.yaml").read_text())["hydra"]["sweeper"]["params"]
    assert sorted(params["cure"].split(",")) == sorted(PUBLISHED_CURES)
    assert sorted(params["cause"].split(",")) == options("cause")


def test_the_sweep_over_schedules_has_them_all() -> None:
    params = yaml.safe_load((ROOT / "conf" / "sweep" / "anneal.yaml").read_text())["hydra"]["sweeper"]["params"]
    assert sorted(params["anneal"].split(",")) == sorted(set(options("anneal")) - {"no_kl", "custom"})
