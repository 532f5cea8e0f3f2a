"""Who may talk to the server at all, checked before a byte of the body is read. Each guard is an ASGI application around one.

HostGuard keeps out pages that reach this machine under a name of their own (DNS rebinding, as in CVE-2024-28224), KeyGuard
everybody without the key.
"""

import hashlib
import hmac
import socket

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from llamita.serve.errors import ApiError, unauthorized
from llamita.serve.limits import MAX_HEADER_BYTES
from llamita.serve.settings import Settings, is_address

OPEN_PATHS = ("/", "/health", "/favicon.ico")
OPEN_FOLDER = "/page/"  # the page's own files; the page asks for the key


class HostGuard:
    """Refuse names of this machine that the operator has not allowed, and headers larger than any client needs.

    Addresses may always be called: a page can bring a name under its control to us, but never an address.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._names = {
            "localhost",
            settings.host.lower(),
            socket.gethostname().lower(),
            *map(str.lower, settings.allowed_hosts),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 or 431, or pass the request on."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal.response() if refusal else self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope["raw_path"]) > MAX_HEADER_BYTES:
            return ApiError(431, f"The headers are larger than {MAX_HEADER_BYTES} bytes.", code="headers_too_large")
        name = host_name(Headers(scope=scope).get("host", ""))
        if "*" in self._names or name in self._names or is_address(name):
            return None
        message = f"Host: found {name!r}, expected an address or a name that --allowed-host gives."
        return ApiError(403, message, code="host_not_allowed")


class KeyGuard:
    """Refuse requests without the key, except for the health check and the page's own files.

    Digests are compared, in constant time, so that neither content nor length of the key can be measured.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._digest = app, _digest(key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on."""
        allowed = scope["type"] != "http" or is_open(scope["path"]) or self._has_key(Headers(scope=scope))
        await (self._app if allowed else unauthorized().response())(scope, receive, send)

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        offered = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        return hmac.compare_digest(_digest(offered), self._digest)


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host
    return name.removeprefix("[").removesuffix("]").lower()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
