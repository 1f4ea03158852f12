"""A folder of images as one array: decoded once, by all cores, into an .npy file below dataset.cache that later runs
map into memory, with a .json file beside it that says what was done. What was decoded before an interruption is kept,
and a folder that has changed is decoded anew."""

import dataclasses
import hashlib
import itertools
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np

from vae.config import schema
from vae.config.errors import InputError
from vae.config.load import at_home
from vae.data import pixels
from vae.data.pixels import Converted, Header, Pixels, Transparent, Unreadable
from vae.data.scan import SUFFIXES, Found
from vae.runtime import files

if TYPE_CHECKING:
    from tqdm import tqdm  # imported where there are images to read

FORMAT = 5  # of what is written; what an earlier version has decoded is decoded anew
CHUNK = 2**25  # bytes of decoded images in memory at a time
NAMED = 5  # files in a message
MANY = 2000  # images, that take more than a moment
OPENED = ("size", "fit", "grayscale", "background", "range", "frames", "max_megapixels")  # settings that change pixels

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Decoded:
    """The .npy file of a folder, uint8 (N, C, H, W), and where each image comes from."""

    path: Path
    sources: list[Path]  # of the N images
    kept: list[int]  # which of them can be used
    span: tuple[float, float] | None  # the values of files of more than 8 bits that are black and white
    note: str  # what was done to them, and what was left out
    is_grey: bool  # each file is grey, and has three equal channels now


def decoded(root: Path, config: schema.Folder, scans: Mapping[Path, Found]) -> Decoded:
    """All images below `root` in the order of their paths. `scans`: what was found below the roots of all splits, it
    among them, whose files of more than 8 bits have black and white in common. Raises InputError, which names the files
    and the setting that helps, for what cannot be read as it was meant."""
    found = scans[root]
    if not found.images:
        raise InputError(f"{root}: no images in it (looked for {', '.join(sorted(SUFFIXES))}){_left_out(found)}")
    settings = [getattr(config, name) for name in OPENED]
    source = [FORMAT, str(root.resolve()), *settings]
    directory = at_home(config.cache) / f"{root.resolve().name}-{_digest(source)}"
    listed = [(os.path.relpath(path, root), *rest) for path, *rest in found.images]  # however the root was written
    deep = [item for other in scans if other != root for item in _perhaps_deep(scans[other], config)]
    path = directory / f"{_digest([source, listed, [(str(path), *rest) for path, *rest in deep]])}.npy"
    paths = [Path(name) for name, _, _ in found.images]
    told = path.with_suffix(".json")
    if not (path.exists() and told.exists()):
        directory.mkdir(parents=True, exist_ok=True)
        with files.locked(directory, wait=True):  # of two runs that want the same folder one decodes
            if not (path.exists() and told.exists()):
                with warnings.catch_warnings():  # here: it holds for all threads
                    warnings.simplefilter("ignore")  # what is damaged in part and can be read is no error
                    _Decoder(root, config, path).decode(paths, [Path(name) for name, _, _ in deep])
    record = json.loads(told.read_text())  # our own, as long as there are broken files
    broken = {int(place): reason for place, reason in record["broken"].items()}
    frames = {int(place): count for place, count in record["frames"].items()}
    sources = [path for place, path in enumerate(paths) for _ in range(frames.get(place, 1))]
    if broken and not config.skip_broken:
        names = named([f"{sources[place]} ({reason})" for place, reason in broken.items()])
        raise InputError(
            f"{root}: {counted(len(broken), 'image')} cannot be read: {names}; replace or remove them, or leave them "
            "out by dataset.skip_broken=true"
        )
    kept = [place for place in range(len(sources)) if place not in broken]
    notes = [*record["notes"], *([f"{len(broken)} that cannot be read left out"] if broken else [])]
    said = "; ".join([f"{counted(len(kept), 'image')} below {root}", *notes])
    span = None if record["span"] is None else (record["span"][0], record["span"][1])
    return Decoded(path, sources, kept, span, f"{said}{_left_out(found)}", record["tripled"] == len(kept))


def _perhaps_deep(found: Found, config: schema.Folder) -> list[tuple[str, int, int]]:
    """Files that may have more than 8 bits, where their range has to be found."""
    if config.range != "auto":
        return []
    return [item for item in found.images if os.path.splitext(item[0])[1].lower() not in pixels.PLAIN]


def _left_out(found: Found) -> str:
    parts = [f"{counted(found.hidden, 'hidden file or folder', 'hidden files and folders')}"] if found.hidden else []
    if found.others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in found.others.most_common(NAMED))
        parts.append(f"{counted(found.others.total(), 'file')} of another kind ({kinds})")
    return f"; left out: {' and '.join(parts)}" if parts else ""


class _Decoder:
    """Decodes a folder into `target` once; the directory is locked meanwhile."""

    def __init__(self, root: Path, config: schema.Folder, target: Path) -> None:
        self.root, self.config, self.target = root, config, target
        self.partial = target.with_suffix(".partial")
        self.marks = target.with_suffix(".marks")  # what was noticed of the images that the partial file has

    def decode(self, paths: list[Path], others: list[Path]) -> None:
        """`others`: files of other splits that may have more than 8 bits."""
        for stale in set(self.target.parent.iterdir()) - {self.partial, self.marks}:
            stale.unlink()
        headers = _in_parallel(paths, self._header, "looking at images")
        items = self._items(paths, headers)
        further = _in_parallel(others, self._header, "looking at images")
        span = self._span([*paths, *others], [*headers, *further])
        first = self._first(items, span)
        marks = self._write(items, first.pixels, span)
        self._refuse_transparency(items, marks)
        counts = Counter(key for mark in marks for key in mark)
        notes = self._notes(headers, span, counts, Counter(mark["was"] for mark in marks if "was" in mark))
        broken = {mark["place"]: mark["broken"] for mark in marks if "broken" in mark}
        several = {place: header.frames for place, header in enumerate(headers) if header.frames > 1}
        record = {
            "frames": several if self.config.frames == "all" else {},
            "broken": broken,
            "span": span,
            "notes": notes,
            "tripled": counts["tripled"],
        }
        files.replace(self.target.with_suffix(".json"), json.dumps(record).encode())
        os.replace(self.partial, self.target)
        self.marks.unlink(missing_ok=True)

    def _header(self, path: Path) -> Header:
        try:
            return pixels.header(path, self.config)
        except Unreadable:
            return Header(1, deep=False)  # it will be found broken

    def _items(self, paths: list[Path], headers: list[Header]) -> list[tuple[Path, int]]:
        """Each image: its file, and which of its frames."""
        return [
            (path, frame)
            for path, header in zip(paths, headers, strict=True)
            for frame in range(header.frames if self.config.frames == "all" else 1)
        ]

    def _discard(self) -> None:
        """What is decoded: the folder or the settings have to change now, and then it is of no use."""
        self.partial.unlink()
        self.marks.unlink(missing_ok=True)

    def _span(self, paths: list[Path], headers: list[Header]) -> tuple[float, float] | None:
        """What is black and what is white in files of more than 8 bits; None where there are none."""
        chosen = [(path, header) for path, header in zip(paths, headers, strict=True) if header.deep]
        if not chosen:
            return None
        if isinstance(self.config.range, list):
            low, high = self.config.range
            return float(low), float(high)

        def value_ranges(item: tuple[Path, int]) -> list[tuple[float, float] | Exception]:
            path, frames = item
            return pixels.value_ranges(path, range(frames if self.config.frames == "all" else 1), self.config)

        deep = [(path, header.frames) for path, header in chosen]
        found = itertools.chain.from_iterable(_in_parallel(deep, value_ranges, "looking at values"))
        ranges = [limits for limits in found if not isinstance(limits, Exception)]
        return pixels.common_range(ranges) if ranges else None

    def _first(self, items: list[tuple[Path, int]], span: tuple[float, float] | None) -> Converted:
        """The first image that can be read: it has the shape of all."""
        reasons = []
        for path, frame in items:
            try:
                return pixels.read_one(path, frame, self._opaque(), span)
            except Unreadable as error:
                reasons.append(f"{path} ({error})")
        raise InputError(f"{self.root}: none of its {len(items)} images can be read: {named(reasons)}")

    def _opaque(self) -> schema.Folder:
        """The settings, with any background."""
        return dataclasses.replace(self.config, background=self.config.background or "white")

    def _write(
        self, items: list[tuple[Path, int]], first: Pixels, span: tuple[float, float] | None
    ) -> list[dict[str, Any]]:
        """All images into the partial file, black ones for those that cannot be read; what was noticed of them."""
        chunk = max(1, min(1024, CHUNK // first.nbytes))

        def read(frames: tuple[Path, list[int]]) -> list[Converted | Exception]:
            return pixels.read(*frames, self.config, span)

        with open(self.partial, "a+b") as file, open(self.marks, "a") as noticed:
            done = _begin(file, (len(items), *first.shape))
            marks = {mark["place"]: mark for mark in _read_lines(self.marks) if mark["place"] < done}
            rest = items[done:]
            for place, found in enumerate(_in_order(rest, read, chunk, done, len(items)), start=done):
                mark = _mark(place, found)
                if mark is not None:
                    marks[place] = mark
                    noticed.write("\n" + json.dumps(mark))  # first: the line before it may have been cut
                    noticed.flush()
                if isinstance(found, Converted) and found.pixels.shape != first.shape:
                    self._refuse_sizes(items, span)
                file.write(found.pixels.tobytes() if isinstance(found, Converted) else bytes(first.nbytes))
            file.flush()
            os.fsync(file.fileno())
        return list(marks.values())

    def _refuse_sizes(self, items: list[tuple[Path, int]], span: tuple[float, float] | None) -> None:
        def sizes_of(frames: tuple[Path, list[int]]) -> list[tuple[int, ...] | None]:
            found = pixels.read(*frames, self._opaque(), span)
            return [one.pixels.shape if isinstance(one, Converted) else None for one in found]

        shapes = list(itertools.chain.from_iterable(_in_parallel(_by_file(items), sizes_of, "looking at sizes")))
        self._discard()
        counts = Counter(shape for shape in shapes if shape is not None)
        examples = {shape: items[shapes.index(shape)][0] for shape in counts}
        sizes = [f"{shape[2]}x{shape[1]} ({n}, as {examples[shape]})" for shape, n in counts.most_common()]
        raise InputError(
            f"{self.root}: images of {len(counts)} sizes: {named(sizes)}; set dataset.size to bring all to one size"
        )

    def _refuse_transparency(self, items: list[tuple[Path, int]], marks: list[dict[str, Any]]) -> None:
        clear = [str(items[mark["place"]][0]) for mark in marks if "transparent" in mark]
        if clear:
            self._discard()
            raise InputError(
                f"{self.root}: {counted(len(clear), 'image is', 'images are')} transparent in places: "
                f"{named(clear)}; say what lies behind them: dataset.background=white, black, or a colour"
            )

    def _notes(
        self, headers: list[Header], span: tuple[float, float] | None, counts: Counter[str], were: Counter[str]
    ) -> list[str]:
        """`counts` of what was done to images, `were` of what some were converted from."""
        config, size = self.config, pixels.wanted(self.config)
        verb = {"crop": "cropped", "pad": "padded", "stretch": "stretched"}[config.fit]
        several = sum(header.frames > 1 for header in headers)
        notes = []
        if counts["scaled"] and size is not None:
            reshaped = f", {counts['reshaped']} of them {verb}" if counts["reshaped"] else ""
            notes.append(f"{counts['scaled']} scaled to {size[0]}x{size[1]}{reshaped}")
        notes += [f"{count} converted from {kind}" for kind, count in sorted(were.items())]
        if counts["tripled"]:
            notes.append(f"{counts['tripled']} in grey given three equal channels")
        if counts["greyed"]:
            notes.append(f"{counts['greyed']} in colour made grey (dataset.grayscale=true)")
        if counts["composed"]:
            notes.append(f"{counts['composed']} put on {config.background}")
        deep = sum(header.deep for header in headers)
        if span is not None and deep:
            notes.append(f"{deep} of more than 8 bits, brought to 8 from {span[0]:g} (black) to {span[1]:g} (white)")
        if several and config.frames == "first":
            dropped = sum(header.frames - 1 for header in headers)
            notes.append(f"of {counted(several, 'file')} with several frames the first, {dropped} dropped")
        return notes


def _mark(place: int, found: Converted | Exception) -> dict[str, Any] | None:
    """What there is to be said of an image; None where nothing was done to it."""
    if isinstance(found, Transparent):
        return {"place": place, "transparent": True}
    if isinstance(found, Exception):
        return {"place": place, "broken": str(found) or type(found).__name__}
    noticed = ("composed", "scaled", "reshaped", "greyed", "tripled", "was")
    done = {name: value for name in noticed if (value := getattr(found, name))}
    return {"place": place, **done} if done else None


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that may have been cut."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            mark = json.loads(line)
        except ValueError:
            continue
        if isinstance(mark, dict) and isinstance(mark.get("place"), int):
            found.append(mark)
    return found


def _digest(values: Any) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=10).hexdigest()


def counted(count: int, one: str, several: str | None = None) -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"


def named(names: Sequence[str]) -> str:
    """The first of these, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _bar(what: str, total: int, done: int = 0) -> "tqdm[Any]":
    """Progress of MANY images and more, on a terminal."""
    from tqdm import tqdm

    disable = None if total >= MANY else True  # None: unless this is a terminal
    return tqdm(total=total, initial=done, desc=what, unit="", leave=False, disable=disable)


def _in_parallel(items: Sequence[Item], do: Callable[[Item], Result], what: str) -> list[Result]:
    found = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, _bar(what, len(items)) as progress:
        for result in pool.map(do, items):
            found.append(result)
            progress.update()
    return found


def _by_file(items: Sequence[tuple[Path, int]]) -> list[tuple[Path, list[int]]]:
    """The frames of each file: it is gone through once."""
    grouped = itertools.groupby(items, key=lambda item: item[0])
    return [(path, [frame for _, frame in frames]) for path, frames in grouped]


def _in_order(
    items: Sequence[tuple[Path, int]],
    do: Callable[[tuple[Path, list[int]]], list[Result]],
    chunk: int,
    done: int,
    total: int,
) -> Iterator[Result]:
    """What `do` gives for each frame of each file, in order; `chunk` of them are in memory at a time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, _bar("decoding images", total, done) as progress:
        for i in range(0, len(items), chunk):
            yield from itertools.chain.from_iterable(pool.map(do, _by_file(items[i : i + chunk])))
            progress.update(len(items[i : i + chunk]))


def _begin(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Bring a file that perhaps holds some whole images, and perhaps part of one, to where the next one goes: how many
    there are."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    if file.tell() == 0:
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        return 0
    file.seek(0)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    begin, size = file.tell(), int(np.prod(shape[1:]))
    done = (os.fstat(file.fileno()).st_size - begin) // size
    file.truncate(begin + done * size)
    return done
