"""What an experiment sets and the option that is chosen beside it has not: `experiment=images model=mlp_vae` goes
without model.channels, `experiment=vae objective=bernoulli` without objective.sigma2. Files of conf/ and --config-dir
are read, nothing is composed; what the user has typed stays, and is refused where it does not fit."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae.cli.arguments import own_directories
from vae.config.load import CONF, GROUPS
from vae.runtime import files, naming
from vae.runtime.composing import taken_out, unknown


def left_out(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments that leave it out, and the lines that say so. None of a sweep, whose jobs may differ in it, nor
    where a file of the user's own is none, which Hydra says."""
    try:
        return _left_out(arguments, [CONF, *own_directories(arguments)])
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, OmegaConfBaseException):
        return [], []


def _left_out(arguments: Sequence[str], places: Sequence[Path]) -> tuple[list[str], list[str]]:
    given = dict(naming.split(item) for item in arguments if "=" in item and not item.startswith("-"))
    experiment = _written(places, "experiment", given.get("experiment", ""))
    if experiment is None or "sweep" in given or any(item in ("-m", "--multirun") for item in arguments):
        return [], []
    typed = {naming.split(item)[0].lstrip("~+") for item in arguments}
    added, said = [], []
    name = given["experiment"]
    chosen = {group: given[group] for group in GROUPS if group in given}
    for group, option in [*chosen.items()]:
        for other, its in _brings(_written(places, group, option) or {}):
            if f"override /{other}" in _defaults(experiment) and not any(_is_of(key, other) for key in typed):
                chosen[other] = its
                added.append(f"{other}={its}")
                said.append(f"{group}={option} brings {other}={its}, in the place of that of experiment={name}")
    for group, option in chosen.items():
        own = _written(places, group, option) or {}
        values = {**(experiment.get(group) or {}), "kind": own.get(group, own).get("kind")}
        for key, value in unknown(GROUPS[group], values, group):
            if key not in typed:
                added += taken_out(key, value)
                said.append(f"{key} of experiment={name} is left out: {group}={option} has no such key")
    return added, said


def _written(places: Sequence[Path], group: str, option: str) -> dict[str, Any] | None:
    """What the file of an option says, on top of those of its group that it begins with; None where there is none."""
    path = next((path for place in places if (path := place / group / f"{option}.yaml").is_file()), None)
    if not re.fullmatch(r"\w+", option) or path is None:
        return None
    own = files.read_yaml(path)
    bases = [base for base in own.get("defaults", ()) if isinstance(base, str) and base != "_self_"]
    layers = [layer for base in bases if (layer := _written(places, group, base)) is not None]
    found = OmegaConf.to_container(OmegaConf.merge(*layers, own))
    assert isinstance(found, dict)
    return {**found, "defaults": [item for layer in (*layers, own) for item in layer.get("defaults", ())]}


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
