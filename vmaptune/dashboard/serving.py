"""Serves the dashboard until it is interrupted."""

from __future__ import annotations

import errno
import re
import secrets
import socket
import sys
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from vmaptune.errors import ConfigError, StoreError

LOCAL = ("127.0.0.1", "localhost", "[::1]")


def is_local(host: str) -> bool:
    """True if only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_for(host: str, given: str | None) -> str | None:
    """The token that visitors need: the one given; one made up if others than this machine can come; else None.

    Raises:
        ConfigError: The one given is short enough to be guessed, or cannot stand in an address.
    """
    if given is None:
        return None if is_local(host) else secrets.token_urlsafe(24)
    if not re.fullmatch(r"[A-Za-z0-9._~-]{16,}", given):
        raise ConfigError("--token: expected at least 16 letters, digits or any of . _ ~ -; leave it out to have one made up")
    return given


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections at an address.

    Raises:
        ConfigError: Another process has the port, or this machine does not have the address.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except PermissionError:
        raise ConfigError(f"port {port}: this user may not take it; choose one above 1023 with --port") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} of {host} is in use; choose another with --port (0: any that is free)") from None
        raise ConfigError(f"{host}: cannot be bound to: {error.strerror or error}") from None


def address_of(host: str, port: int, token: str | None) -> str:
    """What to open in a browser."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def serve(
    root: str | Path, *, host: str, port: int, token: str | None, announce: Callable[[str], None], browse: bool = False
) -> None:
    """Serves the runs below a folder until it is interrupted.

    Args:
        root: The folder.
        host: Address to listen at.
        port: 0: any that is free.
        token: As given by the user, see `token_for`.
        announce: Told the address to open, once it answers.
        browse: Open it in the user's browser.

    Raises:
        ConfigError: The port, the host or the token cannot be used.
        StoreError: There is no such folder.
    """
    if not Path(root).is_dir():
        raise StoreError(f"{root}: no such folder; `vmaptune run` makes one")
    token = token_for(host, token)
    with listen(host, port) as server:
        try:
            import uvicorn

            from vmaptune.dashboard.app import make_app
        except ModuleNotFoundError as error:
            raise ConfigError(f"the dashboard needs {error.name}: pip install 'vmaptune[dashboard]'") from None
        app = make_app(root, token=token, hosts=(*LOCAL, host) if is_local(host) else None)
        address = address_of(host, server.getsockname()[1], token)
        announce(address)
        if browse:
            webbrowser.open(address)  # the system holds the connection until it is served
        sys.setswitchinterval(0.0005)  # the thread that draws gives way to those that answer ten times as soon
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, ws="none", lifespan="on")
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[server])
