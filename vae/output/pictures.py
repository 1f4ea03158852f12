"""Pictures of what a model does: grids of reconstructions, prior samples and traversals, and the film of how
they came about. Pictures are uint8 arrays (H, W, 3)."""

import functools
import io
import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vae.config import schema
from vae.data.split import Split
from vae.models.latent import LatentModel, in_eval_mode
from vae.models.posteriors import Posterior
from vae.runtime import untrusted
from vae.runtime.rng import generator

Picture = np.ndarray[Any, np.dtype[np.uint8]]

GAP = 1  # pixels between two images of a grid
BACKGROUND = 96  # grey level of the gaps


def grid(rows: Tensor, gamma: float = 1.0) -> Picture:
    """Float images (R, K, C, H, W) as one picture of R rows and K columns. Values are clipped to [0, 1] and
    shown as x ** (1 / gamma): above 1 faint pixels become visible. Enlarged by a whole number when small."""
    shown = in_colour(rows.clamp(0, 1)).pow(1 / gamma).mul(255).round().byte().cpu()
    padded = torch.nn.functional.pad(shown, (0, GAP, 0, GAP), value=BACKGROUND)
    count, columns, _, height, width = padded.shape
    tiled = padded.permute(0, 3, 1, 4, 2).reshape(count * height, columns * width, 3)[:-GAP, :-GAP]
    zoom = max(1, 64 // max(rows.shape[-2:]))
    return tiled.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1).numpy()


def in_colour(images: Tensor) -> Tensor:
    """Images (..., C, H, W) in [0, 1] as red, green and blue: grey ones grey, four channels as colours with their
    opacity, on grey; two next to each other, each grey; of other numbers the first three."""
    channels = images.shape[-3]
    if channels == 1:
        return images.expand(*images.shape[:-3], 3, -1, -1)
    if channels == 2:
        return in_colour(torch.cat(images.split(1, -3), -1))
    if channels == 4:
        opacity = images[..., 3:, :, :]
        return images[..., :3, :, :] * opacity + (1 - opacity) * BACKGROUND / 255
    return images[..., :3, :, :]


class Album:
    """The same test images and the same prior codes, drawn again and again while the model changes."""

    def __init__(
        self,
        config: schema.Pictures,
        test: Split,
        latent_dim: int,
        seed: int,
        span: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        """`span`: the pixel values that are shown black and white."""
        device = test.device
        self.gamma, self.span = config.gamma, span
        self.columns = min(config.columns, len(test))
        self.traversal_dims = min(config.traversal_dims, latent_dim)
        rng = generator(seed, "pictures")
        # Two rows of test images at most, spread over the split: data is often sorted by label.
        count = min(2, len(test) // self.columns) * self.columns
        self.chosen = torch.randperm(len(test), generator=rng)[:count]
        self.images = test.batch(self.chosen)
        self.codes = torch.randn(4 * self.columns, latent_dim, generator=rng).to(device)

    def _rows(self, images: Tensor) -> Tensor:
        black, white = self.span
        return (images.unflatten(0, (-1, self.columns)) - black) / (white - black)

    @torch.no_grad()
    def reconstructions(self, model: LatentModel) -> Picture:
        """Rows of test images, each above the row of their reconstructions from z = mu."""
        with in_eval_mode(model):
            means = model.decode(model.encode(self.images).mu)
        pairs = torch.stack([self._rows(self.images), self._rows(means)], 1)
        return grid(pairs.flatten(0, 1), self.gamma)

    @torch.no_grad()
    def prior_samples(self, model: LatentModel) -> Picture:
        """Images of the same codes from N(0, I) every time."""
        with in_eval_mode(model):
            return grid(self._rows(model.decode(self.codes)), self.gamma)

    @torch.no_grad()
    def traversal(self, model: LatentModel, posterior: Posterior) -> Picture:
        """One row for each of the dimensions whose mu varies most over the test split, most active first: z_j
        goes from 2.5 standard deviations of q(z_j) below its mean to 2.5 above, the rest stays at one image's mu. Where
        images are drawn it is with the same chance: they differ by their codes alone."""
        mu = posterior.mu
        spread = mu.var(0, correction=0)
        scale = (spread + (2 * posterior.log_sigma).exp().mean(0)).sqrt()
        dims = spread.argsort(descending=True)[: self.traversal_dims]
        steps = torch.linspace(-2.5, 2.5, self.columns, device=mu.device)
        z = mu[int(self.chosen[0])].repeat(len(dims), self.columns, 1)
        for row, j in enumerate(dims):
            z[row, :, j] = mu[:, j].mean() + steps * scale[j]
        with in_eval_mode(model):
            return grid(self._rows(model.decode(z.flatten(0, 1), same_chance=True)), self.gamma)


class Film:
    """An animated GIF: in each frame the test images, their reconstructions and the prior samples at a step. Frames
    wait as PNG. Of a long run every second, fourth, ... frame is kept, so that a film has at most MAX_FRAMES."""

    MAX_SIDE = 1200  # a frame is scaled down to it
    MAX_FRAMES = 160

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.stride = 1  # of the frames offered, this one is kept
        self.offered = 0

    def add(self, album: Album, model: LatentModel, step: int, weight: float, last: bool = False) -> None:
        """Offer a frame; the last one is always kept."""
        self.offered += 1
        if (self.offered - 1) % self.stride and not last:
            return
        parts = [album.reconstructions(model), album.prior_samples(model)]
        width = parts[0].shape[1]
        caption = Image.new("RGB", (width, 18))
        ImageDraw.Draw(caption).text((4, 3), f"step {step}   KL weight {weight:.3g}", (255, 255, 255), _font())
        line = np.full((4, width, 3), 255, np.uint8)
        frame = Image.fromarray(np.concatenate([np.asarray(caption), parts[0], line, parts[1]]))
        frame.thumbnail((self.MAX_SIDE, self.MAX_SIDE))
        self.frames.append(png(frame))
        if len(self.frames) > self.MAX_FRAMES:
            self.frames = self.frames[::2]
            self.stride *= 2

    def state_dict(self) -> dict[str, Any]:
        frames = [torch.frombuffer(bytearray(frame), dtype=torch.uint8) for frame in self.frames]
        return {"frames": frames, "stride": self.stride, "offered": self.offered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError where `state` is none of a film, or a frame is no picture."""
        untrusted.names(state, ("frames", "stride", "offered"), "film")
        untrusted.number(state["stride"], "film.stride", minimum=1, whole=True)
        untrusted.number(state["offered"], "film.offered", minimum=0, whole=True)
        frames = state["frames"]
        if not isinstance(frames, list) or len(frames) > self.MAX_FRAMES:
            raise ValueError(f"film.frames: must be a list of at most {self.MAX_FRAMES}")
        for frame in frames:
            untrusted.tensor(frame, (frame.numel() if isinstance(frame, Tensor) else 0,), torch.uint8, "film: a frame")
        self.frames = [_checked_png(frame.numpy().tobytes(), self.MAX_SIDE) for frame in frames]
        self.stride, self.offered = state["stride"], state["offered"]

    def gif(self) -> bytes:
        """The frames as a looping GIF of about eight seconds, the last one held for two."""
        images = [_palette(Image.open(io.BytesIO(frame))) for frame in self.frames]
        duration = max(50, min(400, 8000 // len(images)))
        durations = [duration] * (len(images) - 1) + [2000]
        return encoded(images[0], "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)


def _palette(frame: Image.Image) -> Image.Image:
    """A frame with the 256 colours that it needs: all of its grey levels, or the nearest of its colours."""
    return frame if frame.mode == "L" else frame.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _checked_png(content: bytes, max_side: int) -> bytes:
    """Raises ValueError unless it is a whole PNG of no more than that, grey or RGB."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            warnings.simplefilter("ignore")
            if max(image.size) > max_side:
                raise ValueError(f"film: a frame of {image.width}x{image.height} pixels")
            if image.mode not in ("L", "RGB"):
                raise ValueError(f"film: a frame of mode {image.mode}")
            image.load()
    except ValueError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error, ...
        raise ValueError(f"film: a frame that is no PNG ({error})") from error
    return content


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own; it would be read anew for each caption."""
    return ImageFont.load_default()


def png(image: Image.Image) -> bytes:
    """Without colours where there are none: that takes half the time."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and (pixels == pixels[:, :, :1]).all():
        image = Image.fromarray(pixels[:, :, 0])
    return encoded(image, "PNG", compress_level=2)  # three times as fast as the default of 6, and no larger here


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
