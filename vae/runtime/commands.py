"""Command lines that make a run, or one like it. No torch."""

import contextlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vae.config.load import modules
from vae.runtime import directory as names
from vae.runtime import files
from vae.runtime.composing import made_to_fit

PLACE = "DIR"  # in a record, where a command names the run's own directory: the record may be moved with it
# A word that Hydra's grammar reads as a text without quotes, and a shell too.
PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)$)[a-z_][\w./-]*", re.ASCII | re.IGNORECASE)


def advised(record: Mapping[str, Any], directory: Path) -> list[tuple[str, str]]:
    """Each piece of advice in the record of the run in `directory`: why, and the command."""
    here, place = os.path.relpath(directory), re.compile(rf"(?<= )(\w+=){PLACE}(?= |$)")
    found = record.get("advice")
    return [
        (str(item["why"]), place.sub(lambda found: shlex.quote(found[1] + here), str(item["command"])))
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


def config_directory(directory: Path) -> Path | None:
    """What the run in `directory` had for --config-dir."""
    try:
        path = directory / names.HYDRA
        if b"command-line" not in path.read_bytes():  # a report asks of each of its runs
            return None
        sources = files.read_yaml(path)["hydra"]["runtime"]["config_sources"]
        return next(Path(str(source["path"])) for source in sources if source["provider"] == "command-line")
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        return None


def started_in(directory: Path) -> Path | None:
    """The directory in which the run in `directory` was started; None where it is not known."""
    try:
        return Path(str(files.read_yaml(directory / names.HYDRA)["hydra"]["runtime"]["cwd"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def choices(directory: Path) -> dict[str, str]:
    """The option of each group that the run in `directory` was made of; empty where it is not known."""
    try:
        found = files.read_yaml(directory / names.HYDRA)["hydra"]["runtime"]["choices"]
        return {str(group): str(option) for group, option in found.items() if option is not None}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def run(arguments: Sequence[str]) -> str:
    """The line that a user types. One job of a sweep runs alone."""
    once = ["hydra.mode=RUN"] if any(item.startswith("sweep=") for item in arguments) else []
    return shlex.join(["python", "run.py", *arguments, *once])


def again(directory: Path, own: Sequence[str]) -> str:
    """The line that makes the run in `directory`, which was called with its `own` overrides, once more."""
    return run([*_chosen_from(config_directory(directory)), *own])


def _chosen_from(options: Path | None) -> list[str]:
    return [] if options is None else ["--config-dir", os.path.relpath(options)]


def another(directory: Path, new: Sequence[str]) -> str | None:
    """The line that makes a run like the one in `directory` with other overrides; None where the directory does not say
    how that was called."""
    own, options = overrides(directory), config_directory(directory)
    if own is None:
        return None
    together = changed(own, new)
    return run([*_chosen_from(options), *together, *made_to_fit(together, options)])


def resume(directory: Path) -> str:
    """The line that continues the run, or the sweep, in `directory`."""
    return run([f"resume={os.path.relpath(directory)}", *allow(_configurations(directory))])


def explain(directory: Path) -> str:
    """The line that tests why the code of the run in `directory` is dead, or of runs of the sweep there."""
    return run([f"explain={os.path.relpath(directory)}", *allow(_configurations(directory))])


def allow(config: Mapping[str, Any]) -> list[str]:
    """What lets a run with these nested values be used again: the modules of its own parts, where it has such."""
    found = [name for name in modules(config) if re.fullmatch(r"\w+(\.\w+)*", name)]
    return [f"allow={found[0] if len(found) == 1 else '[' + ','.join(found) + ']'}"] if found else []


def _configurations(directory: Path) -> dict[str, Any]:
    """That of the run in `directory`, as it stands there; of a sweep those of its runs that have parts of the user's
    own. Without what cannot be read."""
    runs = [directory] if (directory / names.CONFIG).exists() else sorted(names.runs_below(directory))
    found = {}
    for run in runs:
        path = run / names.CONFIG
        with contextlib.suppress(OSError, ValueError):
            if b"_target_" in path.read_bytes():
                found[str(run)] = files.read_yaml(path)
    return found


def changed(own: Sequence[str], new: Sequence[str]) -> list[str]:
    """A run's overrides with others in the place of those of the same key; an option of a group takes the values of the
    one before it along. What the run had to add (+key=...) is added again."""
    added = {item.partition("=")[0].lstrip("+"): item for item in new}
    left, kept = dict(added), []
    for item in own:
        key = item.partition("=")[0].lstrip("+~")
        if key in added:
            plus = item[: len(item) - len(item.lstrip("+"))]
            kept += [plus + left.pop(key).lstrip("+")] if key in left else []
        elif not any(key.startswith(other + ".") for other in added):
            kept.append(item)
    return [*kept, *left.values()]


def written(value: Any) -> str | None:
    """A value as Hydra's grammar reads it; None for what computes, and for parts of the user's own."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str) and PLAIN.fullmatch(value):
        return value
    if isinstance(value, str) and "${" not in value:
        # A backslash escapes a quote there, or a backslash before one, and nothing else.
        escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
        return f"'{escaped}'"
    if isinstance(value, list):
        items = [written(item) for item in value]
        return None if None in items else f"[{','.join(filter(None, items))}]"
    return None
