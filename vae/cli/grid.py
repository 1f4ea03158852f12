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
    choices = [
        [f"{item.get_key_element()}={value}" for value in item.sweep_string_iterator()]
        if item.is_sweep_override()
        else [f"{item.get_key_element()}={item.get_value_element_as_str()}"]
        for item in OverridesParser.create().parse_overrides(given)
    ]
    return [list(job) for job in itertools.product(*choices)]


def count_jobs(config: DictConfig) -> int:
    """How many jobs the sweeper makes: a search says it."""
    trials = OmegaConf.select(config, "hydra.sweeper.n_trials")
    if trials is not None:
        return int(trials)
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return len(grid(params, list(config.hydra.overrides.task)))
