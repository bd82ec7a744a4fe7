"""Who may talk to the server: the right host name, the same site, and the token where there is one."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from hmhi.serve.settings import ServerSettings

COOKIE = "hmhi_token"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Of every answer."""

Next = Callable[[Request], Awaitable[Response]]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Middleware that refuses foreign requests before anything reads them.

    Without a token, only names of this machine pass as Host, so that no foreign name that a browser resolves to
    this machine gets in. With a token the name does not matter, as a foreign page has no token.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._token = settings.token
        self._hosts = {"localhost", "127.0.0.1", "::1", settings.host}

    async def __call__(self, request: Request, call_next: Next) -> Response:
        """Answer a request, or refuse it."""
        response = self._refuse(request) or await call_next(request)
        response.headers.update(HEADERS)
        return response

    def _refuse(self, request: Request) -> Response | None:
        if self._token is None and _host_name(request) not in self._hosts:
            return refusal(421, "this server does not answer to that host name")
        if _is_foreign(request):
            return refusal(403, "requests from other sites are refused")
        if self._token is None:
            return None
        given = request.query_params.get("token")
        if given is not None and request.url.path == "/" and self._fits(given):
            response = RedirectResponse("/", status_code=303)  # so that the token leaves the address bar
            response.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return response
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._fits(bearer) or self._fits(request.cookies.get(COOKIE, "")):
            return None
        answer = refusal(401, "this server asks for its token: open the address that it printed")
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    def _fits(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())


def refusal(status: int, text: str) -> JSONResponse:
    """An answer that says why not."""
    return JSONResponse({"error": text}, status_code=status)


def _host_name(request: Request) -> str | None:
    return urlsplit(f"//{request.headers.get('host', '')}").hostname


def _is_foreign(request: Request) -> bool:
    """Whether a page of another site sent the request; opening the page itself from a link is no such thing."""
    site = request.headers.get("sec-fetch-site", "none")
    if site not in ("none", "same-origin"):
        navigates = request.headers.get("sec-fetch-mode") == "navigate"
        return not (navigates and request.method == "GET" and request.url.path == "/")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")
