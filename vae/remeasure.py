"""`python run.py evaluate=DIR`: measure a finished run again, with other settings or on other data."""

import json
from pathlib import Path
from typing import Any

from vae import anneal, checkpoint, datasets, prediction, record, result, spectrum
from vae.config import InputError
from vae.evaluation import evaluate
from vae.schema import RunConfig
from vae.train import use_device

FILE = "evaluation.json"


def remeasure(config: RunConfig, directory: Path) -> dict[str, Any]:
    """The whole record of the run in `directory`, measured anew with `config`; written to evaluation.json beside
    result.json, which stays as it is."""
    saved = checkpoint.read(directory)
    device = use_device(config.train)
    data = datasets.load(config.dataset).to(device)
    if list(data.test.shape) != saved["shape"]:
        raise InputError(
            f"evaluate={directory}: trained on images of shape {tuple(saved['shape'])}, "
            f"dataset={config.dataset.name} has {data.test.shape}"
        )
    model, likelihood = checkpoint.restore(saved)
    model.to(device), likelihood.to(device)
    weight = saved["kl_weight"]
    eigenvalues = spectrum.measure(data.train, 2 * model.latent_dim)
    optimum = prediction.predict(eigenvalues, likelihood, model.latent_dim, weight)
    done = evaluate(model, likelihood, data.test, config.evaluation, config.seed)
    verdict = record.verdict_on(done.figures, model.latent_dim, optimum, config.evaluation.thresholds)
    final = anneal.build(config.anneal).final
    found = _before(directory)
    found |= record.description(config, model, likelihood, eigenvalues, optimum, saved["step"], weight, final)
    found |= record.findings(done, verdict)
    found |= record.costly_findings(config, model, likelihood, data, optimum, done)[0]
    result.write(directory, found, FILE)
    return found


def _before(directory: Path) -> dict[str, Any]:
    """What result.json says and measuring does not: when the code was out, how long the run took."""
    path = directory / result.FILE
    try:
        record = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: not readable ({error}); move it away to go on without it") from error
    return {key: value for key, value in record.items() if key not in ("failure", "null_reasons")}
