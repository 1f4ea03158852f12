"""Which files below a directory are images of a data set, and which are left out and why; which of its folders are the
splits."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vae.config.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
HIDDEN = {"__macosx"}  # and whatever starts with a dot: what systems and editors leave
SPLITS = {
    "train": {"train", "training"},
    "test": {"test", "testing"},
    "validation": {"val", "valid", "validation", "dev"},
}


@dataclass
class Found:
    """Images below a directory: path, size in bytes and time of change of each; and what is none."""

    images: list[tuple[str, int, int]] = field(default_factory=list)
    hidden: int = 0  # files and folders
    others: Counter[str] = field(default_factory=Counter)  # files that are no images, by suffix


def scan(root: Path, follow_links: bool) -> Found:
    """In the order of their paths. Links that lead out of `root` are refused unless they are to be followed."""
    found = Found()
    for path, size, time in _below(root, root.resolve(), follow_links, found, {os.path.realpath(root)}):
        found.images.append((path, size, time))
    found.images.sort()
    return found


def _below(
    directory: Path, top: Path, follow_links: bool, found: Found, seen: set[str]
) -> Iterator[tuple[str, int, int]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                found.hidden += 1
                continue
            real = os.path.realpath(entry.path)
            if not follow_links:
                _refuse_leaving(Path(entry.path), Path(real), top)
            if entry.is_dir():
                if real not in seen:  # a link to a folder above itself has no end
                    yield from _below(Path(entry.path), top, follow_links, found, {*seen, real})
            elif entry.is_file():
                suffix = os.path.splitext(entry.name)[1].lower()
                if suffix in SUFFIXES:
                    status = entry.stat()
                    yield entry.path, status.st_size, status.st_mtime_ns
                else:
                    found.others[suffix or "no suffix"] += 1


def _refuse_leaving(path: Path, real: Path, top: Path) -> None:
    """Raises InputError where a path is a link, and the real one is not below `top`."""
    if path.is_symlink() and not real.is_relative_to(top):
        raise InputError(
            f"{path}: a link that leads out of {top}; dataset.follow_links=true follows it, or put the files "
            "themselves there"
        )


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in HIDDEN


def split_folders(root: Path, follow_links: bool) -> dict[str, Path]:
    """The folders of `root` that are its splits, under train, test and validation; empty where it has none: training
    images, and others to test on, make a split. Raises InputError where two folders are the same split, and where one
    is a link that leads out of `root`, unless these are to be followed."""
    named: dict[str, Path] = {}
    for path in sorted(path for path in root.iterdir() if path.is_dir()):
        for split, names in SPLITS.items():
            if path.name.lower() in names:
                if split in named:
                    raise InputError(
                        f"{root}: {named[split].name} and {path.name} are both its {split} split; keep one"
                    )
                named[split] = path
    if "train" not in named or len(named) == 1:
        return {}
    for path in named.values():
        if not follow_links:
            _refuse_leaving(path, path.resolve(), root.resolve())
    return named
