"""TensorBoard: scalars, a layout that shows bounds as bands, images, the film, text and hyperparameters, all in
the run's own directory."""

import io
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from vae.config.load import flat
from vae.measure.catalogue import CATALOGUE
from vae.output.events import EventFile
from vae.output.pictures import Picture, in_colour, png
from vae.runtime.terminal import printable

LAYOUT = {
    "Reconstruction and KL": {
        "MSE per pixel": ["Multiline", ["train/mse$", "test/mse$"]],
        "KL in nats": ["Multiline", ["train/kld$", "test/kld$"]],
        "KL weight": ["Multiline", ["train/kl_weight$"]],
    },
    "Bounds over the test images": {
        "mu: minimum, mean, maximum": ["Margin", ["latent/mu_mean", "latent/mu_min", "latent/mu_max"]],
        "sigma: minimum, mean, maximum": [
            "Margin",
            ["latent/sigma_mean", "latent/sigma_min", "latent/sigma_max"],
        ],
    },
}
COMPARED = ("mse", "kld", "elbo", "active_units", "mutual_information", "swap_gap")  # in the HParams tab
PLAIN = (bool, int, float, str)  # what it can show


class TensorBoardWriter:
    """Writes into the event file of a run; EventFile says what `written` is."""

    def __init__(self, directory: Path, written: Mapping[str, int] | None = None) -> None:
        self.directory = directory
        self.events = EventFile(directory, written)
        self.writer = _Writer(self.events)
        if not written:
            self.writer.add_custom_scalars(LAYOUT)

    def scalars(self, values: Mapping[str, float | None], step: int) -> None:
        """Write all values at once: one Summary is several times faster than one each. What is not a finite number
        is left out."""
        finite = {tag: value for tag, value in values.items() if value is not None and math.isfinite(value)}
        self._add(Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in finite.items()]), step)

    def picture(self, tag: str, picture: Picture, step: int) -> None:
        height, width = picture.shape[:2]
        self._encoded(tag, png(Image.fromarray(picture)), height, width, step)

    def gif(self, tag: str, content: bytes, step: int) -> None:
        """The Images tab animates a GIF that is handed to it as it is."""
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
        self._encoded(tag, content, height, width, step)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        self.writer.add_text(tag, markdown, step)

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        finite = values[values.isfinite()]
        if len(finite):
            self.writer.add_histogram(tag, finite.cpu().numpy(), step)

    def projector(
        self, codes: Tensor, images: Tensor, labels: Tensor | None, classes: Sequence[str] | None, step: int
    ) -> None:
        """Codes (N, d) for the Projector tab, with the images (N, C, H, W) as thumbnails and their labels, by their
        names where these are known."""
        metadata = None if labels is None else labels[: len(codes)].tolist()
        if metadata is not None and classes is not None:
            metadata = [printable(classes[label]) for label in metadata]
        images = in_colour(images.clamp(0, 1))
        height, width = images.shape[2:]
        side = max(height, width)
        thumbnails = torch.nn.functional.pad(images, (0, side - width, 0, side - height))
        if side > 32:  # all thumbnails share one picture
            thumbnails = torch.nn.functional.adaptive_avg_pool2d(thumbnails, 32)
        shutil.rmtree(self.directory / f"{step:05d}", ignore_errors=True)  # of an end that was interrupted
        self.writer.add_embedding(codes, metadata, thumbnails, step, "latents")

    def hyperparameters(self, values: Mapping[str, Any]) -> None:
        """A row of the HParams tab: the configuration, nested as it is, beside the last values of COMPARED. It goes
        into the run's own directory: SummaryWriter.add_hparams would make a second run of it."""
        plain = {key: value if isinstance(value, PLAIN) else str(value) for key, value in flat(values).items()}
        for summary in hparams(plain, dict.fromkeys((CATALOGUE[name].tag for name in COMPARED), 0.0)):
            self.events.add_summary(summary)

    def close(self) -> None:
        self.events.close()

    def _encoded(self, tag: str, content: bytes, height: int, width: int, step: int) -> None:
        image = Summary.Image(height=height, width=width, encoded_image_string=content)
        self._add(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def _add(self, summary: Summary, step: int) -> None:
        self.events.add_summary(summary, step)


class _Writer(SummaryWriter):
    """Torch's writer of summaries, on our event file. SummaryWriter offers no other way than this private method to
    bring a file writer of one's own, and its own one cannot keep what EventFile promises."""

    def __init__(self, events: EventFile) -> None:
        self.events = events
        super().__init__(events.get_logdir())

    def _get_file_writer(self) -> EventFile:
        return self.events
