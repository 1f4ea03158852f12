"""The event files of a run: one for each time that it was started or resumed, read by TensorBoard in the order of their
names.

TensorBoard's own writer cannot keep two promises of this program: it writes from a thread, where a full disk becomes a
traceback that ends nothing, and it names files by the clock alone, which may go back. Hence the one on torch's
FileWriter here."""

import logging
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from torch.utils.tensorboard.writer import FileWriter

from vae.runtime import records, untrusted
from vae.runtime.directory import EVENTS

log = logging.getLogger(__name__)


class EventFile(FileWriter):
    """The event file of this process. Of a run that is resumed, `written` says how many bytes of which event files it
    had written at its checkpoint: what came after is cut off, so that no point is there twice. Raises OSError where the
    directory cannot be written to, at once."""

    def __init__(self, directory: Path, written: Mapping[str, int] | None = None) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        written = written or {}
        for path in directory.glob(EVENTS):
            path.unlink() if path.name not in written else _cut(path, written[path.name])
        for name in sorted(set(written) - {path.name for path in directory.glob(EVENTS)}):
            log.warning("%s: is gone, and the curves that were in it", directory / name)
        latest = max((_seconds(path) for path in directory.glob(EVENTS)), default=0)
        seconds = max(int(time.time()), latest + 1)
        host = re.sub(r"[^\w.-]", "-", socket.gethostname())[:200]  # which `check_written` takes back
        name = EVENTS.replace("*", f"{seconds:010d}.{host}.{os.getpid()}")
        self.handle = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        self.add_event(Event(file_version="brain.Event:2"))

    def add_event(self, event: Event, step: int | None = None, walltime: float | None = None) -> None:
        event.wall_time = time.time() if walltime is None else walltime
        if step is not None:
            event.step = int(step)
        self.write(records.packed(event.SerializeToString()))

    def write(self, record: bytes) -> None:
        """All of it; of a full disk the system takes a part first."""
        while record:
            record = record[os.write(self.handle, record) :]

    def sync(self) -> None:
        """All that was logged so far is on the disk then."""
        os.fsync(self.handle)

    def get_logdir(self) -> str:
        return str(self.directory)

    def flush(self) -> None:
        """Nothing waits here: every record is with the system as soon as it is written."""

    def close(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def there(directory: Path) -> dict[str, int]:
    """The event files in a directory and their sizes in bytes: an EventFile that is given these keeps all of them."""
    return {path.name: path.stat().st_size for path in directory.glob(EVENTS)}


def check_written(found: Any) -> None:
    """Raises ValueError unless `found` holds names of event files and sizes in bytes."""
    place = "recorder.written"
    if not isinstance(found, dict):
        raise ValueError(f"{place}: is {type(found).__name__}, must be a dict")
    for name, size in found.items():
        if not re.fullmatch(r"events\.out\.tfevents\.[\w.-]{1,300}", str(name)):
            raise ValueError(f"{place}: {name!r} is no event file")
        untrusted.number(size, place, minimum=0, whole=True)


def _cut(path: Path, size: int) -> None:
    """Leave `size` bytes, or what is whole of a file that has lost some."""
    found = path.stat().st_size
    if found >= size:
        os.truncate(path, size)
        return
    log.warning("%s: %d bytes have been lost, and the points that were in them", path, size - found)
    with open(path, "rb") as file:
        end = records.whole(file)
    os.truncate(path, end)


def _seconds(path: Path) -> int:
    """The time in the name of an event file, 0 where it has none."""
    found = re.match(r"events\.out\.tfevents\.(\d{1,10})\.", path.name)
    return int(found[1]) if found else 0
