"""Sinks as a run tells them: one that fails is switched off, and the run goes on as if it had not been there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from vmaptune.errors import warn
from vmaptune.sinks.choosing import Chosen
from vmaptune.sinks.contract import read_info
from vmaptune.store.folder import RunFolder
from vmaptune.store.history import History
from vmaptune.store.record import Record, Sink
from vmaptune.store.replaying import read_records


class Guarded:
    """A sink that cannot hurt the run: of its exceptions, only KeyboardInterrupt and SystemExit leave it.

    Args:
        name: What it is called in a warning.
        make: Opens it.
        given: True: it is open already, and is told of what is trained from now on. False: it is opened when there is
            something to tell, and told of everything, also of what was trained before the run was resumed. An attribute
            `newest` of the sink comes before both.
    """

    def __init__(self, name: str, make: Callable[[], Sink], *, given: bool) -> None:
        """Opens nothing that is not open."""
        self._name, self._make, self._given = name, make, given
        self._sink = make() if given else None
        self._newest: int | None = None
        self._off = False
        self._folder: RunFolder | None = None
        self._history: History | None = None

    def attach(self, folder: RunFolder, history: History) -> None:
        """Says whose generations come."""
        self._folder, self._history = folder, history

    def write(self, record: Record) -> None:
        """Tells of a generation, and before it of those that the sink has yet to hear of; of none twice."""
        self._attempt("written", partial(self._write, record), record.generation)

    def _write(self, record: Record) -> None:
        sink = self._opened(record.generation)
        if self._newest is None or record.generation > self._newest:
            sink.write(record)
            self._newest = record.generation

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Tells how the run ended, if the sink wants to hear of it."""
        self._attempt("finished", partial(self._finish, facts))

    def _finish(self, facts: Mapping[str, Any]) -> None:
        sink = self._opened(self._history.last_generation() + 1 if self._history else 0)
        if hasattr(sink, "finish"):
            sink.finish(facts)

    def close(self) -> None:
        """Closes the sink, once, if it was opened."""
        if self._sink is not None:
            self._attempt("closed", self._sink.close)
        self._off = True

    def _opened(self, generation: int) -> Sink:
        """The sink, which has heard of what is before a generation, if it wants to."""
        sink = self._sink = self._sink or self._make()
        if self._newest is None and self._folder is not None:
            self._newest = getattr(sink, "newest", generation - 1 if self._given else -1)
            for record in read_records(self._folder.history, self._newest + 1, generation - 1):
                sink.write(record)
                self._newest = record.generation
        return sink

    def _attempt(self, what: str, tell: Callable[[], None], generation: int | None = None) -> None:
        if self._off:
            return
        try:
            tell()
        except Exception as error:
            self._switch_off("opened" if self._sink is None else what, error, generation)

    def _switch_off(self, what: str, error: Exception, generation: int | None) -> None:
        self._off = True
        if self._sink is not None and what != "closed":
            with suppress(Exception):
                self._sink.close()
        problem = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".removesuffix(": ")
        if self._history is not None:
            with suppress(sqlite3.Error):  # the next rows will tell, if they cannot be written either
                self._history.event("sink_failed", {"sink": self._name, "what": what, "problem": problem}, generation)
        later = f"; vmaptune export {self._folder.path} makes up for it" if self._folder and not self._given else ""
        warn(f"{self._name} could not be {what} and is switched off, while the run goes on: {problem}{later}")


class Listeners:
    """The sinks of a run: those that it was given, and those of its config.

    Args:
        given: Open sinks.
    """

    def __init__(self, given: Sequence[Sink]) -> None:
        """Takes the open ones."""
        self._all = [Guarded(f"sink {type(sink).__name__}", partial(_itself, sink), given=True) for sink in given]

    def attach(self, folder: RunFolder, history: History, chosen: Sequence[Chosen]) -> None:
        """Adds the sinks of the config, and says whose generations come."""
        for name, make in chosen:
            self._all.append(Guarded(f"sinks.{name}", partial(_made, make, folder), given=False))
        for sink in self._all:
            sink.attach(folder, history)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Tells all of them how the run ended: see `vmaptune.store.record.Sink`."""
        for sink in self._all:
            sink.finish({key: facts[key] for key in ("status", "best", "test", "member_steps")})

    def close(self) -> None:
        """Closes all of them."""
        for sink in self._all:
            sink.close()

    def __iter__(self) -> Iterator[Guarded]:
        return iter(self._all)


def _itself(sink: Sink) -> Sink:
    return sink


def _made(make: Callable[..., Sink], folder: RunFolder) -> Sink:
    return make(read_info(folder))
