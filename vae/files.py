"""Files that are either the old ones or the new ones, whole, whatever happens while they are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


@contextmanager
def locked(directory: Path, wait: bool = False) -> Iterator[None]:
    """Hold `directory` for this process alone. Where another one has it, wait or raise BlockingIOError. The lock is the
    system's: it leaves no file, and ends with the process however that ends. Without such locks it does nothing."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)
