"""The command line before Hydra reads it: flags that there are not, short keys, paths as a shell gives them, what a run
that exists brings along.

`encode=DIR dataset.root=other` sets one value of the option that the run in DIR was made of. Hydra composes from conf/
alone and would look for that value in the default option, so the run's own option goes with it, with its values. A run
that begins with another's weights (init=DIR) has its model and objective; what recommend=true says is for
experiment=images."""

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.errors import HydraException
from omegaconf import BooleanNode
from omegaconf.errors import ValidationError

from vae.cli.session import DIRECTORIES, OPTIONS, SHORT, TAKES, USES
from vae.config.errors import InputError
from vae.config.load import GROUPS, OPTION_GROUPS, PLACES, at_home, nearest_keys, options_of, unknown_option
from vae.config.schema import EXPORTS, TABLES
from vae.runtime import commands, files
from vae.runtime import directory as names
from vae.runtime.composing import OTHERS_ALONE

WITH_PATHS = (*PLACES, *DIRECTORIES, "init", "hydra.run.dir", "hydra.sweep.dir")  # keys whose value is one
# Hydra's flags: those alone, and those that a value follows. It would answer others with all that it has, in ten lines.
FLAGS = (
    *("--help", "-h", "--hydra-help", "--version", "--resolve"),
    *("--run", "-r", "--multirun", "-m", "--shell-completion", "-sc", "--info", "-i"),
)
WITH_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--experimental-rerun"),
    *("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
)
NAMES = re.compile(r"[a-zA-Z_][\w/]*(,[a-zA-Z_][\w/]*)*")  # of options, as they are mostly written
NO_NAMES = (int, float, dict, RangeSweep, IntervalSweep)  # as Hydra reads them
QUOTES = "'\""
SHOWN = ("job", "hydra", "all")  # what --cfg shows


def check_flags(arguments: Sequence[str]) -> None:
    """Raises InputError for a flag that there is not, with what may have been meant: values have no dashes here."""
    left = list(arguments)
    while left:
        flag, given, value = left.pop(0).partition("=")
        if not flag.startswith("-"):
            continue
        name = _in_full(flag)
        if name is None:
            follows = left[0] if left and not given and not re.match("-|.*=", left[0]) else ""
            raise InputError(f"{flag}: {_meant(flag, value or follows)}")
        if name not in WITH_VALUE:
            continue
        shows = name in ("--cfg", "-c")
        if not given and not left:
            raise InputError(f"{flag}: needs a value, as in {flag} {SHOWN[0] if shows else 'NAME'}")
        value = value if given else left.pop(0)
        if shows and value not in SHOWN:
            raise InputError(f"{flag} {value}: must be one of {', '.join(SHOWN)}")


def check_options(overrides: Sequence[str]) -> None:
    """Raises InputError for an option of a group that is no name: Hydra would say so without the group, or begin a
    sweep with it."""
    for item in overrides:
        key, _, value = item.lstrip("+").partition("=")
        group = key.partition("@")[0]
        if not (group in OPTION_GROUPS or group.startswith("hydra/")):
            continue
        if item.startswith("~") or (NAMES.fullmatch(value) and value.lower() not in ("true", "false", "null")):
            continue
        try:
            found = OverridesParser.create().parse_override(item).value()
        except HydraException:  # which it says itself
            continue
        choices = found.list if isinstance(found, ChoiceSweep) else [found]
        listed = itertools.chain.from_iterable(each if isinstance(each, list) else [each] for each in choices)
        wrong = [each for each in listed if each is None or isinstance(each, NO_NAMES)]
        if wrong:
            known, text = options_of(group), str(wrong[0]) if type(wrong[0]) in (int, float) else value
            no_name = f"{group}={text}: must be the name of an option"
            raise InputError(unknown_option(group, text, known) if known else no_name)


def _in_full(flag: str) -> str | None:
    """The flag that this one is, or is short for, the first of several; None where there is none."""
    known = (*FLAGS, *WITH_VALUE)
    if flag in known:
        return flag
    return next((name for name in known if len(flag) > 2 and flag[:2] == "--" and name.startswith(flag)), None)


def _meant(flag: str, value: str) -> str:
    """What somebody may have meant by a flag: a key with its value, or another flag."""
    key = flag.lstrip("-").replace("-", "_")
    flags = {name.replace("-", ""): name for name in (*FLAGS, *WITH_VALUE) if name.startswith("--")}
    near = difflib.get_close_matches(key.replace("_", ""), flags, n=1, cutoff=0.8)
    if near:
        return f"no such flag; did you mean {flags[near[0]]}?"
    keys = [key] if key in SHORT else nearest_keys(key)
    if not keys:
        return "no such flag; values are given as KEY=VALUE, without dashes, and python run.py --cfg job shows all keys"
    meant = " or ".join(f"{name}={value or '...'}" for name in keys)
    return f"values are given without dashes; did you mean {meant}?"


def expanded(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments as Hydra reads them, and those among them that nobody has typed. Raises InputError."""
    check_flags(arguments)
    is_sweep = any(item in ("-m", "--multirun") for item in arguments)
    flags, overrides = _apart(arguments)
    given = [_plain(_name(quoted(_long(item), is_sweep))) for item in overrides]
    check_options(given)
    pairs = {key: "" if value.lower() == "null" else value for key, value in map(_parted, given)}
    if pairs.get("recommend") == "true" and "experiment" not in pairs:
        return ["experiment=images", *given, *flags], ["experiment=images"]
    _check_belongs(pairs)
    verb = next((key for key in (*DIRECTORIES, "init") if pairs.get(key)), None)
    if verb is None:
        return [*given, *flags], []
    groups = [group for group in ("model", "objective") if group not in pairs] if verb == "init" else _in_part(given)
    directory = at_home(pairs[verb].strip(QUOTES))
    added = [item for group in groups for item in _of_run(directory, group)]
    return [*added, *given, *flags], added


def _apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags, which `check_flags` knows, with their values, and all else. A parser of flags wants the overrides side
    by side, and takes one that follows --info for its value."""
    flags: list[str] = []
    overrides: list[str] = []
    left = list(arguments)
    while left:
        item = left.pop(0)
        (flags if item.startswith("-") else overrides).append(item)
        name = _in_full(item) if item.startswith("-") else None
        may_follow = name in ("--info", "-i") and left and not re.match("-|.*=", left[0])
        if name in WITH_VALUE or may_follow:
            flags.append(left.pop(0))
    return flags, overrides


def own_directories(arguments: Sequence[str]) -> list[Path]:
    """What stands behind --config-dir."""
    flags, _ = _apart(arguments)
    found = []
    for flag, value in zip(flags, [*flags, ""][1:], strict=True):
        name, _, own = flag.partition("=")
        if _in_full(name) in ("--config-dir", "-cd"):
            found.append(Path(own or value))
    return found


def _check_belongs(pairs: Mapping[str, str]) -> None:
    """Raises InputError for a short key, or a format, that goes with another verb than the one that is given, or with
    none."""
    verbs = [verb for verb in USES if pairs.get(f"use.{verb}")]
    for name in OPTIONS:
        if pairs.get(f"use.{name}") and not any(name in TAKES[verb] for verb in verbs):
            able = " and ".join(f"{verb}=DIR" for verb in USES if name in TAKES[verb])
            raise InputError(f"{name}={pairs[f'use.{name}']}: goes with {able}")
    given = pairs.get("use.format", "").strip(QUOTES)
    for verb, formats in (("encode", TABLES), ("export", EXPORTS)):
        if verbs == [verb] and given not in ("", *formats):
            raise InputError(f"format={given}: {verb}= writes one of {', '.join(formats)}")


def _long(argument: str) -> str:
    return re.sub(r"^(\w+)(?==)", lambda key: SHORT.get(key[1], key[1]), argument)


def _plain(argument: str) -> str:
    """recommend=yes, on, 1 and whatever else is read as a boolean, as true or false: conf/config.yaml computes with it
    before it is one."""
    key, value = _parted(argument)
    if key != "recommend" or not value:
        return argument
    try:
        is_true = BooleanNode().validate_and_convert(value.strip(QUOTES))
    except ValidationError:
        return argument  # Hydra says what it must be
    return f"{argument[: -len(value)]}{str(is_true).lower()}"


def _name(argument: str) -> str:
    """An option that is called by a number is found, or not, by that name; Hydra takes names alone."""
    key, value = _parted(argument)
    is_option = key in {*GROUPS, *OTHERS_ALONE} and re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?|true|false", value, re.I)
    return f"{argument[: -len(value)]}'{value}'" if is_option else argument


def quoted(argument: str, is_sweep: bool = False) -> str:
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
