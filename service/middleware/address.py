"""Middleware: where requests are addressed to: the host that they name, and the path that a proxy serves all of this below."""

import re
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service import errors
from service.settings import ServiceSettings, is_loopback, same_host

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]*)?")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class OwnHosts:
    """Answers 421 to requests for other hosts than this one, and 400 to those that name none clearly.

    A page of another site can have its own name resolve to this machine (DNS rebinding) and read whatever answers to that name.
    A number cannot be made to mean another machine, so the one that a request came in at is always right. Without allowed_hosts
    every host is, unless the service listens on a loopback address: there its names are.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        loopback = is_loopback(settings.host)
        self._open = not settings.allowed_hosts and not loopback
        own = {*settings.allowed_hosts, settings.host, *(_LOOPBACK if loopback else ())}
        self._own = {same_host(name) for name in own}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what names this host, and HTTP/1.0 that names none (RFC 9112, section 3.2)."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except HTTPException as error:
                return await errors.answer_http(error)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        named = Headers(scope=scope).getlist("host")
        if not named and scope["http_version"] == "1.0":
            return
        match = _HOST.fullmatch(named[0]) if named else None
        if len(named) > 1 or not match:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "Host must be one name or number, with a port or without")
        host, server = same_host(match[1]), scope.get("server")
        if not self._open and host not in self._own and not (server and host == same_host(server[0])):
            detail = (
                f"Host must be one that this service answers to, got {match[1][:100]!r}; FC7_ALLOWED_HOSTS names further ones"
            )
            raise HTTPException(HTTPStatus.MISDIRECTED_REQUEST, detail)


class Below:
    """Takes `root_path` off the paths of requests, whether the proxy has done so already or not."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on the request with the path that the endpoints know."""
        if scope["type"] == "http":
            for root_path in filter(None, (self._root_path, scope.get("root_path", "").rstrip("/"))):
                if scope["path"] == root_path:  # where references of the page would lead out of it
                    return await RedirectResponse(f"{root_path}/", HTTPStatus.PERMANENT_REDIRECT)(scope, receive, send)
                if scope["path"].startswith(f"{root_path}/"):
                    scope = {**scope, "path": scope["path"].removeprefix(root_path)}
                    break
            scope = {**scope, "root_path": ""}
        return await self._app(scope, receive, send)
