"""From what Hydra composes to one checked `RunConfig`, behind which no component sees a DictConfig. No torch, so
that `--help` and `--cfg job` answer at once."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae import schema


class InputError(Exception):
    """Something given to the program cannot be used. The message is the one line that its user reads:
    what was given, what is allowed, what to do."""


class RunFailed(InputError):
    """A run began and could not end well. What it had reached is saved."""


MOST_LAYERS = 100

GROUPS: dict[str, dict[str, type]] = {
    "model": {
        "ae": schema.ConvModel,
        "conv_vae": schema.ConvModel,
        "mlp_vae": schema.MLPModel,
        "linear_vae": schema.LinearModel,
    },
    "objective": {
        "sse": schema.Objective,
        "gaussian": schema.Gaussian,
        "optimal_gaussian": schema.OptimalGaussian,
        "bernoulli": schema.Objective,
        "continuous_bernoulli": schema.Objective,
        "pixel_mse": schema.Objective,
    },
    "anneal": {
        "no_kl": schema.NoKL,
        "constant": schema.ConstantKL,
        "delayed": schema.DelayedKL,
        "linear": schema.LinearKL,
        "sigmoid": schema.SigmoidKL,
        "cyclical": schema.CyclicalKL,
    },
    "dataset": {
        "mnist5k": schema.Embedded,
        "mnist": schema.Torchvision,
        "fashion_mnist": schema.Torchvision,
        "kmnist": schema.Torchvision,
        "cifar10": schema.Torchvision,
        "folder": schema.Folder,
        "arrays": schema.Arrays,
        "gaussian": schema.Synthetic,
    },
}


def register() -> None:
    """Make the dataclasses known to Hydra: conf/GROUP/OPTION.yaml builds on schema/GROUP/KIND."""
    OmegaConf.register_new_resolver("or", lambda first, second: first or second, replace=True)
    OmegaConf.register_new_resolver("unless", lambda given, value: None if given else value, replace=True)
    store = ConfigStore.instance()
    for group, kinds in GROUPS.items():
        for kind, node in kinds.items():
            store.store(group=f"schema/{group}", name=kind, node=node)
    store.store(group="schema", name="train", node=schema.Train)
    store.store(group="schema", name="run", node=schema.RunConfig)


def load(values: DictConfig | dict[str, Any]) -> schema.RunConfig:
    """The checked configuration of one run, from what Hydra composed or from a checkpoint's plain copy.

    Raises InputError that names the key, the value and what is allowed; also for a key that was added
    with `+`, which Hydra lets pass."""
    try:
        given = plain(OmegaConf.create(values))
        shape = OmegaConf.structured(schema.RunConfig)
        for group, kinds in GROUPS.items():
            part = given.get(group)
            kind = part.get("name") if isinstance(part, dict) else part
            if not isinstance(kind, str) or kind not in kinds:
                raise InputError(f"{group}.name={kind}: must be one of {', '.join(kinds)}")
            shape[group] = OmegaConf.structured(kinds[kind])
        config = OmegaConf.to_object(OmegaConf.merge(shape, given))
    except (OmegaConfBaseException, RecursionError, OverflowError, TypeError, ValueError) as error:
        raise InputError(one_line(error)) from error
    assert isinstance(config, schema.RunConfig)
    _check_fields(config, "")
    _check_together(config)
    return config


def revise(
    saved: dict[str, Any], composed: DictConfig, keys: Sequence[str], allowed: Sequence[str]
) -> schema.RunConfig:
    """A run's saved configuration with the `keys` of this call (groups or values) put in from `composed`. Raises
    InputError for a key that is none of `allowed` and below none of them."""
    config = OmegaConf.create(saved)
    for key in keys:
        if not any(key == name or key.startswith(name + ".") for name in allowed):
            raise InputError(f"{key}: cannot be changed for a run that exists; allowed: {', '.join(allowed)}")
        OmegaConf.update(config, key, OmegaConf.select(composed, key), merge=False)
    return load(config)


def processes() -> int:
    """How many torchrun has started, all together; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_leader() -> bool:
    return processes() > 1 and os.environ.get("RANK") == "0"


def grid(params: Mapping[str, Any], overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job that Hydra's own sweeper makes of hydra.sweeper.params and a command line."""
    given = [*(f"{key}={value}" for key, value in params.items()), *overrides]
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(given), None)
    return jobs


def plain(config: DictConfig) -> dict[str, Any]:
    """Dicts, lists and values, with every reference resolved."""
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested values by their full names: {"train": {"lr": 1}} is {"train.lr": 1}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found


def one_line(error: BaseException) -> str:
    """What Hydra, OmegaConf or the system say in several lines, as one; with the full name of the key, if any."""
    text = f"{error}\n{error.__cause__ or ''}".split("Config search path")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    keys = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")]
    said = " ".join(line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type=")))
    return f"{keys[0]}: {said}" if keys and keys[0] not in said else said


def _check_fields(node: Any, path: str) -> None:
    for field in dataclasses.fields(node):
        key, value = path + field.name, getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            _check_fields(value, key + ".")
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, list | dict):  # OmegaConf lets a list into a list of numbers
                raise InputError(f"{key}={value}: must be a list of single values")
            if isinstance(item, float) and not math.isfinite(item):
                raise InputError(f"{key}={item}: must be a finite number")
            if value is not None and "accepts" in field.metadata and not field.metadata["accepts"](item):
                raise InputError(f"{key}={item}: must be {field.metadata['allowed']}")


def _check_together(config: schema.RunConfig) -> None:
    """Parts that are fine alone and do not fit each other."""
    model, objective, anneal = config.model, config.objective, config.anneal
    bernoulli = objective.name in ("bernoulli", "continuous_bernoulli")
    if model.name == "ae" and not isinstance(anneal, schema.NoKL):
        raise InputError(
            f"anneal={anneal.name} with model=ae: the autoencoder has no KL term to weigh; leave anneal out, "
            "or take model=conv_vae"
        )
    if model.posterior == "dirac" and not isinstance(anneal, schema.NoKL):
        raise InputError(
            f"model.posterior=dirac with anneal={anneal.name}: the KL term of a point is infinite; "
            "take anneal=no_kl or model.posterior=gaussian"
        )
    if model.output not in (None, "linear", "sigmoid"):
        raise InputError(f"model.output={model.output}: must be one of linear, sigmoid, null")
    if bernoulli and model.output == "linear":
        raise InputError(
            f"model.output=linear with objective={objective.name}: its outputs are logits; leave model.output out"
        )
    if isinstance(config.dataset, schema.Synthetic) and (bernoulli or model.output == "sigmoid"):
        raise InputError(
            "dataset=gaussian has pixels outside [0, 1]: take a Gaussian objective and model.output=linear"
        )
    if isinstance(model, schema.MLPModel):
        for name in ("encoder_widths", "decoder_widths"):
            if len(getattr(model, name)) > MOST_LAYERS:
                raise InputError(f"model.{name}: {len(getattr(model, name))} layers; at most {MOST_LAYERS} are allowed")
    if isinstance(model, schema.ConvModel) and len(model.channels) != 2:
        raise InputError(f"model.channels={model.channels}: must be two numbers, one a convolution")
