"""The film of a run for the page: some of its frames under one another in a single picture, so that the page can show
the films of all runs at the same moment of the training, and stop and turn them back."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageSequence

FRAMES = 25
WIDTH = 290  # pixels
MAX_HEIGHT = 16000  # of a WebP
MAX_PIXELS = 4_000_000  # of a frame


@dataclass
class Sheet:
    content: bytes  # WebP
    frames: int
    ratio: float  # height of a frame over its width


def sheet(gif: bytes) -> Sheet:
    """Raises what Pillow raises where `gif` is no picture, ValueError where its frames are too large."""
    with Image.open(io.BytesIO(gif), formats=["GIF"]) as film:
        if film.width * film.height > MAX_PIXELS:
            raise ValueError(f"a film of {film.width}x{film.height} pixels")
        width = min(WIDTH, film.width)
        height = max(1, round(film.height * width / film.width))
        frames = [frame.convert("RGB").resize((width, height)) for frame in ImageSequence.Iterator(film)]
    frames = evenly(frames, min(FRAMES, MAX_HEIGHT // height))
    sheet = Image.new("RGB", (width, height * len(frames)))
    for i, frame in enumerate(frames):
        sheet.paste(frame, (0, i * height))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=45)
    return Sheet(file.getvalue(), len(frames), height / width)


def evenly(frames: Sequence[Image.Image], maximum: int) -> list[Image.Image]:
    """So many of them at most, the first and the last among them."""
    if len(frames) <= maximum or maximum < 2:
        return list(frames[-max(1, maximum) :])
    return [frames[round(i * (len(frames) - 1) / (maximum - 1))] for i in range(maximum)]
