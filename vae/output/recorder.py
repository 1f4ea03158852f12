"""What a run writes while it trains and at its end: the prediction, training measures, evaluations, pictures, the film,
the final record. The training loop says when; here stands what."""

import dataclasses
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf

from vae.config.schema import RunConfig
from vae.measure import catalogue
from vae.measure.evaluation import Evaluation
from vae.measure.prediction import sentence
from vae.measure.subject import Subject
from vae.measure.watch import Rows, Trajectory, Watch
from vae.measure.written import number
from vae.output import plots, tracking
from vae.output.conclusion import conclude
from vae.output.events import check_written, there
from vae.output.history import History
from vae.output.pictures import Album, Film, Page, Picture, png
from vae.output.record import Course, RunRecord, stopped
from vae.output.tensorboard import TensorBoardWriter
from vae.runtime import directory as names
from vae.runtime import files, untrusted
from vae.runtime.clock import Clock
from vae.runtime.machine import choose_precision, peak_memory_mib, versions
from vae.runtime.terminal import Progress

log = logging.getLogger(__name__)

ESTIMATE_AFTER = 5.0  # seconds of training
PROJECTED_IMAGES, SHOWN_EIGENVALUES = 1000, 100  # in the projector, in TensorBoard's curve


class TrainingMeans(NamedTuple):
    """Means over a few training batches, in nats per image but for the MSE."""

    loss: float
    reconstruction: float  # of -log p(x|z), some constants left out
    mse: float  # per pixel
    kl: list[float]  # of each latent dimension


@dataclass(frozen=True)
class RecorderState:
    """What a recorder saves in a checkpoint."""

    written: dict[str, int]  # event files and their sizes in bytes
    history: dict[str, Any]
    film: dict[str, Any]
    watch: dict[str, Any]
    logged_step: int  # of the last row of training measures
    logged_seconds: float  # training seconds at it

    @classmethod
    def of(cls, found: Any) -> "RecorderState":
        """Raises ValueError where `found`, which may come from anywhere, is no recorder's; what the parts have saved
        they check themselves."""
        untrusted.names(found, [field.name for field in dataclasses.fields(cls)], "recorder")
        check_written(found["written"])
        untrusted.number(found["logged_step"], "recorder.logged_step", minimum=0, whole=True)
        untrusted.number(found["logged_seconds"], "recorder.logged_seconds")
        return cls(**found)


class Recorder:
    """Writes what a run leaves behind into its directory. Of several processes only the leader has one."""

    def __init__(self, subject: Subject, directory: Path, final_weight: float, clock: Clock, saved: Any = None) -> None:
        """`final_weight`: where the KL schedule ends. `saved`: what `state_dict` gave before an interruption."""
        config, self.data = subject.config, subject.data
        self.subject, self.config, self.directory = subject, config, directory
        self.model, self.final_weight, self.clock = subject.model, final_weight, clock
        self.mse_name = "one-step mse" if self.model.is_autoregressive else "mse"
        self.album = Album(config.pictures, self.data.test, self.model.latent_dim, config.seed)
        self.film = Film(self.album)
        self.watch = Watch(config.evaluation.thresholds)
        self.history = History(self.model.latent_dim)
        self.logged_step, self.logged_seconds = 0, 0.0
        self.estimated = False
        written = None
        if saved is not None:
            with untrusted.restoring("recorder"):
                written = self._restore(RecorderState.of(saved))
        self.tracker = tracking.build(config.tracking, config, directory)
        self.tensorboard = TensorBoardWriter(directory, written)
        self.begun_step, self.begun_seconds = self.logged_step, clock.training_seconds
        self.progress = Progress(config.run_name, config.train.steps, self.logged_step)

    def state_dict(self) -> dict[str, Any]:
        self.tracker.send()
        state = RecorderState(
            written=there(self.directory),
            history=self.history.state_dict(),
            film=self.film.state_dict(),
            watch=self.watch.state_dict(),
            logged_step=self.logged_step,
            logged_seconds=self.logged_seconds,
        )
        return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}

    def sync(self) -> None:
        """What `state_dict` speaks of is on the disk then. Another thread may call it."""
        self.tensorboard.events.sync()

    def _restore(self, state: RecorderState) -> dict[str, int]:
        """What it had written: event files and their sizes."""
        self.history.load_state_dict(state.history)
        self.film.load_state_dict(state.film)
        self._restore_watch(state)
        self.logged_step, self.logged_seconds = state.logged_step, float(state.logged_seconds)
        return state.written

    def _restore_watch(self, state: RecorderState) -> None:
        untrusted.matches(state.watch, self.watch.state_dict(), "watch")
        self.watch.load_state_dict(state.watch)

    def keeps(self, saved: Any) -> None:
        """The model is an earlier checkpoint's, which has this state of its recorder: what a training went through
        after that is no part of what its model went through."""
        with untrusted.restoring("recorder"):
            self._restore_watch(RecorderState.of(saved))

    def begin(self, weight: float, rises: bool) -> None:
        """Before the first step: the configuration, the prediction for the schedule's end, the first pictures.
        `weight`: at the first step; `rises`: it changes over the run."""
        config, subject = self.config, self.subject
        log.info(
            "Training %s: %s (%s weights) on %s, %s images to train on and %s to test on; %s steps of %s, into %s",
            config.run_name,
            config.model.name,
            f"{sum(parameter.numel() for parameter in self.model.parameters()):,}",
            config.dataset.name,
            f"{len(self.data.train):,}",
            f"{len(self.data.test):,}",
            f"{config.train.steps:,}",
            config.train.batch_size,
            os.path.relpath(self.directory),
        )
        self.tensorboard.text("config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.structured(config))}```")
        for component, eigenvalue in enumerate(subject.spectrum.eigenvalues[:SHOWN_EIGENVALUES].tolist(), start=1):
            self._scalars({"prediction/eigenvalue": eigenvalue}, component)  # a curve, from the start
        predicted, optimum = subject.prediction(self.final_weight), subject.optimum(self.final_weight)
        self.tensorboard.text("prediction", table(predicted))
        if predicted.predicted_kld:
            self.watch.expect(predicted.predicted_kld)
        said = sentence(predicted, optimum, config.objective.name, self.model.latent_dim, self.final_weight, rises)
        if self.model.is_autoregressive:
            said = (
                "Prediction: none. This decoder predicts pixels from pixels and may need no code; explain= trains it "
                "without one, and tells."
            )
        if not self.model.has_code:
            said = "Prediction: none, since the decoder gets no code."
        collapses = predicted.predicted_active_units == 0 and self.model.has_code
        log.log(logging.WARNING if collapses else logging.INFO, "%s", said)
        if config.pictures.gif_every:
            self.film.takes(last=False)
            self.film.add(self.album.page(self.model), 0, weight)

    def record(
        self,
        step: int,
        weight: float,
        means: TrainingMeans | None,
        done: Evaluation | None,
        frame: bool,
        of_cure: Mapping[str, float],
    ) -> None:
        """What is due after a step: a row of training measures with what the cure shows of itself, a frame of the film,
        an evaluation."""
        if means is not None:
            self._record_training(step, weight, means, of_cure)
        frame = frame and self.film.takes(last=step == self.config.train.steps)
        evaluated = done if done is not None and math.isfinite(done.measures.mse) else None
        if frame or evaluated:
            page = self.album.page(self.model)
            if frame:
                self.film.add(page, step, weight)
            if evaluated:
                self._record_evaluation(step, weight, evaluated, page)

    def _record_training(self, step: int, weight: float, means: TrainingMeans, of_cure: Mapping[str, float]) -> None:
        seconds = self.clock.training_seconds - self.logged_seconds
        images = (step - self.logged_step) * self.config.train.batch_size
        self.logged_step, self.logged_seconds = step, self.clock.training_seconds
        found = catalogue.TrainingMeasures(
            loss=means.loss,
            plain_loss=means.reconstruction + weight * sum(means.kl) if weight else means.reconstruction,
            mse=means.mse,
            kld=sum(means.kl),
            kl_weight=weight,
            images_per_second=images / seconds,
        )
        self._estimate(step)
        self._scalars(tagged(found) | {f"cure/{name}": value for name, value in of_cure.items()}, step)
        self.history.add(step, weight, means.reconstruction, means.kl)
        self._tell(self.watch.training(step, found.mse, found.kld, weight * of_cure.get("beta", 1.0)), step)
        self.progress.update(step, {self.mse_name: found.mse, "kl": found.kld, "kl_weight": weight})

    def _estimate(self, step: int) -> None:
        """Say once, as soon as it can be told, how long the training will take."""
        spent = self.clock.training_seconds - self.begun_seconds
        if self.estimated or spent < ESTIMATE_AFTER:
            return
        self.estimated = True
        left = spent / (step - self.begun_step) * (self.config.train.steps - step)
        if left > 2 * ESTIMATE_AFTER:
            how_long = f"{left / 60:.0f} minutes" if left > 100 else f"{left:.0f} s"
            log.info("%s  about %s to go", self.config.run_name, how_long)

    def _record_evaluation(self, step: int, weight: float, done: Evaluation, page: Page) -> None:
        found = done.measures
        self._scalars(of_test(found), step)
        self._by_dimension(done, step)
        for tag, picture in self._grids(done, page).items():
            self._picture(tag, picture, step)
        self._tell(self.watch.evaluation(step, self.subject.is_used(found, weight), found.kld), step)
        shown = {self.mse_name: found.mse, "kl": found.kld, "kl_weight": weight}
        ends = step == self.config.train.steps  # then all is measured, and judged by that
        self.progress.milestone(step, shown, "" if ends or not self.model.has_code else self._so_far(found, weight))

    def _so_far(self, found: catalogue.SplitMeasures, weight: float) -> str:
        """The verdict as it would be if the training ended here, with the cause that is predicted of a dead code."""
        answer = self.subject.judge_so_far(found, weight, self.watch.found)
        cause = f" (cause: {answer.cause})" if answer.cause else ""
        return f"so far {answer.name.replace('_', ' ')}{cause}"

    def _by_dimension(self, done: Evaluation, step: int) -> None:
        self.tensorboard.histogram("collapse/kl_per_dimension", done.kl, step)
        self.tensorboard.histogram("collapse/mu_variance", done.mu_variance, step)

    def _grids(self, done: Evaluation, page: Page) -> dict[str, Picture]:
        return page.grids() | {"traversal": self.album.traversal(self.model, done.posterior)}

    def finish(
        self,
        step: int,
        weight: float,
        done: Evaluation | None,
        failure: str | None = None,
        best_step: int | None = None,
        training_loss: float | None = None,
    ) -> RunRecord:
        """The costly measures, the last pictures, and result.json. `done`: the last evaluation whose numbers were
        finite; `best_step`: whose model is kept, with its checkpoint, by early stopping; `training_loss`: the mean of
        what was minimised at the last steps."""
        config = self.config
        # At the end, so that no training waits for matplotlib; the curve of the eigenvalues is there from the start.
        self._picture("spectrum", self._spectrum(), 0)
        heatmap = self.history.save(self.directory)
        if heatmap is not None:
            self._picture("kl_per_dimension", heatmap, step)
        if failure is None:
            log.info("%s  measuring what is measured once", config.run_name)
        record, examination = conclude(
            self.subject,
            self.directory,
            done,
            step,
            weight,
            self.final_weight,
            self.watch.found,
            self.history.rows(),
            failure,
            best_step,
            stopped=stopped(step, best_step, config.train),
        )
        for part in (record.final, record.samples, record.linear):
            if part is not None:
                self.tensorboard.text("measured_at_the_end", table(part), step)
        if record.answer is not None:
            answer = record.answer
            self.tensorboard.text("answer", f"**{answer.verdict.replace('_', ' ')}**. {answer.explanation}", step)
        if examination is not None and examination.dimension_gaps is not None:
            self.tensorboard.histogram("collapse/dimension_gap", examination.dimension_gaps, step)
        if examination is not None and examination.sensitivities is not None:
            self.tensorboard.histogram("collapse/sensitivity", examination.sensitivities, step)
        course = Course(
            seconds=self.clock.seconds,
            images_per_second=step * config.train.batch_size / self.clock.training_seconds,
            threads=torch.get_num_threads(),
            peak_memory_mib=peak_memory_mib(self.data.train.device),
            versions=versions(),
            training_loss=training_loss,
            precision=choose_precision(config.train.precision, self.data.train.device),
        )
        record = dataclasses.replace(record, course=course)
        if self.film.frames:
            gif = self.film.gif()
            files.replace(self.directory / names.FILM, gif)
            self.tensorboard.gif("training", gif, step)
        is_earlier = best_step is not None and best_step != step  # than the model of the last evaluation
        if is_earlier and done is not None:
            self._scalars(of_test(done.measures), step, again=True)
            self._by_dimension(done, step)
        found = {}
        if record.answer is not None:
            found = {"verdict": record.answer.verdict, "found_cause": record.answer.cause or ""}
        self.tensorboard.hyperparameters(found | dataclasses.asdict(config))
        if done is not None and failure is None:
            self._draw_codes(done, step, is_earlier)
        self.tracker.end(record.to_dict(), step)
        if best_step is not None:  # a run that is cut here, resumed from there, makes the same steps again
            os.replace(self.directory / names.BEST_CHECKPOINT, self.directory / names.CHECKPOINT)
        if failure is None:  # one checkpoint is enough of a run that has come to its end
            for name in (names.PREVIOUS_CHECKPOINT, names.BEST_CHECKPOINT):
                (self.directory / name).unlink(missing_ok=True)
        record.save(self.directory)  # a run that has it is whole, and is not touched any more
        return record

    def close(self) -> None:
        self.progress.close()
        self.tensorboard.close()
        self.tracker.close()

    def _scalars(self, values: Mapping[str, float | None], step: int, again: bool = False) -> None:
        """`again`: after others of the same step."""
        self.tensorboard.scalars(values, step)
        self.tracker.scalars(values, step, again)

    def _picture(self, tag: str, picture: Picture, step: int, again: bool = False) -> None:
        self.tensorboard.picture(tag, picture, step)
        self.tracker.picture(tag, picture, step, again)

    def _spectrum(self) -> Picture:
        """What is kept at the end of the schedule lies above t, or of whitened data above the KL weight."""
        subject, weight, latent_dim = self.subject, self.final_weight, self.model.latent_dim
        kept, optimum = subject.prediction(weight).predicted_active_units, subject.optimum(weight)
        if kept is not None and self.model.has_code:
            if optimum is not None:
                edge = "t = beta sigma²", optimum.t
                return plots.spectrum_plot(subject.spectrum.eigenvalues, latent_dim, kept, edge)
            if subject.whitened is not None:
                white, edge = subject.whitened.eigenvalues, ("KL weight", weight)
                return plots.spectrum_plot(white, latent_dim, kept, edge, "whitened covariance")
        return plots.spectrum_plot(subject.spectrum.eigenvalues, latent_dim)

    def _draw_codes(self, done: Evaluation, step: int, again: bool) -> None:
        """The codes of the test images: two dimensions beside the prior, and all of them for the projector. The last
        grids lie beside them as PNG. `again`: the grids of this step are of another model."""
        labels, drawn = self.data.test.labels, self._grids(done, self.album.page(self.model))
        if again:
            for tag, picture in drawn.items():
                self._picture(tag, picture, step, again)
        if self.model.latent_dim > 1:
            dims = done.mu_variance.argsort(descending=True)[:2].tolist()
            plot = plots.aggregate_plot(done.z, dims, labels, self.data.classes)
            self._picture("aggregate_posterior", plot, step)
            drawn["aggregate_posterior"] = plot
        for tag, picture in drawn.items():
            files.replace(self.directory / f"{tag}.png", png(picture))
        some = slice(0, PROJECTED_IMAGES)
        images = self.data.test.batch(some)
        self.tensorboard.projector(done.posterior.mu[some], images, labels, self.data.classes, step)

    def _tell(self, event: str | None, step: int) -> None:
        if event is not None and self.model.has_code:  # nothing happens to a code that there is not
            log.info("%s  %s", self.config.run_name, event)
            self.tensorboard.text("events", event, step)


def remembered(saved: Any, config: RunConfig) -> tuple[Trajectory, Rows]:
    """What the recorder of a checkpoint had noticed and logged of the training."""
    watch, history = Watch(config.evaluation.thresholds), History(config.model.latent_dim)
    with untrusted.restoring("recorder"):
        state = RecorderState.of(saved)
        history.load_state_dict(state.history)
        untrusted.matches(state.watch, watch.state_dict(), "watch")
        watch.load_state_dict(state.watch)
    return watch.found, history.rows()


def table(group: Any) -> str:
    """The measures of a dataclass of the catalogue as a table in Markdown, for numbers that are measured once."""
    rows = ["| measure | value | definition |", "|---|---|---|"]
    for item in catalogue.measures(type(group)):
        value = getattr(group, item.name)
        shown = number(value) if isinstance(value, int | float) else "none"
        rows.append(f"| {item.title} | {shown} | {item.definition.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def tagged(group: Any) -> dict[str, Any]:
    """The measures of a dataclass of the catalogue by their TensorBoard tags."""
    return {item.tag: getattr(group, item.name) for item in catalogue.measures(type(group))}


def of_test(found: catalogue.SplitMeasures) -> dict[str, Any]:
    return tagged(found) | {"test/negative_elbo": -found.elbo}
