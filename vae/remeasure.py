"""`python run.py evaluate=DIR`: measure a finished run again, with other settings or on other data."""

import json
from pathlib import Path
from typing import Any

from vae import checkpoint, datasets, prediction, record, result, spectrum
from vae.config import InputError
from vae.evaluation import evaluate
from vae.schema import RunConfig

FILE = "evaluation.json"


def remeasure(config: RunConfig, directory: Path) -> dict[str, Any]:
    """The whole record of the run in `directory`, measured anew with `config`; written to evaluation.json beside
    result.json, which stays as it is."""
    saved = checkpoint.read(directory)
    data = datasets.load(config.dataset)
    if list(data.test.shape) != saved["shape"]:
        raise InputError(
            f"evaluate={directory}: trained on images of shape {tuple(saved['shape'])}, "
            f"dataset={config.dataset.name} has {data.test.shape}"
        )
    model, likelihood = checkpoint.restore(saved)
    weight = saved["kl_weight"]
    eigenvalues = spectrum.measure(data.train, 2 * model.latent_dim)
    optimum = prediction.predict(eigenvalues, likelihood, model.latent_dim, weight)
    done = evaluate(model, likelihood, data.test, config.evaluation, config.seed)
    verdict = record.verdict_on(done.figures, model.latent_dim, optimum, config.evaluation.thresholds)
    before = directory / result.FILE
    found: dict[str, Any] = json.loads(before.read_text()) if before.is_file() else {}
    found |= record.description(config, model, likelihood, eigenvalues, optimum, saved["step"], weight)
    found |= record.findings(done, verdict)
    found |= record.costly_findings(config, model, likelihood, data, optimum, done)
    result.write(directory, found, FILE)
    return found
