"""How many generations run in one dispatch, without the host in between."""

from __future__ import annotations

SECONDS = 1.0  # long against what the host does for a dispatch, short for somebody who presses Ctrl-C


class Pace:
    """Takes as many generations as are asked for, or about a second's worth.

    Args:
        per_dispatch: What is asked for; 0: by time.
        capacity: The most that are possible.
    """

    def __init__(self, per_dispatch: int, capacity: int) -> None:
        """Begins with a single generation, which shows how long one takes."""
        self._fixed, self._capacity = min(per_dispatch, capacity), capacity
        self._next = 1

    def take(self, left: int) -> int:
        """Generations of the next dispatch, of those that are left."""
        return min(self._fixed or self._next, left)

    def saw(self, count: int, seconds: float) -> None:
        """Learns how long a dispatch of so many took, compilation apart."""
        self._next = max(1, min(self._capacity, round(SECONDS * count / max(seconds, 1e-6))))
