"""What is measured: a model with its likelihood, its data, and what the closed form says of them."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vae.config import schema
from vae.config.errors import RunFailed
from vae.data.split import Data
from vae.measure import evaluation, linear, prediction, spectrum, verdict
from vae.measure.catalogue import LinearMeasures, Prediction, SplitMeasures
from vae.measure.evaluation import Evaluation, Examination
from vae.measure.spectrum import LinearOptimum, Spectrum
from vae.measure.verdict import Evidence, Verdict
from vae.models.likelihood import Likelihood
from vae.models.vae import VAE
from vae.runtime.machine import is_out_of_memory

MIN_EIGENVALUES = 64  # of the spectrum that is measured, for its picture


@dataclass(frozen=True)
class Subject:
    """Every measure of a run is taken here, so that a run, its resumption and a later evaluation agree."""

    config: schema.RunConfig
    model: VAE
    likelihood: Likelihood
    data: Data

    @functools.cached_property
    def spectrum(self) -> Spectrum:
        """Of the training split."""
        return spectrum.measure(self.data.train, max(MIN_EIGENVALUES, 2 * self.model.latent_dim))

    def optimum(self, weight: float) -> LinearOptimum | None:
        """What a linear VAE would do with these data at this KL weight; None where the closed form does not apply."""
        return prediction.predict(self.spectrum, self.likelihood, self.model.latent_dim, weight)

    def prediction(self, weight: float) -> Prediction:
        return prediction.measures(self.spectrum, self.likelihood, self.optimum(weight), weight)

    def evaluate(self, thorough: bool) -> Evaluation:
        """Over the whole test split; all processes of a run take part."""
        settings, seed = self.config.evaluation, self.config.seed
        with self._memory_advice():
            return evaluation.evaluate(self.model, self.likelihood, self.data.test, settings, seed, thorough)

    def examine(self, done: Evaluation) -> Examination:
        """The costly measures of an evaluated model."""
        settings, seed = self.config.evaluation, self.config.seed
        with self._memory_advice():
            return evaluation.examine(self.model, self.likelihood, self.data, done, settings, seed)

    def against_closed_form(self, weight: float) -> LinearMeasures | None:
        """A linear VAE beside its optimum; None for other models."""
        if not isinstance(self.config.model, schema.LinearModel):
            return None
        batch_size = self.config.evaluation.batch_size
        return linear.against_closed_form(
            self.model, self.likelihood, self.data.train, self.optimum(weight), batch_size
        )

    def judge(self, found: SplitMeasures, weight: float) -> Verdict:
        optimum = self.optimum(weight)
        evidence = Evidence(
            kld=found.kld,
            sse=found.sse,
            reconstruction_gap=found.reconstruction_gap,
            active_units=found.active_units,
            latent_dim=self.model.latent_dim,
            active_sigma=found.active_sigma,
            active_spread=found.active_spread,
            predicted=None if optimum is None else optimum.kept,
        )
        return verdict.judge(evidence, self.config.evaluation.thresholds)

    @contextmanager
    def _memory_advice(self) -> Iterator[None]:
        """Raises RunFailed where memory runs out in here, with the settings that take less of it."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            settings = self.config.evaluation
            raise RunFailed(
                "out of memory while measuring; resume= and evaluate= take a lower "
                f"evaluation.batch_size (now {settings.batch_size}), evaluation.probe_images (now "
                f"{settings.probe_images}) or evaluation.iw_samples (now {settings.iw_samples})"
            ) from error
