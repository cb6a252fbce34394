"""Makes what takes long in one thread beside the server, each thing once; meanwhile the last one made is what there is."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Made(NamedTuple, Generic[Value]):
    """Something made, and of which version of its source."""

    version: str
    value: Value


class Workshop(Generic[Key, Value]):
    """Things by key, each of the newest version that there was time for.

    Args:
        make: Makes the thing of a key, told the version; runs in the workshop's thread.
        keep: How many are kept; those asked for longest ago go first.
        rest: Seconds of rest for each second in which a thing was made anew. What is there for the first time never waits.
    """

    def __init__(self, make: Callable[[Key, str], Value], keep: int, rest: float = 0.0) -> None:
        """Makes nothing yet."""
        self._make, self._keep, self._rest, self._rested = make, keep, rest, 0.0
        self._thread = ThreadPoolExecutor(1, "workshop")
        self._lock = threading.Lock()
        self._made: OrderedDict[Key, Made[Value]] = OrderedDict()
        self._jobs: dict[Key, Future[None]] = {}

    def get(self, key: Key, version: str, patience: float) -> Made[Value] | None:
        """The thing of that version if it is there or can be made in time; else an older one; None: there is none yet.

        Args:
            key: Which thing.
            version: Of its source.
            patience: Seconds to wait while it is made.
        """
        with self._lock:
            if (made := self._known(key)) is not None and (made.version == version or time.monotonic() < self._rested):
                return made
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = self._thread.submit(self._work, key, version)
        wait([job], patience)
        with self._lock:
            return self._known(key)

    def close(self) -> None:
        """Makes nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _known(self, key: Key) -> Made[Value] | None:
        if key in self._made:
            self._made.move_to_end(key)
        return self._made.get(key)

    def _work(self, key: Key, version: str) -> None:
        begun = time.monotonic()
        try:
            value = self._make(key, version)
            with self._lock:
                if key in self._made:
                    self._rested = time.monotonic() + self._rest * (time.monotonic() - begun)
                self._made[key] = Made(version, value)
                while len(self._made) > self._keep:
                    self._made.popitem(last=False)
        finally:
            with self._lock:
                del self._jobs[key]
