"""The command line before Hydra reads it: short keys, paths as a shell gives them, what a run that exists brings along.

`encode=DIR dataset.root=other` sets one value of the option that the run in DIR was made of. Hydra composes from conf/
alone and would look for that value in the default option, so the run's own option goes with it, with its values. A run
that begins with another's weights (init=DIR) has its model and objective; what recommend=true says is for
experiment=images."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vae.cli.session import DIRECTORIES, SHORT
from vae.config.load import GROUPS, PLACES, at_home
from vae.runtime import commands, files
from vae.runtime import directory as names

WITH_PATHS = (*PLACES, *DIRECTORIES, "init", "hydra.run.dir", "hydra.sweep.dir")  # keys whose value is one


def expanded(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments as Hydra reads them, and those among them that nobody has typed."""
    is_sweep = any(item in ("-m", "--multirun") for item in arguments)
    given = [_quoted(_long(item), is_sweep) for item in arguments]
    pairs = dict(map(_parted, given))
    if pairs.get("recommend") == "true" and "experiment" not in pairs:
        return ["experiment=images", *given], ["experiment=images"]
    verb = next((key for key in (*DIRECTORIES, "init") if pairs.get(key)), None)
    if verb is None:
        return given, []
    groups = [group for group in ("model", "objective") if group not in pairs] if verb == "init" else _in_part(given)
    directory = at_home(pairs[verb].strip("'\""))
    added = [item for group in groups for item in _of_run(directory, group)]
    return [*added, *given], added


def _long(argument: str) -> str:
    return re.sub(r"^(\w+)(?==)", lambda key: SHORT.get(key[1], key[1]), argument)


def _quoted(argument: str, is_sweep: bool) -> str:
    """A path as Hydra's grammar reads it, which takes few signs without quotes. Where it is quoted already, computes,
    or may be several, it stays."""
    key, value = _parted(argument)
    if key not in WITH_PATHS or re.fullmatch(r"[\w./:%@+-]*", value, re.ASCII):
        return argument
    if value[:1] in "'\"" or "${" in value or (is_sweep and re.search("[,(]", value)):
        return argument
    return f"{argument[: -len(value)]}{commands.written(value)}"


def _parted(argument: str) -> tuple[str, str]:
    key, _, value = argument.partition("=")
    return key.lstrip("+"), value


def _in_part(arguments: Sequence[str]) -> list[str]:
    """The groups of which only values are given."""
    keys = [_parted(item)[0] for item in arguments if not item.startswith("-")]
    return [group for group in GROUPS if group not in keys and any(key.startswith(group + ".") for key in keys)]


def _of_run(directory: Path, group: str) -> Iterator[str]:
    """The option that a run has of this group, and its values; nothing where its directory does not say."""
    try:
        values = files.read_yaml(directory / names.CONFIG)[group]
        given = dict(_parted(item) for item in commands.overrides(directory) or [])
        option = given.get(group) or commands.choices(directory).get(group) or str(values["name"])
    except (OSError, ValueError, LookupError, TypeError):
        return
    if not re.fullmatch(r"[\w-]+(/[\w-]+)*", option) or not isinstance(values, Mapping):
        return
    yield f"{group}={option}"
    for key, value in values.items():
        written = commands.written(value)
        if key not in ("kind", "name") and re.fullmatch(r"\w+", str(key)) and written is not None:
            yield f"{group}.{key}={written}"
