"""Atomic writes, locks, and reads that are limited in size."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from vae.config.errors import InputError

TEXT_LIMIT = 4_000_000  # bytes of a configuration or a record
DEEPEST = 100  # levels of a configuration
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built


def replace(path: Path, content: bytes, keep: Path | None = None) -> None:
    """Write `content` to a temporary file beside `path`, flush it to the disk, and rename it into place. What was
    there before stays as `keep`, if that is given."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def remove_unfinished(directory: Path) -> None:
    """Remove what a process that was killed inside `replace` has left in `directory`."""
    for path in directory.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """Raises ValueError for a file of more than TEXT_LIMIT bytes, or one that is not UTF-8."""
    with open(path, "rb") as file:
        content = file.read(TEXT_LIMIT + 1)
    if len(content) > TEXT_LIMIT:
        raise ValueError(f"more than {TEXT_LIMIT} bytes")
    return content.decode()


def read_yaml(path: Path) -> Any:
    """Raises ValueError for what is no YAML, is nested too deeply, or repeats parts of itself (a few lines of aliases
    can stand for more than fits into memory; nothing here writes any)."""
    text = read_text(path)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=YAML_LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise yaml.YAMLError("an alias")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise yaml.YAMLError(f"more than {DEEPEST} levels")
        return yaml.load(text, YAML_LOADER)
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from error


class DirectoryInUse(InputError):
    """Another process holds the lock on a directory."""


def is_locked(directory: Path) -> bool:
    """Whether another process holds `directory`."""
    try:
        with locked(directory):
            return False
    except DirectoryInUse:
        return True


@contextmanager
def locked(directory: Path, wait: bool = False) -> Iterator[None]:
    """Hold `directory` for this process alone. Where another one has it, wait or raise DirectoryInUse. The lock is the
    system's: it leaves no file, and ends with the process however that ends. Without such locks it does nothing."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise DirectoryInUse(f"{directory}: another process is training in it") from error
        yield
    finally:
        os.close(handle)
