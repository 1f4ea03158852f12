"""Command lines that make a run, or one like it. No torch."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vae.runtime import directory as names
from vae.runtime import files

PLACE = "DIR"  # in a record, where a command names the run's own directory: the record may be moved with it


def advised(record: Mapping[str, Any], directory: Path) -> list[tuple[str, str]]:
    """Each piece of advice in the record of the run in `directory`: why, and the command."""
    here = f"resume={os.path.relpath(directory)}"
    found = record.get("advice")
    return [
        (str(item["why"]), str(item["command"]).replace(f"resume={PLACE}", shlex.quote(here)))
        for item in (found if isinstance(found, list) else [])
        if isinstance(item, dict) and {"why", "command"} <= item.keys()
    ]


def overrides(directory: Path) -> list[str] | None:
    """What a run was called with; None where its directory does not say."""
    try:
        found = files.read_yaml(directory / names.OVERRIDES)
    except (OSError, ValueError):
        return None
    if not isinstance(found, list):
        return None
    last: dict[str, str] = {}
    for item in map(str, found):
        key = item.partition("=")[0]
        last.pop(key, None)  # of one key the last counts, where it stands
        last[key] = item
    return [*last.values()]


def config_directory(directory: Path) -> list[str]:
    """--config-dir, where a run had one."""
    try:
        sources = files.read_yaml(directory / names.HYDRA)["hydra"]["runtime"]["config_sources"]
        paths = [str(source["path"]) for source in sources if source["provider"] == "command-line"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return [argument for path in paths for argument in ("--config-dir", os.path.relpath(path))]


def run(arguments: Sequence[str]) -> str:
    """The line that a user types. One job of a sweep runs alone."""
    once = ["hydra.mode=RUN"] if any(item.startswith("sweep=") for item in arguments) else []
    return shlex.join(["python", "run.py", *arguments, *once])


def resume(directory: Path) -> str:
    """The line that continues the run in `directory`."""
    return shlex.join(["python", "run.py", f"resume={os.path.relpath(directory)}"])


def changed(own: Sequence[str], new: Sequence[str]) -> list[str]:
    """A run's overrides with others in the place of those of the same key; an option of a group takes the values of the
    one before it along."""
    added = {item.partition("=")[0].lstrip("+"): item for item in new}
    left, kept = dict(added), []
    for item in own:
        key = item.partition("=")[0].lstrip("+~")
        if key in added:
            kept += [left.pop(key)] if key in left else []
        elif not any(key.startswith(other + ".") for other in added):
            kept.append(item)
    return [*kept, *left.values()]
