"""The records of an event file, each a length (8 bytes), its checksum (4), an event, its checksum (4). Written and read
here, because TensorBoard's checksums take the bytes one by one in Python: most of the time that its reader needs for a
run with pictures."""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from vae.runtime.crc32c import crc32c

HEAD, TAIL = 12, 4  # bytes of a record before and after its event
MANY = 1500  # bytes from which our checksum is faster than TensorBoard's

Place = tuple[int, int]  # the first byte of an event, and its length


class Damaged(ValueError):
    """Bytes that their checksum does not fit."""


def packed(event: bytes) -> bytes:
    """The record of an event."""
    length = struct.pack("<Q", len(event))
    return b"".join((length, checksum(length), event, checksum(event)))


def checksum(content: bytes) -> bytes:
    """CRC-32C, masked: turned by 15 bits and moved on by a constant."""
    found = crc32c(content) if len(content) >= MANY else pywrap_tensorflow.crc32c(content)
    return struct.pack("<I", ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def places(file: BinaryIO) -> Iterator[Place]:
    """Where the events are, as far as the records are whole. Raises Damaged at a length that was not written so."""
    size = os.fstat(file.fileno()).st_size
    start = HEAD
    while start <= size:
        file.seek(start - HEAD)
        head = file.read(HEAD)
        if checksum(head[:8]) != head[8:]:
            raise Damaged(f"byte {start - HEAD}")
        (length,) = struct.unpack("<Q", head[:8])
        if start + length + TAIL > size:
            return
        yield start, length
        start += length + TAIL + HEAD


def event(file: BinaryIO, place: Place) -> bytes:
    """The event there. Raises Damaged where it is not what was written."""
    content = unchecked(file, place)
    check(file, place, content)
    return content


def unchecked(file: BinaryIO, place: Place) -> bytes:
    """The event there, damaged or not."""
    start, length = place
    file.seek(start)
    return file.read(length)


def check(file: BinaryIO, place: Place, content: bytes) -> None:
    """Raises Damaged where the event there is not what was written."""
    start, length = place
    file.seek(start + length)
    if checksum(content) != file.read(TAIL):
        raise Damaged(f"byte {start}")


def whole(file: BinaryIO) -> int:
    """How many bytes from the beginning are whole records."""
    end = 0
    try:
        for start, length in places(file):
            end = start + length + TAIL
    except Damaged:
        pass
    return end
