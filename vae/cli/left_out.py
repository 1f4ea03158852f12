"""What an experiment sets and the option that is chosen beside it has not: `experiment=images model=mlp_vae` goes
without model.channels, `experiment=vae objective=bernoulli` without objective.sigma2. Files of conf/ and --config-dir
are read, nothing is composed; what the user has typed stays, and is refused where it does not fit."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vae.cli.arguments import own_directories
from vae.config.load import CONF, GROUPS, kind_of, option_values
from vae.runtime import naming
from vae.runtime.composing import taken_out, unknown

NO_OPTION = (  # raised by files that are no option
    *(OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError),
    *(OmegaConfBaseException, YAMLError),
)


def left_out(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments that leave it out, and the lines that say so. None of a sweep, whose jobs may differ in it, nor
    where a file of the user's own is none, which Hydra says."""
    try:
        return _left_out(arguments, [CONF, *own_directories(arguments)])
    except NO_OPTION:
        return [], []


def _left_out(arguments: Sequence[str], places: Sequence[Path]) -> tuple[list[str], list[str]]:
    given = dict(naming.split(item) for item in arguments if "=" in item and not item.startswith("-"))
    experiment = option_values("experiment", given.get("experiment", ""), places)
    if not experiment or "sweep" in given or any(item in ("-m", "--multirun") for item in arguments):
        return [], []
    typed = {naming.split(item)[0].lstrip("~+") for item in arguments}
    added, said = [], []
    name = given["experiment"]
    chosen = {group: given[group] for group in GROUPS if group in given}
    for group, option in [*chosen.items()]:
        for other, its in _brings(option_values(group, option, places)):
            if f"override /{other}" in _defaults(experiment) and not any(_is_of(key, other) for key in typed):
                chosen[other] = its
                added.append(f"{other}={its}")
                said.append(f"{group}={option} brings {other}={its}, in the place of that of experiment={name}")
    for group, option in chosen.items():
        values = {**(experiment.get(group) or {}), "kind": kind_of(group, option_values(group, option, places))}
        for key, value in unknown(GROUPS[group], values, group):
            if key not in typed:
                added += taken_out(key, value)
                said.append(f"{key} of experiment={name} is left out: {group}={option} has no such key")
    return added, said


def _defaults(values: Mapping[str, Any]) -> dict[str, str]:
    """The options of other groups that a file chooses."""
    return {key: option for item in values["defaults"] if isinstance(item, dict) for key, option in item.items()}


def _brings(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The options of other groups that an option needs beside it."""
    for key, option in _defaults(values).items() if values else ():
        found = re.fullmatch(r"override /(\w+)@_global_\.\1", key)
        if found:
            yield found[1], option


def _is_of(key: str, group: str) -> bool:
    return key == group or key.startswith(group + ".")
