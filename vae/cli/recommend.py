"""`python run.py recommend=true dataset=...`: what would suit these images, and why; nothing is trained. And `choose:
true`, with which a run makes those choices itself."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vae.cli.session import Job, config_directories
from vae.config.load import references, with_values
from vae.config.schema import RunConfig
from vae.data import readers, scale
from vae.data.split import Data
from vae.measure import recommend as measured
from vae.models import likelihood as likelihoods
from vae.models.vae import VAE
from vae.runtime import commands, files
from vae.runtime import directory as names
from vae.runtime.machine import configure_process
from vae.runtime.terminal import show
from vae.training.stopping import with_validation

log = logging.getLogger(__name__)


def recommend(job: Job, config: RunConfig, composed: DictConfig) -> None:
    """Prints what the images are, what is chosen for them, and the command that trains with it."""
    configure_process(config.train.threads)
    data = _read(config)
    variance = scale.check(data, f"dataset={config.dataset.name}")
    found = measured.choices(config, data, job.keys)
    chosen_values = {choice.key: choice.value for choice in found}
    config = with_values(config, chosen_values, references(config, composed))
    data = _read(config) if "dataset.grayscale" in chosen_values else data
    channels, height, width = data.train.shape
    held = {"to train on": data.train, "to stop by": data.validation, "to test on": data.test}
    counts = [f"{len(split)} {what}" for what, split in held.items() if split is not None]
    lines = [
        f"{'images':<24}{height}x{width}, {channels} channel{'s' if channels > 1 else ''}; {', '.join(counts)}",
        f"{'variance of a pixel':<24}{variance:.4g}",
        *(f"{f'{choice.key}={commands.written(choice.value)}':<24}{choice.why}" for choice in found),
        f"{'parameters':<24}{_parameters(config, data)}",
    ]
    own = [item for item in HydraConfig.get().overrides.task if not item.startswith("recommend=")]
    values = [f"{choice.key}={commands.written(choice.value)}" for choice in found]
    show("\n".join([*lines, "", commands.run([*config_directories(), *commands.changed(own, values)])]))


def chosen(keys: Sequence[str], directory: Path, config: RunConfig) -> tuple[RunConfig, Data]:
    """The configuration with what its images ask for, but for the `keys` that the run was called with, and those
    images; it is that of the run in `directory` from now on."""
    data = _read(config)
    scale.check(data, f"dataset={config.dataset.name}")
    values = {}
    for choice in measured.choices(config, data, keys):
        values[choice.key] = choice.value
        log.info("Chosen: %s=%s: %s.", choice.key, commands.written(choice.value), choice.why)
    saved = directory / names.CONFIG
    following = references(config, files.read_yaml(saved)) if saved.exists() else {}
    config = dataclasses.replace(with_values(config, values, following), choose=False)
    data = _read(config) if "dataset.grayscale" in values else data
    if saved.exists():
        written = OmegaConf.create(dataclasses.asdict(config))
        for name, key in following.items():
            OmegaConf.update(written, name, f"${{{key}}}")
        files.replace(saved, OmegaConf.to_yaml(written).encode())
    return config, dataclasses.replace(data, notes=())  # they have been said


def _read(config: RunConfig) -> Data:
    return with_validation(readers.load(config.dataset), config.train)


def _parameters(config: RunConfig, data: Data) -> str:
    likelihood = likelihoods.build(config.objective, config.model.output, data.train.shape)
    model = VAE(config.model, likelihood, data.train.shape, config.seed, config.cure)
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{count / 1e6:.1f} million" if count >= 1e6 else str(count)
