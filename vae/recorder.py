"""What a run leaves behind: training figures, evaluations, pictures, the film, the final record. The training
loop says when; here stands what."""

import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from vae import files, result
from vae.data import Split
from vae.evaluation import Figures, evaluate
from vae.model import VAE
from vae.objective import Likelihood
from vae.pictures import Album, Film
from vae.schema import RunConfig
from vae.terminal import Progress
from vae.tracking import Tracker

GIF = "training.gif"


class Recorder:
    def __init__(self, config: RunConfig, directory: Path, model: VAE, likelihood: Likelihood, test: Split) -> None:
        self.config, self.directory = config, directory
        self.model, self.likelihood, self.test = model, likelihood, test
        self.album = Album(config.pictures, test, model.latent_dim, config.seed)
        self.film = Film()
        self.figures: Figures | None = None
        self.tracker = Tracker(directory)
        self.tracker.text("config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.structured(config))}```")
        self.progress = Progress(config.run_name, config.train.steps)
        self.started = self.resumed = time.perf_counter()
        self.training_seconds = 0.0
        self.logged = (0, 0.0)  # step and training seconds at the last call of `training`

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What happens in here does not count as time spent training."""
        self.training_seconds += time.perf_counter() - self.resumed
        yield
        self.resumed = time.perf_counter()

    def training(self, step: int, weight: float, figures: dict[str, float]) -> None:
        """Log figures of the training batches, means over the last few steps."""
        with self.pause():
            steps, seconds = step - self.logged[0], self.training_seconds - self.logged[1]
            self.logged = step, self.training_seconds
            speed = steps * self.config.train.batch_size / seconds
            shown = {"mse": figures["mse"], "kld": figures["kld"], "kl_weight": weight}
            values = shown | {"loss": figures["loss"], "images_per_second": speed}
            self.tracker.scalars({f"train/{key}": value for key, value in values.items()}, step)
            self.progress.update(step, shown)

    def evaluation(self, step: int, weight: float) -> Figures:
        """Measure the whole test split, draw the grids."""
        with self.pause():
            return self._evaluation(step, weight)

    def frame(self, step: int, weight: float) -> None:
        """One more frame of the film."""
        with self.pause():
            self.film.add(self.album, self.model, step, weight)

    def _evaluation(self, step: int, weight: float) -> Figures:
        settings = self.config.evaluation
        figures, posterior = evaluate(self.model, self.likelihood, self.test, settings.batch_size, self.config.seed)
        self.figures = figures
        values = dataclasses.asdict(figures)
        values["negative_elbo"] = -figures.elbo
        groups = {key: "latent" if key.startswith(("mu_", "sigma_")) else "test" for key in values}
        self.tracker.scalars({f"{groups[key]}/{key}": value for key, value in values.items()}, step)
        self.tracker.picture("reconstructions", self.album.reconstructions(self.model), step)
        self.tracker.picture("prior_samples", self.album.prior_samples(self.model), step)
        self.tracker.picture("traversal", self.album.traversal(self.model, posterior), step)
        self.tracker.flush()
        self.progress.milestone(step, {"mse": figures.mse, "kld": figures.kld, "kl_weight": weight})
        return figures

    def finish(self, step: int, weight: float, failure: str | None = None) -> dict[str, Any]:
        """Write the GIF, the HParams row and result.json, and give the record back. A run that failed has the
        figures of its last evaluation in it, and why it failed."""
        config = self.config
        with self.pause():
            training_seconds = self.training_seconds
        figures = {} if self.figures is None else dataclasses.asdict(self.figures)
        record: dict[str, Any] = {
            "run_name": config.run_name,
            "model": config.model.name,
            "objective": config.objective.name,
            "anneal": config.anneal.name,
            "dataset": config.dataset.name,
            "seed": config.seed,
            "steps": step,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "latent_dim": config.model.latent_dim,
            **figures,
            "kl_weight": weight,
            "effective_t": self.likelihood.effective_t(weight),
            "seconds": time.perf_counter() - self.started,
            "images_per_second": step * config.train.batch_size / training_seconds,
            "peak_memory_mib": peak_memory_mib(),
            "versions": versions(),
        }
        if failure is not None:
            record["failure"] = failure
        if self.film.frames:
            gif = self.film.gif()
            files.replace(self.directory / GIF, gif)
            self.tracker.gif("training", gif, step)
        self.tracker.hyperparameters(
            _flat(dataclasses.asdict(config)), [f"test/{key}" for key in ("mse", "kld", "elbo")]
        )
        result.write(self.directory, record)
        return record

    def close(self) -> None:
        self.progress.close()
        self.tracker.close()


def peak_memory_mib() -> float | None:
    """The most memory that the process has held: of the GPU where it used one, else of the host. None where the
    system does not say."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def versions() -> str:
    packages = ("torch", "torchvision", "hydra-core", "tensorboard")
    python = ".".join(map(str, sys.version_info[:3]))
    return ", ".join([f"python {python}", *(f"{package} {metadata.version(package)}" for package in packages)])


def _flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return flat
