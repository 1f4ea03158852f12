"""The jobs of a sweep."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf


def grid(params: Mapping[str, Any], overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job that Hydra's own sweeper makes of hydra.sweeper.params and a command line: one for each
    combination of their values."""
    given = [*(f"{key}={value}" for key, value in params.items()), *overrides]
    choices: dict[str, list[str]] = {}  # what is given again replaces what was given before, in its place
    for item in OverridesParser.create().parse_overrides(given):
        key = item.get_key_element()
        values = item.sweep_string_iterator() if item.is_sweep_override() else [item.get_value_element_as_str()]
        choices[key] = [f"{key}={value}" for value in values]
    return [list(job) for job in itertools.product(*choices.values())]


def count_jobs(config: DictConfig) -> int:
    """How many jobs the sweeper makes: a search says it."""
    trials = OmegaConf.select(config, "hydra.sweeper.n_trials")
    if trials is not None:
        return int(trials)
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return len(grid(params, list(config.hydra.overrides.task)))
