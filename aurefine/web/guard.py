"""Who may talk to the page: a session that began with the one-time token, from this machine's own name, from the page itself."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
MAX_BODY_BYTES = 1 << 20
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([a-zA-Z0-9.-]+))(?::[0-9]+)?")
_HEADERS = {
    # Everything comes from the package; images that the page draws itself are blobs.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # the first address holds the token
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NO_SESSION = "This page needs the address that `aurefine gui` printed last, with its token: open that one (each address opens one browser)."


class Session:
    """One run of the server: a token that lets one browser in, and the secret that its cookie then holds.

    `announce` is called with the next token as soon as one has been used, so that another browser can be let in.
    """

    def __init__(self, announce: Callable[[str], None] = lambda token: None) -> None:
        self.token = secrets.token_urlsafe(32)
        self.cookie = f"aurefine_{secrets.token_hex(4)}"  # browsers share cookies between ports: two servers need two names
        self._secret = secrets.token_urlsafe(32)
        self._announce = announce

    def redeem(self, token: str) -> str | None:
        """The cookie's value for the right token, which is then used up; None for another."""
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            return None
        self.token = secrets.token_urlsafe(32)
        self._announce(self.token)
        return self._secret

    def knows(self, value: str) -> bool:
        """Whether a cookie is this session's."""
        return hmac.compare_digest(value.encode(), self._secret.encode())


class Guard:
    """ASGI middleware that answers for the application where a request may not pass, and adds the security headers to all answers."""

    def __init__(self, app: ASGIApp, session: Session) -> None:
        self.app = app
        self.session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with what is wrong."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        request = Request(scope)
        cookie: str | None = None
        refusal = _foreign(request)
        if refusal is None and not self.session.knows(request.cookies.get(self.session.cookie, "")):
            cookie = self.session.redeem(request.query_params.get("token", "")) if request.url.path == "/" and request.method == "GET" else None
            refusal = None if cookie else _refused(request, 403, _NO_SESSION)
        added = dict(_HEADERS)
        if cookie:
            added["Set-Cookie"] = f"{self.session.cookie}={cookie}; HttpOnly; SameSite=Strict; Path=/"
        await (refusal or self.app)(scope, receive, _with_headers(send, added))


def _foreign(request: Request) -> Response | None:
    """The refusal of a request by another name (DNS rebinding), from another site, or that a plain form could have made."""
    host = request.headers.get("host", "")
    if _name(host) not in LOCAL_NAMES:
        return _refused(request, 421, "This page answers to localhost and 127.0.0.1 only; through ssh, use `ssh -L`.")
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        return _refused(request, 403, "This request comes from another site.")
    navigation = request.url.path == "/" and request.method == "GET"
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not navigation:
        return _refused(request, 403, "This request comes from another site.")
    if request.method not in ("GET", "HEAD", "POST"):
        return _refused(request, 405, "Only GET and POST are used here.")
    if request.method == "POST":
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            return _refused(request, 415, "JSON was expected.")
        length = request.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return _refused(request, 413, "The request is too large, or does not say how large it is.")
    return None


def _name(host: str) -> str:
    """The host's name without its port, which `ssh -L` may change; "" for anything but a name and a port, as `user@localhost`."""
    found = _HOST.fullmatch(host)
    return (found[1] or found[2]).lower() if found else ""


def _refused(request: Request, status: int, message: str) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": message}, status)
    return PlainTextResponse(message + "\n", status)


def _with_headers(send: Send, added: dict[str, str]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name.lower().encode(), value.encode()) for name, value in added.items()]
            message = {**message, "headers": [*message.get("headers", []), *headers]}
        await send(message)

    return sending
