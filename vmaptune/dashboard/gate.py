"""What stands before every answer: who may ask, how, and what a browser may do with the answer."""

from __future__ import annotations

import hmac

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Gate:
    """Answers GET and HEAD alone, asks for the token if there is one, and sets the headers that keep a page safe.

    Args:
        app: What is behind it.
        token: What a visitor must know: in the URL once, in a cookie afterwards. None: everybody may look.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        """Keeps both."""
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        answer = self._refusal(Request(scope))
        await (self._app if answer is None else answer)(scope, receive, guarded)

    def _refusal(self, request: Request) -> Response | None:
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("Only GET and HEAD: this page changes nothing.", 405, {"Allow": "GET, HEAD"})
        if self._token is None:
            return None
        cookie = f"vmaptune_{(request.scope.get('server') or ('', ''))[1]}"  # browsers share cookies between ports
        if self._is_token(request.query_params.get("token", "")):
            rest = request.url.remove_query_params("token")
            there = "/" + rest.path.lstrip("/") + (f"?{rest.query}" if rest.query else "")  # never another host
            answer = RedirectResponse(there, 303, {"Cache-Control": "no-store"})
            answer.set_cookie(cookie, self._token, httponly=True, samesite="strict")
            return answer
        if self._is_token(request.cookies.get(cookie, "")):
            return None
        sentence = "A token is needed: open the whole address that `vmaptune dashboard` printed."
        return PlainTextResponse(sentence, 401, {"Cache-Control": "no-store"})

    def _is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())
