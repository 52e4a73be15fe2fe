"""Pauses grow from the first to the longest, are randomized, and start again after a success."""

from kowa.backoff import Backoff, delay


def test_delays_double_up_to_the_longest() -> None:
    assert [delay(attempt, 1.0, 10.0) for attempt in (1, 2, 3, 4, 5, 6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert [delay(attempt, 2.0, 20.0, factor=4.0) for attempt in (1, 2, 3)] == [2.0, 8.0, 20.0]
    assert delay(100_000, 1.0, 60.0) == 60.0


def test_a_pause_is_a_random_part_of_its_delay() -> None:
    ranges: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        ranges.append((low, high))
        return low

    backoff = Backoff(0.2, 15.0, uniform)
    assert [backoff.next_pause() for _ in range(3)] == [0.1, 0.2, 0.4]
    assert ranges == [(0.5, 1.0)] * 3
    backoff.reset()
    assert backoff.next_pause() == 0.1
