"""The images of a run that has been trained, read again: in its splits, as they were when it was trained."""

from typing import Any

from vae.config.schema import RunConfig
from vae.data import readers
from vae.data.fingerprint import Fingerprint, Reading
from vae.data.split import Data
from vae.runtime import untrusted
from vae.training.stopping import with_validation


def own_data(config: RunConfig, state: dict[str, Any]) -> Data:
    """`state`: the Fingerprint's, from the run's checkpoint. Raises InputError where they are other images now: of
    those, others would be cut out for testing, some of which the run has been trained on."""
    with untrusted.restoring("data"):
        reading = Reading.of(state)
    data = with_validation(readers.load_alike(config.dataset, config.dataset, reading), config.train)
    Fingerprint(data, f"dataset={config.dataset.name}").load_state_dict(state)
    return data
