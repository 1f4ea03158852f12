"""What a run leaves behind: the prediction, training figures, evaluations, pictures, the film, the final record. The
training loop says when; here stands what."""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from vae import figures, files, prediction, record, result, spectrum, untrusted
from vae.config import RunFailed
from vae.data import Data
from vae.evaluation import Evaluation, Figures, evaluate, scalars
from vae.history import History
from vae.machine import is_out_of_memory, peak_memory_mib, versions
from vae.model import VAE
from vae.objective import Likelihood
from vae.pictures import Album, Film
from vae.schema import RunConfig
from vae.spectrum import LinearOptimum
from vae.terminal import Progress, say
from vae.tracking import Tracker, tag
from vae.verdict import Verdict, Watch

GIF = "training.gif"
PROJECTED, SHOWN = 1000, 100  # test images in the projector, eigenvalues in TensorBoard's curve


class TrainingFigures(NamedTuple):
    """Means over a few training batches, in nats per image but for the MSE."""

    loss: float
    mse: float  # per pixel
    kl: list[float]  # of each latent dimension


class Recorder:
    def __init__(
        self,
        config: RunConfig,
        directory: Path,
        model: VAE,
        likelihood: Likelihood,
        data: Data,
        final_weight: float,
        past: Mapping[str, Any] | None = None,
    ) -> None:
        """`past`: the state of the recorder of a run that goes on."""
        self.config, self.directory, self.data = config, directory, data
        self.model, self.likelihood = model, likelihood
        self.started = time.perf_counter()
        self.album = Album(config.pictures, data.test, model.latent_dim, config.seed)
        self.film = Film()
        self.watch = Watch(config.evaluation.thresholds)
        self.evaluated: Evaluation | None = None
        self.verdict: Verdict | None = None
        self.history = History(model.latent_dim)
        self.tracker = Tracker(directory, past["written"] if past else None)
        self.progress = Progress(config.run_name, config.train.steps, int(past["logged"][0]) if past else 0)
        self.final_weight = final_weight
        self.spectrum = spectrum.measure(data.train, max(64, 2 * model.latent_dim))
        self.training_seconds = 0.0
        self.logged = (0, 0.0)  # step and training seconds at the last call of `training`
        if past is None:
            self.tracker.text("config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.structured(config))}```")
            self._predict()
        self.resumed = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """To be taken in a `pause`, which brings the time up to date."""
        return {
            "written": self.tracker.events.written(),
            "history": self.history.state_dict(),
            "film": self.film.state_dict(),
            "watch": self.watch.state_dict(),
            "logged": list(self.logged),
            "training_seconds": self.training_seconds,
            "seconds": time.perf_counter() - self.started,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.history.load_state_dict(state["history"])
        self.film.load_state_dict(state["film"])
        untrusted.like(state["watch"], self.watch.state_dict(), "watch")
        self.watch.load_state_dict(state["watch"])
        self.logged = (int(state["logged"][0]), float(state["logged"][1]))
        self.training_seconds = float(state["training_seconds"])
        self.started -= float(state["seconds"])
        self.resumed = time.perf_counter()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What happens in here does not count as time spent training."""
        self.training_seconds += time.perf_counter() - self.resumed
        yield
        self.resumed = time.perf_counter()

    def _expected(self, weight: float) -> LinearOptimum | None:
        return prediction.predict(self.spectrum, self.likelihood, self.model.latent_dim, weight)

    def _predict(self) -> None:
        """Say and log what the closed form expects at the schedule's end, before the first step."""
        weight, latent_dim = self.final_weight, self.model.latent_dim
        optimum = self._expected(weight)
        values: dict[str, float | None] = {"largest_eigenvalue": self.spectrum.largest}
        if optimum is not None:
            values |= {
                "predicted_active_units": optimum.kept,
                "predicted_kld": optimum.kld,
                "predicted_collapse_weight": optimum.collapse_weight,
                "predicted_t": optimum.t,
            }
        for component, eigenvalue in enumerate(self.spectrum.eigenvalues[:SHOWN].tolist(), start=1):
            self.tracker.scalars({"prediction/eigenvalue": eigenvalue}, component)  # a curve, from the start
        self.tracker.scalars({f"prediction/{key}": value for key, value in values.items()}, 0)
        rises = self.config.anneal.name not in ("constant", "no_kl")
        objective = self.config.objective.name
        say(prediction.sentence(optimum, self.spectrum, objective, latent_dim, weight, rises))

    def training(self, step: int, weight: float, means: TrainingFigures) -> None:
        """Log figures of the training batches, means over the last few steps."""
        with self.pause():
            steps, seconds = step - self.logged[0], self.training_seconds - self.logged[1]
            self.logged = step, self.training_seconds
            shown = {"mse": means.mse, "kld": sum(means.kl), "kl_weight": weight}
            values = shown | {"loss": means.loss, "images_per_second": steps * self.config.train.batch_size / seconds}
            self.tracker.scalars({f"train/{key}": value for key, value in values.items()}, step)
            self.history.add(step, weight, means.kl)
            self._tell(self.watch.training(step, shown["kld"], weight), step)
            self.progress.update(step, shown)

    def evaluation(self, step: int, weight: float, last: bool = False) -> Figures:
        """Measure the whole test split, draw the grids."""
        with self.pause():
            done = self._measure(weight, thorough=last)
            found = done.figures
            if self.verdict is None or not math.isfinite(found.mse):
                return found  # the loop stops here, with what was found before
            values = scalars(found) | {"negative_elbo": -found.elbo}
            self.tracker.scalars({tag(name): value for name, value in values.items()}, step)
            self.tracker.histogram("collapse/kl_per_dimension", done.kl, step)
            self.tracker.histogram("collapse/mu_variance", done.mu_variance, step)
            self.tracker.picture("reconstructions", self.album.reconstructions(self.model), step)
            self.tracker.picture("prior_samples", self.album.prior_samples(self.model), step)
            self.tracker.picture("traversal", self.album.traversal(self.model, done.posterior), step)
            self._tell(self.watch.evaluation(step, self.verdict), step)
            self.progress.milestone(step, {"mse": found.mse, "kld": found.kld, "kl_weight": weight})
            return found

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """Raises RunFailed where memory runs out in here, with the settings that take less of it."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            settings = self.config.evaluation
            raise RunFailed(
                f"out of memory while measuring; resume={self.directory} goes on with a lower "
                f"evaluation.batch_size (now {settings.batch_size}), evaluation.probe_images (now "
                f"{settings.probe_images}) or evaluation.iw_samples (now {settings.iw_samples})"
            ) from error

    def _measure(self, weight: float, thorough: bool) -> Evaluation:
        """Evaluate and judge; what is not finite is not kept."""
        settings = self.config.evaluation
        with self._measuring():
            done = evaluate(self.model, self.likelihood, self.data.test, settings, self.config.seed, thorough)
        if math.isfinite(done.figures.mse):
            self.evaluated = done
            expected = self._expected(weight)
            self.verdict = record.verdict_on(done.figures, self.model.latent_dim, expected, settings.thresholds)
        return done

    def frame(self, step: int, weight: float) -> None:
        """One more frame of the film."""
        with self.pause():
            self.film.add(self.album, self.model, step, weight, last=step == self.config.train.steps)

    def finish(self, step: int, weight: float, failure: str | None = None) -> dict[str, Any]:
        """The costly measures, the last pictures, and result.json, which is given back. A run that failed has the
        figures of its last evaluation in it, and why it failed."""
        config = self.config
        if self.evaluated is None and failure is None:  # interrupted between its last step and its end
            self._measure(weight, thorough=True)
        done = self.evaluated
        with self.pause():
            training_seconds = self.training_seconds
        optimum = self._expected(weight)
        found = record.description(
            config, self.model, self.likelihood, self.spectrum, optimum, step, weight, self.final_weight
        )
        # At the end, so that no training waits for matplotlib; the curve of the eigenvalues is there from the start.
        expected = self._expected(self.final_weight)
        self.tracker.picture("spectrum", figures.spectrum_figure(self.spectrum, expected, self.model.latent_dim), 0)
        heatmap = self.history.save(self.directory)
        if heatmap is not None:
            self.tracker.picture("kl_per_dimension", heatmap, step)
        if done is not None and self.verdict is not None:
            found |= record.findings(done, self.verdict)
        if failure is not None:
            found["failure"] = failure
        elif done is not None:
            say(f"{config.run_name}  measuring what is measured once")
            with self._measuring():
                costly, vectors = record.costly_findings(config, self.model, self.likelihood, self.data, optimum, done)
            found |= costly
            self.tracker.scalars({f"collapse/{name}": value for name, value in costly.items()}, step)
            for name, values in vectors.items():
                self.tracker.histogram(f"collapse/{name}", values, step)
        found |= {
            "collapsed_at_step": self.watch.collapsed_at,
            "recovered_at_step": self.watch.recovered_at,
            "seconds": time.perf_counter() - self.started,
            "images_per_second": step * config.train.batch_size / training_seconds,
            "peak_memory_mib": peak_memory_mib(),
            "versions": versions(),
        }
        if self.film.frames:
            gif = self.film.gif()
            files.replace(self.directory / GIF, gif)
            self.tracker.gif("training", gif, step)
        self.tracker.hyperparameters(dataclasses.asdict(config))
        if done is not None and failure is None:
            self._draw_codes(done, step)
        result.write(self.directory, found)  # last: a run that has it is whole
        return found

    def close(self) -> None:
        self.progress.close()
        self.tracker.close()

    def _draw_codes(self, done: Evaluation, step: int) -> None:
        """The codes of the test images: two dimensions beside the prior, and all of them for the projector."""
        labels = self.data.test.labels
        if self.model.latent_dim > 1:
            dims = done.mu_variance.argsort(descending=True)[:2].tolist()
            self.tracker.picture("aggregate_posterior", figures.aggregate_figure(done.z, dims, labels), step)
        some = slice(0, PROJECTED)
        self.tracker.projector(done.posterior.mu[some], self.data.test.batch(some), labels, step)

    def _tell(self, event: str | None, step: int) -> None:
        if event is not None:
            say(f"{self.config.run_name}  {event}")
            self.tracker.text("events", event, step)
