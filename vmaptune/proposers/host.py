"""Proposers that compute with JAX do it on the host: what they compute is small, and the accelerator is busy training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def on_host() -> Iterator[None]:
    """Programs called inside run on this process's CPU, whatever else there is, and by NumPy's rules of broadcasting."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.numpy_rank_promotion("allow"))  # libraries rely on it
        if jax.default_backend() != "cpu":
            with contextlib.suppress(RuntimeError):  # JAX_PLATFORMS rules the CPU out
                stack.enter_context(jax.default_device(jax.local_devices(backend="cpu")[0]))
        yield
