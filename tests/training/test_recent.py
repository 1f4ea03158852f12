"""The measures of the last steps, and what is left of them where a run goes on with other settings."""

import torch

from vae.training.recent import Recent


def ring(capacity: int, before: Recent | None = None) -> Recent:
    made = Recent(capacity, 1, torch.device("cpu"))
    if before is not None:
        made.load_state_dict(before.state_dict())
    return made


def add(recent: Recent, *losses: float) -> None:
    for loss in losses:
        recent.add(torch.full((4,), loss))


def losses(recent: Recent, steps: int) -> list[float]:
    found: list[float] = recent.last(steps)[:, 0].tolist()
    return found


def test_steps_of_which_nothing_is_known_are_not_counted() -> None:
    """A run that is resumed with a larger log_every has fewer rows than the first mean asks for."""
    small = ring(3)
    add(small, 1, 2, 3, 4, 5, 6, 7)
    large = ring(10, small)
    assert losses(large, 10) == [5, 6, 7]
    add(large, 8, 9)
    assert losses(large, 10) == [5, 6, 7, 8, 9]
    again = ring(10, large)
    add(again, 10)
    assert losses(again, 10) == [5, 6, 7, 8, 9, 10]
    assert losses(ring(2, again), 10) == [9, 10]
    add(again, *range(11, 18))
    assert again.means(10).loss == sum(range(8, 18)) / 10


def test_a_ring_of_the_same_size_is_the_same_ring() -> None:
    recent = ring(4)
    for count in range(1, 10):
        add(recent, count)
        again = ring(4, recent)
        assert torch.equal(again.rows, recent.rows)
        assert losses(again, 4) == losses(recent, 4) == [*range(max(1, count - 3), count + 1)]
