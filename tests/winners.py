"""Runs that tests of winners share: made once a process, and copied by those who write in them."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.conftest import SMALL
from vmaptune.loop import tune


@cache
def root() -> tempfile.TemporaryDirectory:
    """Where they lie, until the process ends."""
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


@cache
def unread() -> Path:
    """A finished run of digits whose test split was left unread; its members are relatives."""
    folder = Path(root().name) / "unread"
    tune(SMALL, out=folder, conclude=False)
    return folder


@cache
def finished() -> Path:
    """The same run, concluded."""
    folder = Path(root().name) / "finished"
    shutil.copytree(unread(), folder)
    tune(SMALL, out=folder, resume=True)
    return folder
