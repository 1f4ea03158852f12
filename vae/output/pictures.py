"""Pictures of what a model does: grids of reconstructions, prior samples and traversals, and the film of how
they came about. Pictures are uint8 arrays (H, W, 3)."""

import functools
import io
import warnings
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
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
CAPTION, CAPTION_HEIGHT, MAX_CAPTION = "caption", 18, 100  # of a frame: its key in the PNG, pixels, characters


def grid(rows: Tensor, gamma: float = 1.0) -> Picture:
    """Float images (R, K, C, H, W) as one picture of R rows and K columns. Values are clipped to [0, 1] and
    shown as x ** (1 / gamma): above 1 faint pixels become visible. Enlarged by a whole number when small."""
    return enlarged(tiled(rows, gamma), zoom(rows.shape))


def tiled(rows: Tensor, gamma: float = 1.0) -> Picture:
    """The same as large as the images are. Where these are grey, one channel stands for three."""
    shown = rows.clamp(0, 1)
    shown = shown if rows.shape[-3] == 1 else in_colour(shown)
    shown = (shown if gamma == 1 else shown.pow(1 / gamma)).mul(255).round().byte().cpu()
    padded = torch.nn.functional.pad(shown, (0, GAP, 0, GAP), value=BACKGROUND)
    count, columns, channels, height, width = padded.shape
    whole = padded.permute(0, 3, 1, 4, 2).reshape(count * height, columns * width, channels)[:-GAP, :-GAP]
    return np.broadcast_to(whole.numpy(), (*whole.shape[:2], 3))


def zoom(shape: Sequence[int]) -> int:
    """By how much images of `shape` (..., H, W) are enlarged, so that they can be seen."""
    return max(1, 64 // max(shape[-2:]))


def enlarged(picture: Picture, factor: int) -> Picture:
    if factor == 1:
        return picture
    height, width = picture.shape[:2]
    plane = picture[:, :, :1] if _is_grey(picture) else picture
    large = np.empty((height, factor, width, factor, plane.shape[2]), np.uint8)
    large[:] = plane[:, None, :, None]
    return np.broadcast_to(large.reshape(height * factor, width * factor, -1), (height * factor, width * factor, 3))


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


class Page(NamedTuple):
    """Of one moment, as large as the images are."""

    images: Picture  # rows of test images, each above the row of their reconstructions from z = mu
    samples: Picture  # images of the same codes from N(0, I) every time
    zoom: int

    def grids(self) -> dict[str, Picture]:
        return {
            "reconstructions": enlarged(self.images, self.zoom),
            "prior_samples": enlarged(self.samples, self.zoom),
        }


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

    @property
    def zoom(self) -> int:
        return zoom(self.images.shape)

    @property
    def height(self) -> int:
        """Pixels of the rows of test images and their reconstructions, not enlarged."""
        return 2 * len(self.images) // self.columns * (self.images.shape[2] + GAP) - GAP

    @torch.no_grad()
    def page(self, model: LatentModel) -> Page:
        """What the film and the grids show of the model as it is now."""
        with in_eval_mode(model):
            codes = torch.cat([model.encode(self.images).mu, self.codes])
            means, samples = model.decode(codes).tensor_split([len(self.images)])
        pairs = torch.stack([self._rows(self.images), self._rows(means)], 1)
        return Page(tiled(pairs.flatten(0, 1), self.gamma), tiled(self._rows(samples), self.gamma), self.zoom)

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
    wait as PNG; small ones as large as the images are, to be enlarged and captioned at the end. Of a long run every
    second, fourth, ... frame is kept, so that a film has at most MAX_FRAMES."""

    MAX_SIDE = 1200  # a frame is scaled down to it
    MAX_FRAMES = 160

    def __init__(self, album: Album) -> None:
        self.album = album
        self.frames: list[bytes] = []
        self.stride = 1  # of the frames offered, this one is kept
        self.offered = 0

    def takes(self, last: bool) -> bool:
        """Offer a frame: whether it is kept. The last one always is."""
        self.offered += 1
        return (self.offered - 1) % self.stride == 0 or last

    def add(self, page: Page, step: int, weight: float) -> None:
        """A frame that it takes."""
        caption = f"step {step}   KL weight {weight:.3g}"
        if self._waits(page):
            told = PngInfo()
            told.add_text(CAPTION, caption)
            parts = [page.images, page.samples]
            if all(map(_is_grey, parts)):
                parts = [part[:, :, :1] for part in parts]
            self.frames.append(png(np.concatenate(parts), pnginfo=told))
        else:
            frame = Image.fromarray(_frame(caption, *page.grids().values()))
            frame.thumbnail((self.MAX_SIDE, self.MAX_SIDE))
            self.frames.append(png(np.asarray(frame)))
        if len(self.frames) > self.MAX_FRAMES:
            self.frames = self.frames[::2]
            self.stride *= 2

    def _waits(self, page: Page) -> bool:
        """Whether a frame takes less as it is than enlarged, and will fit then."""
        sides = len(page.images) + len(page.samples) + CAPTION_HEIGHT, page.images.shape[1]
        return page.zoom > 1 and max(sides) * page.zoom <= self.MAX_SIDE

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
        zoom = self.album.zoom
        self.frames = [_checked_png(frame.numpy().tobytes(), self.MAX_SIDE, zoom) for frame in frames]
        self.stride, self.offered = state["stride"], state["offered"]

    def gif(self) -> bytes:
        """The frames as a looping GIF of about eight seconds, the last one held for two."""
        images = [_palette(self._whole(frame)) for frame in self.frames]
        duration = max(50, min(400, 8000 // len(images)))
        durations = [duration] * (len(images) - 1) + [2000]
        return encoded(images[0], "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)

    def _whole(self, content: bytes) -> Image.Image:
        """A frame that has waited, enlarged and with its caption."""
        frame = Image.open(io.BytesIO(content))
        caption = frame.info.get(CAPTION)
        if caption is None:
            return frame
        pixels = np.asarray(frame)
        pixels = np.broadcast_to(pixels if pixels.ndim == 3 else pixels[:, :, None], (*pixels.shape[:2], 3))
        parts = (enlarged(part, self.album.zoom) for part in np.split(pixels, [self.album.height]))
        whole = _frame(caption, *parts)
        return Image.fromarray(whole if frame.mode == "RGB" else whole[:, :, 0].copy())


def _frame(caption: str, images: Picture, samples: Picture) -> Picture:
    width = images.shape[1]
    head = Image.new("RGB", (width, CAPTION_HEIGHT))
    ImageDraw.Draw(head).text((4, 3), caption, (255, 255, 255), _font())
    return np.concatenate([np.asarray(head), images, np.full((4, width, 3), 255, np.uint8), samples])


def _palette(frame: Image.Image) -> Image.Image:
    """A frame with the 256 colours that it needs: all of its grey levels, or the nearest of its colours."""
    return frame if frame.mode == "L" else frame.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _checked_png(content: bytes, max_side: int, zoom: int) -> bytes:
    """Raises ValueError unless it is a whole PNG, grey or RGB, of no more than that when it is enlarged; one without a
    caption is so already."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            warnings.simplefilter("ignore")
            caption = image.info.get(CAPTION)
            if max(image.size) * (1 if caption is None else zoom) > max_side:
                raise ValueError(f"film: a frame of {image.width}x{image.height} pixels")
            if image.mode not in ("L", "RGB"):
                raise ValueError(f"film: a frame of mode {image.mode}")
            if caption is not None and not (isinstance(caption, str) and len(caption) <= MAX_CAPTION):
                raise ValueError("film: a frame whose caption is no short text")
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


def png(picture: Picture, **options: Any) -> bytes:
    """Without colours where there are none: that takes half the time. Runs of equal bytes alone are shortened
    (Z_RLE): of pictures like these that is faster than a search for repetitions, and takes less."""
    image = Image.fromarray(np.ascontiguousarray(picture[:, :, 0] if _is_grey(picture) else picture))
    return encoded(image, "PNG", compress_type=zlib.Z_RLE, **options)


def _is_grey(picture: Picture) -> bool:
    return picture.shape[2] == 1 or picture.strides[2] == 0 or bool((picture == picture[:, :, :1]).all())


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
