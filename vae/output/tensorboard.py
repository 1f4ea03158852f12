"""TensorBoard: scalars with their descriptions, a layout in the order of a reader's questions, images, the film, text
and hyperparameters, all in the run's own directory."""

import io
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from torch import Tensor
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from vae.config.load import flat
from vae.measure.catalogue import CATALOGUE, GROUPS, measures
from vae.output.events import EventFile
from vae.output.pictures import Picture, in_colour, png
from vae.runtime.directory import CODES
from vae.runtime.terminal import printable

LAYOUT = {  # of the Custom Scalars tab, in the order in which a person asks
    "1. Training": {
        "MSE per pixel, z drawn": ["Multiline", ["train/mse$", "test/mse$"]],
        "KL in nats": ["Multiline", ["train/kld$", "test/kld$"]],
        "KL weight": ["Multiline", ["train/kl_weight$"]],
        "loss in nats": ["Multiline", ["train/loss$"]],
    },
    "2. Test images": {
        "MSE per pixel, z drawn and z = mu": ["Multiline", ["test/mse$", "test/mse_mu$"]],
        "ELBO in nats": ["Multiline", ["test/elbo$"]],
        "explained variance": ["Multiline", ["test/explained_variance$"]],
    },
    "3. The range of the code over the test images": {
        "mu: minimum, mean, maximum": ["Margin", ["latent/mu_mean", "latent/mu_min", "latent/mu_max"]],
        "sigma: minimum, mean, maximum": [
            "Margin",
            ["latent/sigma_mean", "latent/sigma_min", "latent/sigma_max"],
        ],
        # Each by itself: "Ignore outliers", on at first, cuts off a twentieth of the values of a chart at either end,
        # and of all bounds in one chart that is where the ends of an autoencoder's mu lie.
        "highest mu": ["Multiline", ["latent/mu_max$"]],
        "lowest mu": ["Multiline", ["latent/mu_min$"]],
        "highest sigma": ["Multiline", ["latent/sigma_max$"]],
        "lowest sigma": ["Multiline", ["latent/sigma_min$"]],
    },
    "4. Does the code say anything?": {
        "active units": ["Multiline", ["collapse/active_units$"]],
        "mutual information in nats": ["Multiline", ["collapse/mutual_information$"]],
        "nats lost with another image's code": ["Multiline", ["collapse/swap_gap$"]],
    },
    "5. Predicted": {
        "eigenvalues of the data, by component": ["Multiline", ["prediction/eigenvalue$"]],
    },
}
COMPARED = ("mse", "mse_mu", "kld", "elbo", "active_units", "mutual_information", "swap_gap")  # in the HParams tab
# The HParams tab sorts its columns by name and shows the first few: these names come before all others.
FIRST = {
    "0 verdict": "verdict",
    "1 model": "model.name",
    "2 anneal": "anneal.name",
    "3 lr": "train.lr",
    "4 seed": "seed",
    "5 objective": "objective.name",
    "6 latent_dim": "model.latent_dim",
    "7 dataset": "dataset.name",
    "8 cause": "found_cause",
}
DESCRIPTIONS = {
    item.tag: f"{item.definition}{f', in {item.unit}' if item.unit else ''}"
    for group in GROUPS
    for item in measures(group)
} | {
    "test/negative_elbo": "minus the ELBO: the loss at KL weight 1, in nats",
    "prediction/eigenvalue": "eigenvalues of the training data's covariance, the largest first: with a Gaussian "
    "likelihood a linear VAE keeps what lies above t",
    "reconstructions": "rows of test images, each above the row of their reconstructions from z = mu",
    "prior_samples": "images of the same codes from the prior every time",
    "traversal": "a row for each of the most active dimensions, from low to high, the rest at one image's mu",
    "training": "the film: test images, their reconstructions and prior samples while the run trained",
    "spectrum": "the largest eigenvalues of the data; where the closed form tells, filled those that a code would keep",
    "kl_per_dimension": "KL of each latent dimension over the training, the KL weight above it",
    "aggregate_posterior": "codes of the test images, z drawn, in the two most active dimensions; circles: the prior",
}
PLAIN = (bool, int, float, str)  # what it can show


class TensorBoardWriter:
    """Writes into the event file of a run; EventFile says what `written` is."""

    def __init__(self, directory: Path, written: Mapping[str, int] | None = None) -> None:
        self.directory = directory
        self.events = EventFile(directory, written)
        self.described: set[str] = set()  # tags whose description is in this event file
        self.writer = _Writer(self.events)
        if not written:
            self.writer.add_custom_scalars(LAYOUT)

    def scalars(self, values: Mapping[str, float | None], step: int) -> None:
        """Write all values at once: one Summary is several times faster than one each. What is not a finite number
        is left out."""
        finite = {tag: value for tag, value in values.items() if value is not None and math.isfinite(value)}
        told = [
            Summary.Value(tag=tag, simple_value=value, metadata=self._metadata(tag, "scalars"))
            for tag, value in finite.items()
        ]
        self._add(Summary(value=told), step)

    def picture(self, tag: str, picture: Picture, step: int) -> None:
        height, width = picture.shape[:2]
        self._encoded(tag, png(picture), height, width, step)

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
        for earlier in self.directory.glob(CODES):  # of an end that was interrupted, or that the run has gone beyond
            shutil.rmtree(earlier.parent.parent)
        (self.directory / "projector_config.pbtxt").unlink(missing_ok=True)  # torch would append to it
        self.writer.add_embedding(codes, metadata, thumbnails, step, "latents")

    def hyperparameters(self, values: Mapping[str, Any]) -> None:
        """A row of the HParams tab: the configuration, nested as it is, beside the last values of COMPARED. It goes
        into the run's own directory: SummaryWriter.add_hparams would make a second run of it."""
        given = flat(values)
        shown = {name: given[key] for name, key in FIRST.items() if key in given} | given
        plain = {key: value if isinstance(value, PLAIN) else str(value) for key, value in shown.items()}
        for summary in hparams(plain, dict.fromkeys((CATALOGUE[name].tag for name in COMPARED), 0.0)):
            self.events.add_summary(summary)

    def close(self) -> None:
        self.events.close()

    def _encoded(self, tag: str, content: bytes, height: int, width: int, step: int) -> None:
        image = Summary.Image(height=height, width=width, encoded_image_string=content)
        self._add(Summary(value=[Summary.Value(tag=tag, image=image, metadata=self._metadata(tag, "images"))]), step)

    def _metadata(self, tag: str, plugin_name: str) -> SummaryMetadata | None:
        """The tag's description, with its first value: what TensorBoard shows beside its chart."""
        if tag in self.described or tag not in DESCRIPTIONS:
            return None
        self.described.add(tag)
        plugin = SummaryMetadata.PluginData(plugin_name=plugin_name)
        return SummaryMetadata(summary_description=DESCRIPTIONS[tag], plugin_data=plugin)

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
