"""The pictures of the runs side by side: a column a group, whose verdict stands above its pictures."""

import base64
import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from vae.report import films
from vae.report.drawing import pixels, png, short, spread
from vae.report.groups import Group
from vae.report.runs import Run
from vae.runtime import directory as names

log = logging.getLogger(__name__)

MAX_COLUMNS = 4  # of a page with many groups; up to MAX_ALL all are shown, in rows of so many
MAX_ALL = 8
MAX_PIXELS = 20_000_000  # of a picture that is looked at


@dataclass
class Picture:
    """A grid, and what its rows are."""

    source: str  # data: URL
    labels: list[str]


@dataclass
class Film:
    source: str  # data: URL of its frames under one another
    frames: int
    ratio: float  # height of a frame over its width
    rows: list[tuple[float, str]]  # height of each row, as a fraction of the frame, and what it is


@dataclass
class Column:
    group: Group
    run: Run
    reconstructions: Picture | None = None
    samples: Picture | None = None
    film: Film | None = None
    traversal: Picture | None = field(default=None)


def columns(groups: Sequence[Group]) -> list[Column]:
    able = [group for group in groups if group.shown.has(names.EVENTS) or group.shown.has(names.FILM)]
    maximum = MAX_ALL if len(able) <= MAX_ALL else MAX_COLUMNS
    return [column(group) for group in spread(able, maximum, lambda group: group.shown.images or group.shown.gif)]


def column(group: Group) -> Column:
    run = group.shown
    found = Column(group, run)
    heights = {}
    for tag, content in run.images.items():
        try:
            heights[tag] = _height(content)
        except Exception as error:  # whatever Pillow says of a picture that is none
            log.warning("report: %s of %s left out (%s: %s)", tag, run.name, type(error).__name__, error)
    sample_row = heights.get("prior_samples", 0) / 4  # it has four rows
    if "reconstructions" in heights and sample_row:
        pairs = max(1, round(heights["reconstructions"] / sample_row / 2))
        found.reconstructions = Picture(png_url(run.images["reconstructions"]), ["image", "redrawn"] * pairs)
    if "prior_samples" in heights:
        found.samples = Picture(png_url(run.images["prior_samples"]), [])
    if "traversal" in heights:
        found.traversal = Picture(png_url(run.images["traversal"]), [])
    if run.gif:
        try:
            found.film = _film(run.gif, heights)
        except Exception as error:  # whatever Pillow says of a film that is none
            log.warning("report: film of %s left out (%s: %s)", run.name, type(error).__name__, error)
    return found


CAPTION, LINE = 18, 4  # pixels of a frame above the images, and between reconstructions and samples


def _film(gif: bytes, heights: dict[str, int]) -> Film:
    sheet = films.sheet(gif)
    rows: list[tuple[float, str]] = []
    above, below = heights.get("reconstructions", 0), heights.get("prior_samples", 0)
    if above and below:
        pairs = max(1, round(above / (below / 4) / 2))
        whole = CAPTION + above + LINE + below
        rows = [(CAPTION / whole, "")]
        rows += [(above / whole / (2 * pairs), label) for label in ["image", "redrawn"] * pairs]
        rows += [((LINE + below) / whole, "made from the prior")]
    return Film(url(sheet.content, "image/webp"), sheet.frames, sheet.ratio, rows)


def _height(content: bytes) -> int:
    """0 of one that is too large to be looked at."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if math.prod(image.size) >= MAX_PIXELS:
            return 0
        image.load()
        return image.height


def png_url(content: bytes) -> str:
    return url(content, "image/png")


def url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def poster(shown: Sequence[Column]) -> bytes | None:
    """The pictures of all columns on one PNG, for a slide: test images and reconstructions above prior samples."""
    able = [column for column in shown if column.reconstructions and column.samples]
    if not able:
        return None
    figure = Figure(figsize=(3.4 * len(able), 3.0), layout="constrained")
    places = figure.subplots(2, len(able), squeeze=False)
    for i, column in enumerate(able):
        for row, tag in enumerate(("reconstructions", "prior_samples")):
            with Image.open(io.BytesIO(column.run.images[tag]), formats=["PNG"]) as picture:
                places[row, i].imshow(np.asarray(picture.convert("RGB")))
            places[row, i].set(xticks=[], yticks=[])
            places[row, i].grid(False)
        places[0, i].set_title(f"{short(column.group.name)}: {column.group.fate}")
    places[0, 0].set_ylabel("test images,\nredrawn below each")
    places[1, 0].set_ylabel("made from the prior")
    return png(pixels(figure))
