"""TensorBoard: scalars, a layout that shows bounds as bands, images, the film, text and hyperparameters, all in
the run's own directory."""

import io
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from vae.pictures import Picture, png

LAYOUT = {
    "Reconstruction and KL": {
        "MSE per pixel": ["Multiline", ["train/mse$", "test/mse$"]],
        "KLD in nats": ["Multiline", ["train/kld$", "test/kld$"]],
        "KL weight": ["Multiline", ["train/kl_weight$"]],
    },
    "Bounds over the test images": {
        "mu: least, mean, greatest": ["Margin", ["latent/mu_mean", "latent/mu_min", "latent/mu_max"]],
        "sigma: least, mean, greatest": [
            "Margin",
            ["latent/sigma_mean", "latent/sigma_min", "latent/sigma_max"],
        ],
    },
}


EVENTS = "events.out.tfevents.*"
METRICS = (
    *("test/mse", "test/kld", "test/elbo"),
    *("collapse/active_units", "collapse/mutual_information", "collapse/reconstruction_gap"),
)  # of the HParams tab
PLAIN = (bool, int, float, str)  # what it can show


class Tracker:
    """Writes the event file of a run. Of a run that goes on, `written` says how much of which event files belongs to
    its past: what came after the checkpoint is cut off, so that no point is there twice."""

    def __init__(self, directory: Path, written: Mapping[str, int] | None = None) -> None:
        self.directory = directory
        for path in directory.glob(EVENTS):
            if written is None or path.name not in written:
                path.unlink()
            else:
                os.truncate(path, written[path.name])
        self.writer = SummaryWriter(str(directory))
        if written is None:
            self.writer.add_custom_scalars(LAYOUT)
        self._put_past_first()

    def written(self) -> dict[str, int]:
        """The event files and their sizes in bytes, with all that was logged so far in them."""
        self.writer.flush()
        return {path.name: path.stat().st_size for path in self.directory.glob(EVENTS)}

    def _put_past_first(self) -> None:
        """TensorBoard reads event files in the order of their names, which begin with the time: if the clock has gone
        back, the past is renamed to come before the present."""
        present = Path(self.writer._get_file_writer().event_writer._file_name).name
        time = int(present.split(".")[3])
        later = [path for path in self.directory.glob(EVENTS) if path.name > present]
        for back, path in enumerate(sorted(later, reverse=True), start=1):
            parts = path.name.split(".")
            path.rename(path.with_name(".".join([*parts[:3], str(time - back), *parts[4:]])))

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

    def projector(self, codes: Tensor, images: Tensor, labels: Tensor | None, step: int) -> None:
        """Codes (N, d) for the Projector tab, with the images (N, C, H, W) as thumbnails and their labels."""
        metadata = None if labels is None else labels[: len(codes)].tolist()
        height, width = images.shape[2:]
        side = max(height, width)
        thumbnails = torch.nn.functional.pad(images.clamp(0, 1), (0, side - width, 0, side - height))
        if side > 32:  # all thumbnails share one picture
            thumbnails = torch.nn.functional.adaptive_avg_pool2d(thumbnails, 32)
        shutil.rmtree(self.directory / f"{step:05d}", ignore_errors=True)  # of an end that was interrupted
        self.writer.add_embedding(codes, metadata, thumbnails, step, "latents")

    def hyperparameters(self, values: Mapping[str, Any]) -> None:
        """A row of the HParams tab: the configuration, nested as it is, beside the last values of METRICS. It goes into
        the run's own directory: SummaryWriter.add_hparams would make a second run of it."""
        plain = {key: value if isinstance(value, PLAIN) else str(value) for key, value in _flat(values).items()}
        writer = self.writer._get_file_writer()
        for summary in hparams(plain, dict.fromkeys(METRICS, 0.0)):
            writer.add_summary(summary)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()

    def _encoded(self, tag: str, content: bytes, height: int, width: int, step: int) -> None:
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
        self._add(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def _add(self, summary: Summary, step: int) -> None:
        self.writer._get_file_writer().add_summary(summary, step)


def tag(name: str) -> str:
    """The scalar tag of a figure of the test split."""
    if name.startswith(("mu_", "sigma_")):
        return f"latent/{name}"
    of_test = ("mse", "mse_mu", "sse", "kld", "elbo", "negative_elbo")
    return f"test/{name}" if name in of_test else f"collapse/{name}"


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return flat
