"""The jobs of a sweep: what each is called with, and where each will lie."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf


def grid(params: Mapping[str, Any], overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job that Hydra's own sweeper makes of hydra.sweeper.params and a command line: one for each
    combination of their values."""
    given = [*(f"{key}={value}" for key, value in params.items()), *overrides]
    choices: dict[str, list[str]] = {}  # what is given again replaces what was given before, in its place
    for item in parsed(given):
        key = item.get_key_element()
        values = item.sweep_string_iterator() if item.is_sweep_override() else [item.get_value_element_as_str()]
        choices[key] = [f"{key}={value}" for value in values]
    return [list(job) for job in itertools.product(*choices.values())]


def parsed(overrides: Sequence[str]) -> list[Override]:
    """As Hydra reads them; a glob needs its options."""
    hydra = GlobalHydra.instance()
    return OverridesParser.create(hydra.config_loader() if hydra.is_initialized() else None).parse_overrides(
        list(overrides)
    )


def jobs(config: DictConfig) -> list[list[str]]:
    """Those of the sweep that `config`, Hydra's, describes."""
    return grid(_params(config), task_overrides(config))


def count_jobs(config: DictConfig) -> int:
    """How many jobs the sweeper makes: a search says it."""
    return int(config.hydra.sweeper.n_trials) if is_search(config) else len(jobs(config))


def is_search(config: DictConfig) -> bool:
    """Whether a sweeper chooses the jobs, each by what the ones before it gave."""
    return OmegaConf.select(config, "hydra.sweeper.n_trials") is not None


def shared_keys(config: DictConfig) -> list[str]:
    """The keys that have one value in all jobs, whether these are a grid's or a search's."""
    given = [f"{key}={value}" for key, value in _params(config).items()]
    is_swept = {item.key_or_group: item.is_sweep_override() for item in parsed([*given, *task_overrides(config)])}
    return [key for key, swept in is_swept.items() if not swept]


def naming_override(shared: Collection[str]) -> str:
    """Hydra's override by which the name of a job's directory leaves out the keys that all jobs share."""
    return f"hydra.job.config.override_dirname.exclude_keys=[{','.join(shared)}]"


def composed_jobs(
    config_name: str, jobs: Mapping[int, Sequence[str]], overrides: Sequence[str]
) -> Iterator[DictConfig]:
    """The configuration of each of these jobs, by their numbers, as Hydra composes it with its own `overrides`, and
    Hydra's with it. What refers to Hydra's is known until the next is asked for."""
    before = HydraConfig.instance().cfg
    try:
        for number, job in jobs.items():
            composed = compose(config_name, [*overrides, *job, f"hydra.job.num={number}"], return_hydra_config=True)
            HydraConfig.instance().set_config(composed)  # what ${hydra:...} reads
            yield composed
    finally:
        HydraConfig.instance().cfg = before


def settings(composed: DictConfig) -> DictConfig:
    """A run's own configuration, without Hydra's."""
    return OmegaConf.create({key: value for key, value in composed.items_ex(resolve=False) if key != "hydra"})


def subdirectories(config_name: str, jobs: Sequence[Sequence[str]], overrides: Sequence[str]) -> list[str]:
    """hydra.sweep.subdir of each job."""
    numbered = dict(enumerate(jobs))
    return [str(composed.hydra.sweep.subdir) for composed in composed_jobs(config_name, numbered, overrides)]


def task_overrides(config: DictConfig) -> list[str]:
    """The overrides of this call but for Hydra's own, as they were typed."""
    return _unresolved(config.hydra.overrides.task)


def own_overrides(config: DictConfig) -> list[str]:
    """Hydra's own overrides of this call, as they were typed."""
    return _unresolved(config.hydra.overrides.hydra)


def unresolved_subdir(config: DictConfig) -> str:
    """hydra.sweep.subdir as it stands in the configuration."""
    sweep = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    assert isinstance(sweep, dict)
    return str(sweep["subdir"])


def _params(config: DictConfig) -> Mapping[str, Any]:
    return OmegaConf.select(config, "hydra.sweeper.params") or {}


def _unresolved(overrides: ListConfig) -> list[str]:
    """As they were typed: what they refer to differs from job to job."""
    found = OmegaConf.to_container(overrides, resolve=False)
    assert isinstance(found, list)
    return [str(item) for item in found]
