"""The pages and what they ask for, as one Starlette application."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import vmaptune.report
from vmaptune import __version__
from vmaptune.dashboard.drawing import Drawings, is_known
from vmaptune.dashboard.files import HISTORY, copy_history, files_of
from vmaptune.dashboard.gate import Gate
from vmaptune.dashboard.listing import Runs
from vmaptune.dashboard.members import read_members
from vmaptune.errors import StoreError
from vmaptune.report.comparing import COMPARISONS
from vmaptune.report.figures import FIGURES
from vmaptune.strict_json import finite_json

_FOREVER = "public, max-age=31536000, immutable"  # of what has its version in its address
_MOST = 20  # runs in a comparison
_LOOK = Path(vmaptune.report.__file__).parent / "templates" / "report.css"


def make_app(root: str | Path, *, token: str | None = None, hosts: Collection[str] | None = None) -> Starlette:
    """The dashboard of the runs below a folder.

    Endpoints that read files are plain functions: Starlette runs them in threads, so that the event loop never waits.

    Args:
        root: The folder.
        token: What a visitor must know, see `vmaptune.dashboard.gate.Gate`.
        hosts: Names that a browser may know this server by; None: any. Given for one that only this machine reaches, so that
            no other site can have its own name lead here (DNS rebinding).
    """
    return _Dashboard(Runs(root)).app(token, hosts)


class _Dashboard:
    def __init__(self, runs: Runs) -> None:
        self._runs, self._drawings = runs, Drawings(runs)
        self._plotly = get_plotlyjs().encode()
        self._plotly_tag = hashlib.sha256(self._plotly).hexdigest()[:12]
        self._pages = Environment(
            loader=PackageLoader("vmaptune.dashboard"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )

    def app(self, token: str | None, hosts: Collection[str] | None) -> Starlette:
        routes = [
            Route("/", self._list),
            Route("/run", self._run),
            Route("/compare", self._compare),
            Route("/api/runs", self._lines),
            Route("/api/run", self._line),
            Route("/api/figure", self._figure),
            Route("/api/members", self._members),
            Route("/download", self._download),
            Route("/static/plotly.js", self._plotly_js),
            Route("/static/report.css", lambda _: FileResponse(_LOOK, media_type="text/css")),
            Mount("/static", StaticFiles(packages=[("vmaptune.dashboard", "static")])),
        ]
        middleware = [Middleware(Gate, token=token)]
        if hosts is not None:
            middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False))
        return Starlette(routes=routes, middleware=middleware, lifespan=self._life, exception_handlers={StoreError: _refused})

    @asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        yield
        self._drawings.close()

    # ------------------------------------------------------------------------------------------------------------ pages

    def _page(self, name: str, **values: Any) -> Response:
        page = self._pages.get_template(name).render(root=self._runs.root.name, version=__version__, **values)
        return HTMLResponse(page, headers={"Cache-Control": "no-store"})

    def _list(self, _: Request) -> Response:
        return self._page("list.html")

    def _run(self, request: Request) -> Response:
        name = request.query_params.get("run", "")
        self._runs.find(name)
        return self._page("run.html", run=name, figures=FIGURES, plotly=self._plotly_tag)

    def _compare(self, request: Request) -> Response:
        names = self._named(request)
        if len(names) < 2:
            raise StoreError("one run alone; choose two or more to compare")
        return self._page("compare.html", runs=names, figures=COMPARISONS, plotly=self._plotly_tag)

    # ------------------------------------------------------------------------------------------------------------- data

    def _lines(self, request: Request) -> Response:
        return _answer(request, {"runs": self._runs.lines()})

    def _line(self, request: Request) -> Response:
        name = request.query_params.get("run", "")
        folder = self._runs.find(name)
        files = [file for file, path in files_of(folder).items() if self._runs.holds(path)]
        return _answer(request, self._runs.line(name, folder) | {"files": files})

    def _figure(self, request: Request) -> Response:
        runs, name = self._named(request), request.query_params.get("name", "")
        if not is_known(name, len(runs)):
            raise StoreError("no such figure")
        lines = [self._runs.line(run, self._runs.find(run)) for run in runs]
        for line in lines:
            if "version" not in line:
                raise StoreError(line["problem"])
        made = self._drawings.get(runs, name, [line["version"] for line in lines])
        if made is None:
            return Response(status_code=202, headers={"Retry-After": "1"})
        return _tagged(request, b'{"version": %s, "figure": %s}' % (json.dumps(made.version).encode(), made.value))

    def _named(self, request: Request) -> list[str]:
        """The runs that a request names, each once."""
        names = list(dict.fromkeys(request.query_params.getlist("run")))
        if len(names) > _MOST:
            raise StoreError(f"{len(names)} runs; at most {_MOST} can be compared")
        for name in names or [""]:
            self._runs.find(name)
        return names

    def _members(self, request: Request) -> Response:
        query = request.query_params
        page = query.get("page", "0")
        if not page.isascii() or not page.isdigit() or len(page) > 6:
            raise StoreError("page: expected a number")
        folder = self._runs.find(query.get("run", ""))
        descending = query.get("order", "descending") != "ascending"
        return _answer(request, read_members(folder, sort=query.get("sort", "fitness"), descending=descending, page=int(page)))

    # ------------------------------------------------------------------------------------------------------------ files

    def _download(self, request: Request) -> Response:
        name, file = request.query_params.get("run", ""), request.query_params.get("file", "")
        folder = self._runs.find(name)
        path = files_of(folder).get(file)
        if path is None or not self._runs.holds(path):
            raise StoreError("no such file in this run")
        stem = folder.path.resolve().name
        if file != HISTORY:
            return FileResponse(path, filename=f"{stem}-{path.name}", media_type="application/octet-stream")
        place = tempfile.TemporaryDirectory(prefix="vmaptune-")
        try:
            copy_history(folder, Path(place.name) / HISTORY)
        except BaseException:
            place.cleanup()
            raise
        return FileResponse(
            Path(place.name) / HISTORY,
            filename=f"{stem}-{HISTORY}",
            media_type="application/octet-stream",
            background=BackgroundTask(place.cleanup),
        )

    def _plotly_js(self, _: Request) -> Response:
        return Response(self._plotly, media_type="text/javascript", headers={"Cache-Control": _FOREVER})


def _refused(request: Request, error: Exception) -> Response:
    """One sentence: as JSON to a script, as text to a person."""
    if request.url.path.startswith("/api/"):
        return Response(json.dumps({"problem": str(error)}), 404, media_type="application/json")
    return Response(f"{error}\n", 404, media_type="text/plain")


def _answer(request: Request, value: Mapping[str, Any]) -> Response:
    return _tagged(request, json.dumps(finite_json(value), allow_nan=False).encode())


def _tagged(request: Request, body: bytes) -> Response:
    """JSON that a browser is not sent again as long as it stays the same."""
    headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
