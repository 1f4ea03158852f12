"""What is measured: a model with its likelihood, its data, and what the closed form says of them."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from vae.config import schema
from vae.config.errors import RunFailed
from vae.data.split import Data, Split
from vae.measure import evaluation, inference, linear, prediction, quality, spectrum, verdict
from vae.measure.catalogue import FinalMeasures, LinearMeasures, Prediction, SampleMeasures, SplitMeasures, wider
from vae.measure.evaluation import Evaluation, Examination
from vae.measure.quality import Quality
from vae.measure.setting import Setting
from vae.measure.spectrum import LinearOptimum, Spectrum
from vae.measure.verdict import Evidence, Verdict
from vae.measure.watch import Trajectory
from vae.models.latent import LatentModel, in_eval_mode
from vae.models.likelihood import Likelihood
from vae.models.vae import VAE
from vae.runtime import parallel
from vae.runtime.machine import is_out_of_memory
from vae.runtime.terminal import Stages

MORE_EIGENVALUES = 32  # than latent dimensions, for the picture
SAMPLED_IMAGES = 2000
ALIKE = 0.5  # of the training images' variance, that of test images: with less they are of another kind


@dataclass(frozen=True)
class Measured:
    """Every measure of a model is taken here, so that a run, its resumption, a later evaluation and a diagnosis from
    outside agree."""

    config: Setting
    model: LatentModel
    likelihood: Likelihood
    data: Data
    by_dimension: bool = True  # each latent dimension is measured by itself, for which the probe images are decoded
    unseen: bool = False  # the training images are not at hand, and the training split is of others like them

    @property
    def _spectrum_of(self) -> Callable[[Split, int, Tensor | None], Spectrum]:
        return spectrum.of_halves if self.unseen else spectrum.measure

    @functools.cached_property
    def spectrum(self) -> Spectrum:
        """Of the training split."""
        count = wider(self.model.latent_dim) + MORE_EIGENVALUES
        return self._spectrum_of(self.data.train, max(count, quality.COMPONENTS), None)

    @functools.cached_property
    def whitened(self) -> Spectrum | None:
        """Of the training split, whitened by the likelihood; None where that has no curvature of its own."""
        count = wider(self.model.latent_dim)
        return prediction.whitened(self.data.train, self.spectrum, self.likelihood, count, self._spectrum_of)

    def optimum(self, weight: float) -> LinearOptimum | None:
        """What a linear VAE would do with these data at this KL weight; None where the closed form does not apply."""
        if self.model.is_autoregressive:
            return None
        return prediction.predict(self.spectrum, self.likelihood, self.model.latent_dim, weight)

    def prediction(self, weight: float) -> Prediction:
        """Of a decoder whose pixels are independent given the code; another one is not known before it is trained."""
        if self.model.is_autoregressive:
            return Prediction(self.likelihood.effective_t(weight), self.spectrum.largest)
        return prediction.measures(self.spectrum, self.whitened, self.likelihood, self.model.latent_dim, weight)

    def _most_kld(self, weight: float) -> float | None:
        """What is predicted of the images at hand as if these were trained on; None where they were."""
        return dataclasses.replace(self, unseen=False).prediction(weight).predicted_kld if self.unseen else None

    def _test_kld(self, weight: float) -> float | None:
        """What is predicted of the test images along the principal components of those trained on: what a code can say
        of images that it does not know by heart. None where there is no prediction, these are not apart, or the test
        images are too few, or vary by far less in all."""
        test = self.data.test
        if self.unseen or len(test) < verdict.FEW or self.prediction(weight).predicted_kld is None:
            return None
        if test.total_variance < ALIKE * self.spectrum.total:
            return None
        white = self.whitened
        found = spectrum.along(test, self.spectrum)
        if white is not None:
            white = spectrum.along(test, white, prediction.whitening(self.likelihood, self.spectrum))
        latent_dim = self.model.latent_dim
        return prediction.measures(found, white, self.likelihood, latent_dim, weight).predicted_kld

    def constant_loss(self) -> float | None:
        """What training minimises, for the mean of the training images as an image for all codes; of some of them."""
        raw = self.likelihood.raw_of(self.spectrum.mean)
        if raw is None:
            return None
        count, batch_size = len(self.data.train), self.config.evaluation.batch_size
        chosen = torch.arange(min(count, SAMPLED_IMAGES)) * count // min(count, SAMPLED_IMAGES)
        raw = raw.float().reshape(1, *self.data.train.shape)
        total = 0.0
        with in_eval_mode(self.likelihood), torch.no_grad(), self._memory_advice():
            for rows in chosen.split(batch_size):
                images = self.data.train.batch(rows)
                total += float(self.likelihood(images, raw.to(images.device).expand_as(images)).loss) * len(rows)
        return total / len(chosen)

    def evaluate(self, thorough: bool) -> Evaluation:
        """Over the whole test split; all processes of a run take part."""
        settings, seed = self.config.evaluation, self.config.seed
        with self._memory_advice():
            return evaluation.evaluate(self.model, self.likelihood, self.data.test, settings, seed, thorough)

    def examine(self, done: Evaluation, weight: float) -> Examination:
        """The costly measures of a model that was evaluated at this KL weight."""
        settings, seed = self.config.evaluation, self.config.seed
        with self._memory_advice(), Stages("measuring", evaluation.STAGES) as stage:
            found = evaluation.examine(
                self.model,
                self.likelihood,
                self.data,
                self.spectrum,
                done,
                settings,
                weight,
                seed,
                self.by_dimension,
                stage,
            )
            measures = dataclasses.replace(found.measures, predicted_test_kld=self._test_kld(weight))
            return dataclasses.replace(found, measures=measures)

    def sample_quality(self) -> Quality:
        """Nothing of a model whose training images are not at hand: there is nothing to hold its samples against."""
        return Quality(SampleMeasures())

    def is_used(self, found: SplitMeasures, weight: float) -> bool:
        """Whether the decoder uses the code, at this KL weight."""
        return verdict.is_used(found, weight, self.config.evaluation.thresholds, self.model.is_autoregressive)

    def judge(
        self,
        found: SplitMeasures,
        final: FinalMeasures,
        steps: int | None,
        weight: float,
        trajectory: Trajectory,
        stopped: bool = False,
    ) -> Verdict:
        """After so many steps (None: not known), at this KL weight. `stopped`: the training has come to its own end,
        early or by a learning rate of 0."""
        evidence = self._evidence(found, weight, trajectory, final.gain)
        evidence = dataclasses.replace(
            evidence,
            steps=steps,
            stopped=stopped,
            cut_gap=final.cut_gap,
            cut_gap_error=final.cut_gap_error,
            least_kld=final.predicted_test_kld,
        )
        return verdict.judge(evidence, self.config.evaluation.thresholds)

    def judge_so_far(self, found: SplitMeasures, weight: float, trajectory: Trajectory) -> Verdict:
        """As if the training ended here, by what is measured on the way: the gain is that of test images."""
        gain, paid = None, weight * found.kld if weight else 0.0
        if self._constant_elbo is not None:
            gain = found.elbo + found.kld - paid - self._constant_elbo
        return verdict.judge(self._evidence(found, weight, trajectory, gain), self.config.evaluation.thresholds)

    @functools.cached_property
    def _constant_elbo(self) -> float | None:
        """Of the test images, where every code decodes to the mean of the training images."""
        with in_eval_mode(self.likelihood):
            batch_size = self.config.evaluation.batch_size
            return evaluation.constant_elbo(self.likelihood, self.spectrum, self.data.test, batch_size)

    def _evidence(self, found: SplitMeasures, weight: float, trajectory: Trajectory, gain: float | None) -> Evidence:
        highest = max(trajectory.max_kl_weight, weight)
        return Evidence(
            measured=found,
            latent_dim=self.model.latent_dim,
            posterior=self.config.model.posterior,
            weight=weight,
            predicted=self.prediction(highest),
            gain=gain,
            steps=None,
            trajectory=trajectory,
            autoregressive=self.model.is_autoregressive,
            own_loss=self.config.cure.ends_with_own_loss,
            own_weight=self.config.cure.changes_weight,
            most_kld=self._most_kld(highest),
        )

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
                "out of memory while measuring; resume=, evaluate= and vae.diagnose take a lower "
                f"evaluation.batch_size (now {settings.batch_size}), evaluation.probe_images (now "
                f"{settings.probe_images}) or evaluation.iw_samples (now {settings.iw_samples})"
            ) from error


@dataclass(frozen=True)
class Subject(Measured):
    """A model that is trained here."""

    config: schema.RunConfig
    model: VAE

    def validation_loss(self, weight: float) -> float:
        """Of the validation images at this KL weight, nats, with the same noise at each call; all processes of a run
        take part."""
        split = self.data.validation
        assert split is not None
        batch_size, seed = self.config.evaluation.batch_size, self.config.seed
        with in_eval_mode(self.model, self.likelihood), self._memory_advice():
            found = inference.losses(self.model, self.likelihood, split, batch_size, seed)
        return float(parallel.broadcast(float(found.at(weight).mean())))  # one number decides for all processes

    def against_closed_form(self, weight: float) -> LinearMeasures | None:
        """A linear VAE beside its optimum; None for other models."""
        if not isinstance(self.config.model, schema.LinearModel):
            return None
        batch_size = self.config.evaluation.batch_size
        return linear.against_closed_form(
            self.model, self.likelihood, self.data.train, self.optimum(weight), batch_size
        )

    def sample_quality(self) -> Quality:
        """Of the model at its end."""
        settings, seed = self.config.evaluation, self.config.seed
        self.model.eval()
        with self._memory_advice():
            return quality.measure(
                self.model, self.data, self.spectrum, settings.quality_images, settings.batch_size, seed
            )
