"""The time of a run, over its pauses and interruptions."""

import pytest

from vae.runtime import clock
from vae.runtime.clock import Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the time is, to be set."""
    time = [100.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: time[0])
    return time


def test_pauses_are_no_training(now: list[float]) -> None:
    run = Clock()
    now[0] = 103.0
    with run.paused():
        now[0] = 110.0
    now[0] = 112.0
    assert (run.seconds, run.training_seconds) == (12.0, 3.0)  # training until the last pause
    with run.paused():
        assert run.training_seconds == 5.0


def test_a_run_that_is_resumed_counts_on(now: list[float]) -> None:
    first = Clock()
    now[0] = 104.0
    with first.paused():
        saved = first.state_dict()
    now[0] = 1000.0  # nothing runs
    second = Clock()
    second.load_state_dict(saved)
    now[0] = 1001.0
    with second.paused():
        assert (second.seconds, second.training_seconds) == (5.0, 5.0)


@pytest.mark.parametrize("state", [{}, {"seconds": -1.0, "training_seconds": 0.0}, {"seconds": "1"}, {"seconds": 1e99}])
def test_a_state_that_is_none(state: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="clock"):
        Clock().load_state_dict(state)
