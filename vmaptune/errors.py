"""The errors a user may meet. Each is one sentence: where, what, what was given, did you mean.

The command line turns any of them into that sentence on stderr and the class's exit code; nothing else is caught.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable


class VmaptuneError(Exception):
    """Base of every error that is the user's to mend, not a bug of ours."""

    exit_code = 2


class ConfigError(VmaptuneError):
    """A config, an axis or an argument that cannot mean anything."""


class StoreError(VmaptuneError):
    """A run folder that is missing, locked, of another schema, or not what was asked for."""


class AllMembersFailed(VmaptuneError):
    """Every member of a generation is non-finite: there is nothing left to select from."""

    exit_code = 1


class OutOfMemory(VmaptuneError):
    """Not even one member at a time fits the device's memory."""

    exit_code = 1


class VmaptuneWarning(UserWarning):
    """Something a user should know that stops nothing."""


def warn(message: str) -> None:
    """Warns, and points to the line outside of this package that called into it."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] == "vmaptune":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, VmaptuneWarning, stacklevel=level)


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Returns `"; did you mean 'x'?"` for the closest known name, else `"; known: a, b, c"`.

    Names that differ in case alone come first. A dotted name is compared by its last part too, and an abbreviation by
    initials: `lr` finds `learning_rate`.
    """
    names = sorted(known)
    close = [name for name in names if name.casefold() == given.casefold()]
    close = close or difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    if not close:
        last = given.rpartition(".")[2]
        tails = {name.rpartition(".")[2]: name for name in names}
        initials = {"".join(word[:1] for word in tail.split("_")): name for tail, name in tails.items()}
        close = [tails[tail] for tail in difflib.get_close_matches(last, tails, n=1, cutoff=0.6)]
        close = close or [initials[last]] if last in initials and len(last) > 1 else close
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""
