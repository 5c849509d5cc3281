"""Who may ask: anybody may read, unless the key is needed for that too; to change anything takes the key, always."""

import base64
import binascii
import hmac
import re
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service import errors
from service.metrics import Metrics
from service.settings import ServiceSettings

_KEY: Final = "the value of FC7_API_KEY"
_Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False, description=_KEY))]
_Header = Annotated[str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False, description=_KEY))]
_BASIC: Final = 'Basic realm="FC7: the key is the password", charset="UTF-8"'
_OPEN: Final = ("/healthz", "/readyz")
_LATIN: Final = re.compile("[\0-\xff]*")
_CHANGES: Final = {("POST", "/items"), ("POST", "/reload")}


def is_change(scope: Scope) -> bool:
    """Whether a request changes something, and so needs the key, and takes its time."""
    method, path = scope["method"], scope["path"]
    return (method, path) in _CHANGES or (method == "DELETE" and path.startswith("/items/"))


def needs_key(_bearer: _Bearer, _header: _Header) -> None:
    """Says in the description that an operation needs the key; KeyHolders holds to it."""


class OtherSites(CORSMiddleware):
    """What pages of other origins may ask; a refusal is a problem like any other."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks first."""
        response = super().preflight_response(request_headers)
        if response.status_code < HTTPStatus.BAD_REQUEST:
            return response
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return errors.answer_http(HTTPException(response.status_code, bytes(response.body).decode(), headers))


class KeyHolders:
    """Answers 401 or 403, before the body is read, to those who may not ask what they ask."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what may be asked."""
        if scope["type"] == "http":
            path = scope["path"]
            changes = is_change(scope)
            try:
                if changes or (self._settings.api_key_for_reads and path not in _OPEN):
                    self._check(Headers(scope=scope), changes)
            except HTTPException as error:
                self._metrics.rejected("key")
                answer = errors.answer_http(error)
                if error.status_code == HTTPStatus.UNAUTHORIZED and not changes:
                    answer.headers.append("WWW-Authenticate", _BASIC)  # in a line of its own: of one browsers read the first way
                return await answer(scope, receive, send)
        return await self._app(scope, receive, send)

    def _check(self, headers: Headers, changes: bool) -> None:
        key = self._settings.api_key
        if key is None:
            detail = "nothing can be changed over HTTP: start the service with FC7_API_KEY set, and send that key"
            raise HTTPException(HTTPStatus.FORBIDDEN, detail)
        given = _key(headers, changes)
        if given is None or not _is(given, key.get_secret_value()):
            what = "no key was sent" if given is None else "the key that was sent is not the one that was set"
            detail = f"{what}; send FC7_API_KEY's value as `Authorization: Bearer ...` or `X-API-Key: ...`"
            raise HTTPException(HTTPStatus.UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})


def _is(given: str, key: str) -> bool:
    """Whether a header's value is the key, in UTF-8, or in latin-1 as some clients send it."""
    sent = given.encode("latin-1")  # as which header values arrive, so these are the very bytes
    same = hmac.compare_digest(sent, key.encode())
    if not key.isascii():
        same |= hmac.compare_digest(sent, key.encode("latin-1", errors="replace")) and _LATIN.fullmatch(key) is not None
    return same


def _key(headers: Headers, changes: bool) -> str | None:
    """The key that was sent.

    A browser asks its user for a password and sends it with the page's pictures too, so it serves for reading; but it would send
    it with other sites' forms as well, so it does not serve for changes.
    """
    scheme, _, value = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip(" \t")  # and no byte that is white space in latin-1, which may be part of the key
        case "basic" if not changes:
            try:
                return base64.b64decode(value, validate=True).decode("latin-1").partition(":")[2]
            except (binascii.Error, ValueError):
                return ""
    return headers.get("x-api-key")
