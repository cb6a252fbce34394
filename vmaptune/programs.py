"""Compiled programs that say what they cost: a `jax.jit` with a name, whose compilations and seconds are counted.

JAX reports every compilation through `jax.monitoring`. A log books each to the program that was being called, or to
"other", so the counts in a result are the compiler's own and a stray compilation cannot hide.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_STAGES = frozenset({_COMPILED, "/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration"})

_running: ContextVar[str] = ContextVar("running", default="other")


class CompileLog:
    """Compilations and their seconds by program, while it is entered as a context."""

    def __init__(self) -> None:
        """Counts nothing yet."""
        self.compilations: Counter[str] = Counter()
        self._spans: list[tuple[float, float]] = []

    @property
    def seconds(self) -> float:
        """Wall time spent tracing, lowering and compiling."""
        return sum(end - start for start, end in self._spans)

    def __enter__(self) -> CompileLog:
        """Starts to listen."""
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        """Stops listening."""
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event in _STAGES:
            end = time.perf_counter()
            start = end - duration_secs
            while self._spans and self._spans[-1][0] >= start:
                self._spans.pop()  # a stage inside this one, such as the trace of an inner jit
            self._spans.append((start, end))
        if event == _COMPILED:
            self.compilations[_running.get()] += 1


class Program:
    """`jax.jit(function)` under a name.

    Args:
        name: What its compilations are booked under.
        function: The function to compile.
        donate: Positions of arguments whose buffers the program may reuse.
        **options: Further options of `jax.jit`.
    """

    def __init__(self, name: str, function: Callable[..., Any], donate: Sequence[int] = (), **options: Any) -> None:
        """Wraps, and compiles nothing yet."""
        self.name = name
        self._jitted = jax.jit(function, donate_argnums=tuple(donate), **options)

    def __call__(self, *args: Any) -> Any:
        """Runs the program, compiling it if arguments of this shape are new."""
        token = _running.set(self.name)
        try:
            return self._jitted(*args)
        finally:
            _running.reset(token)
