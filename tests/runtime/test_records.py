"""The records of an event file, against those that TensorBoard reads."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from torch.utils.tensorboard import SummaryWriter

from vae.runtime import records


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Written by torch's writer: small events, and one of more bytes than TensorBoard's checksum takes here."""
    writer = SummaryWriter(str(tmp_path))
    for step in range(20):
        writer.add_scalar("a", step, step)
    writer.add_text("b", "word " * 1000, 20)
    writer.close()
    return next(tmp_path.iterdir())


def events(path: Path) -> list[bytes]:
    with open(path, "rb") as file:
        return [records.event(file, place) for place in records.places(file)]


def test_they_are_those_that_tensorboard_reads(file: Path) -> None:
    assert events(file) == list(RawEventFileLoader(str(file)).Load())
    assert len(events(file)) > 20


def test_what_is_packed_is_what_was_written(file: Path) -> None:
    assert b"".join(map(records.packed, events(file))) == file.read_bytes()


@pytest.mark.parametrize("lost", [1, 4, 5, 20, 4000])
def test_a_file_that_ends_in_the_middle_has_what_is_whole(file: Path, lost: int) -> None:
    content, before = file.read_bytes(), events(file)
    file.write_bytes(content[:-lost])
    assert events(file) == before[: len(events(file))]
    with open(file, "rb") as cut:
        end = records.whole(cut)
    file.write_bytes(content[:end])
    assert b"".join(map(records.packed, events(file))) == content[:end]


@pytest.mark.parametrize("place", [3, 9, 14, 1000])
def test_a_byte_that_was_changed_is_told(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(records.Damaged, match="byte"):
        events(file)


def test_a_length_that_nothing_holds(tmp_path: Path) -> None:
    """Its checksum fits; what it promises is not there."""
    length = (1 << 63).to_bytes(8, "little")
    (tmp_path / "a").write_bytes(length + records.checksum(length) + b"x")
    assert events(tmp_path / "a") == []
